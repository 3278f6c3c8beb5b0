"""Small servers that misbehave, each in one way."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from conformance.wire import Address

Behaviour = Callable[[socket.socket], None]


def hang(client: socket.socket) -> None:
    """Reads and never answers."""
    while client.recv(1 << 16):
        pass


def close_early(client: socket.socket) -> None:
    """Closes as soon as something comes."""
    client.recv(1 << 16)


def close_at_once(client: socket.socket) -> None:
    """Closes before anything comes."""


def garbage(client: socket.socket) -> None:
    """Answers noise."""
    while client.recv(1 << 16):
        client.sendall(b"\x00\xffnoise\r\n\x1b[31m")


def flood_lines(client: socket.socket) -> None:
    """Answers with lines without end."""
    client.recv(1 << 16)
    while True:
        client.sendall(b"STAT flood 1\r\n" * 4096)


def flood(client: socket.socket) -> None:
    """Answers with one line without end."""
    client.recv(1 << 16)
    while True:
        client.sendall(b"x" * 65536)


def drip(client: socket.socket) -> None:
    """Answers a byte at a time, for ever, so that no read ever times out."""
    client.recv(1 << 16)
    while True:
        client.sendall(b"S")
        time.sleep(0.02)


def half_answer(client: socket.socket) -> None:
    """Stops in the middle of an answer."""
    while client.recv(1 << 16):
        client.sendall(b"VALUE ")


def read_nothing(client: socket.socket) -> None:
    """Takes the connection and never reads."""
    time.sleep(5)


@contextlib.contextmanager
def rogue(behaviour: Behaviour) -> Iterator[Address]:
    """A server that treats every connection so."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def talk(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            behaviour(client)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield Address("127.0.0.1", listener.getsockname()[1])
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def answering(other: bytes, version: bytes = b"VERSION 1.4.0\r\n", *, after: bytes = b"") -> Behaviour:
    """Misses every get, takes every set, and answers `other` to what it does not know; behind each answer comes `after`."""

    def behave(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            for line in lines:
                words = line.split()
                answer = {b"get": b"END\r\n", b"set": b"STORED\r\n", b"version": version}.get(words[0], other)
                if words[0] == b"set":
                    lines.read(int(words[4]) + 2)
                client.sendall(answer + after)

    return behave


def flood_unknown(client: socket.socket) -> None:
    """As `answering`, and sends without end to what it does not know."""
    with client.makefile("rb") as lines:
        for line in lines:
            words = line.split()
            while words[0] not in {b"get", b"set", b"version"}:
                client.sendall(b"STAT flood 1\r\n" * 4096)
            if words[0] == b"set":
                lines.read(int(words[4]) + 2)
            client.sendall({b"get": b"END\r\n", b"set": b"STORED\r\n", b"version": b"VERSION 1\r\n"}[words[0]])


def half_close(client: socket.socket) -> None:
    """Answers a get, and sends nothing more."""
    client.recv(1 << 16)
    client.sendall(b"END\r\n")
    client.shutdown(socket.SHUT_WR)
    while client.recv(1 << 16):
        pass


def one_late(client: socket.socket) -> None:
    """Gives each command the answer to the one before it."""
    answer = b""
    with client.makefile("rb") as lines:
        for line in lines:
            client.sendall(answer)
            answer = {b"get": b"END\r\n", b"set": b"STORED\r\n"}.get(line.split()[0], b"ERROR\r\n")


def nuls(client: socket.socket) -> None:
    """Answers, and then NULs without end."""
    client.recv(1 << 16)
    client.sendall(b"END\r\n")
    while True:
        client.sendall(bytes(1 << 16))


def ahead(client: socket.socket) -> None:
    """Sends replies before anything was asked."""
    client.sendall(b"END\r\nSTORED\r\nVERSION 1.6.0\r\n")
    client.recv(1 << 16)
