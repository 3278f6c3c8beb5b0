"""The composition root: engine, listeners, loop, cold commands, background work, signals, end. It knows no bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from mcserver import MEMCACHED_VERSION, __version__, logs, tls
from mcserver.admin import Admin, Cluster, Context, Settings
from mcserver.connections import Connections, address_text
from mcserver.listeners import (
    Sockets,
    need_root,
    open_datagrams,
    open_listeners,
    open_metrics,
    own_address,
    tcp_port,
    write_port_file,
)
from mcserver.lives import Memory
from mcserver.process import (
    Daemon,
    StartError,
    allow_core_dumps,
    daemonize,
    find_user,
    forbid_new_privileges,
    raise_descriptor_limit,
    remove_pid_file,
    switch_user,
    write_pid_file,
)
from mcserver.rules import ConfigError
from mcserver.systemd import Manager, inherited
from mcserver.users import read_users

if TYPE_CHECKING:
    import pwd
    from pathlib import Path

    from mcserver.config import Config
    from mcserver.core import Engine, TlsRules
    from mcserver.handover import HandOver
    from mcserver.observe.http import Observer

log = logging.getLogger("mcserver")

PYTHON = sys.version.split()[0]
SLICE_MICROSECONDS = 1000
"""Background work of the engine between two turns of the loop."""
SHORTEST_REST = 0.001
"""Seconds between two slices, however much work waits: clients have the loop for at least half of the time."""
TELL_COUNTS_SECONDS = 5.0
"""How late a count of repeated log lines may come."""
DRAIN_SECONDS = 3.0
"""How long the end waits for clients to take their last replies; with the rest of the way out it stays under 5 s."""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
EX_FAILURE = 1


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Serves until a signal or `shutdown` ends it. Returns the exit code: 0, or memcached's for a failed start.

    reread: gives the configuration anew, for SIGHUP, or raises ConfigError.
    """
    logs.configure(as_json=config.log_json)
    try:
        return _run(config, reread)
    finally:
        logs.finish()


def _run(config: Config, reread: Callable[[], Config] | None) -> int:
    daemon: Daemon | None = None
    try:
        ready = prepare(config)
        manager = Manager(os.environ)
        given = sockets_before(config)
        if config.daemonize:
            daemon = daemonize(keep_output=config.verbosity > 0)
        become(ready.user, config)
        memory = Memory(config)
        sockets = open_sockets(config, given, memory.sockets)
        memory.open()
        pid_warning = write_names(config, sockets)
        engine = memory.engine()
        if ready.users is not None:
            engine.require_login(*ready.users)
        door = memory.open_door()
    except StartError as error:
        return failed(error, daemon)
    for warning in filter(None, (*config.warnings, *tls.warnings(config), pid_warning)):
        log.warning("%s", warning)
    if not (sockets.listeners or sockets.datagrams):
        log.warning("nothing to listen on: give a TCP port with -p or a Unix socket with -s")
    server = Server(config, engine, memory, sockets, ready, manager, reread, door, daemon)
    try:
        with asyncio.Runner(loop_factory=ready.loop_factory) as runner:
            runner.run(server.serve())
    except StartError as error:
        return failed(error, daemon)
    if server.heir is not None:
        memory.hand_over(server.heir, engine, server.place)
    elif server.graceful:
        memory.keep(engine, server.place)
    if daemon is not None and config.pid_file is not None:
        remove_pid_file(path_of(config.pid_file))
    return 0


def failed(error: StartError, daemon: Daemon | None) -> int:
    """Says why there is no start, and tells the process that waits for it. Returns the exit code."""
    log.error("%s", error)
    if daemon is not None:
        logs.finish()
        daemon.failed(error.code)
    return error.code


# The steps of a start ------------------------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """What a start finds out before it opens anything, as the user who started it."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    loop_name: str
    user: pwd.struct_passwd | None
    users: tuple[str, list[tuple[bytes, bytes]]] | None
    rules: TlsRules | None


def prepare(config: Config) -> Prepared:
    """Limits, and all files that another user may not be able to read. Raises StartError."""
    raise_descriptor_limit(config.maxconns, config.num_threads)
    if config.core_dumps:
        allow_core_dumps()
    return Prepared(
        *choose_loop(config.loop),
        find_user(config.user),
        read_logins(config),
        tls.load(config) if config.ssl_enabled else None,
    )


def sockets_before(config: Config) -> tuple[list[socket.socket] | None, socket.socket | None]:
    """The listeners, and that of --metrics, which the service manager opened or which only root can; None: not yet.

    Raises StartError.
    """
    listeners, metrics = inherited(os.environ) or (None, None)
    if need_root(config):
        if config.take_over is not None:
            raise StartError("--take-over can't be had for ports that need root: let the service manager open them")
        if listeners is None:
            listeners = open_listeners(config)
    return listeners, metrics


def open_sockets(
    config: Config, given: tuple[list[socket.socket] | None, socket.socket | None], handed_over: Sockets | None
) -> Sockets:
    """All of them: another process', if it hands them over, and those that are not given yet. Raises StartError."""
    listeners, metrics = given
    if handed_over is not None:
        listeners, datagrams, metrics = handed_over.listeners, handed_over.datagrams, handed_over.metrics or metrics
    else:
        listeners = open_listeners(config) if listeners is None else listeners
        datagrams = open_datagrams(config)
    if metrics is None and config.metrics:
        metrics = open_metrics(config.metrics)
    return Sockets(listeners, datagrams, metrics)


def write_names(config: Config, sockets: Sockets) -> str:
    """The files of ports and pid, if they are wanted. Returns what to warn of, or "". Raises StartError."""
    if config.port_file is not None and config.domain_socket is None:
        write_port_file(config.port_file, sockets.listeners + sockets.datagrams)
    return write_pid_file(path_of(config.pid_file)) if config.pid_file is not None else ""


def path_of(name: str) -> Path:
    """For the few starts that have a file to write or to read: loading pathlib takes its time."""
    from pathlib import Path

    return Path(name)


def become(user: pwd.struct_passwd | None, config: Config) -> None:
    """Gives up root where it is to be given up, and all further rights for ever."""
    if user is not None:
        load_rest(config)
        switch_user(user)
    forbid_new_privileges()


def load_rest(config: Config) -> None:
    """Everything that is else loaded when it is needed: the user to come may not be able to read it."""
    wanted = ["concurrent.futures.thread", "ipaddress", "json", "pathlib", "mcserver.handover"]
    if config.cluster is not None:
        wanted += ["mcserver.coordination.opening"]
    if config.memory_file is not None:
        wanted += ["mcserver.memory_file"]
    if config.metrics:
        wanted += ["mcserver.observe.answers", "mcserver.observe.http"]
    if config.config_file is not None:
        wanted += ["mcserver.config_file", "mcserver.reload"]
    if config.ephemeral:
        wanted += ["mcserver.ephemeral"]
    for name in wanted:
        import_module(name)


def choose_loop(name: str) -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """The maker of event loops, and the loop's name and version without a space."""
    if name == "uvloop":
        import uvloop

        version = uvloop.__version__
        return uvloop.new_event_loop, f"uvloop-{version}"
    return asyncio.new_event_loop, f"asyncio-{PYTHON}"


def read_logins(config: Config) -> tuple[str, list[tuple[bytes, bytes]]] | None:
    """Who may log in, and how, from the file of -Y or of -S; None: everybody may do everything. Raises StartError."""
    file = config.auth_file if config.auth_file is not None else config.sasl_file if config.sasl else None
    if file is None:
        return None
    try:
        return "sasl" if config.sasl else "ascii", read_users(path_of(file), config.auth_file is not None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"can't read the users in {file}: {reason}", EX_FAILURE) from error


class Server:
    """One run of a server on the running loop."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        memory: Memory,
        sockets: Sockets,
        ready: Prepared,
        manager: Manager,
        reread: Callable[[], Config] | None = None,
        door: socket.socket | None = None,
        daemon: Daemon | None = None,
    ) -> None:
        """door: where the next process asks for everything (--take-over). daemon: who waits to hear that it serves (-d)."""
        self.graceful = False
        """Whether the next process is to serve what is there (SIGUSR1, `shutdown graceful`)."""
        self.place: dict[str, Any] | None = None
        """At the end: the memory's place in the fleet's log."""
        self.heir: socket.socket | None = None
        """The next process, when it has asked."""
        self._memory = memory
        self._door = door
        self._daemon = daemon
        self._hand_over: HandOver | None = None
        self._sockets = sockets
        self._listeners = sockets.listeners
        self._config = config
        self._manager = manager
        self._reread = reread
        self._tls = ready.rules
        self._observer: Observer | None = None
        self._context: Context
        self._engine = engine
        self._loop_name = ready.loop_name
        self._loop: asyncio.AbstractEventLoop
        self._connections: Connections
        self._cluster: Cluster | None = None
        self._stopping: asyncio.Future[bool]

    async def serve(self) -> None:
        """Returns when the server was asked to end and has drained."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # in the threads that begin now for ever
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        self._connections = Connections(
            self._config, self._engine, self._loop, self._listeners, self._stop, self._sockets.datagrams
        )
        if self._tls is not None:
            self._connections.set_tls(self._tls)
        self._cluster = self._open_cluster()
        self._connections.cluster = self._cluster
        self._context = Context(
            config=self._config,
            engine=self._engine,
            network=self._connections,
            watchers=self._connections.watchers,
            settings=Settings(self._config, tcp_port(self._config, self._listeners)),
            loop=self._loop_name,
            cluster=self._cluster,
        )
        self._connections.admin = Admin(self._context)
        if self._sockets.metrics is not None:
            await self._observe(self._sockets.metrics)
        self._handle_signals()
        if self._cluster is not None:
            self._cluster.start()
        try:
            self._connections.listen()
        except OSError as error:
            threads = self._config.num_threads
            raise StartError(
                f"can't start {threads} threads: {error.strerror}; raise `ulimit -u`, or ask for fewer with -t"
            ) from error
        if self._daemon is not None:
            logs.finish()
            self._daemon.ready()
        self._maintain()
        gc.freeze()
        gc.enable()
        self._announce()
        logs.serving()
        if self._config.ephemeral:
            from mcserver import ephemeral

            ephemeral.tell(self._listeners)
            ephemeral.end_with_stdin(self._loop, self._stop)
        self._tell_counts()
        if self._door is not None:
            self._wait_at(self._door)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        self._manager.ready(self._loop, f"serving {len(self._listeners + self._sockets.datagrams)} sockets")
        self.graceful = await self._stopping
        if self.graceful:
            log.info("Gracefully stopping")
        await self._end()

    def _wait_at(self, door: socket.socket) -> None:
        from mcserver.handover import HandOver

        self._hand_over = HandOver(
            door, lambda: self._memory.offer(self._sockets, self._engine), lambda: self._stop(True)
        )

    def _open_cluster(self) -> Cluster | None:
        if self._config.cluster is None:
            return None
        from mcserver.coordination import open_cluster

        cluster: Cluster = open_cluster(self._config, self._engine, self._listeners)
        if self._memory.resumed:
            cluster.resume(self._memory.place)
        return cluster

    async def _observe(self, listener: socket.socket) -> None:
        from mcserver.observe import open_observer

        host = self._config.metrics.rpartition(":")[0]  # "" when the service manager opened the socket
        names = (*([host] if host else []), *self._config.metrics_names)
        self._observer = open_observer(listener, names, self._context)
        await self._observer.start(
            own_address([each for each in self._listeners if not tls.security(self._config, each)])
        )

    def _announce(self) -> None:
        log.info(
            "mcserver %s (memcached %s) listens on %s; memory %d MiB, %d connections; %s, Python %s; pid %d",
            __version__,
            MEMCACHED_VERSION,
            ", ".join(address_text(each.fileno()) for each in self._listeners + self._sockets.datagrams) or "nothing",
            self._config.maxbytes >> 20,
            self._config.maxconns,
            self._loop_name,
            PYTHON,
            os.getpid(),
        )
        if self._engine.verbosity > 1:
            for each in self._listeners:
                logs.trace(f"<{each.fileno()} server listening ({self._config.binding_protocol})".encode())

    # Background ------------------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        rest = self._engine.maintain(SLICE_MICROSECONDS)
        self._loop.call_later(max(rest, SHORTEST_REST), self._maintain)

    def _tell_counts(self) -> None:
        logs.tell_counts()
        self._loop.call_later(TELL_COUNTS_SECONDS, self._tell_counts)

    # The end ---------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        """From here on a signal ends the server in good order, and one more changes nothing, to the very end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._signalled, number, False)
        self._loop.add_signal_handler(signal.SIGUSR1, self._signalled, signal.SIGUSR1, True)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _signalled(self, number: signal.Signals, graceful: bool) -> None:
        log.info("%s: ending", number.name)
        self._stop(graceful)

    def _stop(self, graceful: bool) -> None:
        if not self._stopping.done():
            self._stopping.set_result(graceful)

    def _reload(self) -> None:
        """What can change in a running server does, and the rest is named; an error changes nothing."""
        users = self._config.auth_file is not None or self._config.sasl
        if users:
            self._reread_users()
        if self._config.ssl_enabled:
            self._connections.refresh_certificates()
        if self._config.config_file is not None and self._reread is not None:
            self._reread_file(self._reread)
        elif not users and not self._config.ssl_enabled:
            log.info("SIGHUP: there is no file to read again")

    def _reread_users(self) -> None:
        try:
            users = read_logins(self._config)
            if users is not None:
                self._engine.require_login(*users)
        except StartError as error:
            log.error("SIGHUP: %s; the users stay as they were", error)
        else:
            log.info("SIGHUP: the users are read again")

    def _reread_file(self, reread: Callable[[], Config]) -> None:
        from mcserver.config_file import check_whole
        from mcserver.reload import change

        assert self._config.config_file is not None
        self._manager.reloading()
        try:
            check_whole(self._config.config_file)
            wanted = reread()
        except ConfigError as error:
            log.error("SIGHUP: nothing has changed: %s", error)
            self._manager.reloaded(f"the configuration can't be read, nothing has changed: {error}")
            return
        new = change(self._config, wanted, self._engine, self._context.settings)
        self._config = self._context.config = new.config
        self._connections.reconfigure(new.config)
        log.info("SIGHUP: read %s again; %s", self._config.config_file, "; ".join(new.done) or "nothing to change")
        for line in new.not_done:
            log.warning("SIGHUP: %s", line)
        self._manager.reloaded("; ".join(new.not_done) or "serving")

    async def _end(self) -> None:
        """No new connection, no new command; replies drain until the deadline, then whatever is left is closed."""
        connections = self._connections
        if self._hand_over is not None:
            self.heir = self._hand_over.heir
            self._hand_over.close()
        if self.heir is None:
            self._manager.stopping()
        if self._observer is not None:
            self._observer.end_soon()
        deadline = self._loop.time() + DRAIN_SECONDS
        connections.close_listeners()
        connections.stop_reading()
        if self._cluster is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cluster.leave(), DRAIN_SECONDS)
            self.place = self._cluster.place()
        connections.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await connections.all_closed.wait()
        connections.close_all()
        if self._observer is not None:
            self._observer.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # with the loop its handlers go
