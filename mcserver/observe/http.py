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
"""Connections at once; one more is closed."""
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
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        except Exception:
            log.exception("internal error: a request to --metrics")
            writer.transport.abort()
        finally:
            self._clients.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, policy = "GET", ""
        try:
            request = await self._head(reader)
            await self._turn()
            method, path = self._read(request)
            answer = await self._source.answer(path)
            status, kind, body, policy = answer
        except RefusedError as refused:
            status, kind, body = refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode()
        allow = "Allow: GET, HEAD\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"{allow}{HEADERS.format(policy=policy)}\r\n"
        )
        writer.write(head.encode() + (b"" if method == "HEAD" else body))
        async with asyncio.timeout(REPLY_SECONDS):
            await writer.drain()
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

    def _read(self, head: bytes) -> tuple[str, str]:
        """Method and path. Raises RefusedError."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise RefusedError(400, "this is HTTP/1.1; the cache is at another port")
        if words[0] not in {"GET", "HEAD"}:
            raise RefusedError(405, "only GET and HEAD")
        hosts = [line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("host:")]
        if len(hosts) != 1:
            raise RefusedError(400, "a request needs one Host")
        if not self._is_ours(hosts[0]):
            raise RefusedError(
                421, "this server is not asked by that name: use its address, or allow the name with --metrics-name"
            )
        return words[0], words[1].partition("?")[0]

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
