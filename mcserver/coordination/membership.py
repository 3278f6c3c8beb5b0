"""Who is in the fleet: this server's own two records, and what it sees of the others'.

A server has an ephemeral znode under /nodes (it is alive) and a persistent one under /members (it may be serving), made in
one transaction under a name that no other session and no other boot ever has. The second outlives the first: a server whose
session is gone, unknown to itself, serves until its certificate runs out, so others go on counting it for that long.

Everybody knows the fleet by the roll (roll.py), which the leader keeps. The lists themselves are read by the leader, and by
who waits for `applied`: `look`. In a log of the first format, which a member of the first release may lead, there is no roll
to rely on, and everybody looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping

from .context import Context, Signal
from .entry import NEWEST
from .layout import UNKNOWN, MemberRecord, NodeRecord, boot_of, is_name
from .ports import SECOND, Create, Delete, Malformed, Member, NodeExists, NoNode, Stat, ZooKeeperError
from .roll import Listing, News, Roll, Row

JITTER_FROM = 24  # members up to which nobody waits before looking at what has changed
JITTER_MAX = 8.0  # s


class Membership:
    """Registers this server; keeps the view of the fleet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.boot = f"{context.settings.node_name}.{context.runtime.random.getrandbits(48):012x}"
        self.name = f"{self.boot}.0.0"  # node name, boot, session, number of the registration
        self.state = "joining"
        self.version = 0
        self.told: list[str] = []  # addresses of those whom the list of that version names, by name
        self.highest = 0  # version that was ever told here
        self.format = 0  # of the log, as the reader has seen it last; 0: not yet
        self.figures: tuple[int, ...] = ()  # what the record is to say of this server, as cells.FIGURES
        self.nodes: dict[str, NodeRecord] = {}  # live servers; `applied` and state as of the last look
        self.members: dict[str, MemberRecord] = {}  # of those that may be serving, as far as known
        # members without a node: since when seen so, without a break of the connection
        self.absent: dict[str, int] = {}
        self.applied = UNKNOWN  # as last written to the record
        self.is_verified = False  # the reader has found its place in the log on this connection
        self.synced_session = 0  # a write of this session has come back: its reads see all that was committed before
        self.roll = Roll()
        self.keeps_roll = False  # this server leads: what it sees is what the roll will say
        self._leader = ""  # of the roll, as last told
        self._session = 0
        self._registrations = 0
        self._old_names: list[str] = []
        self._watched: set[str] = set()
        self._earlier: set[str] = set()  # whose `applied` is of an earlier connection, and may be of another log
        self.copies: set[str] = set()  # in /nodes, of no session: tools that copy trees make such
        self._listed: dict[str, tuple[list[str], Stat]] = {}  # as read, while the watch has not fired
        self.lists_version = 0  # of the nodes, at the last look
        self._made = False  # the persistent znodes were seen to be there
        self.wake = Signal(context.runtime)
        self.certified = Signal(context.runtime)  # set by each certificate
        self.on_listed: list[Signal] = []  # woken when one of the lists has changed
        self.on_seen: list[Signal] = []  # woken when the view has changed
        self.on_proved: list[Signal] = []  # woken by the first certificate of a connection

    # This server ---------------------------------------------------------------------------------------------------------

    @property
    def is_registered(self) -> bool:
        """Whether the name belongs to the current session."""
        return self._session == self._context.zk.session and self._session != 0

    def is_own(self, name: str) -> bool:
        """Whether a name is of this boot of this server, in whatever session."""
        return boot_of(name) == self.boot

    async def register(self) -> None:
        """Makes both records under a new name; after a lost answer, under the same name again."""
        context, layout = self._context, self._context.layout
        session = context.zk.session
        name = f"{self.boot}.{session:x}.{self._registrations}"
        if name not in self._old_names:
            self._old_names.append(name)
        self.name = name
        settings = context.settings
        member = MemberRecord(settings.max_stale, settings.on_stale, settings.address, NEWEST).encode()
        if not self._made:
            await self.make_skeleton()
        context.budget.wrote("membership", context.now())
        try:
            await context.zk.multi(
                [
                    Create(layout.member(name), member),
                    Create(layout.node(name), self.record(self.applied), ephemeral=True),
                ]
            )
        except NodeExists:
            pass  # the answer to the first try was lost
        except NoNode:
            self._made = False
            raise
        self._session = session
        context.trace("registered", name)

    def forget(self) -> None:
        """Our znode is gone though the session lives: the next registration takes another name, which proves nothing yet."""
        self._session = 0
        self.is_verified = False
        self._registrations += 1

    def record(self, applied: int) -> bytes:
        """What /nodes/<name> is to say now."""
        self.applied = applied
        return NodeRecord(self._context.settings.address, self.own_state, applied, self.boot, self.figures).encode()

    @property
    def own_state(self) -> str:
        """Until the reader is sure of its place, nobody may rely on `applied`."""
        return self.state if self.is_verified else "joining"

    def prove(self) -> None:
        """The reader has a certificate; the first on a connection changes what this server says of itself."""
        first = not self.is_verified or self.synced_session != self._context.zk.session
        self.is_verified, self.synced_session = True, self._context.zk.session
        if self.state == "joining":
            self.state = "ready"
            self._context.changed("state")
        for signal in self.on_proved if first else ():
            signal.set()
        self.certified.set()

    def clears_itself(self, name: str) -> bool:
        """Whether this server sees to that record of its own. One that a restored backup has brought back it has forgotten."""
        return name in self._old_names

    async def clear_old_names(self) -> None:
        """Removes this boot's records of earlier sessions; to be called with a certificate of the current one.

        Safe then: what was committed before that round is applied here, and for what came later the new name counts.
        """
        while len(self._old_names) > 1:
            self._context.budget.wrote("membership", self._context.now())
            try:
                await self._context.zk.delete(self._context.layout.member(self._old_names[0]))
            except NoNode:
                pass
            del self._old_names[0]

    async def clear_old_names_when_certified(self) -> None:
        await self.certified.wait()
        await self.clear_old_names()

    async def sign_off(self) -> None:
        """Removes both records; to be called when nothing is served any more: then nobody has to wait for this server."""
        layout = self._context.layout
        await self.clear_old_names()
        self._context.budget.wrote("membership", self._context.now())
        await self._context.zk.multi([Delete(layout.member(self.name)), Delete(layout.node(self.name))])

    def left(self) -> None:
        """This server is out: the others, as last seen, are what is left, and it knows of no leader any more."""
        self.roll.leader = ""
        self.nodes = {name: node for name, node in self.nodes.items() if not self.is_own(name)}
        self._tell(self.version + 1, self.nodes)

    async def make_skeleton(self) -> None:
        """Makes the persistent znodes that are not there."""
        zk = self._context.zk
        there = await self._context.ask_each(self._context.layout.skeleton(), zk.exists)
        for path in [path for path, stat in there if stat is None]:
            self._context.budget.wrote("membership", self._context.now())
            try:
                await zk.create(path)
            except NodeExists:
                pass
        self._made = True

    # The others ----------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        return len(self.nodes)

    def listing(self) -> list[Member]:
        """The live servers by name."""
        return [
            Member(name, node.address, node.state, node.applied, self.is_own(name))
            for name, node in sorted(self.nodes.items())
        ]

    @property
    def is_large(self) -> bool:
        """Whether the fleet acknowledges by cells."""
        return self.format >= 2 and self.live > self._context.settings.direct_max

    def session_changed(self) -> None:
        """Watches are gone; what was seen may never have been, if the ensemble was restored from a backup.

        Who was absent may be there again, and the serials of the roll may count other changes: the list is read anew.
        """
        self.is_verified = False
        self.roll.mark = ""
        self.log_went_back()
        self.absent.clear()
        self._watched.clear()
        self._listed.clear()
        self.wake.set()

    def log_went_back(self) -> None:
        """What was seen of the others' `applied` may be of another log: it may be lower now."""
        self._earlier = set(self.nodes)

    def keep_roll(self, keeps: bool) -> None:
        """Whether this server leads, and so looks by itself."""
        if keeps is not self.keeps_roll:
            self.keeps_roll = keeps
            self._watched.discard(self._context.layout.news)
            self.wake.set()

    def rolled(self, version: int, rows: Mapping[str, Row]) -> None:
        """The leader has written the roll: what it has seen is everybody's view."""
        self._tell(version, {name: row.record for name, row in rows.items()})
        self._seen()

    @property
    def leader(self) -> str:
        """Who leads, as the roll says; "" without one."""
        return self.roll.leader if self.format >= 2 and not self.keeps_roll else ""

    def set_format(self, number: int) -> None:
        """The reader has seen what format the log has."""
        if number != self.format:
            self.format = number
            self.wake.set()
            self._seen()

    def is_out(self, name: str) -> bool:
        """Whether a member has been absent for so long that its gate must be closed."""
        return name in self.absent and self._context.now() >= self.out_at(name)

    def out_at(self, name: str) -> int:
        """When an absent member's gate is closed for certain (ns)."""
        return self.absent[name] + int(self.members[name].max_stale * self._context.settings.absence_margin * 1e9)

    async def look(self) -> list[str]:
        """Who is there now; returns the members. Those come first: one that is then not among the nodes has gone.

        While the watch on a list has not fired, the list is what it was, up to everything that this connection has been
        told: a watch fires before the answer to a later write. Then nothing is asked.
        """
        layout = self._context.layout
        try:
            member_reply = self._ask_list(layout.members)
            node_reply = self._ask_list(layout.nodes)
            members, _ = await self._list(layout.members, member_reply)
            nodes, stat = await self._list(layout.nodes, node_reply)
        except ZooKeeperError as error:
            self._watched.clear()  # neither is sure to be set
            self._listed.clear()
            if isinstance(error, NoNode):  # somebody has deleted all of them, and what they are in
                await self.make_skeleton()
            raise
        now, known, there = self._context.now(), set(members), set(nodes)
        for name in [name for name in self.absent if name not in known or name in there]:
            del self.absent[name]
        for name in [name for name in members if name not in there]:
            self.absent.setdefault(name, now)
        await self._read_new(members, nodes)
        if self.format < 2 and stat.cversion != self.version:
            self._tell(stat.cversion, self.nodes)
            self._seen()
        self.lists_version = stat.cversion
        return members

    async def _list(self, path: str, reply: Awaitable[tuple[list[str], Stat]] | None) -> tuple[list[str], Stat]:
        """The answer, or what is known if that still holds now: it may have changed while another answer was awaited."""
        while reply is None:
            if path in self._listed:
                return self._listed[path]
            reply = self._ask_list(path)
        names, stat = await reply
        answer = list(filter(is_name, names)), stat
        if path in self._watched:
            self._listed[path] = answer
        return answer

    async def _read_new(self, members: list[str], nodes: list[str]) -> None:
        context, layout = self._context, self._context.layout
        there, known = set(nodes), set(members)
        for name in [name for name in self.members if name not in known]:
            del self.members[name]
        for name in [name for name in self.nodes if name not in there]:
            del self.nodes[name]
        self.copies &= there
        new = [name for name in members if name not in self.members]
        for name, answer in await context.get_each(new, layout.member):
            if answer is None:
                self.absent.pop(name, None)
            else:
                self.members[name] = self._member(name, answer[0])
        await self._read([name for name in nodes if name not in self.nodes])

    async def read_nodes(self) -> None:
        """Looks at every live server's record again."""
        await self._read(list(self.nodes))

    async def _read(self, names: list[str]) -> None:
        for name, answer in await self._context.get_each(names, self._context.layout.node):
            if answer is not None:
                self.read_node(name, answer[0])
                if not answer[1].ephemeral_owner:
                    self.copies.add(name)

    def state_of(self, name: str) -> str:
        """Of a live server. This one knows its own better than what was read of it, which may be from before."""
        return self.own_state if name == self.name else self.nodes[name].state

    def read_node(self, name: str, data: bytes) -> NodeRecord | None:
        """Notes what a live server's record says; None when it says nothing that is readable: what it said before stands."""
        try:
            node = self.nodes[name] = NodeRecord.decode(data)
        except Malformed as error:
            self._context.unreadable(self._context.layout.node(name), data, error)
            return None
        self._earlier.discard(name)
        return node

    def note(self, name: str, applied: int, state: str) -> None:
        """What somebody else has read in a live server's record: never newer than what was read there since, by ourselves."""
        node = self.nodes.get(name)
        if node is not None and (applied >= node.applied or name in self._earlier):
            self._earlier.discard(name)
            self.nodes[name] = node._replace(applied=applied, state=state)

    def _member(self, name: str, data: bytes) -> MemberRecord:
        """What is not readable counts as a server that may be serving: that waits too long rather than too short."""
        try:
            return MemberRecord.decode(data)
        except Malformed as error:
            self._context.unreadable(self._context.layout.member(name), data, error)
            return MemberRecord(self._context.settings.max_stale, "miss")

    def _ask_list(self, path: str) -> Awaitable[tuple[list[str], Stat]] | None:
        """Asks for the children, with a watch unless there is one; None when they are known, and still the same."""
        if path in self._watched:
            return None if path in self._listed else self._context.zk.children(path)

        def fired() -> None:
            self._watched.discard(path)
            self._listed.pop(path, None)
            for signal in self.on_listed:
                signal.set()
            if self.format < 2:
                self.wake.set()

        self._watched.add(path)
        return self._context.zk.children(path, fired)

    def _tell(self, version: int, records: Mapping[str, NodeRecord | MemberRecord]) -> None:
        """What `config get cluster` says from now on: one version is one list at every server, whatever some know already."""
        self.version = version
        self.told = [record.address for _, record in sorted(records.items()) if record.address]

    def _seen(self) -> None:
        self.highest = max(self.highest, self.version)
        for signal in self.on_seen:
            signal.set()
        self._context.changed("members")

    async def step(self) -> None:
        """Keeps the view current: by the roll, or in a log of the first format at every change of the lists."""
        if self.format >= 2 and not self.keeps_roll:
            await self._follow_roll()
            return
        if self.format != 1:  # not known yet; or the leader, which looks by itself
            await self.wake.wait(self._context.settings.max_stale)
            return
        await self.look()
        settled = all(node.state == "ready" for node in self.nodes.values())
        if not await self.wake.wait(self._context.settings.max_stale * (1 if settled else 0.25)):
            await self.read_nodes()

    # The roll ------------------------------------------------------------------------------------------------------------

    async def _follow_roll(self) -> None:
        """One look at the news; then waits for more."""
        zk, layout = self._context.zk, self._context.layout
        if layout.news not in self._watched:
            try:
                await self._read_roll()
            except NoNode:
                self._watched.discard(layout.news)
                if await zk.exists(layout.news, self.wake.set) is not None:
                    return
            except ZooKeeperError:
                self._watched.discard(layout.news)  # it is not sure to be set, and what it tells of was not read
                raise
        await self.wake.wait(self._context.settings.max_stale)
        await self._context.sleep(self.jitter())

    def jitter(self) -> float:
        """Seconds to wait before one looks at what has changed for everybody."""
        if self.live <= JITTER_FROM:
            return 0.0
        return min(JITTER_MAX, self.live / self._context.settings.spread) * self._context.runtime.random.random()

    async def _read_roll(self) -> None:
        zk, layout, roll = self._context.zk, self._context.layout, self.roll

        def fired() -> None:
            self._watched.discard(layout.news)
            self.wake.set()

        before = tuple(roll.rows)
        self._watched.add(layout.news)
        data, _ = await zk.get(layout.news, fired)
        try:
            news = News.decode(data)
            if not roll.follow(news):
                try:
                    data, _ = await zk.get(layout.list)
                except NoNode:
                    roll.mark = ""
                    return  # the leader writes it again, and the news with it
                roll.start(Listing.decode(data))
                if not roll.follow(news):
                    roll.mark = ""  # the list is older, or newer, than these news
                    self._watched.discard(layout.news)
                    return
        except Malformed as error:
            self._context.unreadable(layout.roll, data, error)
            return  # the leader has to mend it
        self.take(roll, before)

    def take(self, roll: Roll, before: Collection[str] = ()) -> None:
        """The view is that of the roll; `before`: who was on it. A name that has gone from the roll has gone for good.

        Who waits for `applied` may know better: what its lists say holds while their watches have not fired.
        """
        now, listed = self._context.now(), self._listed.get(self._context.layout.nodes)
        current = None if listed is None else set(listed[0])
        members, nodes = self.members, self.nodes
        for name, row in roll.rows.items():
            if current is None or name in current:
                members[name] = row.record
                node = nodes.get(name)
                if node is None or node.state == "joining":
                    self._take_row(name, node, row)
        for name in [name for name in self.nodes if name not in roll.rows]:
            if current is None or name not in current:
                del self.nodes[name]
        for name in before:
            if name not in roll.rows and name in self.members:
                self.absent.setdefault(name, now)
        self._forget_the_dead(now)
        self._tell(roll.version, {name: row.record for name, row in roll.rows.items()})
        self._seen()
        if roll.leader != self._leader:
            self._leader = roll.leader
            self._context.changed("leader")

    def _take_row(self, name: str, node: NodeRecord | None, row: Row) -> None:
        """What the roll says of a server that is new here, or was joining."""
        if node is None:
            self.nodes[name] = NodeRecord(row.record.address, row.state, UNKNOWN, boot_of(name))
        elif node.state != row.state:
            self.nodes[name] = node._replace(state=row.state)

    def _forget_the_dead(self, now: int) -> None:
        """Who has been out for long has no record any more, or is found anew by who looks."""
        margin = int(2 * self._context.settings.member_margin * SECOND)
        for name in [name for name in self.absent if name not in self.members or self.out_at(name) + margin < now]:
            del self.absent[name]
            self.members.pop(name, None)
