"""Ways to break the machines, one or more for each guarantee: each lacks one rule of the code under test.

`MUTATIONS` maps a name to a context in which the rule is missing; `BREAKS` to the property that must be reported; `FAULTS`
to the faults that show it, where most of the others do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from mcserver.coordination import acks, cells, entry, gate, leader, log, membership, node, queue, reader, trim
from mcserver.coordination.layout import Meta, head_of, version
from mcserver.coordination.ports import Ambiguous, Change, Check, Create, NoNode, Set, ZooKeeper

from . import cache, faults, fleet

MUTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {}
BREAKS: dict[str, str] = {}
FAULTS: dict[str, list[faults.Fault]] = {}


def breaks(name: str, *needs: faults.Fault) -> Callable[[Callable[[], dict[tuple[type, str], Any]]], Callable[[], Any]]:
    """Registers a function that returns {(class, attribute): replacement}."""

    def register(make: Callable[[], dict[tuple[type, str], Any]]) -> Callable[[], Any]:
        @contextmanager
        def applied() -> Iterator[None]:
            replacements = make()
            originals = {place: getattr(*place) for place in replacements}
            for (owner, attribute), value in replacements.items():
                setattr(owner, attribute, value)
            try:
                yield
            finally:
                for (owner, attribute), value in originals.items():
                    setattr(owner, attribute, value)

        MUTATIONS[make.__name__] = applied
        BREAKS[make.__name__] = name
        FAULTS[make.__name__] = list(needs)
        return make

    return register


# P1: bounded staleness ------------------------------------------------------------------------------------------------------


@breaks("P1")
def no_gate() -> dict[tuple[type, str], Any]:
    """The cache serves without a certificate."""
    return {(cache.ModelCache, "is_closed"): property(lambda self: False)}


@breaks("P1", faults.isolate)
def round_without_the_write() -> dict[tuple[type, str], Any]:
    """Certificates from reads alone, but for the first: a follower without its leader hands them out."""

    class Reads:
        def __init__(self, zk: Any) -> None:
            self.zk = zk

        def set(self, path: str, data: bytes) -> Any:
            return self.zk.exists(path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.zk, name)

    original = reader.Reader._pass

    async def one_pass(self: reader.Reader, certify: bool) -> bool:
        real = self._context.zk
        if self._announced or self._ack_wanted or not self._membership.is_verified:
            return await original(self, certify)
        self._context.zk = cast(ZooKeeper, Reads(real))
        try:
            return await original(self, certify)
        finally:
            self._context.zk = real

    return {(reader.Reader, "_pass"): one_pass}


@breaks("P1", faults.fall_behind)
def certificate_as_of_its_answer() -> dict[tuple[type, str], Any]:
    """The cache counts as fresh from when the answers came, not from when the round began."""
    certify = gate.Gate.certify

    def late(self: gate.Gate, began: int) -> None:
        certify(self, max(began, self._context.now()))

    return {(gate.Gate, "certify"): late, (fleet.Fleet, "is_uneven"): True}


# P2: applied ----------------------------------------------------------------------------------------------------------------


@breaks("P2")
def list_of_ephemerals_alone() -> dict[tuple[type, str], Any]:
    """`applied` waits only for those that have a znode now."""

    async def members(self: acks.Acks) -> list[str]:
        await self._membership.look()
        return list(self._membership.nodes)

    return {(acks.Acks, "_members"): members}


@breaks("P2")
def absence_is_enough() -> dict[tuple[type, str], Any]:
    """Whoever is absent is out, without waiting for its gate to close."""
    return {(membership.Membership, "out_at"): lambda self, name: self.absent[name]}


@breaks("P2", faults.end_session)
def everybody_waits_as_long_as_oneself() -> dict[tuple[type, str], Any]:
    """An absent server is waited for by the `max_stale` of whoever waits, not by its own."""

    def out_at(self: membership.Membership, name: str) -> int:
        return self.absent[name] + int(self._context.settings.max_stale * 1.05e9)

    return {(membership.Membership, "out_at"): out_at, (fleet.Fleet, "is_uneven"): True}


@breaks("P2")
def applied_at_the_commit() -> dict[tuple[type, str], Any]:
    """`applied` is confirmed at the commit."""

    def add(self: acks.Acks, number: int, future: Any) -> None:
        future.set_result(number)

    return {(acks.Acks, "add"): add}


@breaks("P2", faults.lag, faults.isolate, faults.pause, faults.cut_off)
def cell_version_too_high() -> dict[tuple[type, str], Any]:
    """A cell's writer writes for everybody what it has applied itself."""
    original = cells.Cells._sheet

    def sheet(self: cells.Cells, names: Any) -> cells.Sheet:
        own = self._lines.get(self._membership.name)
        lines = original(self, names).lines
        return cells.Sheet({name: own or line for name, line in lines.items()})

    def lowest(self: cells.Cells, names: Any) -> int | None:
        own = self._lines.get(self._membership.name)
        return own.proved if own else None

    return {(cells.Cells, "_sheet"): sheet, (cells.Cells, "_lowest"): lowest}


@breaks("P2", faults.drop_connection, faults.flap, faults.end_session, faults.lag)
def joining_counts_in_a_cell() -> dict[tuple[type, str], Any]:
    """A sheet's reader believes a member that is not sure of its place in the log."""
    return {(cells.Line, "proved"): property(lambda self: (1 << 62) if self.state == "joining" else self.applied)}


@breaks("P2", faults.replace_log)
def used_generation_kept() -> dict[tuple[type, str], Any]:
    """A log that somebody made by hand, of a generation that was used, is taken for a leader's."""
    return {(leader.Leader, "learn"): lambda self, meta: None, (node.Node, "_log_went_back"): lambda self: None}


@breaks("P2")
def lists_kept_after_their_watch() -> dict[tuple[type, str], Any]:
    """Who waits goes by the members that it has once seen."""

    async def look(self: membership.Membership) -> list[str]:
        seen: list[str] = self.__dict__.get("once", [])
        if not seen:
            seen = self.__dict__["once"] = await original(self)
        return [name for name in seen if name in self.members]

    original = membership.Membership.look
    return {(acks.Acks, "_members"): lambda self: look(self._membership)}


# P3: nothing committed is lost ----------------------------------------------------------------------------------------------


@breaks("P3", faults.hole)
def hole_skipped() -> dict[tuple[type, str], Any]:
    """A missing entry is passed over."""
    original = reader.Reader._skip_to

    def skip(self: reader.Reader, head: int, why: str) -> None:
        if why.endswith("is missing"):
            self.next += 1
        else:
            original(self, head, why)

    return {(reader.Reader, "_skip_to"): skip}


@breaks("P1", faults.remake_log)
def log_made_again_unnoticed() -> dict[tuple[type, str], Any]:
    """A reader goes on at its place in a log that is another under the same name."""
    return {(reader.Reader, "_is_remade"): lambda self, stat, named=0: False}


@breaks("P3")
def append_to_a_sealed_log() -> dict[tuple[type, str], Any]:
    """An append does not check that its log is current."""

    async def append(self: log.Log, text: log.Text, guard: Check | None = None, later: Any = ()) -> int:
        context = self._context
        if self._meta is None:
            record, _ = await context.zk.get(context.layout.meta)
            self._meta = Meta.decode(record)
        meta = self._meta
        data = entry.encode(*text, meta.format)
        create = Create(context.layout.entries(meta.log), data, sequence=True)
        try:
            results = await context.zk.multi([*([guard] if guard else []), create])
        except NoNode as error:
            if error.index > 0 or guard is None:
                self._meta = None
            raise
        return version(meta.gen, int(str(results[-1])[-10:]))

    return {(log.Log, "append"): append}


@breaks("P2", faults.delete_meta)
def version_tells_which_log() -> dict[tuple[type, str], Any]:
    """A record of the log's that was deleted and made again, of the same version, is taken for the one that was known."""

    def learn(self: log.Log, meta: Meta, number: int) -> None:
        if self._meta is None or number > self._version:
            self._meta, self._version = meta, number

    return {(log.Log, "changed"): lambda self: None, (log.Log, "learn"): learn}


@breaks("P3")
def meta_read_after_the_log() -> dict[tuple[type, str], Any]:
    """A sealed log's end is taken from before the seal was seen."""

    async def finish(self: reader.Reader, connection: int) -> bool:
        return True  # "we have read it to its head a moment ago"

    return {(reader.Reader, "_finish"): finish}


@breaks("P7", faults.depose)
def meta_written_unconditionally() -> dict[tuple[type, str], Any]:
    """A leader replaces the log's record without a check of itself and of what it read."""

    async def write(self: leader.Leader, *operations: Any) -> None:
        loose = [o._replace(version=-1) if isinstance(o, Set) else o for o in operations]
        await self._context.zk.multi(loose)

    return {(leader.Leader, "_write"): write}


@breaks("P3")
def lost_answer_counts_as_commit() -> dict[tuple[type, str], Any]:
    """After a lost answer the batch is not sent again."""
    original = log.Log.append

    async def append(self: log.Log, text: log.Text, guard: Check | None = None, later: Any = ()) -> int:
        try:
            return await original(self, text, guard, later)
        except Ambiguous:
            return 0

    return {(log.Log, "append"): append}


@breaks("P3")
def jump_flushes_before_the_head() -> dict[tuple[type, str], Any]:
    """On another log: flush first, then read where it ends."""

    async def move(self: reader.Reader, meta: Meta, connection: int) -> None:
        self._flush()
        self._context.trace("flushed", self.applied)
        _, stat = await self._context.zk.get(self._context.layout.log(meta.log))
        self.log, self.gen, self.next, self._last = meta.log, meta.gen, head_of(stat) + 1, None
        self._verified = connection
        self.applied = version(meta.gen, head_of(stat))

    return {(reader.Reader, "_move"): move}


# P4 and P5 ------------------------------------------------------------------------------------------------------------------


@breaks("P4")
def lease_not_killed() -> dict[tuple[type, str], Any]:
    """A delete leaves the lease of a miss alone."""

    def delete(self: cache.ModelCache, key: bytes) -> bool:
        self.killed[key] = self.world.stamp()
        return self.items.pop(key, None) is not None

    return {(cache.ModelCache, "delete"): delete}


@breaks("P5")
def gap_without_flush() -> dict[tuple[type, str], Any]:
    """A gap only moves the reader."""

    def lose(self: reader.Reader, why: str) -> None:
        self._context.trace("gap", self.applied)

    return {(reader.Reader, "_lose"): lose}


# P6, P7, P8 -----------------------------------------------------------------------------------------------------------------


@breaks("P6")
def new_session_starts_over() -> dict[tuple[type, str], Any]:
    """A new session reads the log from its beginning."""
    change = reader.Reader.session_changed

    def changed(self: reader.Reader) -> None:
        self.next = 0
        change(self)

    return {(reader.Reader, "session_changed"): changed}


@breaks("P7", faults.depose)
def leader_without_check() -> dict[tuple[type, str], Any]:
    """A leader's write does not depend on its candidate."""

    async def write(self: leader.Leader, *operations: Any) -> None:
        await self._context.zk.multi(list(operations))

    return {(leader.Leader, "_write"): write}


@breaks("P8", faults.lag, faults.cut_off, faults.pause)
def trim_ignores_the_slow() -> dict[tuple[type, str], Any]:
    """What a live member still needs is trimmed."""
    original = trim.History.floor

    def floor(self: trim.History, now: int, gen: int, head: int, lowest: int | None) -> tuple[int, bool]:
        return original(self, now, gen, head, None)

    return {(trim.History, "floor"): floor}


# P9, P10, P13, P14 ----------------------------------------------------------------------------------------------------------


@breaks("P9")
def prefixes_not_applied() -> dict[tuple[type, str], Any]:
    """Flushes of a prefix have no effect at the peers."""
    original = reader.Reader._carry_out

    def carry_out(self: reader.Reader, change: Change, stat: Any) -> None:
        if change.kind != "prefix":
            original(self, change, stat)

    return {(reader.Reader, "_carry_out"): carry_out}


@breaks("P9", faults.machine_sleeps, faults.elect_another_clock)
def timers_are_believed() -> dict[tuple[type, str], Any]:
    """A delayed flush comes when its timer says so."""
    return {(reader.Reader, "_see_what_is_due"): lambda self: None}


@breaks("P10")
def join_without_flush() -> dict[tuple[type, str], Any]:
    """A server that joins keeps what it held."""

    def flush(self: reader.Reader) -> None:
        if self.log is not None:
            self._context.cache.flush()

    return {(reader.Reader, "_flush"): flush}


@breaks("P2", faults.leave)
def kept_is_taken_for_fresh() -> dict[tuple[type, str], Any]:
    """A server serves the memory that another process left before it has replayed the log."""
    original = node.Node.start

    def start(self: node.Node) -> None:
        original(self)
        if self._resumed:
            self.gate.certify(self.context.now())

    return {(node.Node, "start"): start}


@breaks("P13")
def duplicates_dropped() -> dict[tuple[type, str], Any]:
    """An entry with the same bytes as an earlier one is taken for the same deletes."""
    original = reader.Reader._apply

    async def apply(self: reader.Reader, sequence: int, data: bytes, stat: Any) -> None:
        seen: set[bytes] = self.__dict__.setdefault("seen", set())
        if data in seen and not self._membership.is_own(data.split()[1].decode()):
            self.next = sequence + 1
            return
        seen.add(data)
        await original(self, sequence, data, stat)

    return {(reader.Reader, "_apply"): apply}


@breaks("P14")
def lost_session_not_registered_again() -> dict[tuple[type, str], Any]:
    """After the end of a session the server stays out."""
    return {
        (membership.Membership, "is_registered"): property(lambda self: self._session != 0),
        (membership.Membership, "forget"): lambda self: None,
    }


@breaks("P1")
def only_the_first_line() -> dict[tuple[Any, str], Any]:
    """A reader that stops after the first change of an entry."""

    def decode(data: bytes) -> entry.Entry | None:
        decoded = entry.decode(data)
        return decoded and decoded._replace(changes=decoded.changes[:1])

    return {(reader, "decode"): decode}


@breaks("P12")
def queue_without_bound() -> dict[tuple[type, str], Any]:
    """A long outage fills the memory."""
    return {(queue.Queue, "overflow"): lambda self: None}
