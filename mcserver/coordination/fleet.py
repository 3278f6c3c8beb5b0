"""What the server sees of coordination: events in, held replies and locked writes out, and what happens put into the log.

Owns the waiting of clients: which replies wait for which confirmation, and which writes for which lock. It decides nothing
about coherence (that is Node's and its machines'), and never waits for ZooKeeper on the data path.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mcserver.core import NOT_CONFIRMED

from .notices import Notices
from .ports import Change, Coordinator, Level, LockLost, Member, MemberFigures, NotConfirmed

if TYPE_CHECKING:
    from mcserver.core import Session

log = logging.getLogger("mcserver.coordination")

LOCK_LOST = b"SERVER_ERROR lock lost"
SWITCH_INTERVAL = 0.0005  # s; kazoo's threads hold the interpreter for at most so long while the loop wants it
RELATIVE_MAX = 30 * 86400  # s
T = TypeVar("T")
Event = tuple[str, bytes, int, int]  # kind, key, position of its reply or -1, ttl


class Wait(NamedTuple):
    """Replies that wait for one confirmation: their positions among the events of a batch."""

    confirmed: asyncio.Future[Any]
    positions: list[int]


class Fleet:
    """Implements mcserver.admin's Cluster over a Coordinator."""

    def __init__(self, coordinator: Coordinator, notices: Notices, drain_seconds: float = 2.0) -> None:
        """`drain_seconds`: how long the end waits for ZooKeeper to take what is queued."""
        self._coordinator = coordinator
        self._drain_seconds = drain_seconds
        self._holds: dict[Session, _Hold] = {}
        self._leaving: asyncio.Future[None] | None = None
        coordinator.on_change(notices.changed)

    def place(self) -> dict[str, Any] | None:
        """See Coordinator.place."""
        return self._coordinator.place()

    def resume(self, place: Mapping[str, Any] | None) -> None:
        """See Coordinator.resume."""
        self._coordinator.resume(place)

    def start(self) -> None:
        """Joins in the background."""
        sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))
        self._coordinator.start()

    async def leave(self) -> None:
        """Drains the queue or appends a flush, then leaves; replies that still wait then are answered as not confirmed."""
        await asyncio.shield(self._leave_once())
        for hold in list(self._holds.values()):
            hold.give_up()

    # What clients changed ------------------------------------------------------------------------------------------------

    def events(self, session: Session | None, events: list[Event]) -> bool:
        """Tells the peers; True when a reply of the batch has to wait for that.

        When one can't be told, every reply of the batch becomes an error, and the others are told all the same.
        """
        waits: list[Wait] = []
        failures = 0
        for level, group in itertools.groupby(events, self._level):
            told = list(group)
            # One by one after a failure: what can be told is told, though it may be told twice.
            for part in (told, *([event] for event in told)):
                try:
                    waits += self._tell(part, level)
                except Exception:
                    failures += 1
                    log.exception("%d changes can't be told to the others", len(part))
                    continue
                if part is told:
                    break
        if failures:
            waits.append(Wait(_failed(), [position for _, _, position, _ in events if position >= 0]))
        if not waits or session is None:
            return False
        self._holds[session] = _Hold(session, waits, self._holds)
        return True

    def _tell(self, events: list[Event], level: Level | None) -> list[Wait]:
        if level is None:
            return [Wait(self._administer(kind, key, ttl), [position]) for kind, key, position, ttl in events]
        confirmed = self._coordinator.submit([_change(*event) for event in events], level)
        if confirmed is None:
            return []
        answer, positions = _future(confirmed), [position for _, _, position, _ in events if position >= 0]
        if not positions:
            answer.add_done_callback(_seen)
            return []
        return [Wait(answer, positions)]

    def _level(self, event: Event) -> Level | None:
        """None: a command of `cluster ...`, confirmed in its own way."""
        kind, key, position, _ = event
        if kind.startswith("cluster"):
            return None
        return Level.ASYNC if position < 0 else self._coordinator.level(key if kind in _OF_KEYS else b"")

    def _administer(self, kind: str, key: bytes, ttl: int) -> asyncio.Future[Any]:
        if kind == "cluster flush":
            return _future(self._coordinator.flush(key))
        if kind == "cluster refresh":
            return _future(self._coordinator.refresh(key, ttl))
        return self._leave_once()

    def _leave_once(self) -> asyncio.Future[None]:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._coordinator.leave(self._drain_seconds))
        return self._leaving

    def lock(self, session: Session, key: bytes) -> None:
        """A write under a locked prefix: takes effect when its lock is held and its invalidation committed."""
        _future(self._coordinator.locked(key, session.grant)).add_done_callback(functools.partial(_refuse, session))

    def closed(self, session: Session) -> None:
        """The client has gone: what it changed is told to the peers all the same."""
        self._holds.pop(session, None)

    # What is shown -------------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int | float | str]:
        return {**self._coordinator.stats(), "held_replies": len(self._holds)}

    def members(self) -> tuple[int, list[Member]]:
        return self._coordinator.members()

    def discovery(self) -> tuple[int, list[str]]:
        return self._coordinator.discovery()

    def figures(self) -> tuple[float, list[MemberFigures]]:
        return self._coordinator.figures()

    def leader(self) -> str | None:
        return self._coordinator.leader()


class _Hold:
    """One session's replies until all of their confirmations are there."""

    def __init__(self, session: Session, waits: Sequence[Wait], holds: dict[Session, _Hold]) -> None:
        self._session, self._holds = session, holds
        self._errors: dict[int, bytes] = {}
        self._waits = waits
        self._missing = len(waits)
        for wait in waits:
            wait.confirmed.add_done_callback(functools.partial(self._done, wait))

    def _done(self, wait: Wait, confirmed: asyncio.Future[Any]) -> None:
        if confirmed.cancelled() or (error := confirmed.exception()) is not None:
            self._errors |= dict.fromkeys(wait.positions, NOT_CONFIRMED)
            if not confirmed.cancelled() and not isinstance(error, NotConfirmed):
                log.error("an invalidation was not confirmed", exc_info=error)
        self._missing -= 1
        if self._missing == 0:
            self._release()

    def _release(self) -> None:
        if self._holds.get(self._session) is self:
            del self._holds[self._session]
            self._session.release(self._errors or None)

    def give_up(self) -> None:
        for wait in self._waits:
            if not wait.confirmed.done():
                self._errors |= dict.fromkeys(wait.positions, NOT_CONFIRMED)
        self._release()


_OF_KEYS = {"delete", "stale", "write"}


def _change(kind: str, key: bytes, _position: int, ttl: int) -> Change:
    """An event of the core as the peers are told."""
    if kind == "stale":
        return Change("stale", key, ttl)
    if kind == "flush":
        return Change("flush")
    if kind == "flush_later":
        return Change("flush", b"", delay(ttl, time.time()))
    return Change("delete", key)


def delay(exptime: int, now: float) -> int:
    """Seconds from now of flush_all's argument, which is a time of the wall clock when it is more than 30 days."""
    return exptime if exptime <= RELATIVE_MAX else max(0, exptime - int(now))


def _failed() -> asyncio.Future[Any]:
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    failed.set_exception(NotConfirmed("not told"))
    return failed


def _future(awaitable: Awaitable[T]) -> asyncio.Future[T]:
    return asyncio.ensure_future(awaitable)


def _seen(future: asyncio.Future[Any]) -> None:
    """Nobody waits: a failure is no news."""
    if not future.cancelled():
        future.exception()


def _refuse(session: Session, granted: asyncio.Future[None]) -> None:
    error = None if granted.cancelled() else granted.exception()
    if granted.cancelled() or error is not None:
        if error is not None and not isinstance(error, LockLost):
            log.error("a locked write failed", exc_info=error)
        session.refuse(LOCK_LOST)
