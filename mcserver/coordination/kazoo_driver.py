"""ZooKeeper through kazoo: the one file where kazoo's threads meet the event loop.

Owns the kazoo client and implements `ports.ZooKeeper` on it. kazoo runs a thread for its connection; everything that
thread has to say (replies, watches, states) goes through one queue to the loop, so that it arrives in the order of the
wire. Nothing in here, or anywhere else on the loop, may call a kazoo function that waits for an answer: such a call would
stop every client of the server, and could never be answered, since the answers arrive on the loop.

kazoo (2.11) leaves a few things to its user, and this file does them:

* calls made without a connection would be queued without bound, and the socket that wakes kazoo's thread blocks when it
  is full (after some 278 calls): here a call fails at once unless connected, and at most 128 are outstanding;
* no call has a deadline, and a connection that swallows everything stays CONNECTED while requests go out: here every
  call ends within the reply deadline, and a missed deadline drops the connection;
* an unexpected error ends kazoo's thread for good, and a session that the ensemble does not take back (its data was
  wiped) is offered for ever: here the client is made anew.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.serialization import Connect, Create2
from kazoo.protocol.states import KazooState, KeeperState

from . import kazoo_terms as terms
from . import ports, reach
from .kazoo_reads import MultiRead
from .kazoo_terms import Target
from .ports import SessionState

T = TypeVar("T")
log = logging.getLogger(__name__)
kazoo_log = logging.getLogger(__name__ + ".kazoo")
kazoo_log.setLevel(logging.CRITICAL)  # it tells every attempt to connect; what matters is told here, once

MAX_OUTSTANDING = 128  # well below the 278 one-byte messages that kazoo's wake-up socket takes
MAX_PACKET = 1_000_000  # ZooKeeper's jute.maxbuffer is 0xfffff; more than that is answered by a closed connection
SLICE = 128  # callbacks run in one turn of the loop
TICK = 0.5  # s between two looks at the client's health
PUT_AWAY_AGAIN = 1.0  # s until a client is ended for which there was no thread
DROPS = 3  # times a connection is ended in vain until the client is taken for stuck
UNREACHABLE_AFTER = 2.0  # s without a connection until it is worth a line in the log


class LoopHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Brings kazoo's callbacks to the loop through one queue, in their order; one wake-up for a burst."""

    name = "loop_handler"

    def __init__(self, loop: asyncio.AbstractEventLoop, connect_timeout: float) -> None:
        super().__init__()
        self._loop, self._connect_timeout = loop, connect_timeout
        self._queue: collections.deque[Callable[[], object]] = collections.deque()
        self._armed = False
        self._mutex = threading.Lock()
        self.failure: BaseException | None = None  # what ended kazoo's thread
        self.completion_queue = self.callback_queue = self  # both of kazoo's queues are this one

    running = True  # else kazoo would run callbacks on its own thread

    def start(self) -> None:
        """No worker threads: the loop is the worker."""

    def stop(self) -> None:
        pass

    def put(self, function: Callable[[], object]) -> None:
        """Called on any thread."""
        with self._mutex:
            self._queue.append(function)
            wake, self._armed = not self._armed, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                pass  # the loop is closed: the server has ended

    def _drain(self) -> None:
        for _ in range(SLICE):
            with self._mutex:
                if not self._queue:
                    self._armed = False
                    return
                function = self._queue.popleft()
            try:
                function()
            except Exception:
                log.exception("a callback of ZooKeeper's failed")
        self._loop.call_soon(self._drain)

    def dispatch_callback(self, callback: Any) -> None:
        self.put(functools.partial(callback.func, *callback.args))

    def spawn(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> threading.Thread:
        """Runs kazoo's connection thread: an error that escapes from it is kept for the log instead of printed."""

        def guarded() -> None:
            try:
                function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # whatever escapes is to be logged
                self.failure = error

        thread = threading.Thread(target=guarded, name="zookeeper", daemon=True)
        thread.start()
        return thread

    def create_connection(self, *args: Any, **kwargs: Any) -> socket.socket:
        """Connects within the reply deadline; kazoo would give one dead host the whole session timeout."""
        kwargs["timeout"] = min(kwargs.get("timeout") or self._connect_timeout, self._connect_timeout)
        made: socket.socket = super().create_connection(*args, **kwargs)
        return made


class _Call(NamedTuple):
    future: asyncio.Future[Any]
    deadline: float  # of the loop's clock


@dataclass(frozen=True)
class _Watcher:
    """What kazoo calls. It keeps a set of them for each path until it fires: equal ones are one."""

    driver: KazooDriver
    client: KazooClient
    watch: ports.Watch

    def __call__(self, _event: Any) -> None:
        self.driver._fired(self.client, self.watch)


class KazooDriver:
    """`ports.ZooKeeper` over kazoo. Make it, and call every method, on the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        on_unreachable: Callable[[str], None] = lambda tried: None,
    ) -> None:
        """`on_unreachable` hears once an outage, after some seconds of it, what was tried."""
        self._loop, self._target, self._on_unreachable = loop, target, on_unreachable
        servers, slash, chroot = target.hosts.partition("/")
        self._servers, self._root = servers, ("/" + chroot.strip("/")) if slash and chroot.strip("/") else ""
        self._client: KazooClient | None = None
        self._acl = terms.make_acl(target)
        self.state, self.session, self.connection = SessionState.LOST, 0, 0
        self._listeners: list[Callable[[SessionState], None]] = []
        self._calls: collections.deque[_Call] = collections.deque()  # oldest deadline first; done ones leave late
        self._outstanding = 0  # held by the present client, whoever still waits
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._server = ""
        self.why = ""
        self.granted = 0.0  # s of session timeout that ZooKeeper gave, which may be other than what was asked for
        self._rebuilds = 0
        self._writes = 0  # of the driver itself: beginnings and ends of sessions, and the chroot's znodes
        self._rebuild_at = loop.time() + 2.0
        self._drops = 0  # connections ended here since the state changed last
        self._down_since = loop.time()
        self._told_unreachable = self._probing = False
        self._serving_unused = 0.0  # s in which the ensemble served while our session was not taken
        self._lag = collections.deque([0.0], maxlen=20)  # lateness of the last ticks: ten seconds
        self._tick_due = loop.time() + TICK
        self._build()
        self._ticker = loop.call_at(self._tick_due, self._tick)

    # -- the port

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        self._listeners.append(listener)

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> asyncio.Future[tuple[str, ports.Stat]]:
        flags = (1 if ephemeral else 0) | (2 if sequence else 0)
        # kazoo's create_async answers through a second result, and so behind replies that came later: ask directly.
        request = Create2(self._root + path, data, self._acl, flags)

        def convert(value: tuple[str, Any]) -> tuple[str, ports.Stat]:
            return value[0][len(self._root) :], terms.stat(value[1])

        made = self._send(_directly(request), convert, len(path) + len(data))
        if self._root and path.rfind("/") == 0:
            made.add_done_callback(self._made_below_the_chroot)
        return made

    def multi(self, operations: Sequence[ports.Operation]) -> asyncio.Future[list[str | ports.Stat | None]]:
        operations = list(operations)

        def send(client: KazooClient) -> Any:
            return terms.transaction(client, operations, self._root, self._acl).commit_async()

        def convert(results: list[Any]) -> list[str | ports.Stat | None]:
            return terms.results(operations, results, self._root)

        return self._send(send, convert, terms.size(operations))

    def set(self, path: str, data: bytes, version: int = -1) -> asyncio.Future[ports.Stat]:
        return self._send(lambda c: c.set_async(self._root + path, data, version), terms.stat, len(path) + len(data))

    def get(self, path: str, watch: ports.Watch | None = None) -> asyncio.Future[tuple[bytes, ports.Stat]]:
        return self._send(lambda c: c.get_async(self._root + path, self._watch(watch)), terms.content)

    def gets(self, paths: Sequence[str]) -> asyncio.Future[list[tuple[bytes, ports.Stat] | None]]:
        request = MultiRead([self._root + path for path in paths])
        return self._send(_directly(request), terms.found, sum(map(len, paths)))

    def exists(self, path: str, watch: ports.Watch | None = None) -> asyncio.Future[ports.Stat | None]:
        def convert(value: Any) -> ports.Stat | None:
            return None if value is None else terms.stat(value)

        return self._send(lambda c: c.exists_async(self._root + path, self._watch(watch)), convert)

    def children(self, path: str, watch: ports.Watch | None = None) -> asyncio.Future[tuple[list[str], ports.Stat]]:
        def convert(value: tuple[list[str], Any]) -> tuple[list[str], ports.Stat]:
            return value[0], terms.stat(value[1])

        return self._send(
            lambda c: c.get_children_async(self._root + path, self._watch(watch), include_data=True), convert
        )

    def delete(self, path: str, version: int = -1) -> asyncio.Future[None]:
        return self._send(lambda c: c.delete_async(self._root + path, version), lambda _: None)

    def close(self) -> asyncio.Future[None]:
        """Ends the session; done at the latest after the reply deadline, though an unreachable ensemble never hears."""
        closed: asyncio.Future[None] = self._loop.create_future()
        if self._closed:
            closed.set_result(None)
            return closed
        self._closed = True
        self._ticker.cancel()
        client, self._client = self._client, None
        self._fail_calls(ports.NotConnected("closed"))
        self.state = SessionState.LOST

        def done() -> None:
            if not closed.done():
                closed.set_result(None)

        _in_thread(self._loop, functools.partial(_dispose, client), done)
        self._loop.call_later(self._target.reply_deadline, done)
        return closed

    def figures(self) -> Mapping[str, int | float | str]:
        return {
            "server": self._server if self.state is SessionState.CONNECTED else "",
            "session_id": f"0x{self.session & (1 << 64) - 1:x}",
            "session_timeout_ms": round(self.granted * 1000),
            "outstanding": self._outstanding,
            "reconnects": max(0, self.connection - 1),
            "client_rebuilds": self._rebuilds,
            "writes_sessions": self._writes,
            "loop_lag_ms": round(max(self._lag) * 1000, 1),
        }

    # -- requests

    def _send(
        self, send: Callable[[KazooClient], Any], convert: Callable[[Any], T], size: int = 0
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(_seen)
        client = self._client
        if size > MAX_PACKET:
            future.set_exception(ports.TooLarge(f"a request of {size} bytes"))
        elif client is None or self.state is not SessionState.CONNECTED or client.client_state != KeeperState.CONNECTED:
            future.set_exception(ports.NotConnected(f"{self.state.value}, nothing sent"))
        elif self._outstanding >= MAX_OUTSTANDING:
            future.set_exception(ports.NotConnected(f"{MAX_OUTSTANDING} calls outstanding already"))
        else:
            self._outstanding += 1
            call = _Call(future, self._loop.time() + self._target.reply_deadline)
            self._calls.append(call)
            if self._timer is None:
                self._timer = self._loop.call_at(call.deadline, self._expire)
            send(client).rawlink(functools.partial(self._answered, client, future, convert))
        return future

    def _answered(
        self, client: KazooClient, future: asyncio.Future[Any], convert: Callable[[Any], Any], result: Any
    ) -> None:
        if client is self._client:
            self._outstanding -= 1
        if future.done():
            return
        try:
            if result.exception is not None:
                raise terms.error(result.exception)
            value = convert(result.value)
        except Exception as error:  # noqa: BLE001  # it is raised where the future is awaited
            future.set_exception(error)
        else:
            future.set_result(value)

    def _expire(self) -> None:
        """The oldest call's deadline has come."""
        now, due = self._loop.time(), self._timer.when() if self._timer else 0.0
        self._timer = None
        if now - due > TICK:
            # The loop itself did not run (the process was stopped): the answers may be waiting right behind this.
            self._timer = self._loop.call_at(now + TICK, self._expire)
            return
        missed = False
        while self._calls and (self._calls[0].future.done() or self._calls[0].deadline <= now):
            call = self._calls.popleft()
            if not call.future.done():
                missed = True
                call.future.set_exception(ports.ConnectionLoss(f"no answer in {self._target.reply_deadline:g} s"))
        if self._calls:
            self._timer = self._loop.call_at(self._calls[0].deadline, self._expire)
        if missed:
            self._drop()

    def _fail_calls(self, error: Exception) -> None:
        calls, self._calls = self._calls, collections.deque()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)

    def _drop(self) -> None:
        """Ends the connection under kazoo's hands, which wakes its thread whatever it waits for there."""
        if self.state is not SessionState.CONNECTED:
            return
        self._drops += 1
        if self._drops > DROPS:
            self._rebuild("it hangs")
            return
        sock = getattr(getattr(self._client, "_connection", None), "_socket", None)
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain one: TLS must not wait to say goodbye
            except OSError:
                pass

    def _watch(self, watch: ports.Watch | None) -> Callable[[Any], None] | None:
        return None if watch is None else _Watcher(self, self._client, watch)

    def _fired(self, client: KazooClient, watch: ports.Watch) -> None:
        if client is self._client:
            watch()

    # -- sessions

    def _build(self) -> None:
        """A client of its own for each life of kazoo's thread."""
        target = self._target
        handler = LoopHandler(self._loop, target.reply_deadline)
        client = terms.make_client(target, self._servers, handler, kazoo_log)
        self._client, self._outstanding = client, 0

        invoke = client._connection._invoke

        def invoked(timeout: float, request: Any, xid: Any = None) -> Any:  # on kazoo's thread
            result = invoke(timeout, request, xid)
            if isinstance(request, Connect):  # the only place that knows the timeout granted, before `changed` below
                granted = result[0].time_out / 1000
                handler.put(lambda: setattr(self, "granted", granted) if client is self._client else None)
            return result

        client._connection._invoke = invoked

        def changed(state: str) -> None:  # on kazoo's thread
            session = client.client_id[0] if client.client_id else 0
            handler.put(functools.partial(self._changed, client, state, session, _peer(client)))

        client.add_listener(changed)
        _in_thread(self._loop, client.start_async)

    def _changed(self, client: KazooClient, state: str, session: int, server: str) -> None:
        if client is not self._client:
            return
        self._drops = 0
        if state == KazooState.CONNECTED:
            if session != self.session:
                self._writes += 2 if self.session else 1  # another one has ended
            self.state, self.session, self._server = SessionState.CONNECTED, session, server
            self.connection += 1
            self._told_unreachable, self._serving_unused, self.why = False, 0.0, ""
            self._make_root()
        elif state == KazooState.SUSPENDED:
            self._lost(SessionState.SUSPENDED, ports.ConnectionLoss("the connection broke"))
        else:
            self._lost(SessionState.LOST, ports.SessionExpired("the session is over"))
        self._notify()

    def _lost(self, state: SessionState, error: Exception) -> None:
        if self.state is SessionState.CONNECTED:
            self._down_since = self._loop.time()
        self.state = state
        # A call made between the break and this line sits in kazoo's queue, and may be sent by the next connection.
        self._fail_calls(error)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener(self.state)

    def _make_root(self) -> None:
        """The chroot's znodes, ahead of every other request of this connection; existing ones stay as they are."""
        root, self._root = self._root, ""
        path = ""
        for part in root.split("/")[1:]:
            path += "/" + part
            self._writes += 1
            self.create(path).add_done_callback(self._root_made)
        self._root = root

    def _made_below_the_chroot(self, made: asyncio.Future[Any]) -> None:
        if not made.cancelled() and isinstance(made.exception(), ports.NoNode):
            self._make_root()  # somebody has deleted it; whoever wanted to create something there tries again

    def _root_made(self, made: asyncio.Future[Any]) -> None:
        if isinstance(error := made.exception(), ports.NoAuth):
            # ZooKeeper looks at the parent's ACL first: the chroot may be there, made by whoever may.
            self.exists("").add_done_callback(functools.partial(self._root_looked_for, error))

    def _root_looked_for(self, error: ports.NoAuth, looked: asyncio.Future[ports.Stat | None]) -> None:
        if looked.exception() is not None or looked.result() is not None or self.why:
            return
        self.why = f"the chroot {self._root} of --zookeeper can't be made ({error}): correct it, or make it by hand"
        self._on_unreachable(self.why)

    def _rebuild(self, why: str) -> None:
        log.warning("ZooKeeper: starting a new client: %s", why)
        old = self._client
        self._rebuilds += 1
        self._rebuild_at = self._loop.time() + min(30.0, 2.0 ** min(self._rebuilds, 5))
        self._serving_unused, self._drops = 0.0, 0
        if self.state is not SessionState.LOST:
            self._lost(SessionState.LOST, ports.SessionExpired("the client was given up"))
            self._build()
            self._notify()
        else:
            self._build()
        self._put_away(old)

    def _put_away(self, old: KazooClient | None) -> None:
        """Ends a client that was given up, as soon as there is a thread for it: its session must not live on."""
        if not _in_thread(self._loop, functools.partial(_dispose, old)):
            self._loop.call_later(PUT_AWAY_AGAIN, self._put_away, old)

    # -- health

    def _tick(self) -> None:
        now = self._loop.time()
        self._lag.append(now - self._tick_due)
        self._tick_due = now + TICK
        self._ticker = self._loop.call_at(self._tick_due, self._tick)
        client = self._client
        if client is None:
            return
        dead = client.client_state in {KeeperState.CLOSED, KeeperState.AUTH_FAILED}
        failure = client.handler.failure
        if dead and (failure is not None or self._down_for(now) > TICK) and now >= self._rebuild_at:
            self._rebuild(f"its thread ended ({failure!r})" if failure else f"it ended ({client.client_state})")
        elif self.state is not SessionState.CONNECTED and self._down_for(now) > UNREACHABLE_AFTER:
            self._look()

    def _down_for(self, now: float) -> float:
        return 0.0 if self.state is SessionState.CONNECTED else now - self._down_since

    def _look(self) -> None:
        """Asks, on a thread, which servers are there: for the log, and to see a session that is no longer taken."""
        if self._probing:
            return
        self._probing = True
        client, found = self._client, list[reach.Seen]()

        def ask() -> None:
            found.extend(look(self._servers, self._target))

        def done() -> None:
            self._probing = False
            if client is self._client and self.state is not SessionState.CONNECTED:
                self._looked(found)

        if not _in_thread(self._loop, ask, done):
            self._probing = False

    def _looked(self, found: list[reach.Seen]) -> None:
        self.why = reach.describe(found)
        if not self._told_unreachable:
            self._told_unreachable = True
            self._on_unreachable(reach.describe(found))
        patience = self._target.session_timeout
        if self.state is not SessionState.SUSPENDED or not any(seen.there for seen in found):
            self._serving_unused = 0.0
            return
        # One that does not say whether it serves (TLS, no four-letter words) needs more patience.
        self._serving_unused += TICK if any(seen.serving for seen in found) else TICK / 6
        if self._down_for(self._loop.time()) > patience and self._serving_unused > patience / 2:
            self._rebuild(f"its session is not taken back, though {reach.describe(found)}")


def _seen(future: asyncio.Future[Any]) -> None:
    """A failure that nobody awaits is no news."""
    if not future.cancelled():
        future.exception()


def _directly(request: Any) -> Callable[[KazooClient], Any]:
    """Sends what kazoo has no call for."""

    def send(client: KazooClient) -> Any:
        result = client.handler.async_result()
        client._call(request, result)
        return result

    return send


def _peer(client: KazooClient) -> str:
    """The address of the server that a client is connected to; called on kazoo's thread."""
    try:
        host, port = client._connection._socket.getpeername()[:2]
    except (AttributeError, OSError):
        return ""
    return f"{host}:{port}"


def _dispose(client: KazooClient | None) -> None:
    """Waits, for up to some seconds, until kazoo's thread has ended: never on the loop."""
    if client is None:
        return
    try:
        client.stop()
        client.close()
    except Exception as error:  # noqa: BLE001  # it is thrown away, whatever it has to say
        kazoo_log.info("stopping a client: %r", error)


def look(servers: str, target: Target) -> list[reach.Seen]:
    """What each of HOST:PORT,... answers, or why none can be asked. It blocks, as `reach.look` does, and reads files."""
    try:
        context = terms.tls_context(target)
    except (OSError, ValueError) as error:
        names = ", ".join(name for name in (target.tls_ca, target.tls_cert, target.tls_key) if name)
        why = f"is not asked: what --zk-ca, --zk-cert or --zk-key name can't be used ({names}: {error})"
        return [reach.Seen(servers, serving=False, there=False, text=why)]
    return reach.look(servers, target.reply_deadline, context)


def _in_thread(
    loop: asyncio.AbstractEventLoop, function: Callable[[], object], done: Callable[[], None] | None = None
) -> bool:
    """Runs what may block on a thread that the end of the process does not wait for; then `done` on the loop.

    False: the system has no thread for it, and neither is called.
    """

    def run() -> None:
        try:
            function()
        except RuntimeError as error:  # kazoo's own thread: what ended or never began is built anew
            log.warning("ZooKeeper: %s", error)
        except Exception:
            log.exception("ZooKeeper")
        if done is not None:
            try:
                loop.call_soon_threadsafe(done)
            except RuntimeError:
                pass  # the loop is closed

    try:
        threading.Thread(target=run, name="zookeeper-aside", daemon=True).start()
    except RuntimeError as error:
        log.warning("ZooKeeper: %s", error)
        return False
    return True
