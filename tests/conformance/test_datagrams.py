"""Replies over UDP: put together from their datagrams, and refused when a header is wrong."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conformance.__main__ import FAILED, PASSED, UNREACHABLE, main
from conformance.datagrams import HEADER, Datagrams
from tests.peer import memcached
from tests.ports import free_port

Answer = Callable[[int], list[bytes]]


@contextmanager
def answering(answer: Answer) -> Iterator[Datagrams]:
    """Datagrams to a server that answers each request with what `answer` makes of its id."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            data, peer = server.recvfrom(2000)
            for datagram in answer(HEADER.unpack_from(data)[0]):
                server.sendto(datagram, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Datagrams(*server.getsockname())
        client.settimeout(5)
        client.sendall(b"get a\r\n")
        try:
            yield client
        finally:
            client.close()
            thread.join()


def test_pieces_in_any_order_make_one_reply() -> None:
    def answer(request: int) -> list[bytes]:
        pieces = [HEADER.pack(request, number, 3, 0) + text for number, text in enumerate((b"one ", b"two ", b"three"))]
        return [pieces[2], pieces[0], pieces[0], pieces[1]]

    with answering(answer) as client:
        assert client.recv(2000) == b"one two three"


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (lambda request: HEADER.pack(request + 1, 0, 1, 0), "for request 65281 came, 65280 was asked"),
        (lambda request: HEADER.pack(request, 1, 1, 0), "header that cannot be"),
        (lambda request: HEADER.pack(request, 0, 1, 9), "header that cannot be"),
        (lambda request: b"\0" * 7, "without its header"),
    ],
)
def test_a_wrong_header_is_named(header: Callable[[int], bytes], named: str) -> None:
    with answering(lambda request: [header(request)]) as client, pytest.raises(OSError, match=named):
        client.recv(2000)


def relay(listener: socket.socket, port: int, bend: Callable[[bytes], bytes]) -> None:
    """Passes datagrams on to 127.0.0.1:`port`, and the answers back, bent, until the listener is closed."""
    peers: dict[tuple[str, int], socket.socket] = {}
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):
        selector.register(listener, selectors.EVENT_READ)
        while listener.fileno() >= 0:
            for key, _ in selector.select(0.2):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is not listener:
                    listener.sendto(bend(sock.recv(1 << 16)), key.data)
                    continue
                data, peer = listener.recvfrom(1 << 16)
                if peer not in peers:
                    peers[peer] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    peers[peer].connect(("127.0.0.1", port))
                    selector.register(peers[peer], selectors.EVENT_READ, peer)
                peers[peer].send(data)
    for sock in peers.values():
        sock.close()


def later(data: bytes) -> bytes:
    """Numbers the datagrams behind the first one wrong."""
    return data[:2] + HEADER.pack(0, HEADER.unpack_from(data)[1] * 2, *HEADER.unpack_from(data)[2:])[2:] + data[8:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bend", "code"),
    [
        pytest.param(bytes, PASSED, id="nothing"),
        pytest.param(lambda data: data.replace(b"z" + b"w" * 9, b"Z" + b"w" * 9), FAILED, id="a byte"),
        pytest.param(later, FAILED, id="numbers"),
        pytest.param(lambda data: b"\0" + data[1:], UNREACHABLE, id="half of an id"),
    ],
)
def test_a_fault_in_datagrams_is_found(
    bend: Callable[[bytes], bytes], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with memcached("-U", str(port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=relay, args=(listener, port, bend))
        thread.start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            assert main([target, "--udp", "--only", "classic/append/long", "--timeout", "2"]) == code
        finally:
            listener.close()
            thread.join()
    if code == UNREACHABLE:
        assert "answers with a wrong datagram: one for request 0 came, 65280 was asked" in capsys.readouterr().err
