"""Watchers: log lines for the clients that asked with `watch`, from bounded buffers.

A slow watcher loses lines and is told how many; nobody ever waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mcserver.keys import escaped

if TYPE_CHECKING:
    from mcserver.core import Engine, Session

FETCHERS, MUTATIONS, EVICTIONS, DELETIONS = 1, 2, 4, 8  # the engine's own bits
CONNEVENTS = 16
ENGINE_MASK = FETCHERS | MUTATIONS | EVICTIONS | DELETIONS

KINDS: dict[bytes, int] = {
    b"rawcmds": 0,  # 0: accepted, and silent
    b"evictions": EVICTIONS,
    b"fetchers": FETCHERS,
    b"mutations": MUTATIONS,
    b"sysevents": 0,
    b"connevents": CONNEVENTS,
    b"proxyreqs": 0,
    b"proxyevents": 0,
    b"proxyuser": 0,
    b"deletions": DELETIONS,
}
"""In memcached's order, which decides what an abbreviation means."""

FIELDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "item_get": (FETCHERS, ("status", "clsid", "cfd", "size")),
    "item_store": (MUTATIONS, ("status", "cmd", "ttl", "clsid", "cfd", "size")),
    "eviction": (EVICTIONS, ("fetch", "ttl", "la", "clsid", "size")),
    "deleted": (DELETIONS, ("cmd", "clsid", "size")),
}
"""What a line holds after its key, in order, and who wants it."""

MOST_WATCHERS = 20
GATHER_SECONDS = 0.01
"""Lines are gathered for so long before they are sent."""
RETRY_SECONDS = 0.05
"""A watcher that took less than it was offered is offered again after so long."""


class Watcher:
    """One watching connection: what it wants, and what it has not taken yet."""

    __slots__ = ("mask", "pending", "session", "skipped")

    def __init__(self, session: Session, mask: int) -> None:
        self.session = session
        self.mask = mask
        self.pending = bytearray()
        self.skipped = 0


class Watchers:
    """All watchers, and the four figures of `stats` about them. Costs nothing while there is none."""

    def __init__(
        self,
        engine: Engine,
        buffer_size: int,
        call_later: Callable[[float, Callable[[], None]], object],
        tell_closed: Callable[[bool], None] = lambda _wanted: None,
    ) -> None:
        """buffer_size is in bytes, for each watcher (-o watcher_logbuf_size). tell_closed hears whether somebody wants to know of
        the end of every connection.
        """
        self._engine = engine
        self._buffer_size = buffer_size
        self._call_later = call_later
        self._tell_closed = tell_closed
        self._watchers: list[Watcher] = []
        self._scheduled = False
        self._gid = 0
        self.written = self.skipped = self.sent = 0
        self.mask = 0

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def connevents(self) -> bool:
        """Whether somebody wants to know of connections."""
        return bool(self.mask & CONNEVENTS)

    def add(self, session: Session, mask: int) -> bool:
        """False when there are 20 already."""
        if len(self._watchers) >= MOST_WATCHERS:
            return False
        self._watchers.append(Watcher(session, mask))
        self._observe()
        return True

    def remove(self, session: Session) -> None:
        """Forgets a connection that was closed; it need not have watched."""
        if self._watchers:
            self._watchers = [watcher for watcher in self._watchers if watcher.session is not session]
            self._observe()

    def _observe(self) -> None:
        mask = 0
        for watcher in self._watchers:
            mask |= watcher.mask
        self.mask = mask
        self._tell_closed(self.connevents)
        self._engine.observe(mask & ENGINE_MASK, self.item_event)

    def item_event(self, kind: str, fields: Mapping[str, object]) -> None:
        """Called by the engine; a key in `fields` is bytes, the rest is spelled as it comes."""
        bits, names = FIELDS[kind]
        key = fields["key"]
        assert isinstance(key, bytes)
        spelled = {**fields, "cfd": fields["fd"], "fetch": "yes" if fields.get("fetch") else "no"}
        rest = " ".join([f"{name}={spelled[name]}" for name in names])
        self._write(bits, f"type={kind} key={escaped(key)} {rest}")

    def connection_event(self, kind: str, address: str, port: int, transport: str, fd: int, reason: str = "") -> None:
        """`conn_new`, or `conn_close` with its reason; a Unix socket's address is `unix`, its port 0."""
        why = f" reason={reason}" if reason else ""
        self._write(CONNEVENTS, f"type={kind} rip={address} rport={port} transport={transport}{why} cfd={fd}")

    def tls_error(self, fd: int, why: str) -> None:
        """A connection of TLS failed."""
        self._write(CONNEVENTS, f"type=conntlserr fd={fd} msg={why}")

    def _write(self, bits: int, text: str) -> None:
        self._gid += 1
        self.written += 1
        now = time.time_ns() // 1000
        line = f"ts={now // 1_000_000}.{now % 1_000_000} gid={self._gid} {text}\n".encode()
        for watcher in self._watchers:
            if watcher.mask & bits:
                self._append(watcher, line)
        if not self._scheduled:
            self._schedule(GATHER_SECONDS)

    def _append(self, watcher: Watcher, line: bytes) -> None:
        if watcher.skipped:
            note = b"skipped=%d\n" % watcher.skipped
            if len(watcher.pending) + len(note) + len(line) <= self._buffer_size:
                watcher.pending += note
                watcher.skipped = 0
        if watcher.skipped or len(watcher.pending) + len(line) > self._buffer_size:
            watcher.skipped += 1
            self.skipped += 1
            return
        watcher.pending += line
        self.sent += 1

    def _schedule(self, seconds: float) -> None:
        self._scheduled = True
        self._call_later(seconds, self._flush)

    def flush(self) -> None:
        """Sends what was gathered, as far as it is taken."""
        for watcher in list(self._watchers):
            if watcher.pending:
                taken = watcher.session.push(bytes(watcher.pending))
                del watcher.pending[:taken]

    def _flush(self) -> None:
        self._scheduled = False
        self.flush()
        if any(watcher.pending for watcher in self._watchers):
            self._schedule(RETRY_SECONDS)

    def reset(self) -> None:
        """`stats reset`."""
        self.written = self.skipped = self.sent = 0
