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
from typing import TYPE_CHECKING

from mcserver import MEMCACHED_VERSION, __version__, logs
from mcserver.admin import Admin, Cluster, Context, Settings
from mcserver.connections import Connections, address_text
from mcserver.core import Engine
from mcserver.listeners import need_root, open_listeners, open_metrics, own_address, tcp_port, write_port_file
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
EX_USAGE = 64


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
        raise_descriptor_limit(config.maxconns)
        if config.core_dumps:
            allow_core_dumps()
        factory, loop_name = choose_loop(config.loop)
        user = find_user(config.user)
        engine = make_engine(config)
        admit_users(config, engine)
        manager = Manager(os.environ)
        listeners, metrics = inherited(os.environ) or (None, None)
        if listeners is None and need_root(config):
            listeners = open_listeners(config)
        if config.daemonize:
            daemon = daemonize(keep_output=config.verbosity > 0)
        become(user, config)
        if listeners is None:
            listeners = open_listeners(config)
        if metrics is None and config.metrics:
            metrics = open_metrics(config.metrics)
        if config.port_file is not None and config.domain_socket is None:
            write_port_file(config.port_file, listeners)
        pid_warning = write_pid_file(path_of(config.pid_file)) if config.pid_file is not None else ""
    except StartError as error:
        log.error("%s", error)
        if daemon is not None:
            logs.finish()
            daemon.failed(error.code)
        return error.code
    for warning in filter(None, (*config.warnings, pid_warning)):
        log.warning("%s", warning)
    if not listeners:
        log.warning("nothing to listen on: give a TCP port with -p or a Unix socket with -s")
    if daemon is not None:
        logs.finish()
        daemon.ready()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(Server(config, engine, listeners, loop_name, manager, reread, metrics).serve())
    if daemon is not None and config.pid_file is not None:
        remove_pid_file(path_of(config.pid_file))
    return 0


def path_of(name: str) -> Path:
    """For the few starts that have a file to write or to read: loading pathlib takes its time."""
    from pathlib import Path

    return Path(name)


def become(user: pwd.struct_passwd | None, config: Config) -> None:
    """Gives up root where it is to be given up, and all further rights for ever."""
    if user is not None:
        load_cluster(config)
        switch_user(user)
    forbid_new_privileges()


def choose_loop(name: str) -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """The maker of event loops, and the loop's name and version without a space."""
    if name == "uvloop":
        import uvloop

        version = uvloop.__version__
        return uvloop.new_event_loop, f"uvloop-{version}"
    return asyncio.new_event_loop, f"asyncio-{PYTHON}"


def load_cluster(config: Config) -> None:
    """Loads what the fleet needs, while everything can still be read."""
    if config.cluster is not None:
        import mcserver.coordination.opening  # noqa: F401


def make_engine(config: Config, *, manual_clock: bool = False, reserve: int | None = None) -> Engine:
    """The engine that the settings describe; tests move its clock. Raises StartError for what only the engine can judge.

    reserve: bytes of address space for items, which the memory limit can't outgrow (None: as the engine thinks best).
    """
    try:
        engine = Engine(
            **config.engine_arguments(), version=MEMCACHED_VERSION.encode(), manual_clock=manual_clock, reserve=reserve
        )
    except (ValueError, MemoryError, OSError) as error:
        raise StartError(f"can't set up the memory: {error}; see -m, -I, -f, -n and -o slab_sizes", EX_USAGE) from error
    engine.detail = config.detail_enabled
    engine.verbosity = min(config.verbosity, 2)
    engine.crawler_enabled = config.lru_crawler
    engine.automove = config.slab_automove if config.slab_reassign else 0
    return engine


def admit_users(config: Config, engine: Engine) -> None:
    """Whoever may log in, from the file of -Y or of -S. Raises StartError."""
    file = config.auth_file if config.auth_file is not None else config.sasl_file if config.sasl else None
    if file is None:
        return
    try:
        engine.require_login(
            "sasl" if config.sasl else "ascii", read_users(path_of(file), config.auth_file is not None)
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"can't read the users in {file}: {reason}", EX_FAILURE) from error


class Server:
    """One run of a server on the running loop."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        listeners: list[socket.socket],
        loop_name: str,
        manager: Manager,
        reread: Callable[[], Config] | None = None,
        metrics: socket.socket | None = None,
    ) -> None:
        self._config = config
        self._manager = manager
        self._reread = reread
        self._metrics = metrics
        self._observer: Observer | None = None
        self._context: Context
        self._engine = engine
        self._listeners = listeners
        self._loop_name = loop_name
        self._loop: asyncio.AbstractEventLoop
        self._connections: Connections
        self._cluster: Cluster | None = None
        self._stopping: asyncio.Future[bool]

    async def serve(self) -> None:
        """Returns when the server was asked to end and has drained."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # in the threads that begin now for ever
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        self._connections = Connections(self._config, self._engine, self._loop, self._listeners, self._stop)
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
        if self._metrics is not None:
            await self._observe(self._metrics)
        self._handle_signals()
        if self._cluster is not None:
            self._cluster.start()
        self._connections.listen()
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        self._manager.ready(self._loop, f"serving {len(self._listeners)} sockets")
        graceful = await self._stopping
        if graceful:
            log.info("Gracefully stopping")
        await self._end()

    def _open_cluster(self) -> Cluster | None:
        if self._config.cluster is None:
            return None
        from mcserver.coordination import open_cluster

        return open_cluster(self._config, self._engine, self._listeners)

    async def _observe(self, listener: socket.socket) -> None:
        from mcserver.observe import open_observer

        host = self._config.metrics.rpartition(":")[0]  # "" when the service manager opened the socket
        names = (*([host] if host else []), *self._config.metrics_names)
        self._observer = open_observer(listener, names, self._context)
        await self._observer.start(own_address(self._listeners))

    def _announce(self) -> None:
        log.info(
            "mcserver %s (memcached %s) listens on %s; memory %d MiB, %d connections; %s, Python %s; pid %d",
            __version__,
            MEMCACHED_VERSION,
            ", ".join(address_text(each.fileno()) for each in self._listeners) or "nothing",
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
        if self._config.config_file is not None and self._reread is not None:
            self._reread_file(self._reread)
        elif not users:
            log.info("SIGHUP: there is no file to read again")

    def _reread_users(self) -> None:
        try:
            admit_users(self._config, self._engine)
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
        self._manager.stopping()
        if self._observer is not None:
            self._observer.end_soon()
        deadline = self._loop.time() + DRAIN_SECONDS
        connections.close_listeners()
        connections.stop_reading()
        if self._cluster is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cluster.leave(), DRAIN_SECONDS)
        connections.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await connections.all_closed.wait()
        connections.close_all()
        if self._observer is not None:
            self._observer.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # with the loop its handlers go
