"""The level `applied`: waits until no other server can serve what an entry invalidated.

A member is satisfied when its own ephemeral znode says that it has applied the entry, or when its record under /members is
gone, or when its znode has been absent for as long as it may serve without a certificate. A certificate is a write to that
znode, so without it there is no new one. The list of ephemerals alone would not do: a session can end (closed by force) while
its server still serves. A server that registers after the commit reads a head at or above the entry before it serves.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable

from .context import SECOND, Context, Signal
from .membership import Membership
from .ports import Future, Stat, ZooKeeperError

NOTHING = -2  # below every version


class Acks:
    """Owns the futures that wait for the peers."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._waiting: list[tuple[int, int, Future[int]]] = []
        self._added = 0
        self._known: dict[str, int] = {}  # what a member's record says, while the watch on it has not fired
        self.not_waited_for: tuple[str, ...] = ()  # members that serve without a certificate
        self.wake = Signal(context.runtime)
        membership.on_listed.append(self.wake)

    def add(self, version: int, future: Future[int]) -> None:
        """An entry was committed; the future gets its version when everybody has it."""
        self._added += 1
        heapq.heappush(self._waiting, (version, self._added, future))
        self.wake.set()

    def session_changed(self) -> None:
        self._known.clear()
        self.wake.set()

    async def step(self) -> None:
        """One look at everybody; then waits for a change, or until an absent one is out."""
        self._waiting = [item for item in self._waiting if not item[2].done()]
        heapq.heapify(self._waiting)
        if not self._waiting or self._membership.synced_session != self._context.zk.session:
            await self.wake.wait(self._context.settings.max_stale)
            return
        upto = self._added
        low, again = await self._lowest()
        late = []
        while self._waiting and (low is None or self._waiting[0][0] <= low):
            item = heapq.heappop(self._waiting)
            if item[1] > upto:  # committed after the look began: someone may have joined before it
                late.append(item)
            elif not item[2].done():
                item[2].set_result(item[0])
        for item in late:
            heapq.heappush(self._waiting, item)
        if self._waiting:
            await self.wake.wait(again)

    async def _lowest(self) -> tuple[int | None, float]:
        """The lowest version that a member to be waited for has applied (None: nobody to wait for); when to look again."""
        membership = self._membership
        low: int | None = None
        again = self._context.settings.max_stale
        unknown = []
        unwaited = []
        for name in await self._members():
            record = membership.members.get(name)
            if record is None or membership.is_own(name) or membership.is_out(name):
                continue
            if record.on_stale == "serve":
                unwaited.append(name)
            elif name in membership.absent:
                again = min(again, (membership.out_at(name) - self._context.now()) / SECOND)
                low = NOTHING
            elif name in self._known:
                low = self._known[name] if low is None else min(low, self._known[name])
            else:
                unknown.append(name)
        self.not_waited_for = tuple(unwaited)
        for name in unknown:
            self._known[name] = NOTHING  # from the moment of the question on: the watch may fire before we look
        try:
            answers = await self._context.ask_each(unknown, self._ask)
        except ZooKeeperError:
            self._known.clear()
            raise
        for name, answer in answers:
            applied = self._says(name, answer)
            low = applied if low is None else min(low, applied)
        return low, max(again, 0.001)

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
