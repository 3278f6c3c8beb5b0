"""TLS beside Debian's memcached: the same bytes, in few records; large values, slow readers."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable

import pytest

from tests.conftest import Start
from tests.peer import memcached
from tests.serving import Client
from tests.tls.certificates import Folder
from tests.tls.wire import Wire, of

STREAM = [
    (b"set a 5 0 3\r\nabc\r\n", b"\r\n"),
    (b"get a b a\r\n", b"END\r\n"),
    (b"gets none\r\n", b"END\r\n"),
    (b"set n 0 0 1\r\n9\r\nincr n 3\r\ndecr n 100\r\n", b"\r\n0\r\n"),
    (b"append a 0 0 2\r\nxy\r\nprepend a 0 0 1\r\n-\r\nget a\r\n", b"END\r\n"),
    (b"mg a v f k t\r\nmn\r\n", b"MN\r\n"),
    (b"ms m 4 T100\r\n1234\r\nmg m v t s\r\nmd m q\r\nmg m v\r\nmn\r\n", b"MN\r\n"),
    (b"set big 0 0 100000\r\n" + b"0123456789" * 10000 + b"\r\n", b"\r\n"),
    (b"get big\r\n", b"END\r\n"),
    (b"set q 0 0 1 noreply\r\n1\r\ndelete q noreply\r\nget q\r\n", b"END\r\n"),
    (b"nonsense\r\nmn\r\n", b"MN\r\n"),
    (b"set a 0 0 2\r\nlonger\r\nmn\r\n", b"MN\r\n"),
    (b"touch a 100\r\ndelete a\r\nverbosity 0\r\nflush_all\r\nget n\r\n", b"END\r\n"),
]


def whole(client: Client, data: bytes) -> None:
    client.send(data)


def by_byte(client: Client, data: bytes) -> None:
    """A record for each byte."""
    for at in range(len(data)):
        client.send(data[at : at + 1])


@pytest.mark.slow
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("send", [whole, by_byte])
def test_answers_are_memcacheds(
    start: Start,
    shared: Folder,
    opened: Callable[..., Client],
    send: Callable[[Client, bytes], None],
    threads: str,
    version: ssl.TLSVersion,
) -> None:
    context = shared.context()
    context.maximum_version = version
    ours = opened(start("-t", threads, *shared.options()).address, context)
    with memcached(*shared.options()) as address:
        theirs = opened(address, context)
        assert of(ours).cipher() == of(theirs).cipher()
        for data, mark in STREAM:
            if send is by_byte and len(data) > 1000:
                continue
            send(ours, data)
            whole(theirs, data)
            assert ours.until(mark) == theirs.until(mark), data


def test_a_batch_goes_out_in_few_records(start: Start, shared: Folder) -> None:
    """Small replies share a record; with a small ssl_wbuf_size none is larger."""
    server = start(*shared.options("ssl_wbuf_size=1"))
    wire = Wire(server, shared.context())
    wire.tls.write(b"set a 0 0 100\r\n" + b"x" * 100 + b"\r\n")
    wire.until(b"STORED\r\n")
    wire.records.clear()
    wire.tls.write(b"get a\r\n" * 8)
    wire.until(b"END\r\n", 8)
    assert len(wire.records) == 1
    wire.records.clear()
    wire.tls.write(b"get a\r\n" * 100)
    wire.until(b"END\r\n", 100)
    assert max(wire.records) <= 1024 + 256
    assert len(wire.records) >= 10
    wire.socket.close()


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_large_values_and_slow_readers(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    server = start("-t", threads, "-m", "256", *shared.options())
    slow, other = opened(server.address, shared.context()), opened(server.address, shared.context())
    values = [random.Random(n).randbytes(1000 * n + 900_000) for n in range(4)]
    for n, value in enumerate(values):
        slow.send(b"set v%d 0 0 %d\r\n%b\r\n" % (n, len(value), value))
        assert slow.until(b"\r\n") == b"STORED\r\n"
    for _ in range(4):
        for n in range(len(values)):
            slow.send(b"get v%d\r\nget none\r\n" % n)  # nobody reads yet: 14 MB
    assert other.command(b"get none", b"END\r\n") == b"END\r\n"
    for _ in range(4):
        for n, value in enumerate(values):
            assert slow.until(b"\r\n") == b"VALUE v%d 0 %d\r\n" % (n, len(value))
            assert slow.until(b"\r\nEND\r\nEND\r\n").removesuffix(b"\r\nEND\r\nEND\r\n") == value
    pieces = opened(server.address, shared.context())
    pieces.send(b"set v0 0 0 %d\r\n" % len(values[0]))
    for at in range(0, len(values[0]), 7001):
        pieces.send(values[0][at : at + 7001])
    pieces.send(b"\r")
    pieces.send(b"\nget v0\r\n")
    assert pieces.until(b"END\r\n") == b"STORED\r\nVALUE v0 0 %d\r\n%b\r\nEND\r\n" % (len(values[0]), values[0])
