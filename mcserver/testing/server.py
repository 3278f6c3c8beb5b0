"""A server as a guest of a test's process: the engine and the cold commands of a real one, a network of its own, and handles.

Owns nothing of the process. The engine is reached from several threads (the host's, and whoever asks for `server["key"]`), always
under `lock`. Whatever a handle does comes after what clients had sent before (`settle`): a test sees no race with its own client.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import select
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcserver.admin.commands import Admin
from mcserver.admin.context import Context
from mcserver.admin.figures import Figures
from mcserver.admin.figures import Socket as SocketStatus
from mcserver.admin.settings import Settings
from mcserver.admin.watchers import Watchers
from mcserver.cli import parse
from mcserver.config import Config, ConfigError
from mcserver.core import Session
from mcserver.lives import make_engine
from mcserver.testing.commands import Commands
from mcserver.testing.faults import Faults
from mcserver.testing.host import Host
from mcserver.testing.wire import Line, listen_again, refuse

if TYPE_CHECKING:
    from types import TracebackType

    from mcserver.admin.ports import Cluster
    from mcserver.cluster_config import ClusterConfig
    from mcserver.core import Engine
    from mcserver.testing.sockets import SocketModule

HOST = "127.0.0.1"
MAINTAIN_MICROSECONDS = 500
RESET_MICROSECONDS = 30
"""What a reset spends on freeing what it took out, so that the figures say so, too; the rest is freed in the background."""
SHORTEST_REST = 0.02
"""Seconds between two turns of the engine's background work."""
JUMP_MOST = 400 * 86400
"""Seconds by which one jump of followed time moves the engine's clock: more than any relative time to live."""
OLD = 1 << 27
"""Seconds of the engine's clock after which a reset begins anew, long before its ages run out of bits."""
SETTLE_ROUNDS = 256
"""Turns that a client which sends without end gets before a handle does its work all the same: 64 KiB of it each."""
ENDED = "this server has ended, and its memory is given back"
FOREIGN = (
    "this server lives in the process that this one was forked from: reach it by its address, or start another one"
)


class Clock:
    """The server's time. It can only go forward.

    While it is paused or follows, `catch_up` takes back before each command what has passed by itself: the engine's clock stands
    in the middle of a second.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._followed: float | None = None
        self._target: float | None = None

    @property
    def now(self) -> float:
        """Unix time at the server."""
        self._server.settle()
        with self._server.lock:
            self.catch_up()
            engine = self._server.engine
            return engine.wall(engine.now() if self._target is None else self._target)

    def advance(self, seconds: float | dt.timedelta) -> None:
        """So many seconds pass at once: what was to live for less is gone, exactly."""
        if not isinstance(seconds, int | float):
            seconds = seconds.total_seconds()
        if not 0 <= seconds < float("inf"):
            raise ValueError("a server's time can't go back, nor to its end")
        self._server.settle()
        with self._server.lock:
            if self._target is None:
                self._server.engine.advance(seconds)
            else:
                self._target += seconds
                self.catch_up()

    def pause(self) -> None:
        """No time passes any more but by `advance`."""
        self._server.settle()
        with self._server.lock:
            if self._target is None:
                self._target = int(self._server.engine.now()) + 0.5
                self.catch_up()

    def resume(self) -> None:
        """Time passes again by itself, from where it stands; it follows nothing any more."""
        self._server.settle()
        with self._server.lock:
            self.catch_up()
            self._target = None
            if self._followed is not None:
                self.reset()

    def reset(self) -> None:
        """It runs by itself, and the date is today's again, however far it was moved."""
        with self._server.lock:
            self._target = self._followed = None
            self._server.engine.set_wall(time.clock_gettime(time.CLOCK_REALTIME))

    def follow(self) -> None:
        """From now on the server's time is the process's own, which freezegun or time-machine moves.

        A jump back moves only the date that absolute times to live count from: what is stored ages no less. What
        was sent without asking for a reply may be met after time has moved: look in before you move it.
        """
        self.pause()
        with self._server.lock:
            self._followed = _now()
            self._server.engine.set_wall(self._followed)

    def catch_up(self) -> None:
        """Before each command, under the server's lock."""
        if self._target is None:
            return
        engine = self._server.engine
        now = self._followed if self._followed is None else _now()
        if now is not None and self._followed is not None and now > self._followed:
            self._target += min(now - self._followed, JUMP_MOST)
        engine.advance(self._target - engine.now())
        if now != self._followed and now is not None:
            engine.set_wall(now)
            self._followed = now


def _now() -> float:
    """Unix time as the process sees it. Not by time.time(): freezegun leaves threads with the real one there."""
    return dt.datetime.now(dt.timezone.utc).timestamp()  # noqa: UP017  # the module's attributes are patched


class Server(MutableMapping[str | bytes, bytes]):
    """A cache server in this process, with memcached's flags: `Server("-m", "2", "-I", "4k")`.

    It serves from `start` (or `with`, or `async with`) to `stop`, and can be started only once. As a mapping it is what is
    stored: keys are str or bytes, values bytes (str is encoded). What clients have sent, though with noreply, has taken effect
    before anything is looked at, changed, planted or emptied here.
    """

    def __init__(self, *flags: str | float, name: str = "") -> None:
        """Raises ConfigError for flags that a server would refuse, or that can't be for one within a process."""
        self.flags = tuple(map(str, flags))
        config = _config_of(self.flags)
        self.name = name
        self.config = config
        self.lock = threading.RLock()
        self.commands = Commands(self.settle)
        """What was received since the last reset."""
        self.faults = Faults(self._faults_changed, self.settle)
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
                network=_Network(self),
                watchers=self.watchers,
                settings=Settings(config, self._port),
                loop="asyncio",
                cluster=self.cluster,
            )
        )

    # From start to end -----------------------------------------------------------------------------------------------

    def start(self, port: int = 0) -> Server:
        """Serves on this port of 127.0.0.1 (0: any that is free) when it returns."""
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
        """As new, but for connections, which stay open: no items, faults, commands; its clock runs by itself."""
        self.settle()
        self._check()
        if self.engine.now() > OLD and self.cluster is None:
            self._renew()
        with self.lock:
            engine = self.engine
            self.clock.reset()
            engine.flush()
            engine.maintain(RESET_MICROSECONDS)
            engine.verbosity, engine.detail = min(self.config.verbosity, 2), self.config.detail_enabled
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

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError(ENDED)
        if self._host is not None and self._host.is_foreign:
            raise RuntimeError(FOREIGN)

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
            listener.bind(os.path.join(self._folder, "socket"))  # noqa: PTH118
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

    # What is stored --------------------------------------------------------------------------------------------------

    def ask(self, data: bytes) -> bytes:
        """What the engine answers to these bytes of the protocol: no fault is met, and nothing is remembered.

        As on a connection of its own, which ends with the answer.
        """
        self.settle()
        with self.lock:
            self._check()
            self.clock.catch_up()
            session = Session(self.engine, _Hands(self.admin, self.watchers), -1)
            reply = session.feed(data) + session.drain()
            session.close()
            return reply

    def __getitem__(self, key: str | bytes) -> bytes:
        found = _key(key)
        header, _, rest = self.ask(b"mg %s v s q\r\nmn\r\n" % found).partition(b"\r\n")
        if not header.startswith(b"VA "):
            raise KeyError(key)
        return rest[: int(header.split()[1])]

    def __setitem__(self, key: str | bytes, value: bytes | str) -> None:
        self.put(key, value)

    def put(self, key: str | bytes, value: bytes | str, *, ttl: int = 0, flags: int = 0) -> None:
        """Stores a value for `ttl` seconds (0: for ever) with client flags. Raises ValueError with the server's reason."""
        if not isinstance(value, str | bytes | bytearray | memoryview):
            raise TypeError(f"a value is bytes or str, as a client would send it, not {type(value).__name__}")
        if not isinstance(ttl, int):
            raise TypeError(f"ttl is whole seconds, not {ttl!r}")
        data = value.encode() if isinstance(value, str) else bytes(value)
        reply = self.ask(b"set %s %d %d %d\r\n%s\r\n" % (_key(key), flags, ttl, len(data), data))
        if reply != b"STORED\r\n":
            raise ValueError(reply.decode().strip())

    def __delitem__(self, key: str | bytes) -> None:
        if self.ask(b"delete %s\r\n" % _key(key)) != b"DELETED\r\n":
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str | bytes) and self.ask(b"mg %s q\r\nmn\r\n" % _key(key)).startswith(b"HD")

    def __iter__(self) -> Iterator[str]:
        self.settle()
        with self.lock:
            self._check()
            self.clock.catch_up()
            now = int(self.engine.wall(self.engine.now()))
            items = [item for piece in self.engine.walk() for item in piece]
        for item in items:
            if item.exptime < 0 or item.exptime > now:
                yield item.key.decode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        """To a mapping by what is stored; another server is another one, though both are empty."""
        return self is other if isinstance(other, Server) else super().__eq__(other)

    def __hash__(self) -> int:
        return id(self)

    def stats(self, *words: str) -> dict[str, str]:
        """The lines of `stats`, or of `stats WORDS`."""
        reply = self.ask(" ".join(["stats", *words]).encode() + b"\r\n").decode()
        return dict(line.split(" ", 2)[1:] for line in reply.split("\r\n") if line.startswith("STAT "))

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
                connection.send(b"ERROR Too many open connections\r\n")
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
        loop.call_soon(self.faults.refuse)
        for line in list(self.lines):
            loop.call_soon(line.close)

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


class _Hands:
    """The owner of the session through which a test looks in and puts: no fleet hears of it, and no lock is waited for."""

    def __init__(self, admin: Admin, watchers: Watchers) -> None:
        self._admin = admin
        self._watchers = watchers

    def command(self, session: Session, line: bytes) -> Any:
        reply = self._admin.command(session, line)
        return b"".join(reply) if isinstance(reply, Iterator) else reply

    def interest(self, session: Session, read: bool, write: bool) -> None:
        """Only of sessions with a socket."""

    def closed(self, session: Session, reason: str) -> None:
        self._watchers.remove(session)

    def later(self, session: Session) -> None:
        session.proceed()

    def events(self, session: Session, events: list[tuple[str, bytes, int, int]]) -> bool:
        return False

    def lock(self, session: Session, key: bytes) -> None:
        session.grant()

    def trace(self, session: Session | None, text: bytes) -> None:
        """Nobody looks."""


class _Network:
    """What the cold commands see of the sockets: admin's Network."""

    log_lines_lost = 0
    reserved_descriptors = 0
    certificate_seconds = 0

    def __init__(self, server: Server) -> None:
        self._server = server
        self.figures = server.figures

    @property
    def connections(self) -> int:
        return self._server.connections

    @property
    def most_connections(self) -> int:
        return self._server.most_connections

    @property
    def accepting(self) -> bool:
        return not self._server.faults.refusing

    def sockets(self, asking: Session) -> Iterator[SocketStatus]:
        """Clients by their numbers; no listener, as nobody can do anything with it."""
        now = self._server.engine.now()
        for line in sorted(self._server.lines, key=lambda each: each.conversation.fd):
            session = line.conversation.session
            state = "conn_parse_cmd" if session is asking else session.state
            idle = max(0, int(now - session.last_command))
            yield SocketStatus(line.conversation.fd, line.peer, line.here, state, session.resps_waiting, idle)

    def refresh_certificates(self) -> str:
        raise AssertionError("-Z is not for a server within a process")

    def stop(self, *, graceful: bool) -> None:
        """`shutdown`, with -A."""
        self._server.end_soon()


def _key(key: str | bytes) -> bytes:
    if not isinstance(key, str | bytes | bytearray):
        raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
    found = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else bytes(key)
    if not 0 < len(found) <= 250 or any(byte <= 32 or byte == 127 for byte in found):
        raise ValueError(f"{key!r} is no key: 1 to 250 bytes without spaces and control characters")
    return found


NOT_WITHIN = {
    "ephemeral": "--ephemeral", "udpport": "-U", "tcpport": "-p", "inter": "-l", "domain_socket": "-s", "umask": "-a",
    "daemonize": "-d", "pid_file": "-P", "cluster": "--zookeeper", "ssl_enabled": "-Z", "auth_file": "-Y", "sasl": "-S",
    "memory_file": "-e", "take_over": "--take-over", "metrics": "--metrics", "idle_timeout": "-o idle_timeout",
}  # fmt: skip
"""Settings of a process, its sockets and its logins, by how they are written."""


def _config_of(flags: tuple[str, ...]) -> Config:
    """The settings of these flags; refuses those that a server within a process can't follow. Raises ConfigError."""
    for flag in flags:
        if flag.startswith("-") and " " in flag:
            raise ConfigError(
                f"{flag!r} is several words, and each is an argument of its own: {', '.join(flag.split())}"
            )
    chosen = parse(["-u", "root", *flags], {})
    if isinstance(chosen, str):
        raise ConfigError(f"--{chosen} is a page to read, and no flag of a server")
    base = parse(["-u", "root"], {})
    for setting, option in NOT_WITHIN.items():
        if getattr(chosen, setting) != getattr(base, setting):
            raise ConfigError(
                f"{option} is not for a server within a process: `mcserver --ephemeral` starts a real one"
            )
    if chosen.binding_protocol == "binary":
        raise ConfigError("-B binary is not for a server within a process, which is looked into in text")
    for warning in chosen.warnings:
        if "left out" in warning:
            raise ConfigError(warning)
        warnings.warn(warning, stacklevel=4)
    return chosen
