"""A server that answers right, but for what a script does to its replies.

Owns the sockets, and enough of three protocols (text, meta, binary) to serve get and set. Every key has a value: the
text `value-of-KEY`, or what `values` says. TLS is the door's business (doors.py). It judges nothing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..binary import HEADER


@dataclass
class Answer:
    """One reply on its way: the parts of it, the request, and how to send. A script changes or sends it."""

    verb: str  # get, set or other
    keys: list[bytes]
    items: list[bytes]  # one for each key that was asked
    end: bytes  # what follows the items
    number: int  # of the get, or of the set, in this case, from 0
    sock: socket.socket
    protocol: str  # text, meta or binary

    @property
    def data(self) -> bytes:
        return b"".join(self.items) + self.end


Script = Callable[[Answer], bool]  # True: the connection ends
Door = Callable[[socket.socket, int], socket.socket | None]
"""How a connection begins: from its socket and its number, from 0, to the socket to talk on, or None when it is over."""


def plain(sock: socket.socket, number: int) -> socket.socket:
    return sock


def right(answer: Answer) -> bool:
    """Sends it as it is."""
    answer.sock.sendall(answer.data)
    return False


@dataclass
class Server:
    """Listens on 127.0.0.1 and answers by a script."""

    script: Script
    values: Callable[[bytes], bytes] = lambda key: b"value-of-" + key
    door: Door = plain
    counts: dict[str, int] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)  # verb and key: how often
    guard: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """The port, for as long as the block runs."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=self._let_in, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _let_in(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, ValueError, struct.error):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if inside := self.door(sock, self._number("connection")):
                self._talk(inside)

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as reader:
            while first := reader.peek(1)[:1]:
                answer = self._binary(reader, sock) if first == b"\x80" else self._text(reader, sock)
                if answer is None:
                    return
                with self.guard:
                    self.asked.update((answer.verb, key.decode("latin-1")) for key in answer.keys)
                if answer.data and (self.script(answer) if answer.verb != "other" else right(answer)):
                    return

    def _number(self, verb: str) -> int:
        with self.guard:
            self.counts[verb] = self.counts.get(verb, 0) + 1
            return self.counts[verb] - 1

    def _text(self, reader: object, sock: socket.socket) -> Answer | None:
        words = reader.readline().split()  # type: ignore[attr-defined]  # a buffered reader
        if not words or words[0] == b"quit":
            return None
        verb, protocol = words[0], "text"
        items: list[bytes] = []
        if verb in {b"get", b"gets"}:
            unique = b" 7" if verb == b"gets" else b""
            for key in words[1:]:
                value = self.values(key)
                items.append(b"VALUE %s 0 %d%s\r\n%s\r\n" % (key, len(value), unique, value))
            return Answer("get", words[1:], items, b"END\r\n", self._number("get"), sock, protocol)
        if verb == b"mg":
            return Answer("get", words[1:2], [self._meta(words)], b"", self._number("get"), sock, "meta")
        if verb in {b"set", b"ms"}:
            size = int(words[2 if verb == b"ms" else 4])
            reader.read(size + 2)  # type: ignore[attr-defined]  # a buffered reader
            stored = b"HD\r\n" if verb == b"ms" else b"STORED\r\n"
            return Answer("set", words[1:2], [], stored, self._number("set"), sock, "meta" if verb == b"ms" else "text")
        others = {b"version": b"VERSION 1.6.45\r\n", b"mn": b"MN\r\n"}
        return Answer("other", [], [], others.get(verb, b"ERROR\r\n"), 0, sock, protocol)

    def _meta(self, words: list[bytes]) -> bytes:
        value = self.values(words[1])
        shown = {
            b"f": b"f0",
            b"t": b"t-1",
            b"c": b"c7",
            b"s": b"s%d" % len(value),
            b"h": b"h0",
            b"l": b"l0",
            b"k": b"k" + words[1],
        }
        flags = [shown.get(word[:1], word if word[:1] == b"O" else b"") for word in words[2:]]
        return b"VA %d %s\r\n%s\r\n" % (len(value), b" ".join(filter(None, flags)), value)

    def _binary(self, reader: object, sock: socket.socket) -> Answer:
        fields = HEADER.unpack(reader.read(HEADER.size))  # type: ignore[attr-defined]  # a buffered reader
        opcode, key_length, extras, body, opaque = fields[1], fields[2], fields[3], fields[6], fields[7]
        key = reader.read(body)[extras : extras + key_length]  # type: ignore[attr-defined]  # a buffered reader

        def frame(status: int, content: bytes = b"", extras: bytes = b"") -> bytes:
            size = len(content) + len(extras)
            return HEADER.pack(0x81, opcode, 0, len(extras), 0, status, size, opaque, 7) + extras + content

        if opcode == 0x00:
            return Answer(
                "get", [key], [frame(0, self.values(key), bytes(4))], b"", self._number("get"), sock, "binary"
            )
        if opcode == 0x01:
            return Answer("set", [key], [], frame(0), self._number("set"), sock, "binary")
        known = {0x0A: frame(0), 0x0B: frame(0, b"1.6.45")}
        return Answer("other", [], [], known.get(opcode, frame(0x81, b"Unknown command")), 0, sock, "binary")
