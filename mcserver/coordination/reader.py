"""Applies the log to the cache, in order and without a gap, and earns the certificate.

A round begins with a write to this server's own ephemeral znode. ZooKeeper orders that write after everything committed
before it, and the reads behind it on the same connection see all of that; so when the reader has then applied the log to its
head, the cache is as fresh as the moment at which the round began. Rules:

* `next` is the sequence to apply next; it moves by one for an entry applied, or to behind the head for a flush. When the log
  does not reach back to `next`, or an entry is missing, or the log is another, was made again or went back, the cache is
  flushed at once.
* The head is read before the flush that covers it, never after.
* Watches and the fast path move `next`, never the certificate. A round that met an error or a change of the connection
  gives none.
* Entries of this boot are skipped: their effect was here, and earlier. A new session of the same boot goes on at `next`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from .context import Context, Signal
from .entry import decode
from .gate import Gate
from .layout import LATER_MAX, UNKNOWN, Floor, Meta, boot_of, head_of, is_log, version
from .membership import JITTER_FROM, Membership
from .ports import SECOND, Change, ConnectionLoss, Handle, Malformed, NoNode, Stat, ZooKeeperError
from .trim import History

log = logging.getLogger("mcserver.coordination")

T = TypeVar("T")
NUMBER_MOST, SEQUENCE_MOST = 1 << 62, 1 << 31
SEVERAL = 0.03  # s; in a gap of so long several entries come
FAST_STEPS = 4  # entries read one by one before a look at the head
LATER_KNOWN = (
    4 * LATER_MAX
)  # delayed flushes: four times what the log's record holds, so those in it are never done twice
# What has come of a delayed flush: nothing; that of one second before, or nothing since it was seen later; all.
WAITS, SOON, DONE = "waits", "soon", "done"


def is_number(value: object) -> bool:
    """Whether somebody else's JSON holds a count here: no bool, from 0 to below NUMBER_MOST."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < NUMBER_MOST


class Reader:
    """One task: rounds when they are due, the fast path in between."""

    def __init__(self, context: Context, gate: Gate, membership: Membership) -> None:
        self._context = context
        self._gate = gate
        self._membership = membership
        self._period = int(context.settings.max_stale / 4 * SECOND)
        self._due = 0  # when the next round is
        self._announced = False  # our record says what is no longer so
        self._ack_wanted = False  # someone waits to read in our record what we have applied
        self._held_back = False  # and has to wait for our share of the fleet's writes
        self._behind = True  # a look at the head is needed
        self._woken = False  # the next entry exists
        self._looked = 0  # when it was looked for, or a watch was followed, last
        self._armed = ""  # the path of the next entry, while a watch is on it
        self._meta_armed = False
        self._verified = 0  # the connection on which the entry before `next` was found unchanged, or flushed for
        self._last: tuple[int, int, int] | None = None  # the entry before `next`: sequence, czxid, ctime (0: not known)
        self._born = (
            0  # czxid of the log, as seen last: one that is made again has the same versions, and other entries
        )
        self._slice = 0  # changes applied since the last pause
        self._later: dict[int, str] = {}  # delayed flushes that were seen, by the time at which they are due
        self._later_timer: Handle | None = None
        self._later_at = 0  # when it ends, by our clock
        self._kept_later: list[int] = []  # ... that another process saw, and did not carry out
        self.on_need_ack: Callable[[int], None] = lambda version: None
        # `version` is None when the record may have changed since.
        self.on_meta: Callable[[Meta, int | None], None] = lambda meta, version: None
        self.on_meta_changed: Callable[[], None] = lambda: None
        self.on_back: Callable[[], None] = lambda: None  # versions have fallen: those of others are of another log
        self.on_remade: Callable[[str], None] = lambda log: None
        self.measure: Callable[[], tuple[int, ...]] = tuple  # this server's figures, as its record is to show them
        self.wake = Signal(context.runtime)
        self.log: str | None = None
        self.gen = 0
        self.next = 0  # only with a log
        self.head = UNKNOWN  # version of the last head seen
        self.applied = UNKNOWN
        self.bytes = 0  # of all entries read
        self.history = History(context.settings)

    @property
    def lag(self) -> int:
        """Entries of the current log up to the last head seen that are still to be applied."""
        return 0 if self.log is None else max(0, self.head - version(self.gen, self.next - 1))

    # From one process to the next ----------------------------------------------------------------------------------------

    def place(self) -> dict[str, Any] | None:
        """Where the cache stands in the log, in terms of JSON; None if nothing proves it."""
        if self.log is None or (self._last is None and self.next > 0):
            return None
        return {
            "log": self.log,
            "gen": self.gen,
            "next": self.next,
            "last": self._last,
            "later": [due for due, state in self._later.items() if state is not DONE] + self._kept_later,
            "done": [due for due, state in self._later.items() if state is DONE],
        }

    def resume(self, place: Mapping[str, Any]) -> bool:
        """The cache is as a process left it that stood there: the first round replays the log from there, or flushes.

        False, and nothing has changed, if it is no place.
        """
        log, last = place.get("log"), place.get("last")
        numbers = [place.get("gen"), place.get("next")]
        lists = [place.get("later"), place.get("done")]
        if not (isinstance(log, str) and is_log(log) and all(is_number(each) for each in numbers)):
            return False
        if not all(isinstance(each, list) and all(is_number(due) for due in each) for each in lists):
            return False
        if last is not None and not (
            isinstance(last, (list, tuple)) and len(last) in (2, 3) and all(is_number(each) for each in last)
        ):
            return False
        if (last is None and place["next"] > 0) or max(place["next"], place["gen"]) > SEQUENCE_MOST:
            return False
        self.log, self.gen, self.next = log, place["gen"], place["next"]
        # An earlier release hands on no time.
        self._last = None if last is None else (last[0], last[1], last[2] if len(last) > 2 else 0)
        self._later = dict.fromkeys(place["done"], DONE)
        self._kept_later = list(place["later"])
        self.applied = self.head = version(self.gen, self.next - 1)
        return True

    # When ----------------------------------------------------------------------------------------------------------------

    def session_changed(self) -> None:
        """Watches are gone: look at everything again, with a round."""
        self._forget_watches()
        self._due = 0
        self.wake.set()

    async def step(self) -> None:
        """Waits for its time or for a watch, then runs one round or the fast path."""
        try:
            if not self._membership.is_registered:
                await self._membership.register()
                self._due = 0
            now = self._context.now()
            rest = (self._due - now) / SECOND
            held = self._hold_back(now) if self._ack_wanted else rest
            if rest <= 0 or self._announced or held <= 0:
                await self._round(certify=True)
            elif self._behind:
                self._looked = now
                await self._round(certify=False)
            elif self._woken and (early := self._early(now)) > 0:
                await self._context.sleep(early)
                self._behind = self._gap >= SEVERAL  # then a look at the head costs less than one for each entry
                self._looked = 0
            elif self._woken:
                self._looked = now
                await self._fast()
            else:
                await self.wake.wait(min(rest, held))
        except ZooKeeperError:
            self._forget_watches()
            raise

    def announce(self) -> None:
        """Writes this server's record soon: its state has changed."""
        self._announced = True
        self.wake.set()

    def _hold_back(self, now: int) -> float:
        """Seconds until an acknowledgement may go; the next certificate is one, too."""
        context = self._context
        seconds = context.budget.wait_to_acknowledge(self._membership.live, now)
        context.budget.held_back += bool(seconds) and not self._held_back
        self._held_back = bool(seconds)
        return context.jittered(seconds)

    def _early(self, now: int) -> float:
        """Seconds for which a woken reader waits, in a large fleet and a flow of entries: then it reads several at once.

        After a rest it never waits. So what one append costs ZooKeeper is little more than one read for each member.
        """
        return self._gap - (now - self._looked) / SECOND

    @property
    def _gap(self) -> float:
        """Seconds between two looks in a flow of entries."""
        settings, live = self._context.settings, self._membership.live
        return min(live / settings.trips, settings.max_stale / 16) if live > JITTER_FROM else 0.0

    def _forget_watches(self) -> None:
        self._armed, self._meta_armed, self._behind = "", False, True

    # A round -------------------------------------------------------------------------------------------------------------

    async def _round(self, certify: bool) -> None:
        while not await self._pass(certify):
            pass

    async def _pass(self, certify: bool) -> bool:
        """One pass over write, meta, log and entries; True when it came to the head of the current log."""
        zk, layout, membership = self._context.zk, self._context.layout, self._membership
        connection, began = zk.connection, self._context.now()
        if certify:
            self._context.budget.wrote("certificates" if began >= self._due else "acknowledgements", began)
            self._announced = self._ack_wanted = False
            membership.figures = self.measure()
            write = zk.set(layout.node(membership.name), membership.record(self.applied))
        meta_reply = self._ask_meta()
        log_reply = zk.get(layout.log(self.log)) if self.log else None
        last_reply = self._ask_last(connection)
        if certify:
            try:
                written = await write
            except NoNode:
                membership.forget()
                raise
            self._context.figures.round_trip_ms = (self._context.now() - began) / 1e6
            self._context.compare_clocks(began, written.mtime)
            while self._kept_later:
                self._flush_later(self._kept_later.pop())
            self._see_what_is_due()
        record, stat = await meta_reply
        named = stat.mzxid
        meta = self._read(Meta.decode, layout.meta, record)
        membership.set_format(meta.format)
        self.on_meta(meta, stat.version if self._meta_armed else None)
        if log_reply is None or meta.log != self.log:
            await self._move(meta, connection)
            return False
        try:
            record, stat = await log_reply
        except NoNode:
            self._lose(f"the log {self.log} is gone")
            self.log = None
            raise
        kept = self._read(Floor.decode, layout.log(str(self.log)), record)
        await self._catch_up(kept, stat, named, last_reply, connection)
        if zk.connection != connection:
            return False
        self._verified = connection
        self._behind = False
        if certify:
            self._certify(began)
        await self._arm()
        return True

    async def _catch_up(
        self, kept: Floor, stat: Stat, named: int, last_reply: Awaitable[Stat | None] | None, connection: int
    ) -> None:
        """To the head of the log: entry by entry, or with one flush where it is not known what was in between.

        named: the zxid at which meta was written that names the log.
        """
        head, floor = head_of(stat), kept.floor
        self.head = version(self.gen, head)
        self._context.budget.unlogged = float(kept.unlogged)
        for due in kept.later:
            self._flush_later(due)
        unchanged = last_reply is None or self._is_unchanged(await last_reply)
        if self._is_remade(stat, named):
            self.on_remade(str(self.log))
            self._skip_to(head, f"the log {self.log} was deleted and made again")
        elif not floor <= self.next <= head + 1:
            self._skip_to(head, f"the log holds {floor} to {head}, this server needs {self.next}")
        elif not unchanged:
            self._skip_to(head, f"entry {self.next - 1}, the last one seen, is gone, or another one")
        else:
            await self._apply_to(head, connection)

    def _certify(self, began: int) -> None:
        membership = self._membership
        self._gate.certify(began)
        # Some tenth earlier or later by chance, so that a fleet that came back together does not go on in step.
        first = membership.synced_session != self._context.zk.session
        chance = self._context.runtime.random.random()
        self._due = began + int(self._period * (0.25 + 0.75 * chance if first else 0.9 + 0.1 * chance))
        self.history.add(began, self.applied, self.bytes)
        if not membership.is_verified:
            self.announce()
        membership.prove()

    def _read(self, decode: Callable[[bytes], T], path: str, data: bytes) -> T:
        """A record, or Malformed: then there is no certificate until somebody, the leader above all, has mended it."""
        try:
            return decode(data)
        except Malformed as error:
            self._context.unreadable(path, data, error)
            raise

    def _ask_meta(self) -> Awaitable[tuple[bytes, Stat]]:
        if self._meta_armed:
            return self._context.zk.get(self._context.layout.meta)
        self._meta_armed = True
        return self._context.zk.get(self._context.layout.meta, self._meta_fired)

    def _meta_fired(self) -> None:
        self._meta_armed = False
        self._behind = True
        self.on_meta_changed()
        self.wake.set()

    def _ask_last(self, connection: int) -> Awaitable[Stat | None] | None:
        """On a new connection: is the entry that we saw last still the same? In an ensemble restored from a backup it is not:
        its zxid may be, since the epochs of both begin alike, but not its time as well.

        The leader keeps it for every live server. Where it is gone nothing tells whether the log is the one that we know.
        """
        if self.log is None or self.next == 0 or self._verified == connection:
            return None
        return self._context.zk.exists(self._context.layout.entry(self.log, self.next - 1))

    def _is_unchanged(self, stat: Stat | None) -> bool:
        if stat is None or self._last is None:
            return False
        _, czxid, ctime = self._last
        return stat.czxid == czxid and ctime in (0, stat.ctime)

    def _is_remade(self, stat: Stat, named: int = 0) -> bool:
        """Whether the log is not the znode that it was when it was looked at last. At the first look: whether it was made after
        meta was written (`named`: its zxid), for a leader does both in one transaction.
        """
        before, self._born = self._born, stat.czxid
        return before != stat.czxid if before else 0 < named < stat.czxid

    # Entries -------------------------------------------------------------------------------------------------------------

    async def _apply_to(self, head: int, connection: int) -> None:
        """Applies `next` to `head` in order. A missing entry is a gap."""
        zk, layout = self._context.zk, self._context.layout
        while self.log is not None and self.next <= head:
            last = min(head, self.next + self._context.settings.read_ahead - 1)
            wanted = range(self.next, last + 1)
            entries = await zk.gets([layout.entry(self.log, sequence) for sequence in wanted])
            if zk.connection != connection:
                raise ConnectionLoss("a lagging server may have answered, or an ensemble with another log")
            for sequence, entry in zip(wanted, entries, strict=True):
                if entry is None:
                    self._context.figures.holes += 1
                    self._skip_to(head, f"entry {sequence} is missing")
                    return
                await self._apply(sequence, *entry)

    async def _apply(self, sequence: int, data: bytes, stat: Stat) -> None:
        entry = decode(data)
        if entry is None:
            self._context.figures.malformed += 1
            log.warning("entry %d of %s is of an unknown format: the cache is flushed", sequence, self.log)
            self._flush()
        elif not self._membership.is_own(entry.name):
            for change in entry.changes:
                try:
                    self._carry_out(change, stat)
                except Exception:
                    log.exception("entry %d of %s can't be carried out: the cache is flushed", sequence, self.log)
                    self._context.figures.malformed += 1
                    self._flush()
                self._slice += 1
                if self._slice >= self._context.settings.slice_keys:
                    self._slice = 0
                    await self._context.sleep(0)
            self._ack_wanted |= entry.need_ack and not self._membership.is_large
        if entry is not None:
            writer = boot_of(entry.name)
            direct = entry.need_ack and not self._membership.is_large
            acknowledgements = max(0, self._membership.live - 1) if direct else 0
            self._context.budget.saw(writer, acknowledgements, self._context.now(), version(self.gen, sequence))
        self.next = sequence + 1
        self._last = (sequence, stat.czxid, stat.ctime)
        self.applied = version(self.gen, sequence)
        self.head = max(self.head, self.applied)
        self.bytes += len(data)
        if entry is not None and entry.need_ack:
            self.on_need_ack(self.applied)
        self._context.trace("applied", self.applied)

    def _carry_out(self, change: Change, stat: Stat) -> None:
        kind, key, ttl = change
        cache = self._context.cache
        if kind == "delete":
            soft = self._context.settings.soft_prefixes
            if soft and key.startswith(soft):
                cache.mark_stale(key, self._context.settings.soft_ttl)
            else:
                cache.delete(key)
        elif kind == "stale":
            cache.mark_stale(key, ttl)
        elif kind == "flush" and ttl:
            self._flush_later(stat.ctime + ttl * 1000)
        elif kind == "flush":
            self._flush()
        elif kind == "prefix":
            self._context.figures.flushes += 1
            cache.flush_prefix(key)
        else:
            cache.refresh_prefix(key, ttl)

    def _flush(self) -> None:
        """Empties the cache now. What is to come at its time still comes."""
        self._context.figures.flushes += 1
        self._context.cache.flush()

    def _flush_later(self, due: int) -> None:
        """Empties the cache at `due`, a time of ZooKeeper's leader in ms, once; as memcached does, also one second before.

        No other flush and no gap takes its place; of many orders the last LATER_MAX stay. One whose time has passed is done now.
        """
        known = self._later.pop(due, None)
        self._later[due] = known or (WAITS if self._context.until(due) > 1 else SOON)  # as the newest
        if known:
            return
        while len(self._later) > LATER_KNOWN:
            del self._later[next(iter(self._later))]
        self._arm_later(self._look_at(due))

    def _look_at(self, due: int) -> float:
        """Carries out what has come of a delayed flush; returns in how many seconds to look again (infinity: never)."""
        seconds, state = self._context.until(due), self._later[due]
        if state is DONE:
            return math.inf
        if seconds <= 0 or (state is WAITS and seconds <= 1):
            self._later[due] = SOON if seconds > 0 else DONE
            self._flush()
        return math.inf if seconds <= 0 else seconds - 1 if state is WAITS and seconds > 1 else seconds

    def _look_at_all(self) -> None:
        """One timer is for the next of them, however many there are."""
        if self._later_timer is not None:
            self._later_timer.cancel()
            self._later_timer = None
        self._arm_later(min(map(self._look_at, self._later), default=math.inf))

    def _arm_later(self, seconds: float) -> None:
        if seconds == math.inf:
            return
        at = self._context.now() + int(seconds * SECOND)
        if self._later_timer is None or at < self._later_at:
            if self._later_timer is not None:
                self._later_timer.cancel()
            self._later_at, self._later_timer = at, self._context.runtime.call_later(seconds, self._look_at_all)

    def _see_what_is_due(self) -> None:
        """Before a certificate: of a machine that slept the timer is late, and the clock may be another leader's."""
        if self._later:
            self._look_at_all()

    # The fast path -------------------------------------------------------------------------------------------------------

    async def _fast(self) -> None:
        """The watch on the next entry fired: that entry, and a watch on the one behind it, in one trip."""
        zk, layout = self._context.zk, self._context.layout
        connection = zk.connection
        self._woken = False
        for _ in range(FAST_STEPS):
            if self.log is None or zk.connection != connection:
                break
            sequence = self.next
            reply = zk.get(layout.entry(self.log, sequence))
            behind = self._ask_next(layout.entry(self.log, sequence + 1))
            try:
                data, stat = await reply
            except NoNode:
                break
            await self._apply(sequence, data, stat)
            if await behind is None:
                return
        self._armed = ""
        self._behind = True

    async def _arm(self) -> None:
        """Sets the watch on the next entry, and remembers the one before it if a flush has skipped it."""
        if self.log is None:
            return
        path = self._context.layout.entry(self.log, self.next)
        before = None
        if self._last is None and self.next > 0:
            before = self._context.zk.exists(self._context.layout.entry(self.log, self.next - 1))
        if self._armed != path and await self._ask_next(path) is not None:
            self._woken = True
        if before is not None:
            stat = await before
            if self._context.zk.connection != self._verified:
                stat = None  # perhaps of an ensemble with another log
            self._last = (self.next - 1, stat.czxid, stat.ctime) if stat else None

    def _ask_next(self, path: str) -> Awaitable[Stat | None]:
        def fired() -> None:
            if self._armed == path:
                self._armed = ""
                self._woken = True
                self.wake.set()

        self._armed = path
        return self._context.zk.exists(path, fired)

    # Another log, or a gap -----------------------------------------------------------------------------------------------

    async def _move(self, meta: Meta, connection: int) -> None:
        """Meta names another log: to its beginning if ours was sealed in its favour, else to its end, with a flush."""
        if self.log is not None and meta.previous == self.log and await self._finish(connection):
            self.log, self.gen, self.next, self._last, self._born = meta.log, meta.gen, 0, None, 0
            self._context.trace("rotated", meta.gen)
            return
        if self.log is not None:
            self._lose(f"the log is {meta.log}, which does not continue {self.log}")
            self.log = None
        path = self._context.layout.log(meta.log)
        data, stat = await self._context.zk.get(path)
        kept = self._read(Floor.decode, path, data)
        self._flush()
        for due in kept.later:
            self._flush_later(due)
        self.log, self.gen, self._born = meta.log, meta.gen, stat.czxid
        self._stand_at(head_of(stat))
        self._verified = connection

    async def _finish(self, connection: int) -> bool:
        """Applies the rest of our log, which is sealed; False when it does not reach back to us."""
        zk, layout = self._context.zk, self._context.layout
        reply, last_reply = zk.get(layout.log(str(self.log))), self._ask_last(connection)
        try:
            record, stat = await reply
        except NoNode:
            return False
        if zk.connection != connection:
            raise ConnectionLoss("what a new connection shows may be older than the seal")
        try:
            head, floor = head_of(stat), Floor.decode(record).floor
        except Malformed:
            return False
        unchanged = last_reply is None or self._is_unchanged(await last_reply)
        if self._is_remade(stat) or not (unchanged and floor <= self.next <= head + 1):
            return False
        await self._apply_to(head, connection)
        return True

    def _skip_to(self, head: int, why: str) -> None:
        """A gap below a known head: the flush stands for all entries up to it."""
        self._lose(why)
        self._stand_at(head)

    def _stand_at(self, head: int) -> None:
        """A flush was as good as all entries up to here. For some of them somebody may wait until we say so."""
        before, self.applied = self.applied, version(self.gen, head)
        self.head, self.next, self._last = self.applied, head + 1, None
        if self.applied < before:
            self.on_back()
        self._ack_wanted |= not self._membership.is_large
        self.on_need_ack(self.applied)
        self._context.trace("flushed", self.applied)

    def _lose(self, why: str) -> None:
        self._context.figures.gaps += 1
        self._context.trace("gap", self.applied)
        log.warning("invalidations were missed (%s): the cache is flushed", why)
        self._flush()
