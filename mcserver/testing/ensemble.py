"""ZooKeeper within the process, for fleets in tests: one tree, sessions that time out, watches, and a network that can be cut.

It promises what ZooKeeper promises to one client at a time: writes are linear, answers come in order and never within the call, a
watch fires once and before its client sees the new state, ephemeral znodes go with their session. It lives on the host's loop and
keeps nothing on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcserver.coordination import ports
from mcserver.coordination.ports import Create, Delete, Operation, SessionState, Set, Stat, Watch
from mcserver.testing.tree import Delta, Tree

PACKET_BYTES = 1 << 20
FIRST_ZXID = 1 << 32


class Ensemble:
    """What the servers of one fleet share. Times in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session_timeout: float) -> None:
        self.loop = loop
        self.session_timeout = session_timeout
        self.tree = Tree()
        self._zxid = FIRST_ZXID
        self._sessions = 0
        self._watches: dict[tuple[str, str], list[tuple[InProcessZooKeeper, Watch]]] = {}

    def open_session(self) -> int:
        """The id of a new session."""
        self._sessions += 1
        return self._sessions

    def end_session(self, session: int) -> None:
        """Its ephemeral znodes go."""
        self._apply([Delta("delete", path) for path in self.tree.ephemerals(session)])

    def write(self, operations: Sequence[Operation], session: int) -> list[tuple[str, Stat] | None]:
        """All or nothing: path and Stat of what was made or set. Raises as ZooKeeper answers."""
        size = sum(len(each.path) + len(getattr(each, "data", b"")) for each in operations)
        if size > PACKET_BYTES:
            raise ports.TooLarge(str(size))
        deltas, paths = self.tree.prepare(list(operations), session)
        self._apply(deltas)
        results: list[tuple[str, Stat] | None] = []
        for operation, path in zip(operations, paths, strict=True):
            where = path or operation.path
            results.append((where, self.tree.nodes[where].stat()) if isinstance(operation, Create | Set) else None)
        return results

    def _apply(self, deltas: list[Delta]) -> None:
        if not deltas:
            return
        self._zxid += 1
        self.tree.apply(deltas, self._zxid, time.monotonic_ns())
        for delta in deltas:
            self._fire("data", delta.path)
            if delta.kind != "set":
                self._fire("children", delta.path.rpartition("/")[0])
                if delta.kind == "delete":
                    self._fire("children", delta.path)

    def watch(self, kind: str, path: str, client: InProcessZooKeeper, watch: Watch) -> None:
        """Calls it at the next event, as long as the client keeps its connection."""
        self._watches.setdefault((kind, path), []).append((client, watch))

    def _fire(self, kind: str, path: str) -> None:
        for client, watch in self._watches.pop((kind, path), ()):
            client.tell(watch)

    def forget(self, client: InProcessZooKeeper) -> list[Watch]:
        """Takes out a client's watches, and returns them."""
        lost: list[Watch] = []
        for key, entries in list(self._watches.items()):
            lost += [watch for each, watch in entries if each is client]
            self._watches[key] = [entry for entry in entries if entry[0] is not client]
        return lost


class InProcessZooKeeper:
    """`ports.ZooKeeper` over an Ensemble: one server's client."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.state = SessionState.SUSPENDED
        self.session = 0
        self.connection = 0
        self.why = ""
        self._ensemble = ensemble
        self._loop = ensemble.loop
        self._listeners: list[Callable[[SessionState], None]] = []
        self._answers: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._expired = True
        self._cut = self._closed = False
        self._loop.call_soon(self._connect)

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        self._listeners.append(listener)

    def figures(self) -> Mapping[str, int | float | str]:
        return {"server": "in-process", "session_id": f"{self.session:x}", "outstanding": len(self._answers)}

    # The network -----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Nothing gets through any more; the session ends when it has been silent for its timeout."""
        if self._cut or self._closed:
            return
        self._cut = True
        self.why = "cut off by the test"
        session = self.session
        self._expiry = self._loop.call_later(self._ensemble.session_timeout, self._expire, session)
        self._drop(SessionState.SUSPENDED)

    def heal(self) -> None:
        """As before; a session that has ended is followed by a new one."""
        if self._cut and not self._closed:
            self._cut = False
            self._connect()

    def _expire(self, session: int) -> None:
        self._expired = True
        self._ensemble.end_session(session)

    def _connect(self) -> None:
        if self._cut or self._closed:
            return
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._expired:
            if self.session:
                self._become(SessionState.LOST)
            self.session = self._ensemble.open_session()
            self._expired = False
        self.connection += 1
        self.why = ""
        self._become(SessionState.CONNECTED)

    def _drop(self, state: SessionState) -> None:
        answers, self._answers = self._answers, deque()
        for future, _ in answers:
            if not future.done():
                future.set_exception(ports.ConnectionLoss("no connection"))
                future.exception()  # nobody need ask
        watches = self._ensemble.forget(self)
        self._become(state)
        for watch in watches:
            watch()

    def _become(self, state: SessionState) -> None:
        if state is not self.state or state is SessionState.CONNECTED:
            self.state = state
            for listener in self._listeners:
                listener(state)

    def close(self) -> Awaitable[None]:
        done = self._loop.create_future()
        done.set_result(None)
        if not self._closed:
            self._closed = True
            if not self._cut and not self._expired:
                self._expire(self.session)
            self._drop(SessionState.LOST)
        return done

    # Calls -----------------------------------------------------------------------------------------------------------

    def tell(self, watch: Watch) -> None:
        """An event, behind the answers that are on their way."""
        done = self._loop.create_future()
        done.add_done_callback(lambda future: None if future.exception() else watch())
        self._answer(done, None)

    def _answer(self, future: asyncio.Future[Any], result: Any) -> None:
        self._answers.append((future, result))
        self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        if self._answers:
            future, result = self._answers.popleft()
            if future.done():
                return
            if isinstance(result, ports.ZooKeeperError):
                future.set_exception(result)
                future.exception()
            else:
                future.set_result(result)

    def _call(self, carry_out: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.state is not SessionState.CONNECTED:
            future.set_exception(ports.NotConnected(self.why or "no connection"))
            future.exception()
            return future
        try:
            result = carry_out()
        except ports.ZooKeeperError as error:
            result = error
        self._answer(future, result)
        return future

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> Awaitable[tuple[str, Stat]]:
        return self._one(Create(path, data, ephemeral, sequence), lambda result: result)

    def set(self, path: str, data: bytes, version: int = -1) -> Awaitable[Stat]:
        return self._one(Set(path, data, version), lambda result: result[1])

    def delete(self, path: str, version: int = -1) -> Awaitable[None]:
        return self._one(Delete(path, version), lambda result: None)

    def _one(self, operation: Operation, shape: Callable[[Any], Any]) -> asyncio.Future[Any]:
        def carry_out() -> Any:
            try:
                return shape(self._ensemble.write([operation], self.session)[0])
            except ports.ZooKeeperError as error:
                raise type(error)(str(error)) from None  # its index is that of a multi

        return self._call(carry_out)

    def multi(self, operations: Sequence[Operation]) -> Awaitable[list[str | Stat | None]]:
        def carry_out() -> list[str | Stat | None]:
            results = self._ensemble.write(operations, self.session)
            return [
                result and (result[0] if isinstance(operation, Create) else result[1])
                for operation, result in zip(operations, results, strict=True)
            ]

        return self._call(carry_out)

    def get(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[bytes, Stat]]:
        return self._read("data", path, watch, lambda node: (node.data, node.stat()))

    def gets(self, paths: Sequence[str]) -> Awaitable[list[tuple[bytes, Stat] | None]]:
        def carry_out() -> list[tuple[bytes, Stat] | None]:
            nodes = [self._ensemble.tree.nodes.get(path) for path in paths]
            return [None if node is None else (node.data, node.stat()) for node in nodes]

        return self._call(carry_out)

    def exists(self, path: str, watch: Watch | None = None) -> Awaitable[Stat | None]:
        def carry_out() -> Stat | None:
            if watch is not None:
                self._ensemble.watch("data", path, self, watch)
            node = self._ensemble.tree.nodes.get(path)
            return None if node is None else node.stat()

        return self._call(carry_out)

    def children(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[list[str], Stat]]:
        return self._read("children", path, watch, lambda node: (list(node.children), node.stat()))

    def _read(self, kind: str, path: str, watch: Watch | None, shape: Callable[[Any], Any]) -> asyncio.Future[Any]:
        def carry_out() -> Any:
            node = self._ensemble.tree.nodes.get(path)
            if node is None:
                raise ports.NoNode(path)
            if watch is not None:
                self._ensemble.watch(kind, path, self, watch)
            return shape(node)

        return self._call(carry_out)
