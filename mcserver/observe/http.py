"""The HTTP side of --metrics: GET and HEAD of a few paths, bounded in every way. It knows no figure.

A browser must not be made to read it for a stranger's page: the Host of a request has to be an address, localhost, this machine's
name, the name of --metrics, or one of --metrics-name (DNS rebinding). Nothing of a request is ever in an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mcserver.observe.answers import Answer

log = logging.getLogger("mcserver")

REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0
"""From the connection to the end of the request's head."""
REPLY_SECONDS = 10.0
CLIENTS_MOST = 32
"""Connections at once. For one more goes the oldest that hasn't asked yet, or has its answer; is there none, the new one."""
LINGER_SECONDS, LINGER_BYTES = 1.0, 1 << 20
"""After the answer what still comes is read, within these: to close a socket with unread bytes would take the answer back."""
REST_SECONDS = 0.02
"""From one request to the next, of all clients together: who asks in a loop waits, and the cache has the processor."""
WATCHED_SECONDS = 10.0
"""So long after the page last asked, its round trips are measured."""
PROBE_SECONDS = 1.0
HEADERS = (
    "Cache-Control: no-store\r\n"
    "Content-Security-Policy: default-src 'none'{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Connection: close\r\n"
)


VERSIONS = ("HTTP/1.0", "HTTP/1.1")


class Source(Protocol):
    """Who has the answers."""

    ending: bool
    watched: float

    async def answer(self, path: str) -> Answer: ...
    def latency(self, seconds: float | None) -> None: ...


class RefusedError(Exception):
    """A request that is answered with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Observer:
    """Serves on one listener until `close`."""

    def __init__(self, listener: socket.socket, source: Source, names: tuple[str, ...]) -> None:
        self._listener = listener
        self._source = source
        self._names = {"localhost", os.uname().nodename.lower(), *(name.lower() for name in names)}
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], None] = {}
        """Those of them that can go for another one, the oldest first."""
        self._next_turn = 0.0
        self._probe: asyncio.Task[None] | None = None
        self._target: tuple[str, int] | str | None = None

    async def start(self, target: tuple[str, int] | str | None) -> None:
        """target: an address of the cache's own, at which the page's round trips are measured; None: they are not."""
        self._target = target
        self._server = await asyncio.start_server(self._serve, sock=self._listener, limit=REQUEST_BYTES)

    def end_soon(self) -> None:
        """/readyz says so from now on."""
        self._source.ending = True

    def close(self) -> None:
        """At once."""
        if self._server is not None:
            self._server.close()
        for task in (*self._clients, *([self._probe] if self._probe else [])):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= CLIENTS_MOST:
            if not self._idle:
                writer.transport.abort()
                return
            self._forget(oldest := next(iter(self._idle)))
            oldest.cancel()
        self._clients.add(task)
        self._idle[task] = None
        try:
            await self._exchange(task, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        except Exception:
            log.exception("internal error: a request to --metrics")
            writer.transport.abort()
        finally:
            self._forget(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._clients.discard(task)
        self._idle.pop(task, None)

    async def _exchange(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request, policy = b"", ""
        try:
            request = await self._head(reader)
            self._idle.pop(task, None)
            await self._turn()
            answer = await self._source.answer(self._read(request))
            status, kind, body, policy = answer
        except RefusedError as refused:
            status, kind, body = refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode()
        allow = "Allow: GET, HEAD\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"{allow}{HEADERS.format(policy=policy)}\r\n"
        )
        _still_there(writer)
        writer.write(head.encode() + (b"" if request.startswith(b"HEAD ") else body))
        async with asyncio.timeout(REPLY_SECONDS):
            await writer.drain()
            self._idle[task] = None
            _still_there(writer)
            writer.write_eof()
            await linger(reader)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._probe is None or self._probe.done():
            self._measure()

    async def _turn(self) -> None:
        """Waits until REST_SECONDS have passed since the request before; at most CLIENTS_MOST times as long."""
        now = asyncio.get_running_loop().time()
        mine = max(self._next_turn, now)
        self._next_turn = mine + REST_SECONDS
        await asyncio.sleep(mine - now)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise RefusedError(431, f"a request's head may have {REQUEST_BYTES} bytes") from None

    def _read(self, head: bytes) -> str:
        """The path. Raises RefusedError."""
        lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or words[2] not in VERSIONS:
            raise RefusedError(400, "this is HTTP/1.1; the cache is at another port")
        if words[0] not in {"GET", "HEAD"}:
            raise RefusedError(405, "only GET and HEAD")
        fields = [line.partition(":") for line in lines[1:]]
        if not all(name and colon and " " not in name and "\t" not in name for name, colon, _ in fields):
            raise RefusedError(400, "a header is NAME: VALUE on one line")
        hosts = [value.strip() for name, _, value in fields if name.lower() == "host"]
        if len(hosts) > 1 or (not hosts and words[2] != "HTTP/1.0"):  # a balancer's check is HTTP/1.0, no browser is
            raise RefusedError(400, "a request needs one Host")
        path = words[1]
        if path[:7].lower() == "http://":  # what is said to a proxy counts more than the Host (RFC 9112, 3.2.2)
            authority, slash, rest = path[7:].partition("/")
            hosts, path = [authority], slash + rest or "/"
        if not all(map(self._is_ours, hosts)):
            raise RefusedError(
                421, "this server is not asked by that name: use its address, or allow the name with --metrics-name"
            )
        return path.partition("?")[0]

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.strip("[]").rstrip(".").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        return True

    # The page's round trips ------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        if self._target is not None and time.monotonic() - self._source.watched < WATCHED_SECONDS:
            self._probe = asyncio.get_running_loop().create_task(self._round_trips(), name="round trips")

    async def _round_trips(self) -> None:
        """One meta no-op a second over a connection of its own, while somebody looks at the page."""
        assert self._target is not None
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                if isinstance(self._target, str):
                    reader, writer = await asyncio.open_unix_connection(self._target)
                else:
                    reader, writer = await asyncio.open_connection(*self._target)
            try:
                while time.monotonic() - self._source.watched < WATCHED_SECONDS:
                    began = time.perf_counter()
                    writer.write(b"mn\r\n")
                    async with asyncio.timeout(REPLY_SECONDS):
                        reply = await reader.readline()
                    if reply != b"MN\r\n":
                        break
                    self._source.latency(time.perf_counter() - began)
                    await asyncio.sleep(PROBE_SECONDS)
            finally:
                writer.close()
        except (OSError, TimeoutError):
            pass  # -c is reached, or it ends
        self._source.latency(None)


def _still_there(writer: asyncio.StreamWriter) -> None:
    """Raises OSError when the client has gone: the transport's own error for that says nothing of it."""
    if writer.is_closing():
        raise ConnectionResetError


async def linger(reader: asyncio.StreamReader) -> None:
    """Reads what somebody sends who has the answer, until its end or the limits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            left = LINGER_BYTES
            while left > 0 and (piece := await reader.read(REQUEST_BYTES)):
                left -= len(piece)
