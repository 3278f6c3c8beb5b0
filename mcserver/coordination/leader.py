"""The leader: one server that makes the log, trims it, rotates it, and clears away what the dead left behind.

Every candidate is an ephemeral sequential znode; the lowest leads, the others watch the one before them. Leading is a belief:
what makes it safe is that every write of a leader is one transaction with a check of its own candidate. A deposed leader's
candidate is gone before the next one can be lowest, so its writes fail. The candidate's czxid is the fencing token; it is
written into what the leader writes, so that the log itself shows who wrote in which order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from .cells import Cells
from .context import Context, Signal
from .entry import NEWEST, line
from .layout import (
    GEN_MAX,
    Floor,
    MemberRecord,
    Meta,
    head_of,
    is_candidate,
    is_log,
    is_name,
    newer_meta,
    parts,
    sequence_of,
)
from .log import Log, Text
from .membership import Membership
from .ports import (
    SECOND,
    Change,
    Check,
    ConnectionLoss,
    Create,
    Delete,
    Malformed,
    NodeExists,
    NoNode,
    NotEmpty,
    Operation,
    Set,
)
from .reader import Reader
from .registrar import Registrar

log = logging.getLogger("mcserver.coordination")


PAST = 60_000  # ms for which a delayed flush that was due is still in the log's record


class Current(NamedTuple):
    """The log that takes entries now: its two records, the version of each, and the sequence of its last entry (-1: none)."""

    meta: Meta
    meta_version: int
    kept: Floor
    version: int
    head: int


class Leader:
    """Candidate, and leader when its turn comes."""

    def __init__(self, context: Context, membership: Membership, reader: Reader, log: Log, cells: Cells) -> None:
        self._context = context
        self._membership = membership
        self._reader = reader
        self._log = log
        self._cells = cells
        self._guid = ""
        self._session = 0
        self.candidate = ""  # the path of our znode
        self._first = ""  # the path of the leader's znode
        self._is_stuck = False  # whoever leads can't
        self._newest = ("", 0)  # the log of the highest generation that was seen, and that generation
        self._doubtful = ""  # a log that came after one of the same generation or a higher one
        self._old_logs: dict[str, int] = {}  # logs that are not current: since when we know
        self._refreshed = self._summed = context.now()
        self.token = 0  # the fencing token of our candidate
        self.is_leader = False
        self.name: str | None = None  # the member that leads, as last seen
        self.wake = Signal(context.runtime)
        self.registrar = Registrar(context, membership, self.wake)
        membership.on_listed.append(self.wake)

    def session_changed(self) -> None:
        """Without a connection nobody leads; whoever has one looks again."""
        self._step_down()
        self.wake.set()

    def learn(self, meta: Meta) -> None:
        """The reader has seen which log is current. No leader makes one of a generation that was used: versions would be those of
        other entries, and members' records say that they have applied them.
        """
        name, gen = self._newest
        if meta.log and meta.log != name:
            if meta.gen > gen or not name or gen == GEN_MAX:  # behind the last one they begin anew
                self._newest = meta.log, meta.gen
            elif meta.log != self._doubtful:
                self.doubt(meta.log)

    def doubt(self, log: str) -> None:
        """The versions of a log were others' before."""
        self._doubtful = log
        self.wake.set()

    def left(self) -> None:
        """This server is out, and knows of no leader any more."""
        self._step_down()
        self.name = None

    def _step_down(self) -> None:
        self._membership.keep_roll(False)
        if self.is_leader:
            self.is_leader = False
            self._context.changed("leader")

    # The election --------------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """One look at the candidates; then work for as long as we lead, else wait for the one before us."""
        context, zk, layout = self._context, self._context.zk, self._context.layout
        if self._session != zk.session:
            self._session, self._guid, self.candidate = zk.session, context.guid(), ""
            await context.sleep(self._membership.jitter())
        try:
            found, _ = await zk.children(layout.leader)
            names = list(filter(is_candidate, found))
        except NoNode:
            await self._membership.make_skeleton()
            return
        mine = [name for name in names if name.startswith(self._guid)]
        if not mine:
            # Without the answer to this, the next look finds the candidate by its guid. It may get the path of one that was
            # deleted, when somebody has deleted what counts them, too: it is another one all the same.
            self.candidate = ""
            self._step_down()
            name = self._membership.name.encode()
            context.budget.wrote("leader", context.now())
            await zk.create(f"{layout.leader}/{self._guid}-n-", name, ephemeral=True, sequence=True)
            return
        order = sorted(names, key=sequence_of)
        place = order.index(min(mine, key=sequence_of))
        await self._take_place(f"{layout.leader}/{order[place]}")
        await self._see(f"{layout.leader}/{order[0]}")
        if place > 0:
            self._step_down()
            if self._is_stuck:
                self._is_stuck = False
                await self._clear_the_way([f"{layout.leader}/{name}" for name in order[:place]])
            before = f"{layout.leader}/{order[place - 1]}"
            stat = await zk.exists(before, self.wake.set)
            if stat is not None and not await context.remove_copy(before, stat):
                await self._wait_for_its_turn()
            return
        if not self.is_leader:
            self.is_leader = True
            self.registrar.start_over()
            self._membership.keep_roll(True)
            log.info("this server leads the fleet (token %d)", self.token)
            context.changed("leader")
        await self._work()
        await self.wake.wait(context.settings.trim_every)

    async def _wait_for_its_turn(self) -> None:
        """Until the one before us goes, or our own candidate has been deleted by hand: one read in a while tells that.

        Or until whoever leads turns out to be unable to.
        """
        context = self._context
        while not await self.wake.wait(context.settings.max_stale):
            self._is_stuck = not await self._can_lead(self.name)
            if self._is_stuck or await context.zk.exists(self.candidate) is None:
                return

    async def _can_lead(self, name: str | None) -> bool:
        """Whether a member reads the log as it is now. A server of an earlier release may stand first and not do so."""
        form = self._membership.format
        if form < 2 or name is None or not is_name(name):
            return True
        record = self._membership.members.get(name)
        if record is None:
            path = self._context.layout.member(name)
            try:
                data, _ = await self._context.zk.get(path)
                record = MemberRecord.decode(data)
            except NoNode:
                return True  # about to go, or about to come
            except Malformed as error:
                self._context.unreadable(path, data, error)
                return True
        return record.reads >= form

    async def _clear_the_way(self, before: Sequence[str]) -> None:
        """Deletes the candidates before ours when none of their members can lead: nobody else would come to lower the format.

        They queue up anew, behind us. To depose somebody is always safe: a leader's every write checks its candidate.
        """
        if await self._can_lead(self.name):
            return
        for path in reversed(before):
            try:
                data, _ = await self._context.zk.get(path)
            except NoNode:
                continue
            if await self._can_lead(data.decode(errors="replace")):
                return
        log.warning("%s leads, and does not read the log as it is now: it is deposed", self.name)
        for path in before:
            self._context.budget.wrote("leader", self._context.now())
            try:
                await self._context.zk.delete(path)
            except NoNode:
                pass

    async def _take_place(self, path: str) -> None:
        if path == self.candidate:
            return
        stat = await self._context.zk.exists(path)
        if stat is None:
            raise NoNode(path)
        self.candidate, self.token = path, stat.czxid

    async def _see(self, path: str) -> None:
        """Learns the name of the leader; the roll tells it sooner, where there is one."""
        if path == self._first:
            return
        data, _ = await self._context.zk.get(path)
        name = data.decode(errors="replace")
        self._first, self.name = path, name if is_name(name) else "unreadable"
        self._context.changed("leader")

    # The work ------------------------------------------------------------------------------------------------------------

    async def _write(self, *operations: Operation) -> None:
        """The only way in which a leader writes.

        In an ensemble restored from a backup another candidate may stand before ours again, and ours, too: so nothing is written
        on a connection on which nobody has looked.
        """
        if not self.is_leader:
            raise ConnectionLoss("who leads is looked for anew")
        self._context.budget.wrote("leader", self._context.now())
        try:
            await self._context.zk.multi([Check(self.candidate), *operations])
        except NoNode as error:
            if error.index == 0:
                self.candidate = ""
                self._step_down()
            raise

    async def _work(self) -> None:
        """One round of all that a leader sees to."""
        current = await self._current_log()
        if current is None or await self._followed(current):
            return
        meta = current.meta
        await self._restore_members(await self._membership.look())
        form = self._format()
        if form >= 2:
            await self.registrar.keep(self._write)
        if form != meta.format:
            log.info("the log's format is now %d: every member reads it", form)
            record = meta._replace(format=form, token=self.token).encode()
            await self._write(Set(self._context.layout.meta, record, current.meta_version))
            self._membership.set_format(form)
        await self._trim(current)
        await self._clear_logs(meta)
        await self._clear_members()
        await self._refresh()

    async def _current_log(self) -> Current | None:
        """The log as its two records tell; None: one of them was not there or not readable, so there is a new log now."""
        zk, layout = self._context.zk, self._context.layout
        try:
            record, stat = await zk.get(layout.meta)
        except NoNode:
            await self._membership.make_skeleton()
            await self._make_log(None, -1)
            return None
        try:
            meta = Meta.decode(record)
        except Malformed as error:
            self._context.unreadable(layout.meta, record, error)
            if newer_meta(record):
                self._context.alarm("meta", f"{layout.meta} is that of a newer release: update this server")
                raise
            await self._make_log(Meta(0, "", None, 0), stat.version)
            return None
        self._context.settled("meta")
        try:
            data, log_stat = await zk.get(layout.log(meta.log))
            kept = Floor.decode(data)
        except NoNode:
            await self._make_log(meta._replace(log=""), stat.version)
            return None
        except Malformed as error:
            self._context.unreadable(layout.log(meta.log), data, error)
            await self._make_log(meta._replace(log=""), stat.version)
            return None
        return Current(meta, stat.version, kept, log_stat.version, head_of(log_stat))

    async def _followed(self, current: Current) -> bool:
        """Whether another log follows it now: its versions were others' before, or it has as many entries as a log may."""
        meta = current.meta
        if meta.log == self._doubtful:
            log.warning("%s was made by hand, its versions were used before: another log follows it", meta.log)
            used = max(meta.gen, self._newest[1], await self._used())
            await self._make_log(meta._replace(gen=used), current.meta_version, current.kept, current.version)
            self._newest, self._doubtful = ("", 0), ""
        elif current.head + 1 >= self._context.settings.rotate_at:
            await self._make_log(meta, current.meta_version, current.kept, current.version)
        else:
            return False
        self.wake.set()  # what else there is to do comes at once: a log that fills up soon must not put it off for ever
        return True

    async def _restore_members(self, members: Sequence[str]) -> None:
        """A live server whose record under /members somebody has deleted gets it again: whoever waits goes by it."""
        membership, layout = self._membership, self._context.layout
        lost = membership.nodes.keys() - members
        for name, node in [(name, membership.nodes[name]) for name in sorted(lost)]:
            record = self.registrar.lost_record(name, node).encode()
            try:
                await self._write(Check(layout.node(name)), Create(layout.member(name), record))
            except NodeExists:
                pass  # it came between our two looks
            except NoNode as error:
                if error.index == 0:
                    raise

    def _format(self) -> int:
        """The highest format that every member reads, those included that may only be serving still."""
        members = self._membership.members
        own = [record.reads for name, record in members.items() if self._membership.is_own(name)]
        others = [record.reads for name, record in members.items() if not self._membership.is_own(name)]
        return min([NEWEST, *(own or [NEWEST]), *others])

    async def _make_log(
        self, meta: Meta | None, version: int, kept: Floor | None = None, log_version: int = -1
    ) -> None:
        """A new log, which follows the current one if there is one; from then on no append to that can succeed.

        It takes over the delayed flushes that `kept`, the current log's record, names: that must be its last version.
        """
        layout = self._context.layout
        gen = max(meta.gen if meta else 0, self._reader.gen, 0 if meta and meta.gen else await self._used()) + 1
        if gen > GEN_MAX:  # no fleet comes so far: somebody has written it there
            log.warning("the last generation of the log is used up by a stranger: they begin anew")
            gen = await self._created() + 1
        name = f"log-{gen}-{self._context.guid()[:8]}"
        await self._membership.look()
        new = Meta(gen, name, (meta.log or None) if meta else None, self.token, self._format()).encode()
        floor = Floor(0, self.token, False, kept.later, kept.unlogged) if kept else Floor(0, self.token)
        make = Create(layout.log(name), floor.encode())
        if meta is None:
            await self._write(make, Create(layout.meta, new))
        elif kept is not None:
            await self._write(Check(layout.log(meta.log), log_version), make, Set(layout.meta, new, version))
        else:
            await self._write(make, Set(layout.meta, new, version))
        log.info("the invalidation log is now %s", name)

    async def _used(self) -> int:
        """No generation above this was ever used: each began with a create below `invalidation`, which counts them.

        For when nobody can say which was the last. Used twice it would make one version of two entries. Somebody may have
        deleted what counts them: so whatever a live server has applied is older, too.
        """
        created = await self._created()
        await self._membership.look()
        await self._membership.read_nodes()
        known = [parts(node.applied)[0] for node in self._membership.nodes.values()]
        return max([created, *known])

    async def _created(self) -> int:
        """At least as many as there were logs since `invalidation` was made."""
        stat = await self._context.zk.exists(self._context.layout.invalidation)
        return stat.cversion if stat else 0

    async def _trim(self, current: Current) -> None:
        """Deletes what nobody needs, lowest first, and moves the floor in the same transactions."""
        meta, kept, version, head = current.meta, current.kept, current.version, current.head
        floor, past = kept.floor, self._context.ensemble_time() - PAST
        later = tuple(due for due in kept.later if due > past)
        settings, layout, now = self._context.settings, self._context.layout, self._context.now()
        unlogged = await self._sum_up(kept)
        history, lowest, capped = self._reader.history, None, kept.capped
        target, _ = history.floor(now, meta.gen, head, None)
        if target > floor:  # only then is it asked who still needs what
            applied = (await self._cells.applied(list(self._membership.nodes))).values()
            lowest = min((each for each in applied if each >= 0), default=None)
            target, capped = history.floor(now, meta.gen, head, lowest)
        elif unlogged != kept.unlogged:
            noted = kept._replace(token=self.token, later=later, unlogged=unlogged)
            await self._write(Set(layout.log(meta.log), noted.encode(), version))
        while floor < target:
            end = min(target, floor + settings.trim_batch)
            paths = [layout.entry(meta.log, sequence) for sequence in range(floor, end)]
            record = Set(layout.log(meta.log), Floor(end, self.token, capped, later, unlogged).encode(), version)
            try:
                await self._trim_to(record, paths)
            except NotEmpty:
                await self._clear_below(paths)
                raise
            floor, version = end, version + 1

    async def _trim_to(self, record: Set, paths: list[str]) -> None:
        try:
            await self._write(*map(Delete, paths), record)
        except NoNode as error:
            if error.index == 0:
                raise
            await self._write(*map(Delete, await self._existing(paths)), record)

    async def _sum_up(self, kept: Floor) -> int:
        """Writes a second that the log does not show, of the whole fleet; looked at now and then, by the sheets."""
        settings, now = self._context.settings, self._context.now()
        if self._membership.format < 2 or now - self._summed < settings.max_stale * SECOND:
            return kept.unlogged
        self._summed = now
        lines, _ = await self._cells.read(range(self._cells.number()))
        total = self._cells.unlogged(lines)
        return kept.unlogged if abs(total - kept.unlogged) <= 0.1 * total else total

    async def _existing(self, paths: list[str]) -> list[str]:
        """Those that somebody has not deleted by hand."""
        there = await self._context.ask_each(paths, self._context.zk.exists)
        return [path for path, stat in there if stat is not None]

    async def _clear_below(self, paths: Sequence[str]) -> None:
        """What somebody has made by hand below an entry: else it would be in the way for ever, and the log would grow."""
        for path in paths:
            try:
                names, _ = await self._context.zk.children(path)
            except NoNode:
                continue
            below = [f"{path}/{name}" for name in names[: self._context.settings.trim_batch]]
            await self._clear_below(below)
            if below:
                log.warning("%s has znodes below it that nobody of the fleet made: they are deleted", path)
                await self._write(*map(Delete, below))

    async def _clear_logs(self, meta: Meta) -> None:
        """Removes logs that every live server has left behind, some time after they were sealed."""
        zk, layout, settings = self._context.zk, self._context.layout, self._context.settings
        names, _ = await zk.children(layout.invalidation)
        old = [name for name in names if is_log(name) and name != meta.log]
        now = self._context.now()
        self._old_logs = {name: self._old_logs.get(name, now) for name in old}
        over = [name for name, since in self._old_logs.items() if now - since >= settings.keep_seconds * SECOND]
        if not over:
            return
        applied = await self._cells.applied(list(self._membership.nodes))
        if any(0 <= each < (meta.gen << 32) - 1 for each in applied.values()):
            return
        for name in over:
            entries, _ = await zk.children(layout.log(name))
            batch = [f"{layout.log(name)}/{entry}" for entry in sorted(entries)[: settings.trim_batch]]
            try:
                await self._write(*map(Delete, batch or [layout.log(name)]))
            except NotEmpty:
                await self._clear_below(batch)
                raise

    async def _clear_members(self) -> None:
        """Removes the records of members that have been gone for longer than they may have served, and of what was never one."""
        membership, layout = self._membership, self._context.layout
        margin = int(self._context.settings.member_margin * SECOND)
        now = self._context.now()
        gone = [
            name
            for name in membership.absent
            if name in membership.members
            and membership.out_at(name) + margin <= now
            and not membership.clears_itself(name)
        ]
        for name in gone:
            await self._write(Delete(layout.member(name)))
        for name in sorted(membership.copies):
            log.warning("%s is no server's: it is deleted", layout.node(name))
            await self._write(Delete(layout.node(name)))

    async def _refresh(self) -> None:
        """The scheduled refresh: marks prefixes stale everywhere."""
        settings, now = self._context.settings, self._context.now()
        if not settings.refresh_every or now - self._refreshed < settings.refresh_every * SECOND:
            return
        self._refreshed = now
        changes = [Change("refresh", prefix, settings.soft_ttl) for prefix in settings.refresh_prefixes]
        for change in changes:
            self._context.cache.refresh_prefix(change.key, change.ttl)
        entry = Text(self._membership.name, False, [line(change) for change in changes])
        self._context.budget.wrote("appends", now)
        await self._log.append(entry, Check(self.candidate))
