"""--take-over: a new process gets the sockets and the memory of the one that serves, under load and without a refusal."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from mcserver.handover import HELLO, HandOverError, fields_of, receive_offer
from tests.conftest import Start


@pytest.mark.slow
def test_an_upgrade_under_load(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path, "-t", "2")
    client = old.connect()
    client.command(b"".join(b"set k%d 0 0 5\r\n%05d\r\n" % (n, n) for n in range(20000)) + b"mn", b"MN\r\n")
    client.close()
    refused: list[OSError] = []
    served, ending = [0], threading.Event()

    def load() -> None:
        while not ending.is_set():
            try:
                with socket.create_connection(old.address, 30) as one:
                    for n in range(50):
                        one.sendall(b"get k%d\r\n" % n)
                        if not one.recv(100):
                            break
                        served[0] += 1
            except ConnectionRefusedError as error:
                refused.append(error)
            except OSError:
                pass  # a connection that was open ends

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        new = start("--take-over", path, "-t", "2", "-p", str(old.port))
        assert old.end() == 0, old.log()
        before = served[0]
        with socket.create_connection(old.address, 30) as one:
            one.sendall(b"get k1\r\n")
            assert one.recv(100) == b"VALUE k1 0 5\r\n00001\r\nEND\r\n"
        client = new.connect()
        stats = client.stats()
        assert int(stats["pid"]) == new.pid
        assert int(stats["curr_items"]) == 20000
        while served[0] < before + 200:
            threads[0].join(0.01)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert not refused
    third = start("--take-over", path, "-I", "2m", "-p", str(old.port))
    assert new.end() == 0
    assert "starting empty: -I differs" in third.log()
    assert third.connect().command(b"mg k1") == b"EN\r\n"


def test_whoever_asks_wrongly_gets_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "door"
    server = start("--take-over", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    for word in (b"", b"GET / HTTP/1.1\r\n\r\n", HELLO[:-3] + b"9\n", HELLO + b"no\n"):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
            one.sendall(word)
            one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while one.recv(4096):
                    pass
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.parametrize(
    "line",
    [b"", b"{}\n", b"[1]\n", b"x\n", b'{"kinds": ["memory"], "layout": "00"}\n', b'{"kinds": 7, "layout": "00"}\n'],
)
def test_an_offer_that_makes_no_sense(line: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, open(os.devnull, "rb") as null:
        if line:
            socket.send_fds(theirs, [line], [null.fileno()])
        theirs.close()
        with pytest.raises(HandOverError):
            receive_offer(ours)


@pytest.mark.parametrize("line", [b"", b"{}", b"7\n", b"\xff\n", b"[" * 100000 + b"\n"])
def test_a_line_that_makes_no_sense(line: bytes) -> None:
    with pytest.raises(HandOverError):
        fields_of(line)
