"""An ensemble: one linear log of transactions, followers that lag behind it, sessions that the leader ends.

What real ZooKeeper promises holds here and nothing more: writes are linear, a connection's requests are carried out and
answered in order, reads are local to a server and may be old, a watch fires once and before the client sees the new state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mcserver.coordination import ports
from mcserver.coordination.ports import Operation
from mcserver.testing.tree import Delta, Tree

from .scheduler import MS, SECOND, World

if TYPE_CHECKING:
    from .client import SimulatedZooKeeper

EPOCH = 1 << 32
GONE = ports.Stat(0, 0, 0, 0, 0, 0)  # of what was made or set, and is not there any more


class Transaction(NamedTuple):
    zxid: int
    deltas: list[Delta]
    operations: list[Operation]
    session: int  # whose request it was
    ends: int  # the session that it ends, or 0
    time: int
    stamp: int
    dated: int  # by the clock of ZooKeeper's leader


class Session:
    """Lives at the leader. `heard`: the last contact."""

    def __init__(self, number: int, client: SimulatedZooKeeper, now: int) -> None:
        self.id = number
        self.client = client
        self.heard = now
        self.closed = False
        self.forced = False
        self.connection: Connection | None = None


class Request:
    __slots__ = ("args", "future", "kind", "sent", "watch")

    def __init__(self, kind: str, args: Any, future: Any, watch: Callable[[], None] | None, sent: int) -> None:
        self.kind = kind
        self.args = args
        self.future = future
        self.watch = watch
        self.sent = sent


class Server:
    """One member of the ensemble, with its own copy of the tree."""

    def __init__(self, ensemble: Ensemble, number: int) -> None:
        self.ensemble = ensemble
        self.name = f"zk{number}"
        self.tree = Tree()
        self.up = True
        self.isolated = False
        self.behind = 0  # ns by which it applies later what was committed
        self.slow = 1.0
        self.connections: list[Connection] = []
        self.watches: dict[tuple[str, str], list[Connection]] = {}

    @property
    def zxid(self) -> int:
        log = self.ensemble.log
        return log[self.tree.applied - 1].zxid if self.tree.applied else 0

    def catch_up(self, index: int) -> None:
        """Applies the log up to `index` transactions, firing watches."""
        if self.isolated or not self.up:
            return
        log, tree = self.ensemble.log, self.tree
        index = min(index, len(log))
        while tree.applied < index:
            transaction = log[tree.applied]
            tree.apply(transaction.deltas, transaction.zxid, transaction.dated)
            tree.applied += 1
            if self.watches:
                for delta in transaction.deltas:
                    self._fire(delta)
            if transaction.ends:
                for connection in [c for c in self.connections if c.session.id == transaction.ends]:
                    connection.break_off()

    def _fire(self, delta: Delta) -> None:
        kind, path = delta.kind, delta.path
        self._events("data", path)
        if kind != "set":
            self._events("children", path.rpartition("/")[0])
            if kind == "delete":
                self._events("children", path)

    def _events(self, kind: str, path: str) -> None:
        for connection in self.watches.pop((kind, path), ()):
            connection.event(kind, path)

    def stop(self) -> None:
        self.up = False
        for connection in list(self.connections):
            connection.break_off()
        self.watches.clear()

    def start(self) -> None:
        self.up = True
        self.catch_up(len(self.ensemble.log))


class Connection:
    """One client's connection to one server: requests in order, one at a time."""

    def __init__(self, client: SimulatedZooKeeper, server: Server, session: Session) -> None:
        self.client = client
        self.server = server
        self.session = session
        self.world = client.world
        self.alive = True
        self.blackholed = False
        self._queue: deque[Request] = deque()
        self._busy = False
        self._to_server = 0
        self._to_client = 0
        self._chance = client.world.random.random
        self._history = server.ensemble.restored
        server.connections.append(self)
        session.connection = self

    def _latency(self) -> int:
        roll = self._chance()
        return int((100_000 + roll * roll * roll * 3_000_000) * self.server.slow)

    def send(self, request: Request) -> None:
        if self.blackholed or not self.alive:
            return
        self._to_server = max(self._to_server, self.world.now + self._latency())
        self.world.at(self._to_server, None, self._arrive, request)

    def _arrive(self, request: Request) -> None:
        if not self.alive or self.blackholed:
            return
        if not self.server.isolated:
            self.session.heard = self.world.now
        self._queue.append(request)
        if not self._busy:
            self._work()

    def _work(self) -> None:
        while self._queue and self.alive:
            request = self._queue.popleft()
            if request.kind == "write":
                self._busy = True
                self.world.after(self._latency(), None, self._commit, request)
                return
            self._read(request)

    def _read(self, request: Request) -> None:
        asked = request.args if request.kind == "gets" else [request.args]
        if any(map(self.server.ensemble.forbids, asked)):
            self._reply(request, ports.NoAuth(str(request.args)))
            return
        if request.kind == "gets":
            nodes = [self.server.tree.nodes.get(path) for path in request.args]
            self._reply(request, [node and (node.data, node.stat()) for node in nodes])
            return
        path = request.args
        node = self.server.tree.nodes.get(path)
        if request.watch is not None and (node is not None or request.kind == "exists"):
            kind = "children" if request.kind == "children" else "data"
            self.server.watches.setdefault((kind, path), []).append(self)
        if node is None:
            self._reply(request, None if request.kind == "exists" else ports.NoNode(path))
        elif request.kind == "exists":
            self._reply(request, node.stat())
        elif request.kind == "get":
            self._reply(request, (node.data, node.stat()))
        else:
            self._reply(request, (list(node.children), node.stat()))

    def _commit(self, request: Request) -> None:
        ensemble = self.server.ensemble
        if self._history != ensemble.restored:
            return  # what was under way is gone with the servers
        if not self.alive and (self.session.connection is not self or self.world.random.random() < 0.5):
            return  # lost on its way to the leader, or refused because the session has moved
        if self.server.isolated or not ensemble.writable:
            if self.alive:
                self.world.after(20 * MS, None, self._commit, request)
            return
        result: Any
        try:
            result = ensemble.write(request.args, self.session)
        except ports.ZooKeeperError as error:
            result = error
        index = len(ensemble.log)
        if ensemble.lose_replies and self.world.random.random() < ensemble.lose_replies:
            if self.world.note:
                self.world.note(f"the reply to {self.client.process.name} is lost")
            self.break_off()
            return
        self.world.after(self._latency() + self.server.behind, None, self._committed, request, result, index)

    def _committed(self, request: Request, result: Any, index: int) -> None:
        self.server.catch_up(index)
        if self.server.isolated or not self.alive:
            return
        if isinstance(result, list):
            result = [self._result(item) for item in result]
        self._reply(request, result)
        self._busy = False
        self._work()

    def _result(self, item: Any) -> Any:
        """A Stat for what a Set or Create made, as the server has it now."""
        if isinstance(item, tuple):
            node = self.server.tree.nodes.get(item[0])
            return (item[0], node.stat() if node else GONE)
        return item

    def _reply(self, request: Request, result: Any) -> None:
        if self.blackholed or not self.alive:
            return
        self._to_client = max(self._to_client, self.world.now + self._latency())
        self.world.at(
            self._to_client, self.client.process, self.client.receive, self, request, result, self.server.zxid
        )

    def event(self, kind: str, path: str) -> None:
        if self.blackholed or not self.alive:
            return
        self._to_client = max(self._to_client, self.world.now + self._latency())
        self.world.at(self._to_client, self.client.process, self.client.watch_event, self, kind, path)

    def close(self) -> None:
        """Gone on the server's side; the client's side knows already."""
        if self.alive:
            self.alive = False
            self.server.connections.remove(self)

    def break_off(self) -> None:
        """Gone on both sides; the client notices soon."""
        if self.alive:
            self.close()
            if not self.blackholed:
                self.world.after(self._latency(), self.client.process, self.client.disconnected, self)


class Ensemble:
    """The leader's view: the log, the newest tree, the sessions."""

    def __init__(self, world: World, servers: int, session_timeout: float) -> None:
        self.world = world
        self.timeout = int(session_timeout * SECOND)
        self.log: list[Transaction] = []
        self.tree = Tree()
        self.epoch = 1
        self.restored = 0  # how often it has gone back
        self.servers = [Server(self, number) for number in range(servers)]
        self.sessions: dict[int, Session] = {}
        self.writable = True
        self.lose_replies = 0.0
        self.lag = 1.0  # how much followers lag, times some milliseconds
        self.clock = 0  # ns by which the leader's is ahead
        self.refuse_entries = False
        self.forbidden = ""  # an ACL keeps everybody from what is at this path and below
        self.packet_limit = 1 << 20
        self.on_commit: Callable[[Transaction], None] = lambda transaction: None
        self._next_session = 1

    # Sessions ------------------------------------------------------------------------------------------------------------

    def open_session(self, client: SimulatedZooKeeper) -> Session:
        self._next_session += 1
        session = Session(self._next_session, client, self.world.now)
        self.sessions[session.id] = session
        self.world.after(self.timeout, None, self._check, session)
        return session

    def connect(self, client: SimulatedZooKeeper, server: Server, session: Session) -> Connection:
        return Connection(client, server, session)

    def _in_contact(self, session: Session) -> bool:
        connection = session.connection
        return (
            connection is not None
            and connection.alive
            and not connection.blackholed
            and not connection.server.isolated
            and not session.client.process.killed
            and session.client.process.paused_until <= self.world.now
        )

    def contact_ends(self, session: Session) -> None:
        """The client falls silent now; its last ping was a little earlier."""
        earlier = self.world.now - int(self.world.random.random() * self.timeout / 3)
        session.heard = max(session.heard, earlier)

    def _check(self, session: Session) -> None:
        if session.closed:
            return
        now = self.world.now
        if self._in_contact(session):
            session.heard = now
        if not self.writable:
            session.heard = now  # without a quorum nobody ends sessions, and a new leader starts all timers anew
        if session.heard + self.timeout <= now:
            self.end_session(session)
        else:
            self.world.at(session.heard + self.timeout, None, self._check, session)

    def end_session(self, session: Session, forced: bool = False) -> None:
        """Commits the end of a session: its ephemeral znodes go."""
        if session.closed:
            return
        session.closed, session.forced = True, forced
        if self.world.note:
            self.world.note(f"session {session.id:x} of {session.client.process.name} ends{' by force' * forced}")
        deltas = [Delta("delete", path) for path in self.tree.ephemerals(session.id)]
        self._append(deltas, [], session.id, session.id)

    # Writes --------------------------------------------------------------------------------------------------------------

    def write(self, operations: list[Operation], session: Session) -> list[Any]:
        """Commits, or raises as ZooKeeper answers. The results hold (path, None) for the Stat to be filled in."""
        if session.closed:
            raise ports.SessionExpired("the session has ended")
        if self.refuse_entries:
            for index, operation in enumerate(operations):
                if isinstance(operation, ports.Create) and "/e-" in operation.path:
                    raise ports.NoAuth(operation.path, index)
        for index, operation in enumerate(operations):
            if self.forbids(operation.path):
                raise ports.NoAuth(operation.path, index)
        deltas, paths = self.tree.prepare(operations, session.id)
        if deltas:
            self._append(deltas, operations, session.id, 0)
        results: list[Any] = []
        for operation, path in zip(operations, paths, strict=True):
            results.append((path or operation.path,) if isinstance(operation, ports.Create | ports.Set) else None)
        return results

    def forbids(self, path: str) -> bool:
        return bool(self.forbidden) and f"{path}/".startswith(f"{self.forbidden}/")

    def change_by_hand(self, deltas: list[Delta]) -> None:
        """Somebody with a shell."""
        if deltas:
            self._append(deltas, [], 0, 0)

    def _append(self, deltas: list[Delta], operations: list[Operation], session: int, ends: int) -> None:
        zxid = self.log[-1].zxid + 1 if self.log and self.log[-1].zxid >= self.epoch * EPOCH else self.epoch * EPOCH + 1
        dated = self.world.now + self.clock
        transaction = Transaction(zxid, deltas, operations, session, ends, self.world.now, self.world.stamp(), dated)
        self.log.append(transaction)
        self.tree.apply(deltas, zxid, transaction.dated)
        self.tree.applied += 1
        index = len(self.log)
        chance = self.world.random.random
        for server in self.servers:
            if server.connections:  # the others catch up when somebody connects
                late = chance() ** 6 * 60 * MS * self.lag + 0.2 * MS + server.behind
                self.world.after(late, None, server.catch_up, index)
        self.on_commit(transaction)

    # Disasters -----------------------------------------------------------------------------------------------------------

    def restore(self, length: int) -> None:
        """Goes back to the first `length` transactions, as from a backup; 0 is an empty ensemble."""
        self.log = self.log[:length]
        self.restored += 1
        self.epoch = self.log[-1].zxid // EPOCH + 1 if self.log else 1  # as after an earlier election, perhaps
        self.tree = self._replayed()
        ended = {transaction.ends for transaction in self.log}
        known = {transaction.session for transaction in self.log}
        for server in self.servers:
            server.stop()
            server.tree = self._replayed()
        for session in self.sessions.values():
            session.closed = session.id in ended or session.id not in known
            session.heard = self.world.now
            if not session.closed:
                self.world.after(self.timeout, None, self._check, session)
        for server in self.servers:
            server.start()

    def _replayed(self) -> Tree:
        tree = Tree()
        for transaction in self.log:
            tree.apply(transaction.deltas, transaction.zxid, transaction.dated)
            tree.applied += 1
        return tree
