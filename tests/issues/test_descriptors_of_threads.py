"""Threads have descriptors of their own: with -t 64 as many clients get in as -c says. And threads that the system refuses."""

from __future__ import annotations

import _thread
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from mcserver.system import logs
from mcserver.system.logs import Writer
from tests.conftest import Start
from tests.serving import eventually

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_as_many_clients_as_asked_for_with_64_threads(start: Start) -> None:
    server = start("-t", "64", "-c", "100")
    soft, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    own = sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())
    if soft < 4096:
        assert soft - own >= 100
    clients = [server.connect() for _ in range(100)]
    assert all(each.command(b"mn") == b"MN\r\n" for each in clients)


def test_room_for_the_threads_is_asked_for() -> None:
    code = (
        "import resource; from mcserver.system.process import raise_descriptor_limit as ask; n = resource.RLIMIT_NOFILE;"
        "resource.setrlimit(n, (50, resource.getrlimit(n)[1])); ask(100, 64); print(resource.getrlimit(n)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=20)
    assert int(done.stdout) >= 100 + 150  # a server of 64 threads without clients has 144 open


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["-d"]], ids=["foreground", "daemon"])
def test_threads_that_the_system_refuses(more: list[str]) -> None:
    # Not even the log has a thread then; what it holds is written at the end. A daemon's parent waits for the threads, too.
    done = subprocess.run(
        [
            "prlimit",
            "--nproc=1:1",
            sys.executable,
            "-m",
            "mcserver",
            "-u",
            "nobody",
            "-p",
            "-1",
            "-l",
            "127.0.0.1",
            *more,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 71
    assert "can't start 4 threads: Resource temporarily unavailable; raise `ulimit -u`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_that_gets_its_thread_late(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, descriptor = os.pipe()
    writer = Writer(descriptor)

    def refuse(*_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        writer.put(b"one\n")
    writer.put(b"two\n")
    writer.finish()
    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)


@pytest.mark.parametrize("step", ["_take", "_spelled"])
def test_a_log_whose_thread_had_no_memory_goes_on(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """It fell silent for ever, and what it held counted against the queue."""
    reader, descriptor = os.pipe()
    writer = Writer(descriptor)

    def refuse(*_: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(writer, step, refuse)
        writer.put(b"one\n")
        eventually(lambda: writer._thread is None)
    writer.put(b"two\n")
    writer.finish()
    lost = step == "_spelled"  # by then it has taken the line
    assert writer.dropped == lost
    said = os.read(reader, 1000)
    assert said.endswith(b"two\n")
    assert (b"1 lines of the log were dropped" in said) == lost
    assert (b"one\n" in said) != lost
    eventually(lambda: writer._waiting == 0)
    os.close(reader)


def test_a_log_whose_lock_is_never_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread had no memory for the end of a `with`: everybody who had something to say waited for ever."""
    monkeypatch.setattr(logs, "LOCK_SECONDS", 0.01)
    writer = Writer(1)
    writer._changed.acquire()
    for _ in range(1000):
        writer.put(b"a line\n")
    writer.finish(0.01)
    assert writer.dropped == 1000
    writer._changed.release()
    assert writer.lock is None


def test_a_thread_that_does_not_begin_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have no memory for its first steps. Whoever logged the first line waited for it, deaf to SIGTERM."""
    writer = Writer(1)
    monkeypatch.setattr(_thread, "start_new_thread", lambda _function, _arguments: 1)
    writer.put(b"a line\n")
