"""The servers and their clients: cache-aside reads and writes with leases and plain sets, over a few keys."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from mcserver.coordination.node import Node
from mcserver.coordination.ports import Change, Level, LockLost, NotConfirmed
from mcserver.coordination.settings import Settings
from tests.released import FIRST, machines

from .cache import ModelCache
from .checkers import Checkers, Violation
from .client import SimulatedZooKeeper
from .ensemble import Ensemble
from .scheduler import MS, Process, World

WORK = 1_500 * MS  # until then there are faults
LEVELS = (Level.ASYNC, Level.COMMITTED, Level.COMMITTED, Level.APPLIED, Level.APPLIED)


class Host:
    """One process of mcserver, and the clients that talk to it."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        settings: Settings,
        old: ModelCache | None,
        released: str = "",
        left: Host | None = None,
    ) -> None:
        """`released`: with the machines of that release. `left`: with the memory of one that has left the fleet (-e)."""
        self.fleet = fleet
        self.process = Process(fleet.world, name)
        self.process.hiccups = fleet.hiccups
        self.process.wakes_later = fleet.wakes_later
        self.cache = ModelCache(self.process)
        if old is not None:  # as if the items of the last boot were still there
            self.cache.items = {key: item._replace(since=0, time=0, lease=0) for key, item in old.items.items()}
        if left is not None:
            self.cache.items = {key: item._replace(boot=name) for key, item in left.cache.items.items()}
        self.place: dict[str, Any] | None = None
        self.zk = SimulatedZooKeeper(self.process, fleet.ensemble, settings.reply_deadline)
        self.released = released
        if released == FIRST:  # it takes a log of a newer format for an error of its own
            self.process.forgives = "unknown format"
        self.node = _released_node(self, settings) if released else Node(self.zk, self.process, self.cache, settings)
        self.node.context.trace = self.trace
        self.told: set[str] = (
            set(left.told) if left is not None else set()
        )  # boots whose invalidations were done in this memory
        self.told.add(self.node.membership.boot)
        self.is_live = True
        self.is_leaving = False
        self.only_reads = fleet.world.random.random() < 0.3  # such a server writes only what its rounds write
        self.in_gap = False
        self.last_applied = -1
        self.flushed_to = -1
        self.trace_applied: list[int] = []
        self.submitted: list[tuple[Change, int]] = []
        self.unanswered = 0
        self.locks_wanted = 0
        if left is not None:
            self.node.resume(left.place)
            self.flushed_to = self.last_applied = self.node.reader.applied
        self.node.start()
        self.work()

    def trace(self, kind: str, *details: Any) -> None:
        note = self.fleet.world.note
        if note:
            note(f"{self.process.name} {kind} {' '.join(map(_show, details))}")
        if kind == "gap":
            self.in_gap = True
            flushes = self.cache.flush_count
            self.process.world.after(0, None, self._after_gap, flushes)
        elif kind in ("applied", "flushed"):
            self.in_gap = self.in_gap and kind == "applied"
            (version,) = details
            checkers = (
                self.fleet.checkers
            )  # the ensemble itself went back, or the log while nobody was there who knew it
            back = kind == "flushed" and (checkers.restored or checkers.went_back)
            if version < self.last_applied and not back:
                raise Violation("P6", f"{self.process.name} applied {version:x} after {self.last_applied:x}")
            self.last_applied = version
            if kind == "flushed":
                self.flushed_to = max(self.flushed_to, version)
            else:
                self.trace_applied.append(version)
        elif kind == "bug" and not (self.process.forgives and self.process.forgives in str(details[1])):
            raise details[1]

    def _after_gap(self, flushes: int) -> None:
        """The step that found the gap is over: only a flush within it makes the cache readable again."""
        self.in_gap = self.cache.flush_count == flushes

    # Clients -------------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Reads everything, then does one more thing; again and again."""
        fleet = self.fleet
        if not fleet.busy:
            return
        for key in fleet.keys:
            item = self.cache.get(key)
            if item is not None:
                fleet.checkers.on_read(self, key, item)
        calm = self.only_reads or (fleet.world.now > WORK and fleet.world.random.random() < 0.7)
        self.act(fleet.world.random.random() * (0.65 if calm else 1.0))
        self.process.world.after(fleet.pace * (0.2 + 1.6 * fleet.world.random.random()), self.process, self.work)

    def act(self, roll: float) -> None:
        random = self.fleet.world.random
        key = random.choice(self.fleet.keys)
        if roll < 0.55:
            self.fill(key)
        elif roll < 0.65:
            if not (key.startswith(b"l:")):
                self.cache.put(key)
        elif roll < 0.66:
            for n in range(random.randrange(30) if self.process.world.now < WORK else 0):  # keys that nobody reads
                self.submit(Change("delete", b"x:%d" % n), Level.ASYNC)
        elif roll < 0.93:
            self.submit(Change("delete", key), random.choice(LEVELS))
        elif roll < 0.95:
            self.submit(Change("stale", key, 30), Level.COMMITTED)
        elif roll < 0.97:
            self.locked(b"l:1")
        elif roll < 0.98:
            self.submit(Change("prefix", b"k:"), random.choice(LEVELS))
        elif roll < 0.985:
            self.submit(Change("refresh", b"k:", 30), random.choice(LEVELS))
        elif roll < 0.99:
            self.submit(Change("flush", b"", 1), Level.COMMITTED)
        elif roll < 0.995:
            self.submit(Change("flush"), random.choice(LEVELS))
        elif not self.is_leaving:
            self.watch(self.node.flush(b"k:"), [Change("prefix", b"k:")], self.process.world.stamp(), Level.APPLIED)

    def fill(self, key: bytes) -> None:
        """A miss under a lease: the database is read, then the item is stored if the lease still stands."""
        if self.cache.get(key) is None:
            lease = self.cache.lease(key)
            if lease is not None:
                delay = self.fleet.world.random.random() ** 4 * 300 * MS
                self.process.world.after(delay, self.process, self.cache.fill, key, lease)

    def submit(self, change: Change, level: Level) -> None:
        """Changes the database, then this cache, then tells the peers."""
        invoked = self.process.world.stamp()
        kind, key, ttl = change
        if kind == "delete":
            self.cache.delete(key)
        elif kind == "stale":
            self.cache.mark_stale(key, ttl)
        elif kind == "prefix":
            self.cache.flush_prefix(key)
        elif kind == "refresh":
            self.cache.refresh_prefix(key, ttl)
        elif not ttl:
            self.cache.flush()
        if self.process.world.note:
            self.process.world.note(f"{self.process.name} submits {kind} {key.decode()} {level.value}")
        self.submitted.append((change, invoked))
        self.watch(self.node.submit([change], level), [change], invoked, level)
        limit = self.node.context.settings.queue_keys + 4  # what a flush leaves: itself, prefixes, a delayed one
        if len(self.node.publisher.queue) > limit:
            raise Violation("P12", f"{self.process.name} queues {len(self.node.publisher.queue)} lines")

    def watch(self, answer: Any, changes: list[Change], invoked: int, level: Level) -> None:
        if answer is None:
            return
        self.unanswered += 1

        def done() -> None:
            self.unanswered -= 1
            if answer.error is None:
                self.fleet.checkers.on_confirmed(self, changes[0], invoked, level is Level.APPLIED)
            elif answer.error is not None and not isinstance(answer.error, NotConfirmed):
                raise answer.error

        answer.add_done_callback(done)

    def locked(self, key: bytes) -> None:
        """A locked write: stores the key here when its turn comes."""
        if self.process.world.note:
            self.process.world.note(f"{self.process.name} wants to write {key.decode()}")
        self.locks_wanted += 1
        answer: Any = self.node.locked(key, lambda: self.write_locked(key))

        def done() -> None:
            self.locks_wanted -= 1
            if answer.error is not None and not isinstance(answer.error, LockLost):
                raise answer.error

        answer.add_done_callback(done)

    def write_locked(self, key: bytes) -> None:
        holder = self.fleet.checkers.locked.get(key)
        session = self.fleet.ensemble.sessions[self.zk.session]
        if holder != self.node.membership.boot and not session.forced and self.fleet.checkers.restored == 0:
            raise Violation("LOCK", f"{self.process.name} writes {key!r}, but {holder} has committed since")
        if self.process.world.note:
            self.process.world.note(f"{self.process.name} writes {key.decode()}")
        self.cache.put(key)

    # Fate ----------------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9: no more steps; the session lives on until it times out."""
        self.is_live = False
        self.process.killed = True
        self.zk.die()
        if self.fleet.world.note:
            self.fleet.world.note(f"{self.process.name} is killed")

    def leave(self) -> None:
        self.is_leaving = True

        async def go() -> None:
            await self.node.leave(0.5)
            self.place = self.node.place() if not self.released else None
            self.is_live = False

        self.process.spawn(go(), "leave")


def _show(detail: Any) -> str:
    if isinstance(detail, int) and 0 <= detail < 1 << 60:
        return f"{(detail + 1) >> 32}:{((detail + 1) & 0xFFFFFFFF) - 1}"
    return str(detail) if not isinstance(detail, Exception) else repr(detail)


class Fleet:
    """Everything in one world."""

    is_uneven = False  # each server has options of its own
    policies: tuple[str, ...] = ("miss",)  # of --on-stale
    wakes_later = False  # who waits for an answer goes on some events behind it

    def __init__(self, world: World) -> None:
        random = world.random
        self.world = world
        self.keys = [b"k:1", b"k:2", b"m:1", b"l:1"]
        self.hiccups = random.choice((0.0, 0.0, 0.0005, 0.005))
        self.pace = random.choice((20, 40, 80)) * MS
        self.busy = True
        self.released = 0.0  # this share of the servers that start has the machines of an earlier release
        self.release = FIRST  # which
        self.ensemble = Ensemble(world, random.choice((1, 2, 3)), session_timeout=0.4)
        self.checkers = Checkers(self)
        self.ensemble.on_commit = self.checkers.on_commit
        self.hosts: list[Host] = []
        self.settings = Settings(
            max_stale=0.4,
            ack_timeout=1.0,
            soft_prefixes=(),
            flush_prefixes=random.choice(((), (b"k:", b"m:"))),
            reply_deadline=0.1,
            batch_keys=random.choice((2, 6)),
            queue_keys=random.choice((4, 12, 100)),
            slice_keys=1,
            read_ahead=3,
            retry_delay=0.02,
            retry_delay_max=0.1,
            trim_every=0.3,
            write_rate=300.0,
            keep_seconds=0.3,
            keep_entries=6,
            cap_entries=random.choice((15, 60)),
            cap_bytes=random.choice((800, 1 << 20)),
            trim_batch=5,
            rotate_at=random.choice((6, 25, 1 << 28)),
            member_margin=0.1,
            direct_max=random.choice((0, 0, 64)),
            cell_size=random.choice((1, 2)),
            lock_buckets=2,
            lock_window=0.1,
        )

    def _options(self) -> Settings:
        """Those of the next server."""
        choice = self.world.random.choice
        if len(self.policies) > 1:
            return replace(self.settings, on_stale=choice(self.policies))
        if not self.is_uneven:
            return self.settings
        return replace(
            self.settings,
            max_stale=choice((0.25, 0.4, 0.55)),
            ack_timeout=choice((0.3, 1.0)),
            reply_deadline=choice((0.1, 0.25)),
            flush_prefixes=choice(((), (b"k:",), (b"k:", b"m:"))),
            batch_keys=choice((1, 6)),
            queue_keys=choice((4, 100)),
            write_rate=self.settings.write_rate * choice((0.7, 2.0)),
            lock_window=choice((0.05, 0.1)),
        )

    def live(self) -> list[Host]:
        return [host for host in self.hosts if host.is_live and not host.is_leaving]

    def start(self, node: str, old: ModelCache | None = None, left: Host | None = None) -> Host:
        boots = sum(host.node.context.settings.node_name == node for host in self.hosts)
        released = self.released > 0 and self.world.random.random() < self.released
        host = Host(
            self,
            f"{node}.{boots}",
            _named(self._options(), node),
            old,
            self.release if released else "",
            None if released else left,
        )
        self.hosts.append(host)
        if self.world.note:
            self.world.note(f"{host.process.name} starts")
        return host


def _released_node(host: Host, settings: Settings) -> Node:
    """A node of an earlier release, which may know other settings: those keep their defaults."""
    earlier = machines(host.released)
    ours = vars(settings)
    known = {field.name: ours[field.name] for field in fields(earlier.Settings) if field.name in ours}
    node: Node = earlier.Node(host.zk, host.process, host.cache, earlier.Settings(**known))
    return node


def _named(settings: Settings, node: str) -> Settings:
    return replace(settings, node_name=node, address=f"{node}:11211")
