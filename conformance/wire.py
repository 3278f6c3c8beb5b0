"""One connection to the server under test: writes, bounded reads, and a log of both.

Owns sockets and the words for what can go wrong on them. Every read has a deadline and a limit, so a server that hangs,
floods or closes early costs one case and no more. It knows nothing of cases or templates.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import Self

from .datagrams import Datagrams, HeaderError

DAY = 86400  # seconds
PORT = 11211  # memcached's
FLOOD = 4 << 20  # bytes that one expectation may take in before the server is said to flood
SPLIT_WHOLE = 4096  # with --split, of longer writes only the first and the last bytes go one by one
KEPT = 1 << 14  # bytes of one reply that the log keeps
ENTRIES = 500  # entries that the log keeps
MANY = 200_000  # lines that a list may have
MISADDRESSED = "wrong datagram"
GRACE = 0.05  # seconds to gather the rest of a wrong reply for the report


@dataclass(frozen=True)
class Address:
    """Where a server listens: host and port, or the path of a unix socket; and how to be let in.

    user: `NAME:PASSWORD`, given with a `set` (-Y) or, on binary connections, by SASL.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    user: str = ""
    udp: bool = False

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


class BrokenError(Exception):
    """What a server did wrong; `got` is what had come by then."""

    def __init__(self, reason: str, got: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.got = got


class UnreachableError(BrokenError):
    """No connection could be made."""


def address(text: str) -> Address:
    """Reads `HOST:PORT`, `[V6]:PORT` or `unix:PATH`; a HOST alone has memcached's port. ValueError when it is none of them."""
    if text.startswith("unix:") and text != "unix:":
        return Address(path=text.removeprefix("unix:"))
    if text and (":" not in text or re.fullmatch(r"\[[0-9a-fA-F:.]+\]", text)):
        text += f":{PORT}"
    host, _, port = text.rpartition(":")
    number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    if not host or not 0 < number < 65536 or (":" in host and host[0] != "["):
        raise ValueError(f"{text}: wanted HOST:PORT, [IPV6]:PORT or unix:PATH")
    return Address(host.strip("[]"), number)


def seconds(text: str) -> float:
    """Seconds as an option gives them, for argparse: more than 0, and no more than a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= DAY:
        raise argparse.ArgumentTypeError(f"{text}: wanted seconds, more than 0 and at most {DAY}")
    return value


def connect(where: Address, timeout: float) -> socket.socket | Datagrams:
    """A connected socket; UnreachableError in one clear line."""
    if where.udp:
        try:
            return Datagrams(where.host, where.port)
        except OSError as error:
            raise UnreachableError(f"cannot reach {where}: {error.strerror or error}") from error
    sock = _stream(where, timeout)
    if where.tls is None:
        return sock
    try:
        return where.tls.wrap_socket(sock, server_hostname=where.host or None)
    except OSError as error:
        sock.close()
        raise UnreachableError(f"no TLS with {where}: {error.strerror or error}") from error


def _stream(where: Address, timeout: float) -> socket.socket:
    try:
        if not where.path:
            sock = socket.create_connection((where.host, where.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.settimeout(timeout)
            sock.connect(where.path)
            undo.pop_all()
            return sock
    except OSError as error:
        raise UnreachableError(f"cannot reach {where}: {error.strerror or error}") from error


class Wire:
    """A connection, its unread bytes, and the log of what went over it."""

    def __init__(self, where: Address, timeout: float, *, split: bool = False, binary: bool = False) -> None:
        self.socket = connect(where, timeout)
        self.timeout = timeout
        self.split = split
        self.buffer = b""
        self.log: list[tuple[str, bytes]] = []
        self.ended = False
        self.received = 0
        self.heard = 0.0  # when something came last
        if where.user:
            try:
                self._log_in(where.user, binary=binary)
            except BrokenError:
                self.close()
                raise

    def _log_in(self, user: str, *, binary: bool) -> None:
        """Gives name and password; UnreachableError when they are refused.

        In text only where a get is refused without: anywhere else the set would be one, and leave the password behind.
        """
        name, _, password = user.partition(":")
        if binary:
            token = b"\0" + name.encode() + b"\0" + password.encode()
            self.send(struct.pack("!BBHBBHIIQ", 0x80, 0x21, 5, 0, 0, 0, 5 + len(token), 0, 0) + b"PLAIN" + token)
            reply = self.take(24)
            self.take(struct.unpack_from("!I", reply, 8)[0])
            refused = reply[6:8] != b"\0\0"
        else:
            self.send(b"get mcconform.login\r\n")
            if self.line() == b"END\r\n":
                self.log.clear()
                return
            token = f"{name} {password}".encode()
            self.send(b"set auth 0 0 %d\r\n%s\r\n" % (len(token), token))
            refused = self.line() != b"STORED\r\n"
        self.log.clear()
        if refused:
            self.close()
            raise UnreachableError(f"the server refused the user {name}")

    def take(self, size: int) -> bytes:
        """The next `size` bytes; BrokenError when they do not come."""
        deadline = time.monotonic() + self.timeout
        while len(self.buffer) < size:
            self.more(deadline)
        return self._take(size)

    def send(self, data: bytes) -> None:
        """Writes all of it, byte by byte with `split`. A server that has closed already shows in the next read."""
        self.log.append((">", data))
        try:
            self.socket.settimeout(self.timeout)
            if not self.split:
                self.socket.sendall(data)
                return
            head, tail = (len(data), 0) if len(data) <= SPLIT_WHOLE else (SPLIT_WHOLE // 2, 64)
            for at in range(head):
                self.socket.sendall(data[at : at + 1])
            self.socket.sendall(data[head : len(data) - tail])
            for at in range(len(data) - tail, len(data) if tail else 0):
                self.socket.sendall(data[at : at + 1])
        except TimeoutError:
            raise BrokenError(f"hung: it read nothing for {self.timeout:g} s", self.buffer) from None
        except OSError:
            return

    def exactly(self, wanted: bytes) -> None:
        """Reads `wanted` and no other bytes."""
        deadline = time.monotonic() + self.timeout
        while True:
            have = self.buffer[: len(wanted)]
            if not wanted.startswith(have):
                self._gather()
                raise BrokenError("wrong reply", self.buffer)
            if len(have) == len(wanted):
                self._take(len(wanted))
                return
            self.more(deadline)

    def line(self, deadline: float | None = None) -> bytes:
        """The next line, with its line end."""
        deadline = deadline or time.monotonic() + self.timeout
        searched = 0
        while (end := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            if searched > FLOOD:
                raise BrokenError(f"flooded: over {FLOOD >> 20} MiB without an end of line", self.buffer[:200])
            self.more(deadline)
        return self._take(end + 1)

    def peek(self, start: bytes) -> bool:
        """Whether what comes next begins with `start`; nothing is taken."""
        deadline = time.monotonic() + self.timeout
        while len(self.buffer) < len(start) and start.startswith(self.buffer):
            self.more(deadline)
        return self.buffer.startswith(start)

    def lines(self, end: bytes) -> list[bytes]:
        """The lines up to and without the line `end`, which must come before the time-out."""
        deadline = time.monotonic() + self.timeout
        found: list[bytes] = []
        total = 0
        while (line := self.line(deadline)) != end:
            found.append(line)
            total += len(line)
            if total > FLOOD or len(found) > MANY:
                much = f"{FLOOD >> 20} MiB" if total > FLOOD else f"{MANY} lines"
                raise BrokenError(f"flooded: over {much} and no {end!r}", b"".join(found[:20])[:200])
        return found

    def end(self) -> None:
        """The server must close the connection, and send nothing more before."""
        deadline = time.monotonic() + self.timeout
        while not self.ended:
            if self.buffer:
                self._gather()
                raise BrokenError("it answered, and should have closed the connection", self.buffer)
            try:
                self.more(deadline)
            except BrokenError as error:
                if not self.ended:
                    raise BrokenError("it kept the connection open", error.got) from None
        if self.buffer:
            raise BrokenError("it answered before it closed the connection", self.buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes our side; what was unread is lost."""
        self.socket.close()
        self.ended = True

    def _take(self, size: int) -> bytes:
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        self.received += size
        if len(self.log) < ENTRIES:
            self.log.append(("<", data if len(data) <= KEPT else data[:KEPT] + b"..."))
        return data

    def more(self, deadline: float) -> None:
        """Adds what comes next to the unread bytes; BrokenError when nothing comes before `deadline`."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise BrokenError(self._silence(), self.buffer)
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except (TimeoutError, ssl.SSLWantReadError):
            raise BrokenError(self._silence(), self.buffer) from None
        except HeaderError as error:
            raise BrokenError(f"{MISADDRESSED}: {error}", self.buffer) from None
        except OSError as error:
            self.ended = True
            raise BrokenError(f"the server broke the connection: {error.strerror or error}", self.buffer) from None
        if not data:
            self.ended = True
            raise BrokenError("the server closed the connection", self.buffer)
        self.heard = time.monotonic()
        self.buffer += data

    def _silence(self) -> str:
        """What is wrong when the time is over: a server that is slow is told from one that says nothing."""
        if self.buffer and time.monotonic() - self.heard < self.timeout / 2:
            return f"hung: not whole after {self.timeout:g} s, and still coming: --timeout S waits longer"
        return f"hung: {'nothing more' if self.buffer else 'no reply'} for {self.timeout:g} s"

    def _gather(self) -> None:
        """Takes in what follows a wrong reply at once, for the report."""
        deadline = time.monotonic() + GRACE
        try:
            while len(self.buffer) < 4096:
                self.more(deadline)
        except BrokenError:
            return
