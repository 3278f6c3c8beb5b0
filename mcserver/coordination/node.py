"""One server's part in the fleet: puts the machines together and is the face that the server and `cluster ...` use.

Holds no rule of the protocol: those are in reader (certificate, gaps), publisher (appends), acks (`applied`), leader, locks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .acks import Acks
from .cells import Cells, Line, figures_of
from .context import Context
from .figures import Rates
from .gate import Gate
from .layout import Meta, parts
from .leader import Leader
from .locks import Locks
from .log import Log
from .membership import Membership
from .ports import (
    SECOND,
    Cache,
    Change,
    Handle,
    Level,
    LockLost,
    Member,
    MemberFigures,
    NotConfirmed,
    Runtime,
    SessionState,
    ZooKeeper,
    ZooKeeperError,
)
from .publisher import Publisher
from .reader import Reader
from .settings import Settings

log = logging.getLogger("mcserver.coordination")

NAMES_MOST = 20  # names that a statistic spells out


class Node:
    """Implements `ports.Coordinator` over any ZooKeeper and Runtime."""

    def __init__(self, zk: ZooKeeper, runtime: Runtime, cache: Cache, settings: Settings) -> None:
        self.context = context = Context(zk, runtime, cache, settings)
        context.changed = self._changed
        appender = Log(context)
        self.gate = Gate(context)
        self.membership = Membership(context)
        self.reader = Reader(context, self.gate, self.membership)
        self.cells = Cells(context, self.membership)
        self.acks = Acks(context, self.membership, self.cells)
        self._log = appender
        self.publisher = Publisher(context, appender, self.acks, self.membership)
        self.election = Leader(context, self.membership, self.reader, appender, self.cells)
        self.locks = Locks(context, self.membership, appender, self.acks, self.level)
        self._levels = sorted(settings.ack_prefixes, key=lambda item: len(item[0]), reverse=True)
        self._callbacks: list[Callable[[str], None]] = []
        self._tasks: list[Handle] = []
        self._left = False
        self._resumed = False
        self._rates = Rates(context.now(), 0, 0, 0)
        self.reader.on_need_ack = self.cells.want
        self.cells.reached = lambda: self.reader.applied
        self.reader.on_meta = self._see_meta
        self.reader.on_meta_changed = appender.changed
        self.reader.on_back = self._log_went_back
        self.reader.on_remade = self.election.doubt
        self.reader.measure = self._measure
        self.membership.on_seen.append(self.cells.wake)
        self.membership.on_proved += [self.cells.wake, self.acks.wake]

    def place(self) -> dict[str, Any] | None:
        """See Coordinator.place."""
        place = self.reader.place()
        return None if place is None else {"path": self.context.settings.path, **place}

    def resume(self, place: Mapping[str, Any] | None) -> None:
        """See Coordinator.resume."""
        if place is not None and place.get("path") == self.context.settings.path and self.reader.resume(place):
            self._resumed = True
            log.info("what was kept is served when the log has been replayed from %s", show(self.reader.applied))
        else:
            log.warning("what was kept has no place in this fleet's log: the cache is flushed")
            self.context.cache.flush()

    def start(self) -> None:
        """See Coordinator.start."""
        context = self.context
        if context.settings.join == "serve" and not self._resumed:
            self.gate.open_until_certified()
        else:
            self.gate.close()
        context.zk.listen(self._session_changed)
        machines = {
            "reader": self.reader.step,
            "publisher": self.publisher.step,
            "acks": self.acks.step,
            "cells": self.cells.step,
            "membership": self.membership.step,
            "leader": self.election.step,
            "records": self.membership.clear_old_names_when_certified,
        }
        for name, step in machines.items():
            self._tasks.append(context.runtime.spawn(context.forever(name, step), name))
        self._tasks.append(context.runtime.spawn(self.gate.watch(), "gate"))

    def _session_changed(self, state: SessionState) -> None:
        self.context.session_changed()
        for machine in (self._log, self.membership, self.cells, self.acks, self.election, self.locks, self.reader):
            machine.session_changed()
        self._changed("state")

    def _see_meta(self, meta: Meta, version: int | None) -> None:
        if version is not None:
            self._log.learn(meta, version)
        self.election.learn(meta)

    def _log_went_back(self) -> None:
        """Of the others' versions nothing that was read counts: the same number may be another entry's."""
        self.membership.log_went_back()
        self.cells.session_changed()
        self.acks.session_changed()

    # Telling the peers ---------------------------------------------------------------------------------------------------

    def level(self, key: bytes) -> Level:
        """See Coordinator.level."""
        for prefix, level in self._levels:
            if key.startswith(prefix):
                return level
        return self.context.settings.ack

    def submit(self, changes: Sequence[Change], level: Level) -> Awaitable[int] | None:
        """See Coordinator.submit."""
        if not self._left:
            return self.publisher.submit(changes, level)
        future = self.context.runtime.future()
        future.set_exception(NotConfirmed("this server has left the fleet"))
        return future

    def locked(self, key: bytes, write: Callable[[], None]) -> Awaitable[None]:
        """See Coordinator.locked."""
        if not self._left:
            return self.locks.locked(key, write)
        future = self.context.runtime.future()
        future.set_exception(LockLost("this server has left the fleet"))
        return future

    def flush(self, prefix: bytes = b"") -> Awaitable[int]:
        """See Coordinator.flush."""
        change = Change("prefix", prefix) if prefix else Change("flush")
        return self._everywhere(change, lambda cache: cache.flush_prefix(prefix) if prefix else cache.flush())

    def refresh(self, prefix: bytes, ttl: int) -> Awaitable[int]:
        """See Coordinator.refresh."""
        return self._everywhere(Change("refresh", prefix, ttl), lambda cache: cache.refresh_prefix(prefix, ttl))

    def _everywhere(self, change: Change, here: Callable[[Cache], None]) -> Awaitable[int]:
        answer = self.submit([change], Level.APPLIED)
        assert answer is not None
        here(self.context.cache)
        return answer

    async def leave(self, seconds: float) -> None:
        """See Coordinator.leave. The gate closes before the records go: nobody waits for a server that serves nothing."""
        log.info("this server leaves the fleet: %d invalidations are still to be told", len(self.publisher.queue))
        self.membership.state = "draining"
        self.reader.announce()
        if not await self.publisher.drain(seconds):
            log.error("left with invalidations that ZooKeeper did not take: peers may be stale until their TTL")
        self._left = True
        self.gate.close()
        for task in self._tasks:
            task.cancel()
        self.locks.stop()
        try:
            await self.membership.sign_off()
        except ZooKeeperError as error:
            log.warning("left without signing off (%r): the others count this server until its session ends", error)
        await self.context.zk.close()
        self.membership.left()
        self.election.left()
        log.info("this server has left the fleet")

    # What is shown -------------------------------------------------------------------------------------------------------

    def on_change(self, callback: Callable[[str], None]) -> None:
        """See Coordinator.on_change."""
        self._callbacks.append(callback)

    def _changed(self, kind: str) -> None:
        for callback in self._callbacks:
            callback(kind)

    def _measure(self) -> tuple[int, ...]:
        """This server's figures, as cells.FIGURES names them."""
        context, budget = self.context, self.context.budget
        counts = (sum(budget.counts.values()), context.reads, budget.unlogged_count)
        rates = [round(1000 * rate) for rate in self._rates.at(context.now(), *counts)]
        return (self._lag(), len(self.publisher.queue), round(self.publisher.age_ms), *rates)

    def _lag(self) -> int:
        return self.reader.lag

    def figures(self) -> tuple[float, list[MemberFigures]]:
        """See Coordinator.figures."""
        self.cells.ask_figures()
        context, cells = self.context, self.cells
        if cells.seen_at is None:
            return -1.0, []
        rows = []
        for name, line in sorted(cells.seen.items()):
            node = self.membership.nodes.get(name)
            if node is not None:
                rows.append(
                    MemberFigures(name, node.address, line.state, line.applied, self._age(line), figures_of(line))
                )
        return (context.now() - cells.seen_at) / SECOND, rows

    def _age(self, line: Line) -> int:
        """ms since a member's record was written: its certificate is no older than that."""
        try:
            return max(0, self.context.ensemble_time() - line.written)
        except ZooKeeperError:
            return -1

    def members(self) -> tuple[int, list[Member]]:
        """See Coordinator.members."""
        return self.membership.version, self.membership.listing()

    def discovery(self) -> tuple[int, list[str]]:
        """See Coordinator.discovery."""
        return self.membership.version, self.membership.told

    def leader(self) -> str | None:
        """See Coordinator.leader."""
        return self.membership.leader or self.election.name

    def stats(self) -> dict[str, int | float | str]:
        """Every line of `stats cluster`; times in milliseconds, versions as GEN:SEQUENCE."""
        figures, reader, queue = self.context.figures, self.reader, self.publisher.queue
        age = self.gate.fresh_age
        return {
            "state": "left" if self._left else self.membership.state,
            "why": self.context.why or self.context.zk.why,
            "session": self.context.zk.state.value,
            "node": self.membership.name,
            "members": self.membership.live,
            "leader": self.leader() or "",
            "is_leader": int(self.election.is_leader),
            "token": self.election.token,
            "log": reader.log or "",
            "applied": show(reader.applied),
            "head": show(reader.head),
            "lag_entries": self._lag(),
            "format": self.membership.format,
            "fresh_age_ms": -1 if age < 0 else round(age * 1000),
            "stale": int(self.gate.is_stale),
            "stale_serving": int(self.gate.is_stale and self.context.settings.on_stale == "serve"),
            "on_stale": self.context.settings.on_stale,
            "not_waited_for": some(self.acks.not_waited_for),
            "queue_keys": len(queue),
            "queue_bytes": queue.bytes,
            "queue_age_ms": round(self.publisher.age_ms),
            "appends": figures.appends,
            "append_ms_p50": round(figures.append_ms.at(0.5), 3),
            "append_ms_p99": round(figures.append_ms.at(0.99), 3),
            "resent": figures.resent,
            "unconfirmed": figures.unconfirmed,
            "gaps": figures.gaps,
            "holes": figures.holes,
            "overflows": figures.overflows,
            "malformed": figures.malformed,
            "flushes": figures.flushes,
            "write_budget": round(self.context.budget.rate),
            "fleet_writes": round(self.context.budget.used(self.membership.live, self.context.now())),
            "writers": self.context.budget.writers,
            "append_waits": self.context.budget.waits,
            "acks_held_back": self.context.budget.held_back,
            **{f"writes_{kind}": count for kind, count in self.context.budget.counts.items()},
            "locks_held": self.locks.held,
            "lock_waits": figures.lock_waits,
            "round_trip_ms": round(figures.round_trip_ms, 3),
            **self.context.zk.figures(),
        }


def some(names: Sequence[str]) -> str:
    """The first NAMES_MOST, and how many more: somebody may have made any number of records."""
    more = len(names) - NAMES_MOST
    return ",".join((*names[:NAMES_MOST], *([f"+{more}"] if more > 0 else [])))


def show(version: int) -> str:
    """A version for people."""
    if version < 0:
        return "none"
    generation, sequence = parts(version)
    return f"{generation}:{sequence}"
