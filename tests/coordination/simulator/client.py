"""The driver of the simulated world: ports.ZooKeeper over an Ensemble, with the habits of a real client.

It reconnects to any server, never to one that is behind what it has seen in this session; it drops a connection that does not
answer in time; it loses all watches with a connection; after the end of a session it forgets what it had seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcserver.coordination import ports
from mcserver.coordination.ports import Create, Delete, Operation, SessionState, Set

from .ensemble import Connection, Ensemble, Request, Session
from .scheduler import MS, SECOND, Future, Process


class SimulatedZooKeeper:
    """One process's client."""

    def __init__(self, process: Process, ensemble: Ensemble, reply_deadline: float) -> None:
        self.process = process
        self.world = process.world
        self.ensemble = ensemble
        self.state = SessionState.SUSPENDED
        self.session = 0
        self.connection = 0
        self.why = ""
        self.unreachable = False  # cut off from all servers
        self._deadline = int(reply_deadline * SECOND)
        self._listeners: list[Callable[[SessionState], None]] = []
        self._wire: Connection | None = None
        self._session: Session | None = None
        self._pending: deque[Request] = deque()
        self._watches: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._seen = 0  # the highest zxid seen in this session
        self._refused = 0
        self._watchdog = False
        self._closed = False
        process.on_pause = self._paused
        self._reconnect()

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        self._listeners.append(listener)

    def figures(self) -> Mapping[str, int | float | str]:
        return {"outstanding": len(self._pending)}

    @property
    def wire(self) -> Connection | None:
        return self._wire

    @property
    def writes(self) -> int:
        """How many answers to writes are outstanding."""
        return sum(request.kind == "write" for request in self._pending)

    def waits_only_for(self, start: str) -> bool:
        """Whether one answer is outstanding, to a read of a path, or several, that begin so."""
        if len(self._pending) != 1:
            return False
        asked = self._pending[0]
        path = asked.args[0] if asked.kind == "gets" else asked.args
        return isinstance(path, str) and path.startswith(start)

    # Calls ---------------------------------------------------------------------------------------------------------------

    def _call(self, kind: str, args: Any, watch: Callable[[], None] | None = None) -> Future:
        future = Future(self.process)
        if self.state is not SessionState.CONNECTED or self._wire is None:
            future.set_exception(ports.NotConnected(str(args)))
            return future
        request = Request(kind, args, future, watch, self.world.now)
        self._pending.append(request)
        self._wire.send(request)
        if not self._watchdog:
            self._watchdog = True
            self.world.after(self._deadline, self.process, self._check_replies)
        return future

    def get(self, path: str, watch: Callable[[], None] | None = None) -> Future:
        return self._call("get", path, watch)

    def gets(self, paths: Sequence[str]) -> Future:
        return self._call("gets", list(paths))

    def exists(self, path: str, watch: Callable[[], None] | None = None) -> Future:
        return self._call("exists", path, watch)

    def children(self, path: str, watch: Callable[[], None] | None = None) -> Future:
        return self._call("children", path, watch)

    def multi(self, operations: Sequence[Operation]) -> Any:
        size = sum(len(o.path) + (len(o.data) if isinstance(o, Create | Set) else 0) for o in operations)
        if size > self.ensemble.packet_limit:
            future = Future(self.process)
            future.set_exception(ports.TooLarge(str(size)))
            return future
        return _Written(self._call("write", list(operations)), operations)

    def set(self, path: str, data: bytes, version: int = -1) -> Any:
        return _Written(self._call("write", [Set(path, data, version)]), "set")

    def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False) -> Any:
        return _Written(self._call("write", [Create(path, data, ephemeral, sequence)]), "create")

    def delete(self, path: str, version: int = -1) -> Any:
        return _Written(self._call("write", [Delete(path, version)]), "delete")

    def close(self) -> Future:
        self._closed = True
        done = Future(self.process)
        if self._session is not None and self._wire is not None and not self.unreachable:
            self.ensemble.end_session(self._session)
        self._drop(SessionState.LOST, ports.SessionExpired("closed"))
        done.set_result(None)
        return done

    # Replies and events --------------------------------------------------------------------------------------------------

    def receive(self, wire: Connection, request: Request, result: Any, zxid: int) -> None:
        if wire is not self._wire:
            return
        expected = self._pending.popleft()
        assert expected is request
        self._seen = max(self._seen, zxid)
        if isinstance(result, ports.ZooKeeperError):
            request.future.finish_now(None, result)
            return
        if request.watch is not None:
            kind = "children" if request.kind == "children" else "data"
            self._watches.setdefault((kind, request.args), []).append(request.watch)
        request.future.finish_now(result, None)

    def watch_event(self, wire: Connection, kind: str, path: str) -> None:
        if wire is self._wire:
            for watch in self._watches.pop((kind, path), ()):
                watch()

    def _check_replies(self) -> None:
        self._watchdog = False
        if not self._pending:
            return
        due = self._pending[0].sent + self._deadline
        if due <= self.world.now:
            self.disconnected(self._wire)
        else:
            self._watchdog = True
            self.world.at(due, self.process, self._check_replies)

    # Connections ---------------------------------------------------------------------------------------------------------

    def _paused(self) -> None:
        if self._session is not None:
            self.ensemble.contact_ends(self._session)

    def cut(self) -> None:
        """The network between this client and the servers swallows everything from now on."""
        self.unreachable = True
        if self._wire is not None:
            self._wire.blackholed = True
            self.ensemble.contact_ends(self._wire.session)

    def die(self) -> None:
        """The process is gone, and its sockets with it."""
        if self._wire is not None:
            self.ensemble.contact_ends(self._wire.session)
            self._wire.close()

    def heal(self) -> None:
        self.unreachable = False

    def disconnected(self, wire: Connection | None) -> None:
        if wire is None or wire is not self._wire:
            return
        self._drop(SessionState.SUSPENDED, ports.ConnectionLoss("no connection"))
        self._later()

    def _drop(self, state: SessionState, error: ports.ZooKeeperError) -> None:
        if self._wire is not None:
            self.ensemble.contact_ends(self._wire.session)
            self._wire.close()
            self._wire = None
        pending, self._pending = self._pending, deque()
        for request in pending:
            request.future.set_exception(type(error)(str(error)))
        watches, self._watches = self._watches, {}
        self._become(state)
        for callbacks in watches.values():
            for callback in callbacks:
                callback()

    def _become(self, state: SessionState) -> None:
        if state is self.state and state is not SessionState.CONNECTED:
            return
        self.state = state
        if self.world.note:
            self.world.note(f"{self.process.name} is {state.value} (session {self.session:x})")
        for listener in self._listeners:
            listener(state)

    def _later(self) -> None:
        self.world.after((5 + 100 * self.world.random.random()) * MS, self.process, self._reconnect)

    def _reconnect(self) -> None:
        if self._wire is not None or self._closed:
            return
        server = self.world.random.choice(self.ensemble.servers)
        if self.unreachable or not server.up or server.isolated or not self.ensemble.writable:
            self._later()
            return
        back = int(self.world.random.random() ** 4 * 12)
        if not server.behind:
            server.catch_up(len(self.ensemble.log) - back)
        if server.zxid < self._seen and self._session is not None:
            self._refused += 1  # the server is behind what we have seen; after some tries a new client is made
            if self._refused < 8:
                self._later()
                return
        if self._session is not None and (self._session.closed or self._refused):
            self._session, self._seen = None, 0
            self._become(SessionState.LOST)
        self._refused = 0
        if self._session is None:
            self._session = self.ensemble.open_session(self)
        self._session.heard = self.world.now
        self._wire = self.ensemble.connect(self, server, self._session)
        self.session = self._session.id
        self.connection += 1
        self._become(SessionState.CONNECTED)


class _Written:
    """The answer to a write, in the form of its call. The wire carries (path, Stat) for each thing made or set."""

    __slots__ = ("_call", "_future")

    def __init__(self, future: Future, call: str | Sequence[Operation]) -> None:
        self._future = future
        self._call = call

    def __await__(self) -> Any:
        call = self._call
        if not isinstance(call, str):
            items = yield from self._future.__await__()
            made = zip(call, items, strict=True)
            return [item and (item[0] if isinstance(operation, Create) else item[1]) for operation, item in made]
        try:
            items = yield from self._future.__await__()
        except ports.ZooKeeperError as error:
            raise type(error)(str(error)) from None
        return items[0][1] if call == "set" else items[0]
