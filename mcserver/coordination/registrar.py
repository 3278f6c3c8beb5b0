"""The leader's part in the roll: looks who is there, and writes down what has changed. Every write is the leader's own.

A roll that is there is gone on with: its reader, the next leader, has seen everything that the last one wrote, since its own
candidate is lowest only when that one's is gone. In a large fleet changes are gathered for a while, up to a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .context import Context, Signal
from .layout import MemberRecord, NodeRecord
from .membership import JITTER_FROM, Membership
from .ports import SECOND, Create, Malformed, NoNode, Set, Stat
from .roll import Listing, News, Roll, Row, next_news

GATHER = 1.0  # s, at most, for which changes are gathered
Write = Callable[..., Awaitable[None]]


class Registrar:
    """Writes the roll for as long as this server leads."""

    def __init__(self, context: Context, membership: Membership, wake: Signal) -> None:
        self._context = context
        self._membership = membership
        self._wake = wake
        self._roll: Roll | None = None  # as it is written; None: to be read first
        self._news: News | None = None
        self._lists = -1  # cversion of the list that is written
        self._renew = False  # the list must be written, too
        self._data: dict[str, bytes | None] = {}  # what the two hold, as written or read
        self._looked = self._written = 0
        self._watching: set[str] = set()  # members that join: their records tell when they are ready

    def start_over(self) -> None:
        """Another session, another leadership: what is written must be read."""
        self._roll = self._news = None
        self._lists = -1
        self._watching.clear()

    async def keep(self, write: Write) -> None:
        """Brings the roll up to what the lists say; `write` carries operations out as the leader."""
        await self._see_who_is_ready()
        await self._see_what_is_written()
        if self._roll is None:
            await self._load()
        roll, membership, now = self._roll, self._membership, self._context.now()
        assert roll is not None
        assert self._news is not None
        rows = self._rows()
        changes = roll.differences(rows)
        lists = membership.lists_version
        if not self._renew and not changes and (lists, membership.name) == (self._lists, roll.leader):
            return
        rest = self._pause() - (now - self._written) / SECOND
        if not self._renew and rest > 0 and roll.leader == membership.name:
            self._context.runtime.call_later(rest, self._wake.set)
            return
        news = self._news._replace(version=self._version(rows.keys() != roll.rows.keys()), leader=membership.name)
        news, listing = next_news(news, changes, rows)
        if listing is None and self._renew:
            listing = Listing(news.mark, news.serial, rows)
        operations = self._operations(news, listing)
        try:
            await write(*operations)
        except NoNode as error:
            self.start_over()
            if error.index:  # not our candidate: somebody has deleted the roll, or all that it is in
                await membership.make_skeleton()
            raise
        self._renew, self._news, self._written, self._lists = False, news, now, lists
        roll.start(Listing(news.mark, news.serial, rows))
        roll.version, roll.leader = news.version, news.leader
        self._data |= {operation.path: operation.data for operation in operations}
        membership.rolled(news.version, rows)

    def _version(self, is_another: bool) -> int:
        """The cversion of /nodes. Where that is lower than what was told before (somebody has deleted /nodes, or an ensemble was
        wiped or restored from a backup) it goes on from there: clients of auto discovery take no list of a lower version.
        """
        assert self._news is not None
        told, lists = max(self._news.version, self._membership.highest), self._membership.lists_version
        return lists if lists > told else told + (is_another or self._lists not in (-1, lists))

    async def _see_what_is_written(self) -> None:
        """Looks now and then whether somebody has deleted the roll, or written into it: then it is made anew."""
        layout, now = self._context.layout, self._context.now()
        if self._roll is None or now - self._looked < self._context.settings.max_stale * SECOND:
            return
        self._looked = now
        found = await self._context.ask_each((layout.list, layout.news), self._context.zk.get)
        if {path: answer and answer[0] for path, answer in found} != self._data:
            self.start_over()

    def _operations(self, news: News, listing: Listing | None) -> list[Set | Create]:
        layout = self._context.layout
        records = [(layout.list, listing.encode())] if listing else []
        records.append((layout.news, news.encode()))
        return [Create(path, data) if self._data.get(path) is None else Set(path, data) for path, data in records]

    def _pause(self) -> float:
        live = self._membership.live
        return 0.0 if live <= JITTER_FROM else min(GATHER, live / self._context.settings.spread)

    def _rows(self) -> dict[str, Row]:
        """Everybody who is live, by name: so the same fleet is the same roll."""
        membership, rows = self._membership, {}
        for name, node in sorted(membership.nodes.items()):
            record = membership.members.get(name) or self.lost_record(name, node)
            rows[name] = Row(record._replace(address=record.address or node.address), node.state)
        return rows

    def lost_record(self, name: str, node: NodeRecord) -> MemberRecord:
        """What the record under /members of a live server said before somebody deleted it, as far as that is known."""
        row = self._roll.rows.get(name) if self._roll else None
        reads = max(1, self._membership.format)
        return row.record if row else MemberRecord(self._context.settings.max_stale, "miss", node.address, reads)

    async def _see_who_is_ready(self) -> None:
        """Looks at the records of those that join, again when they change."""
        zk, layout, membership = self._context.zk, self._context.layout, self._membership
        self._watching &= set(membership.nodes)
        joining = [name for name, node in membership.nodes.items() if node.state == "joining"]

        def ask(name: str) -> Awaitable[tuple[bytes, Stat]]:
            def fired() -> None:
                self._watching.discard(name)
                self._wake.set()

            self._watching.add(name)
            return zk.get(layout.node(name), fired)

        try:
            answers = await self._context.ask_each([name for name in joining if name not in self._watching], ask)
        except Exception:
            self._watching.clear()  # none of them is sure to be set
            raise
        for name, answer in answers:
            if answer is None:
                self._watching.discard(name)
            else:
                membership.read_node(name, answer[0])

    async def _load(self) -> None:
        """Reads what is written; what is not readable, or not whole, is made anew under another mark."""
        zk, layout = self._context.zk, self._context.layout
        found = await self._context.ask_each((layout.list, layout.news), zk.get)
        self._looked = self._context.now()
        self._data = {path: answer and answer[0] for path, answer in found}
        listing, news = self._data.values()
        roll = Roll()
        if listing is not None and news is not None:
            try:
                roll.start(Listing.decode(listing))
                self._news = News.decode(news)
            except Malformed as error:
                self._context.unreadable(layout.roll, listing + news, error)
                self._news = None
            if self._news is not None and roll.follow(self._news):
                self._roll, self._renew = roll, False
                return
        mark = self._context.guid()
        self._roll, self._renew = Roll(), True
        self._news = News(mark, self._membership.name, 0, 0, ())
