"""The level `applied`: waits until no other server can serve what an entry invalidated.

A member is satisfied when its own ephemeral znode says that it has applied the entry, or when its record under /members is
gone, or when its znode has been absent for as long as it may serve without a certificate. A certificate is a write to that
znode, so without it there is no new one. The list of ephemerals alone would not do: a session can end (closed by force) while
its server still serves. A server that registers after the commit reads a head at or above the entry before it serves.

In a large fleet nobody writes an acknowledgement: the certificates, which every member writes anyway, say what it has applied,
and the sheets of the cells (cells.py) repeat it. A sheet only tells what live members have applied: who is a member, and who
is out, is looked for here in any case.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .cells import Cells
from .context import Context, Signal
from .membership import Membership
from .ports import SECOND, Future, Stat, ZooKeeperError

NOTHING = -2  # below every version


class Waiter(NamedTuple):
    """Somebody who waits until everybody has applied a version. The number makes the order of equal versions."""

    version: int
    number: int
    since: int  # ns
    future: Future[int]


class Acks:
    """Owns the futures that wait for the peers."""

    def __init__(self, context: Context, membership: Membership, cells: Cells) -> None:
        self._context = context
        self._membership = membership
        self._cells = cells
        self._waiting: list[Waiter] = []  # a heap
        self._added = 0
        self._known: dict[str, int] = {}  # what a member's record says, while the watch on it has not fired
        self._sheets: dict[str, int] = {}  # what the sheets have said, on this connection
        self._read_sheets: set[int] = set()  # those whose watch has not fired since
        self.not_waited_for: tuple[str, ...] = ()  # members that serve without a certificate
        self.wake = Signal(context.runtime)
        membership.on_listed.append(self.wake)

    def add(self, version: int, future: Future[int]) -> None:
        """An entry was committed; the future gets its version when everybody has it."""
        self._added += 1
        heapq.heappush(self._waiting, Waiter(version, self._added, self._context.now(), future))
        self.wake.set()

    def session_changed(self) -> None:
        """Watches are gone; and what was read may be of another log. So too when the log went back."""
        self._known = {}
        self._sheets = {}
        self._read_sheets.clear()
        self.wake.set()

    async def step(self) -> None:
        """One look at everybody; then waits for a change, or until an absent one is out."""
        self._waiting = [waiter for waiter in self._waiting if not waiter.future.done()]
        heapq.heapify(self._waiting)
        if not self._waiting or self._membership.synced_session != self._context.zk.session:
            await self.wake.wait(self._context.settings.max_stale)
            return
        upto = self._added
        low, again = await self._lowest()
        late = []
        before = len(self._waiting)
        while self._waiting and (low is None or self._waiting[0].version <= low):
            waiter = heapq.heappop(self._waiting)
            if waiter.number > upto:  # committed after the look began: someone may have joined before it
                late.append(waiter)
            elif not waiter.future.done():
                waiter.future.set_result(waiter.version)
        for waiter in late:
            heapq.heappush(self._waiting, waiter)
        if len(self._waiting) == before:  # else the next one is to be looked for: nobody has asked for its version yet
            await self.wake.wait(again)

    async def _lowest(self) -> tuple[int | None, float]:
        """The lowest version that a member to be waited for has applied (None: nobody to wait for); when to look again."""
        membership = self._membership
        low: int | None = None
        again = self._context.settings.max_stale
        waited: list[str] = []
        unwaited = []
        names, boot = await self._members(), membership.boot
        if len(membership.nodes.keys() - names):
            names = [*names, *(name for name in membership.nodes if name not in membership.members)]
        for name in names:
            if name.startswith(boot) and membership.is_own(name):
                continue
            record = membership.members.get(name)
            if record is None:
                if name in membership.nodes:  # live; somebody has deleted what says that it may be serving
                    waited.append(name)
                continue
            if membership.is_out(name):
                continue
            if record.on_stale == "serve":
                unwaited.append(name)
            elif name in membership.absent:
                again = min(again, (membership.out_at(name) - self._context.now()) / SECOND)
                low = NOTHING
            else:
                waited.append(name)
        self.not_waited_for = tuple(unwaited)
        if self._membership.is_large:
            applied, soon = await self._by_sheets(waited)
            again = min(again, soon)
        else:
            applied = await self._by_records(waited)
        low = min((*applied.values(), *([] if low is None else [low])), default=None)
        return low, max(again, 0.001)

    async def _by_records(self, names: Sequence[str]) -> dict[str, int]:
        """What each member's own record says: one read for each whose record has changed since the last look."""
        unknown = [name for name in names if name not in self._known]
        applied = {name: self._known[name] for name in names if name in self._known}
        for name in unknown:
            self._known[name] = NOTHING  # from the moment of the question on: the watch may fire before we look
        try:
            answers = await self._context.ask_each(unknown, self._ask)
        except ZooKeeperError:
            self._known.clear()
            raise
        return applied | {name: self._says(name, answer) for name, answer in answers}

    async def _by_sheets(self, names: Sequence[str]) -> tuple[dict[str, int], float]:
        """What the sheets say, and when to look again. Whose sheet is late for long is asked itself."""
        target, since = self._waiting[0].version, self._waiting[0].since
        # Another dictionary comes with another connection, even while this look goes on with what it has.
        sheets = self._sheets = {name: self._sheets.get(name, NOTHING) for name in names}
        behind = self._cells.group(name for name in names if sheets[name] < target)
        asked = [number for number in behind if number not in self._read_sheets]
        self._read_sheets.update(asked)
        try:
            lines, missing = await self._cells.read(asked, self._watch_sheet)
        except ZooKeeperError:
            self._read_sheets.clear()
            raise
        for name, line in lines.items():
            if name in sheets:
                sheets[name] = max(sheets[name], line.proved)
        self._read_sheets.difference_update(missing)  # nobody watches those
        step = self._context.settings.max_stale / 16
        patience = (since - self._context.now()) / SECOND + self._context.settings.max_stale / 2
        if patience <= 0:
            late = [name for name in names if sheets[name] < target]
            for name, applied in (await self._by_records(late)).items():
                sheets[name] = max(sheets[name], applied)
        again = [patience] if patience > 0 else []
        return sheets, min([*again, step] if missing else again, default=self._context.settings.max_stale)

    def _watch_sheet(self, number: int) -> Callable[[], None]:
        def fired() -> None:
            self._read_sheets.discard(number)
            self.wake.set()

        return fired

    async def _members(self) -> list[str]:
        return await self._membership.look()

    def _ask(self, name: str) -> Awaitable[tuple[bytes, Stat]]:
        def fired() -> None:
            self._known.pop(name, None)
            self.wake.set()

        return self._context.zk.get(self._context.layout.node(name), fired)

    def _says(self, name: str, answer: tuple[bytes, Stat] | None) -> int:
        """The version that a live member has applied; NOTHING when its record proves nothing."""
        if answer is None:
            self._known.pop(name, None)
            self.wake.set()  # gone just now: the next look finds it absent
            return NOTHING
        node = self._membership.read_node(name, answer[0])
        applied = NOTHING if node is None or node.state == "joining" else node.applied
        if name in self._known:  # else the watch has fired already
            self._known[name] = applied
        return applied
