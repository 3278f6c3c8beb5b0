"""A small blocking client of the text protocol for the tools. It knows no server but by what it answers.

What a server says is shown only as `said` or `printable_text`: on a terminal it must command nothing.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import ssl

from mcserver.keys import bounded, said
from mcserver.settings.rules import is_port

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 11211
SECONDS = 5.0
READ_BYTES = 1 << 18
LINE_MOST = 1 << 16
BINARY_ALONE = b"CLIENT_ERROR only the binary protocol is spoken here"
"""mcserver's answer to text with -S or -B binary."""
TLS_ALONE = b"CLIENT_ERROR only TLS is spoken here"
"""mcserver's answer to text with -Z."""
LISTED = ("STAT", "PREFIX", "ITEM")
"""How a line of statistics begins."""
DONE = (b"OK", b"RESET")
"""Answers without an END, to what is done and shows nothing."""
STRANGER = b"CLIENT_ERROR unauthenticated"
"""To whoever has not logged in, with -Y."""


class ToolError(Exception):
    """What stops a tool, as a sentence for its user; the exit code is 1."""


class BusyError(ToolError):
    """The server does something else at the moment; it can be asked again."""


def parse_address(text: str) -> tuple[str, int] | str:
    """`host`, `host:port`, `[v6]:port`, `v6`, or the path of a Unix socket (with a slash in it). Raises ToolError."""
    if "/" in text:
        return text
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or (port and not is_port(port, 1)):
        raise ToolError(f"'{text}' is no address: write HOST, HOST:PORT, [IPv6]:PORT, or the path of a Unix socket")
    return host, int(port or DEFAULT_PORT)


class Way(NamedTuple):
    """How servers are reached: what all of a tool's connections have in common."""

    seconds: float = SECONDS
    """Every wait ends after so long."""
    tls: ssl.SSLContext | None = None
    user: bytes = b""
    """`name password` for a server with -Y."""


PLAIN = Way()
PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "SSLV3_ALERT_HANDSHAKE_FAILURE")
"""What OpenSSL calls an answer, or an end, of a server without TLS; the alert is mcserver's."""


class Client:
    """One connection. What goes wrong is a ToolError that names the server."""

    def __init__(self, address: str, way: Way = PLAIN) -> None:
        self.name = address
        self._unread = bytearray()
        self._heard = False
        self._secure = False
        where = parse_address(address)
        try:
            if isinstance(where, str):
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.settimeout(way.seconds)
                try:
                    self.socket.connect(where)
                except OSError:
                    self.socket.close()
                    raise
            else:
                self.socket = socket.create_connection(where, way.seconds)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise ToolError(f"{address}: {reason(error)}") from None
        try:
            if way.tls is not None and not isinstance(where, str):  # a Unix socket is plain, here and in memcached
                self.socket = way.tls.wrap_socket(self.socket, server_hostname=where[0])
                self._secure = True
            if way.user:
                self._log_in(way.user)
        except OSError as error:
            self.socket.close()
            raise ToolError(f"{address}: {reason(error)}") from None
        except ToolError:
            self.socket.close()
            raise

    def _log_in(self, user: bytes) -> None:
        """Only where it is asked for: anywhere else the set would be one, and the password an item for all to read."""
        self.send(b"version\r\n")
        if self._answer() != STRANGER:
            return
        self.send(b"set login 0 0 %d\r\n%s\r\n" % (len(user), user))
        if (answer := self._answer()) != b"STORED":
            raise ToolError(f"{self.name}: the login is answered with {answer[:80].decode('utf-8', 'replace')}")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ToolError(f"{self.name}: {reason(error)}{self._hint()}") from None

    def _fill(self) -> None:
        try:
            received = self.socket.recv(READ_BYTES)
        except TimeoutError:
            raise ToolError(f"{self.name}: no answer in time{self._hint()}") from None
        except OSError as error:
            raise ToolError(f"{self.name}: {reason(error)}{self._hint()}") from None
        if not received:
            raise ToolError(f"{self.name}: the server closed the connection{self._hint()}")
        self._heard = True
        self._unread += received

    def _hint(self) -> str:
        """memcached says nothing to text where it speaks only TLS or the binary protocol."""
        if self._heard:
            return ""
        protocol = "the binary protocol alone (-S, -B binary)? This tool speaks text"
        return (
            f"; does it speak {protocol}" if self._secure else f"; does it speak TLS (--tls, --ca FILE), or {protocol}"
        )

    def line(self) -> bytes:
        """The next line, without its end. Raises ToolError for one by which a server refuses to speak so, or with a stranger."""
        line = self._answer()
        if line == STRANGER:
            raise ToolError(f"{self.name}: it wants a login: name a file with --user-file")
        return line

    def _answer(self) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > LINE_MOST:
                raise ToolError(f"{self.name}: this is no memcached: a line without an end")
            self._fill()
        line = bytes(self._unread[:end]).removesuffix(b"\r")
        del self._unread[: end + 1]
        if line == BINARY_ALONE:
            raise ToolError(f"{self.name}: it speaks the binary protocol alone (-S, -B binary), and this tool text")
        if line == TLS_ALONE:
            raise ToolError(f"{self.name}: it speaks TLS alone: give --tls, or --ca FILE")
        return line

    def data(self, length: int) -> bytes:
        """A value of so many bytes, with its line end taken off."""
        while len(self._unread) < length + 2:
            self._fill()
        data = bytes(self._unread[:length])
        del self._unread[: length + 2]
        return data

    def command(self, line: bytes) -> bytes:
        """Sends a line; its answer of one line."""
        self.send(line + b"\r\n")
        return self.line()

    def lines(self, line: bytes) -> Iterator[bytes]:
        """Sends a line; the lines of the answer up to END. Raises ToolError for an error, BusyError for BUSY."""
        self.send(line + b"\r\n")
        while (answer := self.line()) != b"END":
            if answer == b"ERROR" or answer.startswith((b"CLIENT_ERROR", b"SERVER_ERROR", b"BUSY", b"locked")):
                kind = BusyError if answer.startswith(b"BUSY") else ToolError
                raise kind(f"{self.name}: {line.decode()}: {answer.decode('utf-8', 'replace')}")
            yield answer

    def stats(self, words: str = "") -> dict[str, str]:
        """`stats`, or `stats WORDS`: by name, or by the key or prefix that a line is about.

        What is only done (`stats reset`, `stats detail on`) gives its answer as the one name.
        """
        found: dict[str, str] = {}
        for answer in self.lines(f"stats {words}".strip().encode()):
            if answer in DONE and not found:
                return {answer.decode(): ""}
            parts = answer.decode("utf-8", "replace").split(" ", 2)
            if parts[0] in LISTED and len(parts) >= 2:
                found[parts[1]] = parts[2] if len(parts) > 2 else ""
        return found


def reason(error: OSError) -> str:
    """What went wrong, in words for somebody who runs a tool."""
    if (kind := getattr(error, "reason", None)) is None:
        return error.strerror or str(error)
    if kind == "CERTIFICATE_VERIFY_FAILED":
        return f"its certificate is not trusted: {getattr(error, 'verify_message', '')}; name its authority with --ca"
    hint = "; does it speak TLS?" if kind in PLAIN_ANSWERS else ""
    return f"TLS fails: {str(kind).replace('_', ' ').lower()}{hint}"


def way_of(options: argparse.Namespace) -> Way:
    """What the arguments of `parser` say. Raises ToolError for files that can't be used."""
    tls, user = None, b""
    try:
        if options.tls or options.ca or options.cert or options.any_certificate:
            import ssl

            tls = ssl.create_default_context(cafile=options.ca)
            if options.any_certificate:
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            if options.cert:
                tls.load_cert_chain(options.cert, options.key)
        if options.user_file:
            first = Path(options.user_file).read_bytes().split(b"\n", 1)[0].removesuffix(b"\r")
            user = first.replace(b":", b" ", 1)
            if b":" not in first:
                raise ToolError(f"{options.user_file}: its first line is not name:password")
    except OSError as error:
        names = ", ".join(filter(None, (options.ca, options.cert, options.key, options.user_file)))
        raise ToolError(f"can't use {names}: {reason(error)}") from None
    return Way(options.timeout, tls, user)


class Parser(argparse.ArgumentParser):
    """Its errors repeat what was given."""

    def error(self, message: str) -> NoReturn:
        super().error(bounded(message))


def parser(name: str, meaning: str) -> argparse.ArgumentParser:
    """The parser of `mcserver NAME`."""
    made = Parser(prog=f"mcserver {name}", description=meaning)
    made.add_argument(
        "--timeout", type=positive, default=SECONDS, metavar="S", help="seconds to wait for an answer (5)"
    )
    secure = made.add_argument_group("servers with TLS or users")
    secure.add_argument("--tls", action="store_true", help="speak TLS, trusting the system's authorities")
    secure.add_argument(
        "--ca", metavar="FILE", help="speak TLS, trusting the authorities (or the certificate) in this file"
    )
    secure.add_argument("--cert", metavar="FILE", help="speak TLS, showing this certificate")
    secure.add_argument("--key", metavar="FILE", help="its private key, if it is in a file of its own")
    secure.add_argument("--any-certificate", action="store_true", help="speak TLS with whoever answers")
    secure.add_argument(
        "--user-file", metavar="FILE", help="log in as the first name:password of this file, as -Y reads it"
    )
    return made


def positive(text: str) -> float:
    """A number above 0 for argparse."""
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def run(tool: Callable[[argparse.Namespace], int], known: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Runs a tool: 0 or what it returns; 1 with a sentence on stderr; 64 for its arguments; 130 after ctrl-C."""
    try:
        options = known.parse_args(list(arguments))
    except SystemExit as stop:
        return 64 if stop.code else 0
    try:
        options.way = way_of(options)
        return tool(options)
    except ToolError as error:
        print(said(str(error)), file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


ADDRESS = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
