"""Who is asked whether it is ZooKeeper, and a name that isn't resolved: both kept the process from ending, and `why` unnamed."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcserver.coordination import reach
from mcserver.coordination.reach import look

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that says a byte now and then, for ever."""
    ending = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as client:
            while not ending.wait(0.005):
                try:
                    client.sendall(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        ending.set()
        thread.join()


def test_a_byte_now_and_then(dripping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "LONGEST", 300)  # on a busy machine the asker ends late
    seen = look(dripping, 0.2)[0]
    assert seen.text == "is not ZooKeeper: correct --zookeeper"


def test_a_name_that_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and asked once however often one looks."""
    resolved, asked = threading.Event(), list[object]()

    def resolve(*names: object, **_: object) -> list[object]:
        asked.append(names)
        resolved.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        for _ in range(3):
            assert "its name is not resolved" in look("slow.example:2181", 0.02)[0].text
        assert len(asked) == 1
    finally:
        resolved.set()
    for thread in threading.enumerate():
        if thread.name == "zookeeper-reach":
            thread.join(60)
    assert look("slow.example:2181", 5)[0].text == "temporary failure in name resolution"


def test_a_name_that_is_none() -> None:
    assert look("a" * 70 + ".example:2181", 5)[0].text == "is no name of a host"


@pytest.mark.slow
def test_the_end_waits_for_no_name() -> None:
    """As with a DNS server that is down."""
    code = (
        "import os, signal, socket, sys, threading, time\n"
        "asked = threading.Event()\n"
        "def resolve(*_, **__):\n"
        "    if threading.current_thread().name == 'zookeeper-reach': asked.set()\n"
        "    time.sleep(1000)\n"
        "def end():\n"
        "    asked.wait(30); os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=end, daemon=True).start()\n"
        "from mcserver import cli\n"
        "from mcserver.server import listeners\n"
        "before = listeners.socket.getaddrinfo\n"
        "def later(*names, **more):\n"
        "    return before(*names, **more) if names[0] == b'127.0.0.1' else resolve()\n"
        "socket.getaddrinfo = later\n"
        "sys.exit(cli.main(['-u', 'nobody', '-l', '127.0.0.1', '-p', '-1', '--zookeeper', 'zk.example:2181']))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 40
    assert "SIGTERM: ending" in done.stderr
