"""A fleet of any size: the server's own machines in the simulated world, with ZooKeeper's costs counted and timed.

The service times are those of a real ensemble, measured by `calibrate` (`SERVICE`: the last measurement; `--calibrate` makes
one for this run). `compare` holds the model against real members on this machine, where everything shares two processors.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

from mcserver.coordination.ports import Change, Check, Create, Level
from mcserver.coordination.settings import Settings
from tests.coordination.simulator.cache import ModelCache
from tests.coordination.simulator.client import SimulatedZooKeeper
from tests.coordination.simulator.costs import CostedEnsemble, Service
from tests.coordination.simulator.fleet import Fleet, Host
from tests.coordination.simulator.run import remember_what_is_pure
from tests.coordination.simulator.scheduler import MS, SECOND, Process, World

from .stage import percentile

# The lowest of five measurements (of a later day: `more`, above what was found since; `event` and `tell`, the highest of eleven).
# ZooKeeper 3.8.0, Debian's Java, -XX:TieredStopAtLevel=1, a busy virtual machine, fsync.
SERVICE = Service(
    read=173.3,
    more=2.5,
    forward=183.3,
    write=136.7,
    apply=113.3,
    event=16.6,
    tell=5.5,
    call=143.4,
    hop=430.3,
    commit=1316.1,
)
PROCESSORS = 4  # of each of ZooKeeper's servers
SETTLE = 25  # s of a world until it is measured
RATES = (100, 1_000, 20_000)  # deletes a second, of the whole fleet
LOOK = 0.05  # s between two looks whether everybody is back
AWAY = 15.0  # s; longer than a session lives, and than a certificate
BARE_RATE = 20  # bare appends a second beside a flow


class NoCache:
    """Holds nothing: what an invalidation costs a real cache is not what is measured here."""

    def delete(self, key: bytes) -> bool:
        return False

    def mark_stale(self, key: bytes, ttl: int) -> bool:
        return False

    def flush(self) -> None: ...
    def flush_prefix(self, prefix: bytes) -> None: ...
    def refresh_prefix(self, prefix: bytes, ttl: int) -> None: ...
    def set_gate(self, policy: str | None, fresh_until: int = 0) -> None: ...


class BareWriter:
    """A session that appends to a list of its own, which nobody watches: what an append needs on this ensemble, at this time."""

    def __init__(self, world: World, ensemble: CostedEnsemble, number: int) -> None:
        self._process = Process(world, f"bare{number}")
        self._zk = SimulatedZooKeeper(self._process, ensemble, 30.0)
        self._path = f"/bare{number}"
        self.taken: list[float] = []  # ms
        self.asked = 0
        world.after(SECOND, self._process, self._process.spawn, self._make(), "make")  # when it is connected

    async def _make(self) -> None:
        await self._zk.create(self._path)

    def append(self) -> None:
        self.asked += 1
        self._process.spawn(self._append(), "append")

    async def _append(self) -> None:
        began = self._process.world.now
        await self._zk.multi([Check(self._path, -1), Create(f"{self._path}/e-", b"y" * 100, sequence=True)])
        self.taken.append((self._process.world.now - began) / MS)


class Simulated(Fleet):
    """`members` servers that join within some seconds, on an ensemble with costs."""

    def __init__(
        self, members: int, service: Service, *, writes: float, servers: int = 3, shared: int = 0, hosts: bool = True
    ) -> None:
        """`shared`: so many processors for everything; with `hosts` for ZooKeeper's servers alone."""
        super().__init__(World(members))
        self.hiccups, self.busy = 0.0, False
        self.ensemble: CostedEnsemble = CostedEnsemble(
            self.world, service, servers=servers, processors=PROCESSORS, timeout=10.0, shared=shared, hosts=hosts
        )
        self.settings = Settings(write_rate=writes)
        self.bare = [BareWriter(self.world, self.ensemble, number) for number in range(servers)]
        for number in range(members):
            self.world.at(number * 4 * SECOND // members, None, self.start, f"n{number}")
        self.run(SETTLE)

    def start(self, node: str, old: ModelCache | None = None, left: Host | None = None) -> Host:
        host = super().start(node, old, left)
        host.node.context.cache = NoCache()
        host.node.context.trace = lambda kind, *details: None
        return host

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * SECOND))

    def until(self, done: Any, most: float = 60.0) -> float:
        """ms until that holds, looked at each 0.2 ms; `most` seconds."""
        began = self.world.now
        while not done() and self.world.now - began < most * SECOND:
            self.world.run(self.world.now + MS // 5)
        return (self.world.now - began) / MS

    def delete(self, host: Host, key: bytes, level: Level = Level.COMMITTED) -> Any:
        return host.node.submit([Change("delete", key)], level)


class Flow(NamedTuple):
    """What a second costs ZooKeeper, of all servers; and what a delete took, in ms."""

    reads: float
    writes: float
    events: float
    sent: float  # MB
    busiest: float  # share of its processors that the busiest server works
    p50: float
    p99: float
    unconfirmed: float  # share
    bare: float  # what a bare append took beside it, p50, ms


def flow(fleet: Simulated, rate: int, seconds: float) -> Flow:
    """`rate` deletes a second, evenly over the members, each of another key."""
    began, before = fleet.world.now, fleet.ensemble.count()
    worked = [server.cpu.worked for server in fleet.ensemble.costed]
    taken: list[float] = []
    failed = [0]
    live = [host for host in fleet.hosts if host.is_live]
    for writer in fleet.bare:
        writer.taken.clear()
    bare = int(BARE_RATE * seconds) if rate else 0
    for number in range(bare):
        fleet.world.at(
            began + int((number + 0.5) * seconds * SECOND / bare), None, fleet.bare[number % len(fleet.bare)].append
        )
    many = max(1, rate // 2000)  # a pipeline of deletes is one submit

    def submit(number: int) -> None:
        host, sent = live[number % len(live)], fleet.world.now
        answer: Any = host.node.submit(
            [Change("delete", b"key:%d:%d" % (number, each)) for each in range(many)], Level.COMMITTED
        )

        def done() -> None:
            failed[0] += answer.error is not None
            taken.append((fleet.world.now - sent) / MS)

        answer.add_done_callback(done)

    count = int(rate * seconds) // many
    for number in range(count):
        fleet.world.at(began + int(number * seconds * SECOND / max(1, count)), None, submit, number * 7919)
    fleet.run(seconds)
    after, span = fleet.ensemble.count(), seconds
    busy = [server.cpu.worked - was for server, was in zip(fleet.ensemble.costed, worked, strict=True)]
    for _ in range(60):  # until everything is answered, or was not confirmed in time
        if len(taken) < count:
            fleet.run(0.1)
    return Flow(
        (after.reads - before.reads) / span,
        (after.writes - before.writes - bare) / span,
        (after.events - before.events) / span,
        (after.sent - before.sent) / span / 1e6,
        max(busy) / (span * SECOND * PROCESSORS),
        percentile(taken, 0.5) if taken else 0.0,
        percentile(taken, 0.99) if taken else 0.0,
        failed[0] / max(1, len(taken)),
        median([took for writer in fleet.bare for took in writer.taken] or [0.0]),
    )


class Alone(NamedTuple):
    """Deletes one by one, in an idle fleet; ms."""

    committed: float
    gone: float  # at the last member
    applied: float
    bare: float  # an append that nobody watches


def alone(fleet: Simulated, rounds: int = 5) -> Alone:
    committed, gone, applied = [], [], []
    for writer in fleet.bare:
        writer.taken.clear()
    for number in range(rounds):
        fleet.bare[number % len(fleet.bare)].append()
        fleet.run(0.2)
        host = fleet.hosts[number * 37 % len(fleet.hosts)]
        answer = fleet.delete(host, b"c%d" % number)
        began = fleet.world.now
        committed.append(fleet.until(answer.done))
        version = answer.result

        def everywhere(version: int = version) -> bool:
            return all(each.node.reader.applied >= version for each in fleet.hosts if each.is_live)

        fleet.until(everywhere)
        gone.append((fleet.world.now - began) / MS)
        fleet.run(0.3 + 0.1 * number)
        answer = fleet.delete(host, b"a%d" % number, Level.APPLIED)
        applied.append(fleet.until(answer.done))
        fleet.run(0.2)
    bare = [took for writer in fleet.bare for took in writer.taken]
    return Alone(median(committed), median(gone), median(applied), median(bare))


class Lost(NamedTuple):
    """Sessions that end at once: until all are back, fresh, and seen by all; and what it costs ZooKeeper's servers together."""

    seconds: float
    reads: int
    writes: int
    busiest: float  # share of its processors that the busiest server works, of the whole time
    peak: float  # the same, of its busiest second
    oldest: float  # s; the oldest certificate of a member meanwhile


def lose(fleet: Simulated, count: int, away: float = 0.0) -> Lost:
    """The sessions of so many members are closed by force; `away`: ZooKeeper itself is gone before, for so many seconds."""
    live = [host for host in fleet.hosts if host.is_live]
    ensemble = fleet.ensemble
    if away:
        ensemble.writable = False
        for server in ensemble.servers:
            server.stop()
        fleet.run(away)
        ensemble.writable = True
        for server in ensemble.servers:
            server.start()
    before, began = ensemble.count(), fleet.world.now
    for host in live[:count]:
        session = ensemble.sessions.get(host.zk.session)
        assert session is not None
        ensemble.end_session(session, forced=True)
    worked = [[server.cpu.worked for server in fleet.ensemble.costed]]
    oldest, back = max(host.node.gate.fresh_age for host in live), 0
    while fleet.world.now - began < 60 * SECOND and not back:
        fleet.run(LOOK)
        worked.append([server.cpu.worked for server in fleet.ensemble.costed])
        oldest = max(oldest, *(host.node.gate.fresh_age for host in live))
        if _all_see(fleet, len(live)) and _all_fresh(fleet):
            back = fleet.world.now
    span, after = (back or fleet.world.now) - began, fleet.ensemble.count()
    return Lost(
        span / SECOND,
        after.reads - before.reads,
        after.writes - before.writes,
        _busiest(worked[0], worked[-1], span),
        max(
            _busiest(early, late, SECOND)
            for early, late in zip(worked, worked[int(1 / LOOK) :] or worked[-1:], strict=False)
        ),
        oldest,
    )


def _busiest(before: Sequence[int], after: Sequence[int], span: int) -> float:
    return max(late - early for early, late in zip(before, after, strict=True)) / (span * PROCESSORS)


class Changes(NamedTuple):
    """A join: seconds until everybody sees it, and reads that it cost ZooKeeper; the loss of a third, of all, of ZooKeeper."""

    join: float
    join_reads: int
    third: Lost
    all: Lost
    away: Lost


def changes(fleet: Simulated) -> Changes:
    before = fleet.ensemble.count()
    fleet.start("newcomer")
    members = len([host for host in fleet.hosts if host.is_live])
    join = fleet.until(lambda: _all_see(fleet, members)) / 1000
    join_reads = fleet.ensemble.count().reads - before.reads
    fleet.run(5)
    third = lose(fleet, max(1, members // 3))
    fleet.run(15)
    everybody = lose(fleet, members)
    fleet.run(15)
    return Changes(join, join_reads, third, everybody, lose(fleet, members, AWAY))


def _all_see(fleet: Simulated, members: int) -> bool:
    return all(host.node.membership.live == members for host in fleet.hosts if host.is_live)


def _all_fresh(fleet: Simulated) -> bool:
    live = [host for host in fleet.hosts if host.is_live]
    names = {host.node.membership.name for host in live}
    return all(host.node.membership.is_registered for host in live) and all(
        set(host.node.membership.nodes) == names and not host.node.gate.is_stale for host in live
    )


@contextmanager
def quietly() -> Iterator[None]:
    """No log lines, and no collector: a world leaves little behind, and is large."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        logging.disable(logging.NOTSET)


def measure(
    members: int, service: Service, *, writes: float, servers: int, seconds: float, rates: Sequence[int] = RATES
) -> Iterator[str]:
    """One fleet; a table in Markdown, line by line as they are found. `seconds` of each of the `rates`."""
    remember_what_is_pure()
    with quietly():
        yield f"**{members:,} members, {servers} servers of ZooKeeper, --zk-writes {writes:g}** (simulated)\n"
        yield (
            "| what | of all servers, a second: reads, writes, events, MB sent | busiest server | committed p50, p99 "
            "| a bare append |"
        )
        yield "|---|---|---|---|---|"
        fleet = Simulated(members, service, writes=writes, servers=servers)
        yield _row("idle", flow(fleet, 0, 10))
        one = alone(fleet)
        for rate in rates:
            yield _row(f"{rate:,} deletes a second", flow(fleet, rate, seconds))
        yield (
            f"\nOne delete in the idle fleet: committed {one.committed:.1f} ms (a bare append: {one.bare:.1f} ms), "
            f"gone at the last member {one.gone:.1f} ms, applied {one.applied:.0f} ms."
        )
        seen = changes(fleet)
        yield (
            f"One joins: everybody sees it after {seen.join:.1f} s, {seen.join_reads:,} reads. "
            f"{_told('A third loses its sessions', seen.third)} {_told('All lose them', seen.all)} "
            f"{_told(f'All lose them while ZooKeeper is away for {AWAY:g} s', seen.away)}\n"
        )
        fleet.world.close()


def _told(what: str, lost: Lost) -> str:
    return (
        f"{what}: all back, fresh, and seen by all, after {lost.seconds:.1f} s, {lost.reads:,} reads, {lost.writes:,} writes; "
        f"busiest server {lost.busiest:.0%}, in its busiest second {lost.peak:.0%}; oldest certificate {lost.oldest:.1f} s."
    )


def _row(what: str, seen: Flow) -> str:
    costs = f"{seen.reads:,.0f}, {seen.writes:,.0f}, {seen.events:,.0f}, {seen.sent:.2f}"
    took = f"{seen.p50:,.1f}, {seen.p99:,.0f} ms" if seen.p50 else ""
    if seen.unconfirmed:
        took += f"; {seen.unconfirmed:.1%} not confirmed"
    bare = f"{seen.bare:,.1f} ms" if seen.bare else ""
    return f"| {what} | {costs} | {seen.busiest:.0%} | {took} | {bare} |"
