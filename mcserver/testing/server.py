"""A server as a guest of a test's process: the engine and the cold commands of a real one, a network of its own, and handles.

Owns nothing of the process. The engine is reached from several threads (the host's, and whoever asks for `server["key"]`), always
under `lock`. Whatever a handle does comes after what clients had sent before (`settle`): a test sees no race with its own client.
"""

from __future__ import annotations

import asyncio
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mcserver.admin.commands import Admin
from mcserver.admin.context import Context
from mcserver.admin.figures import Figures
from mcserver.admin.settings import Settings
from mcserver.admin.watchers import Watchers
from mcserver.core import TOO_MANY
from mcserver.server.lives import make_engine
from mcserver.testing.clock import Clock
from mcserver.testing.commands import Commands
from mcserver.testing.faults import Faults
from mcserver.testing.flags import config_of
from mcserver.testing.host import Host
from mcserver.testing.network import Network
from mcserver.testing.stored import Stored
from mcserver.testing.wire import Line, listen_again, refuse

if TYPE_CHECKING:
    from types import TracebackType

    from mcserver.admin.ports import Cluster
    from mcserver.core import Engine
    from mcserver.settings.cluster import ClusterConfig
    from mcserver.testing.sockets import SocketModule

HOST = "127.0.0.1"
MAINTAIN_MICROSECONDS = 500
RESET_MICROSECONDS = 30
"""What a reset spends on freeing what it took out, so that the figures say so, too; the rest is freed in the background."""
SHORTEST_REST = 0.02
"""Seconds between two turns of the engine's background work."""
OLD = 1 << 27
"""Seconds of the engine's clock after which a reset begins anew, long before its ages run out of bits."""
SETTLE_ROUNDS = 256
"""Turns that a client which sends without end gets before a handle does its work all the same: 64 KiB of it each."""
ENDED = "this server has ended, and its memory is given back"


class Server(Stored):
    """A cache server in this process, with memcached's flags: `Server("-m", "2", "-I", "4k")`.

    It serves from `start` (or `with`, or `async with`) to `stop`, and can be started only once. As a mapping it is what is
    stored: keys are str or bytes, values bytes (str is encoded). What clients have sent, though with noreply, has taken effect
    before anything is looked at, changed, planted or emptied here.

    Where it is (`port`, `address`, `url`, `socket_path`) can be asked while it runs, else RuntimeError; what is stored before
    `start`, too. After `stop` everything but `stop` raises RuntimeError, and so it does in a process that was forked meanwhile.
    """

    def __init__(self, *flags: str | float, name: str = "") -> None:
        """Raises ConfigError for flags that a server would refuse, or that can't be for one within a process."""
        self.flags = tuple(map(str, flags))
        config = config_of(self.flags)
        self.name = name
        self.config = config
        self.lock = threading.RLock()
        self.commands = Commands(self._settle_here)
        """What was received since the last reset."""
        self.faults = Faults(self._faults_changed, self.reach)
        self.clock = Clock(self)
        self.figures = Figures()
        self.cluster: Cluster | None = None
        self.engine: Engine
        self.admin: Admin
        self.watchers: Watchers
        self._host: Host | None = None
        self.lines: set[Line] = set()
        self._listeners: list[socket.socket] = []
        self._holder: socket.socket | None = None
        self._folder: str | None = None
        self._port = 0
        self._timer: asyncio.TimerHandle | None = None
        self.most_connections = 0
        self._numbers = 0
        self._ended = False
        self._make()

    def _make(self) -> None:
        config = self.config
        self.engine = make_engine(config, reserve=config.maxbytes)
        self.watchers = Watchers(self.engine, config.watcher_logbuf_size, self._call_later)
        self.admin = Admin(
            Context(
                config=config,
                engine=self.engine,
                network=Network(self),
                watchers=self.watchers,
                settings=Settings(config, self._port),
                loop="asyncio",
                cluster=self.cluster,
            )
        )

    # From start to end -----------------------------------------------------------------------------------------------

    def start(self, port: int = 0) -> Server:
        """Serves on this port of 127.0.0.1 (0: any that is free) when it returns.

        Raises RuntimeError when it was started before, OSError (or OverflowError, above 65535) for a port that can't be had.
        """
        if self._host is not None or self._ended:
            raise RuntimeError("this server was started before: make another one")
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._holder.bind((HOST, port))
            self._port = self._holder.getsockname()[1]
            listener = listen_again(self._holder)
        except (OSError, OverflowError):
            self._holder.close()
            raise
        self.admin.context.settings["tcpport"] = self._port
        self._host = Host.join()
        self._host.call(self._attach, listener)
        return self

    def _attach(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)
        if self._timer is None:
            self._maintain()

    def stop(self) -> None:
        """Closes everything and gives the memory back. Nothing happens when it doesn't run."""
        host = self._host
        if host is None or self._ended:
            return
        self._ended = True
        if host.is_foreign:
            return  # all of it is the other process's, but for copies that end with this one
        host.call(self._detach, host)
        self._host = None  # not before: clients may have come until then
        if self._holder is not None:
            self._holder.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        host.leave()
        with self.lock:
            del self.engine, self.admin, self.watchers

    def _detach(self, host: Host) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for listener in self._listeners:
            host.loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        self._close_lines()

    def _close_lines(self) -> None:
        for line in list(self.lines):
            line.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """As new, but for connections, which stay open: no items, faults, commands; its clock runs by itself.

        Raises RuntimeError when it has ended. Connections are closed all the same when its clock was moved on by four years.
        """
        self.reach()
        if self.engine.now() > OLD and self.cluster is None:
            self._renew()
        with self.lock:
            engine = self.engine
            self.clock.reset()
            engine.flush()
            engine.maintain(RESET_MICROSECONDS)
            engine.verbosity, engine.detail = self.config.verbosity, self.config.detail_enabled
            engine.reset_stats()
            self.figures.reset()
            self.commands.forget()
        # Not under the lock: it waits for the loop's thread, which may wait for the lock.
        holes = any(line.conversation.is_hole for line in list(self.lines))
        if holes or self.faults.planted or self.faults.refusing:
            self.faults.clear()

    def _renew(self) -> None:
        host = self._running()
        host.call(self._close_lines)
        with self.lock:
            self._make()

    def join(self, cluster: Cluster, config: ClusterConfig) -> None:
        """Makes it a member of a fleet, before its first client."""
        self.cluster = cluster
        self.config = self.config.but(cluster=config)
        context = self.admin.context
        context.cluster, context.config = cluster, self.config
        self.admin = Admin(context)

    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeError("this server does not run")
        return self._host

    def check(self) -> None:
        """Raises RuntimeError when there is no engine any more, or it is another process's."""
        if self._ended:
            raise RuntimeError(ENDED)
        if self._host is not None:
            self._host.check()

    def reach(self) -> None:
        """As settle. Raises RuntimeError when there is nothing to be reached: it has ended, or is another process's."""
        self.check()
        self.settle()

    def _settle_here(self) -> None:
        """As settle, also when it has ended: what it received stays known. Raises RuntimeError in a forked process."""
        if self._host is not None:
            self._host.check()
        self.settle()

    def connectable(self) -> bool:
        """Whether a socket without a network finds it. Raises RuntimeError in a forked process."""
        if self._host is not None:
            self._host.check()
        return not (self._ended or self.faults.refusing)

    def settle(self) -> None:
        """What clients have sent has taken effect when it returns, but for what a fault holds up. Never under `lock`."""
        host = self._host
        if host is None or host.is_here or host.is_foreign:
            return
        for _ in range(SETTLE_ROUNDS):
            lines = [line for line in list(self.lines) if line.acknowledge()]
            host.loopback.let_arrive(2 if lines else 1)
            with self.lock:  # what was read and has not taken effect yet is under it
                if not self._is_unread():
                    return
            host.call(self._read_all)

    def _is_unread(self) -> bool:
        waiting = select.poll()
        for listener in list(self._listeners):
            if listener.fileno() >= 0:
                waiting.register(listener, select.POLLIN)
        for line in list(self.lines):
            line.watch(waiting)
        return bool(waiting.poll(0))

    def _read_all(self) -> None:
        for listener in list(self._listeners):
            self._accept(listener)
        for line in list(self.lines):
            line.read()

    # Where it is -----------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """127.0.0.1."""
        return HOST

    @property
    def port(self) -> int:
        """The port that it listens on."""
        self._running()
        return self._port

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return HOST, self.port

    @property
    def url(self) -> str:
        """`memcached://127.0.0.1:port`."""
        return f"memcached://{HOST}:{self.port}"

    @property
    def socket_path(self) -> str:
        """A Unix socket that it listens on, too, from the first time that somebody asks."""
        host = self._running()
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="mcserver-")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(Path(self._folder) / "socket"))
            listener.listen(64)
            listener.setblocking(False)
            host.call(self._attach, listener)
        return str(Path(self._folder) / "socket")

    @property
    def socket_module(self) -> SocketModule:
        """For clients that take a module instead of `socket`: their sockets speak with this server without a network."""
        from mcserver.testing.sockets import SocketModule

        return SocketModule(self)

    def __repr__(self) -> str:
        where = f"{HOST}:{self._port}" if self._host is not None else "not running"
        return f"<mcserver.testing.Server {self.name or ''}{' ' * bool(self.name)}{where}>"

    # The house of the conversations ----------------------------------------------------------------------------------

    def before_command(self) -> None:
        self.clock.catch_up()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._running().loop

    def _accept(self, listener: socket.socket) -> None:
        with self.lock:  # whoever holds it finds a connection at the listener or among the lines
            self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has gone again
        self.figures.total_connections += 1
        if len(self.lines) >= self.config.maxconns:
            self.figures.rejected_connections += 1
            with connection, suppress(OSError):  # it has gone again
                connection.send(TOO_MANY)
            return
        self._numbers += 1
        try:
            line = Line(self, connection, self._loop, self._numbers, self._gone)
        except OSError:
            connection.close()
            return
        self.lines.add(line)
        self.most_connections = max(self.most_connections, self.connections)

    @property
    def connections(self) -> int:
        """Open sockets: clients and listeners."""
        return len(self.lines) + len(self._listeners)

    def end_soon(self) -> None:
        """As if the server had ended: all connections are closed, and new ones refused, until the next reset."""
        loop = self._loop
        loop.call_soon(self._refuse)
        for line in list(self.lines):
            loop.call_soon(line.close)

    def _refuse(self) -> None:
        if not self._ended:  # meanwhile
            self.faults.refuse()

    def _gone(self, line: Line) -> None:
        self.lines.discard(line)

    def _faults_changed(self) -> None:
        if self._host is not None:
            self._host.call(self._refuse_or_listen)

    def _refuse_or_listen(self) -> None:
        assert self._holder is not None
        if self.faults.refusing:
            refuse(self._loop, self._listeners)
            self._listeners = [each for each in self._listeners if each.fileno() >= 0]
        else:
            if not any(each.family == socket.AF_INET for each in self._listeners):
                self._attach(listen_again(self._holder))
            for line in list(self.lines):
                if line.conversation.is_hole:
                    line.close()

    def _maintain(self) -> None:
        with self.lock:
            self.clock.catch_up()
            rest = self.engine.maintain(MAINTAIN_MICROSECONDS)
        self._timer = self._loop.call_later(max(rest, SHORTEST_REST), self._maintain)

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> object:
        def run() -> None:
            with self.lock:
                callback()
            for line in list(self.lines):
                line.wake()

        if self._host is None:
            return None
        return self._loop.call_soon_threadsafe(lambda: self._loop.call_later(seconds, run))
