"""Who means no good, or came to the wrong door: garbage, floods, handshakes that never end."""

from __future__ import annotations

import random
import signal
import socket
import ssl
import struct
from collections.abc import Callable

import pytest

from tests.conftest import Start
from tests.serving import Client, eventually
from tests.tls.certificates import SECONDS, Folder
from tests.tls.wire import Wire, hello, listening


def test_a_client_that_has_gone_did_nothing_wrong(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    """It resets before its hello is answered: that counts as no failed handshake, and no line tells of it."""
    server = start(*shared.options())
    first = hello(shared.context())
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(8):
            with socket.create_connection(server.tcp, SECONDS) as client:
                client.sendall(first)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        server.signal(signal.SIGCONT)
    steady = opened(server.address, shared.context())
    eventually(lambda: steady.stats()["curr_connections"] == "1")
    assert steady.stats()["ssl_handshake_errors"] == "0"
    assert "closed" not in server.log()


@pytest.mark.slow
def test_a_handshake_has_a_time_limit(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    server = start(*shared.options("ssl_handshake_timeout=1"))
    first = hello(shared.context())
    steady = opened(server.address, shared.context())
    half_open = [server.connect() for _ in range(4)]
    half_open[1].send(first[:1])
    half_open[2].send(first[:200])
    half_open[3].send(first)  # its second flight never comes
    half_open[3].until(b"\x16\x03\x03")
    for each in half_open:
        each.to_end()
    assert steady.command(b"mn") == b"MN\r\n"
    assert steady.stats()["ssl_handshake_errors"] == "4"
    assert steady.stats()["read_buf_bytes"] == "0"
    eventually(lambda: "its TLS handshake took longer than ssl_handshake_timeout" in server.log())


@pytest.mark.slow
def test_what_a_handshake_holds_is_counted_and_bounded(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start(*shared.options("ssl_handshake_timeout=60"), "-o", "read_buf_mem_limit=1")
    steady = opened(server.address, shared.context())
    first = hello(shared.context())
    half_open = [server.connect() for _ in range(80)]
    for each in half_open:
        each.send(first[:200])
    eventually(lambda: int(steady.stats()["read_buf_oom"]) == 80 - (1 << 20) // 20480)
    assert int(steady.stats()["read_buf_bytes"]) <= 1 << 20
    for each in half_open:
        each.close()
    eventually(lambda: steady.stats()["read_buf_bytes"] == "0")
    assert opened(server.address, shared.context()).command(b"mn") == b"MN\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"get a\r\n", b"CLIENT_ERROR only TLS is spoken here\r\n"),
        (b"mn\r\n", b"CLIENT_ERROR only TLS is spoken here\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.0 400 Bad Request\r\n"),
        (b"GET /" + b"a" * 1000, b"HTTP/1.0 400 Bad Request\r\n"),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR this is a memcached server"),
        (b"\x80\x0b" + bytes(22), b"\x81\x0b\0\0\0\0\0\x83\0\0\0\x17" + bytes(12) + b"only TLS is spoken here"),
    ],
)
def test_who_does_not_speak_tls_is_told(start: Start, shared: Folder, data: bytes, answer: bytes) -> None:
    server = start(*shared.options(), "-l", "127.0.0.1,notls:127.0.0.1")
    stranger = server.connect()
    stranger.send(data)
    assert stranger.to_end().startswith(answer)
    plain = Client(listening(server)[1])
    eventually(lambda: plain.stats()["wrong_protocol"] == "1")
    assert plain.stats()["ssl_handshake_errors"] == "0"
    plain.close()
    eventually(lambda: "it doesn't speak TLS, and the port does" in server.log())


def test_http_on_a_port_of_tls_has_the_length_it_says(start: Start, shared: Folder) -> None:
    stranger = start(*shared.options()).connect()
    stranger.send(b"GET / HTTP/1.0\r\n\r\n")
    head, _, body = stranger.to_end().partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_garbage_is_closed_and_leaves_the_others_alone(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    """Garbage from the first byte, in a handshake, and after one; a fixed seed."""
    server = start("-t", threads, *shared.options())
    steady = opened(server.address, shared.context())
    dice = random.Random(7)
    first = hello(shared.context())
    for round_ in range(120):
        stranger = server.connect()
        if round_ % 3 == 0:
            data = bytearray(b"\x16" + dice.randbytes(dice.randrange(400)))
        else:
            data = bytearray(first)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(1, len(data))] = dice.randrange(256)
        stranger.send(bytes(data))
        stranger.socket.shutdown(socket.SHUT_WR)
        stranger.to_end()
        stranger.close()
    for _ in range(20):
        wire = Wire(server, shared.context())
        wire.tls.write(b"mn\r\n")
        wire.until(b"MN\r\n")
        wire.socket.sendall(b"\x17\x03\x03\x00\x40" + dice.randbytes(64))
        while wire.socket.recv(1 << 16):
            pass
        wire.socket.close()
    assert steady.command(b"mn") == b"MN\r\n"
    stats = steady.stats()
    assert int(stats["ssl_proto_errors"]) == 20
    assert int(stats["ssl_handshake_errors"]) > 40
    assert stats["read_buf_bytes"] == "0"
    eventually(lambda: steady.stats()["curr_connections"] == "1")


def test_too_many_connections_are_refused_by_an_alert(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start("-c", "2", *shared.options())
    held = [opened(server.address, shared.context()) for _ in range(2)]
    with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
        opened(server.address, shared.context())
    assert held[0].command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_idle_connections_take_little_memory(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    server = start("-c", "400", *shared.options())
    context = shared.context()
    opened(server.address, context).command(b"mn")
    before = server.resident()
    for _ in range(200):
        assert opened(server.address, context).command(b"mn") == b"MN\r\n"
    assert server.resident() - before < 200 * 40_000
