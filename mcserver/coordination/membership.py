"""Who is in the fleet: this server's own two records, and what it sees of the others'.

A server has an ephemeral znode under /nodes (it is alive) and a persistent one under /members (it may be serving), made in
one transaction under a name that no other session and no other boot ever has. The second outlives the first: a server whose
session is gone, unknown to itself, serves until its certificate runs out, so others go on counting it for that long.
"""

from __future__ import annotations

from collections.abc import Awaitable

from .context import Context, Signal
from .layout import UNKNOWN, MemberRecord, NodeRecord, is_name
from .ports import Create, Delete, Malformed, Member, NodeExists, NoNode, Stat, ZooKeeperError


class Membership:
    """Registers this server; keeps the view of the fleet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.boot = f"{context.settings.node_name}.{context.runtime.random.getrandbits(48):012x}"
        self.name = f"{self.boot}.0.0"  # node name, boot, session, number of the registration
        self.state = "joining"
        self.version = 0
        self.nodes: dict[str, NodeRecord] = {}  # live servers; `applied` as of the last look
        self.members: dict[str, MemberRecord] = {}  # those that may be serving
        self.absent: dict[
            str, int
        ] = {}  # members without a node: since when seen so, without a break of the connection
        self.applied = UNKNOWN  # as last written to the record
        self.is_verified = False  # the reader has found its place in the log on this connection
        self.synced_session = 0  # a write of this session has come back: its reads see all that was committed before
        self._session = 0
        self._registrations = 0
        self._old_names: list[str] = []
        self._watched: set[str] = set()
        self.wake = Signal(context.runtime)
        self.certified = Signal(context.runtime)  # set by each certificate
        self.on_listed: list[Signal] = []  # woken when the view may have changed

    # This server ---------------------------------------------------------------------------------------------------------

    @property
    def is_registered(self) -> bool:
        """Whether the name belongs to the current session."""
        return self._session == self._context.zk.session and self._session != 0

    def is_own(self, name: str) -> bool:
        """Whether a name is of this boot of this server, in whatever session."""
        return name.rsplit(".", 2)[0] == self.boot

    async def register(self) -> None:
        """Makes both records under a new name; after a lost answer, under the same name again."""
        context, layout = self._context, self._context.layout
        session = context.zk.session
        name = f"{self.boot}.{session:x}.{self._registrations}"
        if name not in self._old_names:
            self._old_names.append(name)
        self.name = name
        settings = context.settings
        member = MemberRecord(settings.max_stale, settings.on_stale).encode()
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
        self._session = session
        context.trace("registered", name)

    def forget(self) -> None:
        """Our znode is gone though the session lives: the next registration takes another name."""
        self._session = 0
        self._registrations += 1

    def record(self, applied: int) -> bytes:
        """What /nodes/<name> is to say now. Until the reader is sure of its place, nobody may rely on `applied`."""
        self.applied = applied
        state = self.state if self.is_verified else "joining"
        return NodeRecord(self._context.settings.address, state, applied, self.boot).encode()

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
        """This server is out: the others, as last seen, are what is left."""
        self.nodes = {name: node for name, node in self.nodes.items() if not self.is_own(name)}
        self.version += 1

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

    def session_changed(self) -> None:
        """Watches are gone; what was seen absent may be there again, if the ensemble was restored from a backup."""
        self.is_verified = False
        self.absent.clear()
        self._watched.clear()
        self.wake.set()

    def is_out(self, name: str) -> bool:
        """Whether a member has been absent for so long that its gate must be closed."""
        return name in self.absent and self._context.now() >= self.out_at(name)

    def out_at(self, name: str) -> int:
        """When an absent member's gate is closed for certain (ns)."""
        return self.absent[name] + int(self.members[name].max_stale * self._context.settings.absence_margin * 1e9)

    async def look(self) -> list[str]:
        """Reads who is there; returns the members. Those come first: one that is then not among the nodes has gone."""
        layout = self._context.layout
        member_reply = self._children(layout.members)
        node_reply = self._children(layout.nodes)
        try:
            members, _ = await member_reply
            nodes, stat = await node_reply
            members, nodes = list(filter(is_name, members)), list(filter(is_name, nodes))
        except ZooKeeperError:
            self._watched.clear()  # neither is sure to be set
            raise
        now = self._context.now()
        for name in members:
            if name in nodes:
                self.absent.pop(name, None)
            else:
                self.absent.setdefault(name, now)
        for name in [name for name in self.absent if name not in members]:
            del self.absent[name]
        await self._read_new(members, nodes)
        if stat.cversion != self.version:
            self.version = stat.cversion
            self._context.changed("members")
        return members

    async def _read_new(self, members: list[str], nodes: list[str]) -> None:
        context, layout = self._context, self._context.layout
        for name in [name for name in self.members if name not in members]:
            del self.members[name]
        for name in [name for name in self.nodes if name not in nodes]:
            del self.nodes[name]
        new = [name for name in members if name not in self.members]
        for name, answer in await context.ask_each(new, lambda name: context.zk.get(layout.member(name))):
            if answer is None:
                self.absent.pop(name, None)
            else:
                self.members[name] = self._member(name, answer[0])
        await self._read([name for name in nodes if name not in self.nodes])

    async def read_nodes(self) -> None:
        """Looks at every live server's record again."""
        await self._read(list(self.nodes))

    async def _read(self, names: list[str]) -> None:
        context = self._context
        for name, answer in await context.ask_each(names, lambda name: context.zk.get(context.layout.node(name))):
            if answer is not None:
                self.read_node(name, answer[0])

    def read_node(self, name: str, data: bytes) -> NodeRecord | None:
        """Notes what a live server's record says; None when it says nothing that is readable."""
        try:
            self.nodes[name] = NodeRecord.decode(data)
        except Malformed as error:
            self._context.unreadable(self._context.layout.node(name), data, error)
            self.nodes.pop(name, None)
        return self.nodes.get(name)

    def _member(self, name: str, data: bytes) -> MemberRecord:
        """What is not readable counts as a server that may be serving: that waits too long rather than too short."""
        try:
            return MemberRecord.decode(data)
        except Malformed as error:
            self._context.unreadable(self._context.layout.member(name), data, error)
            return MemberRecord(self._context.settings.max_stale, "miss")

    def _children(self, path: str) -> Awaitable[tuple[list[str], Stat]]:
        """Asks for the children, with a watch unless there is one."""
        if path in self._watched:
            return self._context.zk.children(path)

        def fired() -> None:
            self._watched.discard(path)
            self.wake.set()
            for signal in self.on_listed:
                signal.set()

        self._watched.add(path)
        return self._context.zk.children(path, fired)

    async def step(self) -> None:
        """Keeps the view current: at every change of the lists, and at leisure for what the records say."""
        await self.look()
        settled = all(node.state == "ready" for node in self.nodes.values())
        if not await self.wake.wait(self._context.settings.max_stale * (1 if settled else 0.25)):
            await self.read_nodes()
