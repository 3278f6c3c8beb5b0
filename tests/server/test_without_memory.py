"""A worker that gets no memory: the connection that it is for may end, nothing else; and every count is right afterwards."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.serving import Client, Server, eventually

VALUE = b"v" * 50_000
REFUSALS = 40


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What refuses memory, to be preloaded."""
    library = tmp_path_factory.mktemp("preloaded") / "no_memory.so"
    source = Path(__file__).with_name("no_memory.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True, timeout=60)
    return library


class RefusedError(Exception):
    """The server said that it had no memory, or closed the connection."""


def ask(client: Client, request: bytes, end: bytes = b"END\r\n") -> bytes:
    """The reply up to its end."""
    reply = b""
    try:
        client.send(request)
        while not reply.endswith(end):
            line = client.until(b"\n")
            reply += line
            if line.startswith(b"SERVER_ERROR out of memory"):
                raise RefusedError
    except (AssertionError, ConnectionError) as error:
        raise RefusedError from error
    return reply


def use(server: Server, turn: int) -> None:
    """What needs memory of its own: parts of lines and values, unread replies, cold commands, the letters to Python."""
    client = server.connect()
    key = b"key%d" % turn
    found = b"VALUE " + key + b" 0 50000\r\n" + VALUE + b"\r\nEND\r\n"
    client.send(b"set " + key + b" 0 0 50000\r\n" + VALUE[:20_000])
    assert ask(client, VALUE[20_000:] + b"\r\n", b"\r\n") == b"STORED\r\n"
    assert ask(client, b"get " + key + b"\r\n") == found
    assert b"STAT maxbytes 67108864\r\n" in ask(client, b"stats settings\r\n")
    client.send(b"get " + key + b" key" * 400)  # the start of a long line
    assert ask(client, b"\r\n") == found
    assert ask(client, (b"get " + key + b"\r\n") * 20 + b"mn\r\n", b"MN\r\n") == found * 20 + b"MN\r\n"
    assert ask(server.connect(), b"watch fetchers\r\n", b"\r\n") == b"OK\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("more", [[], ["-vv"]])
def test_who_gets_no_memory_ends_and_nothing_else(start: Start, library: Path, every: int, more: list[str]) -> None:
    server = start(
        "-t",
        "2",
        *more,
        environment={"LD_PRELOAD": str(library), "MCSERVER_EVERY": str(every), "MCSERVER_REFUSALS": str(REFUSALS)},
    )
    whole = turn = 0
    while whole < 10:  # at the end nothing is refused any more
        turn += 1
        with suppress(RefusedError):
            use(server, turn)
            whole += 1
        for client in server.clients:
            client.close()
        server.clients.clear()
        assert turn < 2 * REFUSALS
    eventually(lambda: asks_alone(server))
    assert "internal error" not in server.log()
    assert "Traceback" not in server.log()


def asks_alone(server: Server) -> bool:
    """Whether nobody else is counted, and no value that is on its way."""
    try:
        reply = ask(server.connect(), b"stats\r\n")
    except RefusedError:
        return False
    finally:
        server.clients.pop().close()
    return b" curr_connections 1\r\n" in reply and b" unfinished_bytes 0\r\n" in reply
