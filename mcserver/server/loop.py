"""A server on its loop: cold commands, background work, signals, reload, end. It opens nothing (start.py), and knows no bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcserver import MEMCACHED_VERSION, __version__
from mcserver.admin.commands import Admin
from mcserver.admin.context import Context
from mcserver.admin.settings import Settings
from mcserver.server import tls
from mcserver.server.connections import Connections, address_text
from mcserver.server.listeners import addresses, own_address
from mcserver.server.users import read_logins
from mcserver.settings.rules import ConfigError
from mcserver.system import files, logs, signals
from mcserver.system.logs import ASKED
from mcserver.system.process import StartError

if TYPE_CHECKING:
    import socket

    from mcserver.admin.ports import Cluster
    from mcserver.observe.http import Observer
    from mcserver.server.early import Early
    from mcserver.server.handover import HandOver
    from mcserver.server.lives import Life
    from mcserver.settings.config import Config

log = logging.getLogger("mcserver")

PYTHON = sys.version.split()[0]
SLICE_MICROSECONDS = 1000
"""Background work of the engine between two turns of the loop."""
SHORTEST_REST = 0.001
"""Seconds between two slices, however much work waits: clients have the loop for at least half of the time."""
TELL_COUNTS_SECONDS = 5.0
"""How late a count of repeated log lines may come."""
TURNS_OF_A_SIGNAL = 4
"""Of the loop, until what came just now has reached its handler."""
SETTLE_SECONDS = 0.05
"""Until the fleet has heard of what the workers ran last: after it has left it tells nobody."""
DRAIN_SECONDS = 3.0
"""How long the end waits for clients to take their last replies; with the rest of the way out it stays under 5 s."""


def serve(server: Server, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Runs it on a loop until it has ended. Raises StartError."""
    runner = asyncio.Runner(loop_factory=loop_factory)
    try:
        runner.run(server.serve())
    finally:
        try:
            runner.close()
        except (OSError, RuntimeError) as error:  # uvloop opens descriptors to end; what there was to do is done
            log.warning("the loop is left as it is: %s", error)


class Server:
    """One run of a server on the running loop."""

    def __init__(self, life: Life, connections: Connections, early: Early, loop_name: str) -> None:
        """early: who accepts until the loop does."""
        self.graceful = False
        """Whether the next process is to serve what is there (SIGUSR1, `shutdown graceful`)."""
        self.place: dict[str, Any] | None = None
        """At the end: the memory's place in the fleet's log."""
        self.heir: socket.socket | None = None
        """The next process, when it has asked."""
        self.config = life.config
        """As the last SIGHUP left it."""
        self.logins = life.logins
        """Likewise."""
        self._life = life
        self._engine = life.engine
        self._listeners = life.sockets.listeners
        self._connections = connections
        self._early = early
        self._loop_name = loop_name
        self._hand_over: HandOver | None = None
        self._observer: Observer | None = None
        self._context: Context
        self._loop: asyncio.AbstractEventLoop
        self._cluster: Cluster | None = None
        self._stopping: asyncio.Future[bool]
        self._signal = ""
        self._dismissed: signal.Signals | None = None
        """The last signal that told this process to end: then it must not serve again when its heir fails."""

    async def serve(self) -> None:
        """Returns when the server was asked to end and has drained."""
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        self._connections.attach(self._loop, self._stop)
        self._cluster = self._open_cluster()
        self._connections.cluster = self._cluster
        self._context = Context(
            config=self.config,
            engine=self._engine,
            network=self._connections,
            watchers=self._connections.watchers,
            settings=Settings(self.config, self.config.tcpport),
            loop=self._loop_name,
            cluster=self._cluster,
        )
        self._context.settings |= addresses(self.config, self._life.sockets)
        self._connections.admin = Admin(self._context)
        if self._life.sockets.metrics is not None:
            metrics = self._life.sockets.metrics
            await self._observe(metrics if self._life.door is None else metrics.dup())  # who serves again needs it anew
        self._handle_signals()
        self._life.memory.claim()
        if self._cluster is not None:
            self._cluster.start()
        self._early.stop()
        self._connections.listen()
        self._life.memory.serving()
        if self._life.daemon is not None:
            logs.finish()
            self._life.daemon.ready()
        self._maintain()
        gc.freeze()
        gc.enable()
        self._announce()
        logs.serving()
        files.never_wait()
        if self.config.ephemeral:
            from mcserver.system import ephemeral

            ephemeral.tell(self._listeners, self._life.sockets.datagrams, self._life.sockets.metrics)
            ephemeral.end_with_stdin(self._loop, self._stop)
        self._tell_counts()
        if self._life.door is not None:
            self._wait_at(self._life.door)
        signals.unblock()
        self._life.manager.ready(self._loop, f"serving {len(self._listeners + self._life.sockets.datagrams)} sockets")
        self.graceful = await self._stopping
        await self._end()

    def _wait_at(self, door: socket.socket) -> None:
        from mcserver.server.handover import HandOver

        self._hand_over = HandOver(
            door, lambda: self._life.memory.offer(self._life.sockets, self._engine), lambda: self._stop(True)
        )

    def _open_cluster(self) -> Cluster | None:
        if self.config.cluster is None:
            return None
        from mcserver.coordination import open_cluster

        cluster: Cluster = open_cluster(self.config, self._engine, self._listeners)
        if self._life.memory.resumed:
            cluster.resume(self._life.memory.place)
        return cluster

    async def _observe(self, listener: socket.socket) -> None:
        from mcserver.observe import open_observer

        host = self.config.metrics.rpartition(":")[0]  # "" when the service manager opened the socket
        names = (*([host] if host else []), *self.config.metrics_names)
        self._observer = open_observer(listener, names, self._context)
        await self._observer.start(
            own_address([each for each in self._listeners if not tls.security(self.config, each)])
        )

    def _announce(self) -> None:
        log.info(
            "mcserver %s (memcached %s) listens on %s; memory %d MiB, %d connections; %s, Python %s; pid %d",
            __version__,
            MEMCACHED_VERSION,
            ", ".join(address_text(each.fileno()) for each in self._listeners + self._life.sockets.datagrams)
            or "nothing",
            self.config.maxbytes >> 20,
            self.config.maxconns,
            self._loop_name,
            PYTHON,
            os.getpid(),
        )
        if (metrics := self._life.sockets.metrics) is not None:
            where = address_text(metrics.fileno()).removeprefix("tcp:").removeprefix("tcp6:")
            log.info("metrics, health and a page at http://%s/", where)
        if self._engine.verbosity > 1:
            for each in self._listeners:
                logs.trace(f"<{each.fileno()} server listening ({self.config.binding_protocol})".encode())

    # Background ------------------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        rest = SHORTEST_REST
        try:
            rest = self._engine.maintain(SLICE_MICROSECONDS)
        finally:  # whatever there was no memory for is tried again
            self._loop.call_later(max(rest, SHORTEST_REST), self._maintain)

    def _tell_counts(self) -> None:
        try:
            logs.tell_counts()
        finally:
            self._loop.call_later(TELL_COUNTS_SECONDS, self._tell_counts)

    # The end ---------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        """From here on a signal ends the server in good order. One more changes nothing, to the very end.

        But who hands over does not serve again when it was told to end.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._signalled, number, False)
        self._loop.add_signal_handler(signal.SIGUSR1, self._signalled, signal.SIGUSR1, True)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _signalled(self, number: signal.Signals, graceful: bool) -> None:
        if not self._stopping.done():
            self._signal = number.name
        if not graceful:
            self._dismissed = number
        self._stop(graceful)

    def _stop(self, graceful: bool) -> None:
        if not self._stopping.done():
            self._stopping.set_result(graceful)

    def _reload(self) -> None:
        """What can change in a running server does, and the rest is named; an error changes nothing."""
        users = self.config.auth_file is not None or self.config.sasl
        if users:
            self._reread_users()
        if self.config.ssl_enabled:
            self._connections.refresh_certificates(ASKED)
        if self.config.config_file is not None and self._life.reread is not None:
            self._reread_file(self._life.reread)
        elif not users and not self.config.ssl_enabled:
            log.info("SIGHUP: there is no file to read again", extra=ASKED)

    def _reread_users(self) -> None:
        try:
            users = read_logins(self.config)
            if users is not None:
                self._engine.require_login(*users)
                self.logins = users
        except StartError as error:
            log.error("SIGHUP: %s; the users stay as they were", error, extra=ASKED)
        else:
            log.info("SIGHUP: the users are read again", extra=ASKED)

    def _reread_file(self, reread: Callable[[], Config]) -> None:
        from mcserver.server.reload import change
        from mcserver.settings.file import check_whole

        assert self.config.config_file is not None
        self._life.manager.reloading()
        try:
            check_whole(self.config.config_file)
            wanted = reread()
        except ConfigError as error:
            log.error("SIGHUP: nothing has changed: %s", error, extra=ASKED)
            self._life.manager.reloaded(f"the configuration can't be read, nothing has changed: {error}")
            return
        new = change(self.config, wanted, self._engine, self._context.settings)
        self.config = self._context.config = new.config
        self._connections.reconfigure(new.config)
        done = "; ".join(new.done) or "nothing to change"
        log.info("SIGHUP: read %s again; %s", self.config.config_file, done, extra=ASKED)
        for line in new.not_done:
            log.warning("SIGHUP: %s", line, extra=ASKED)
        self._life.manager.reloaded("; ".join(new.not_done) or "serving")

    async def _end(self) -> None:
        """No new connection, no new command; replies drain until the deadline, then whatever is left is closed."""
        connections = self._connections
        if self._hand_over is not None:
            self.heir = self._hand_over.heir
            if self.heir is not None:
                signals.block()  # they wait for who waits for the heir
                for _ in range(TURNS_OF_A_SIGNAL):
                    await asyncio.sleep(0)
            self._hand_over.close()
        if self.heir is None:
            self._life.manager.stopping()
        if self._observer is not None:
            self._observer.end_soon()
        deadline = self._loop.time() + DRAIN_SECONDS
        connections.close_listeners(keep=self.heir is not None)
        if self._signal:  # who reads this finds the doors closed
            log.info("%s: ending", self._signal)
        if self.graceful:
            log.info("Gracefully stopping")
        connections.stop_reading()
        if self._cluster is not None:
            await asyncio.sleep(SETTLE_SECONDS)
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
        signals.block()  # with the loop its handlers go
        signals.forget()
        if self.heir is not None and self._dismissed is not None:  # as if it came now
            signal.pthread_kill(threading.main_thread().ident or 0, self._dismissed)
