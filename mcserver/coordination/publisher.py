"""Tells the peers: the queue of changes, one append in flight, and the answers that wait for it.

Rules. Nothing leaves the queue but into a frozen batch, and a batch ends only with its commit: without an answer the same
bytes go again (they only delete, so a duplicate only costs a miss). Answers are given in the order of the submits. The fleet
shares one budget of writes a second (budget.py); what arrives while a server waits for its share is the next batch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .acks import Acks
from .context import Context, Signal
from .entry import FLUSH, TTL_MAX
from .log import Log, Text
from .membership import Membership
from .ports import SECOND, Ambiguous, Change, Future, Level, NoAuth, NotConfirmed, TooLarge
from .queue import Queue

log = logging.getLogger("mcserver.coordination")


MANY = 1000  # answers that may wait before those that need not any more are looked for


class Ticket(NamedTuple):
    """Someone who waits until the queue has come to `mark`."""

    mark: int
    level: Level
    future: Future[int]


class Batch(NamedTuple):
    """Frozen when it was first sent."""

    lines: list[bytes]
    mark: int
    need_ack: bool


class Publisher:
    """Owns the queue and the appends of this server."""

    def __init__(self, context: Context, log: Log, acks: Acks, membership: Membership) -> None:
        settings = context.settings
        self._context = context
        self._log = log
        self._acks = acks
        self._membership = membership
        self.queue = Queue(settings.queue_keys, settings.queue_bytes, settings.flush_prefixes)
        self._wake = Signal(context.runtime)
        self._idle = Signal(context.runtime)
        self._batch: Batch | None = None
        self._tickets: deque[Ticket] = deque()
        self._deadlines: deque[tuple[int, Future[int]]] = deque()
        self._many = MANY
        self._timer = False
        # (mark, since when it waits), about every 10 ms, or every hundredth of the longest wait
        self._ages: deque[tuple[int, int]] = deque()
        self._batch_keys = settings.batch_keys
        self._hurry = False

    def submit(self, changes: Sequence[Change], level: Level) -> Future[int] | None:
        """See Coordinator.submit. ValueError for no changes, or for one that cannot be written."""
        if not changes:
            raise ValueError("nothing to tell")
        now = self._context.now()
        for change in changes:
            # A delayed flush waits under this machine's second at which it is due.
            delayed = change.kind == "flush" and change.ttl > 0
            due = change._replace(ttl=min(TTL_MAX, now // SECOND + change.ttl)) if delayed else change
            mark, overflow = self.queue.add(due)
            if overflow:
                self._context.figures.overflows += 1
                log.warning("too many invalidations wait for ZooKeeper: they become a flush of the peers")
        if not self._ages or now - self._ages[-1][1] > max(SECOND // 100, (now - self._ages[0][1]) // 100):
            self._ages.append((mark, now))
        self._wake.set()
        if level is Level.ASYNC:
            return None
        future: Future[int] = self._context.runtime.future()
        self._tickets.append(Ticket(mark, level, future))
        self.expire(future)
        return future

    @property
    def age_ms(self) -> float:
        """How long the oldest change has waited."""
        return (self._context.now() - self._ages[0][1]) / 1e6 if self._ages else 0.0

    @property
    def is_idle(self) -> bool:
        """Nothing waits, and nothing is on its way."""
        return not self.queue and self._batch is None

    async def step(self) -> None:
        """Sends one batch, or waits for something to send."""
        context = self._context
        if self._batch is None:
            if not self.queue:
                self._idle.set()
                await self._wake.wait()
                return
            await self._budget()
            self._batch = self._freeze()
        batch = self._batch
        sent = context.now()
        try:
            text, later = self._text(batch)
            context.budget.wrote("appends", context.now())
            version = await self._log.append(text, None, later)
        except Ambiguous:
            context.figures.resent += 1
            raise
        except TooLarge:
            await self._split(batch)
            return
        except NoAuth:
            context.alarm("append", "ZooKeeper refuses this server's invalidations (NoAuth): peers will be stale")
            await context.sleep(context.settings.retry_delay_max)
            raise
        context.settled("append")
        context.budget.appended(version)
        self._batch = None
        self._batch_keys = min(self._batch_keys * 2, context.settings.batch_keys)
        context.figures.appends += 1
        context.figures.append_ms.add((context.now() - sent) / 1e6)
        self._answer(batch, version)

    async def drain(self, seconds: float) -> bool:
        """Until everything is in the log; towards the end of the time what waits becomes a flush. False: time ran out."""
        until = self._context.now() + int(seconds * SECOND)
        soon = until - int(seconds * 0.4 * SECOND)
        self._hurry = True
        while not self.is_idle:
            now = self._context.now()
            if now >= until:
                return False
            if now >= soon and self.queue:
                self.queue.overflow()
            await self._idle.wait(((soon if now < soon else until) - now) / SECOND + 0.001)
        return True

    async def _budget(self) -> None:
        """Waits for this server's share of the fleet's appends a second, when there are too many."""
        context, budget = self._context, self._context.budget
        waited = False
        while (seconds := budget.wait(self._membership.boot, self._membership.live, context.now())) and not self._hurry:
            budget.waits += not waited
            waited = True
            await context.sleep(context.jittered(min(seconds, 1.0)))

    def _freeze(self) -> Batch:
        lines, mark = self.queue.take(self._batch_keys, self._context.settings.batch_bytes)
        need_ack = any(
            ticket.level is Level.APPLIED and ticket.mark <= mark and not ticket.future.done()
            for ticket in self._tickets
        )
        return Batch(lines, mark, need_ack)

    def _text(self, batch: Batch) -> tuple[Text, list[int]]:
        """The entry, the same at every try but for a delayed flush, which says how long it still has; and those times."""
        lines, later = [], []
        for text in batch.lines:
            if text[:2] == b"F ":
                seconds = -(-(int(text[2:]) * SECOND - self._context.now()) // SECOND)
                if seconds > 0:
                    later.append(seconds)
                lines.append(b"F %d" % seconds if seconds > 0 else FLUSH)
            else:
                lines.append(text)
        return Text(self._membership.name, batch.need_ack, lines), later

    async def _split(self, batch: Batch) -> None:
        """The packet limit of this ensemble is lower than ours: smaller batches, down to one line, down to a flush."""
        self._batch = None
        if len(batch.lines) == 1:
            self._context.alarm("size", "ZooKeeper takes no entry of one key: look at jute.maxbuffer")
            self.queue.put_back(batch.lines)
            self.queue.overflow()
            await self._context.sleep(self._context.settings.retry_delay_max)
        else:
            self._batch_keys = max(1, len(batch.lines) // 2)
            self.queue.put_back(batch.lines)

    def _answer(self, batch: Batch, version: int) -> None:
        self._context.trace("committed", version)
        while self._ages and self._ages[0][0] <= batch.mark:
            self._ages.popleft()
        while self._tickets and self._tickets[0].mark <= batch.mark:
            ticket = self._tickets.popleft()
            if ticket.future.done():
                continue
            if ticket.level is Level.APPLIED:
                self._acks.add(version, ticket.future)
            else:
                ticket.future.set_result(version)
        while self._deadlines and self._deadlines[0][1].done():
            self._deadlines.popleft()

    # Deadlines: every answer waits equally long, so they end in the order of the submits --------------------------------

    def expire(self, future: Future[int]) -> None:
        """From now on the future has as long as every answer has."""
        context = self._context
        self._deadlines.append((context.now() + int(context.settings.ack_timeout * SECOND), future))
        if len(self._deadlines) > self._many:  # one that waits for an hour must not keep all that were answered since
            self._deadlines = deque(each for each in self._deadlines if not each[1].done())
            self._many = max(MANY, 2 * len(self._deadlines))
        if not self._timer:
            self._timer = True
            context.runtime.call_later(context.settings.ack_timeout, self._overdue)

    def _overdue(self) -> None:
        now = self._context.now()
        while self._deadlines and (self._deadlines[0][1].done() or self._deadlines[0][0] <= now):
            _, future = self._deadlines.popleft()
            if not future.done():
                self._context.figures.unconfirmed += 1
                future.set_exception(NotConfirmed("invalidation not confirmed"))
        # An outage may be long, and clients ask again and again.
        while self._tickets and self._tickets[0].future.done():
            self._tickets.popleft()
        self._timer = bool(self._deadlines)
        if self._deadlines:
            self._context.runtime.call_later((self._deadlines[0][0] - now) / SECOND + 0.001, self._overdue)
