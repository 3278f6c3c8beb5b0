"""How a connection by TLS ends, and what is left of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.serving import Client, eventually
from tests.tls.certificates import Folder
from tests.tls.wire import of


def test_the_end_of_a_connection_is_said(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    """Each side says close_notify, and nothing that was asked before is lost."""
    server = start(*shared.options())
    client = opened(server.address, shared.context())
    client.send(b"mn\r\nquit\r\n")
    assert client.until(b"MN\r\n") == b"MN\r\n"
    tls: Any = of(client)  # an ssl.SSLSocket's types know no suppress_ragged_eofs
    tls.suppress_ragged_eofs = False
    assert tls.recv(10) == b""
    other = opened(server.address, shared.context())
    other.send(b"set a 0 0 1 noreply\r\n1\r\n")
    of(other).unwrap().close()  # waits for the server's
    assert opened(server.address, shared.context()).command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_replies_that_wait_go_out_before_the_end(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    server = start("-t", threads, "-A", *shared.options())
    client, asks = opened(server.address, shared.context()), opened(server.address, shared.context())
    value = b"x" * 1_000_000
    client.send(b"set a 0 0 %d\r\n%b\r\n" % (len(value), value))
    assert client.until(b"\r\n") == b"STORED\r\n"
    client.send(b"get a\r\n" * 6)
    assert client.until(b"VALUE a 0 ").endswith(b"VALUE a 0 ")
    asks.send(b"shutdown graceful\r\n")
    received = b"VALUE a 0 " + client.to_end()
    assert received == b"VALUE a 0 1000000\r\n%b\r\nEND\r\n" % value * (len(received) // 1_000_026)
    assert server.end() == 0


@pytest.mark.slow
def test_a_killed_client_and_a_stopped_one_hurt_nobody(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start(*shared.options())
    steady = opened(server.address, shared.context())
    steady.command(b"set a 0 0 500000\r\n" + b"x" * 500_000)
    for _ in range(10):
        client = opened(server.address, shared.context())
        client.send(b"get a\r\n" * 3)
        raw = socket.socket(fileno=of(client).detach())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        raw.close()  # a reset in the middle of a reply
    eventually(lambda: steady.stats()["curr_connections"] == "1")
    assert steady.command(b"get none", b"END\r\n") == b"END\r\n"


@pytest.mark.slow
def test_a_new_process_takes_over(start: Start, shared: Folder, opened: Callable[..., Client], tmp_path: Path) -> None:
    door = str(tmp_path / "door")
    old = start(*shared.options(), "--take-over", door)
    assert opened(old.address, shared.context()).command(b"set a 0 0 1\r\n1") == b"STORED\r\n"
    start(*shared.options(), "--take-over", door, "-p", str(old.port))
    assert old.end() == 0
    assert opened(old.address, shared.context()).command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
