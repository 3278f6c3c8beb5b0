"""A start, step by step: limits, user, sockets, memory, threads; the event loop last. It knows no connection and no command.

Clients are answered before the loop is there: to load asyncio and uvloop takes longer than all the rest (early.py). So nothing
that is imported here may import them.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from mcserver.core import forbid_new_privileges
from mcserver.server import tls
from mcserver.server.connections import Connections
from mcserver.server.early import Early
from mcserver.server.listeners import Sockets, need_root, open_datagrams, open_listeners, open_metrics, write_port_file
from mcserver.server.lives import Life, Memory
from mcserver.server.users import read_logins
from mcserver.system import signals
from mcserver.system.early_log import early_log, log
from mcserver.system.process import (
    Daemon,
    StartError,
    allow_core_dumps,
    daemonize,
    find_user,
    inherited_descriptors,
    lock_memory,
    raise_descriptor_limit,
    raise_lock_limit,
    remove_pid_file,
    switch_user,
    write_pid_file,
)
from mcserver.system.systemd import Manager, inherited

if TYPE_CHECKING:
    import asyncio
    import pwd
    import socket

    from mcserver.core import TlsRules
    from mcserver.server.lives import Regained
    from mcserver.server.users import Logins
    from mcserver.settings.config import Config

PYTHON = sys.version.split()[0]


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Serves until a signal or `shutdown` ends it. Returns the exit code: 0, or memcached's for a failed start.

    reread: gives the configuration anew, for SIGHUP, or raises ConfigError.
    """
    early_log.prepare(as_json=config.log_json)
    try:
        return _run(config, reread)
    finally:
        early_log.load().finish()


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
        write_ports(config, sockets)
        if memory.sockets is not None:  # before the other process stops: nobody serves meanwhile
            load_server(config)
        engine = memory.engine()
        if ready.users is not None:
            engine.require_login(*ready.users)
        door = memory.open_door()
        lock_warning = lock_memory() if config.lock_memory else ""
        pid_warning = write_pid(config, memory.predecessor)  # whom it takes over from has removed its own
    except StartError as error:
        return failed(error, daemon)
    except OSError as error:  # the system has no descriptor or memory left for one of the steps
        return failed(StartError(f"can't start: {error.strerror or error}"), daemon)
    except (MemoryError, ImportError) as error:  # of a module that can't be mapped
        return failed(
            StartError(f"can't start: {str(error) or 'the system has no memory left for this process'}"), daemon
        )
    for warning in filter(
        None, (*config.warnings, *tls.warnings(config, sockets.listeners), lock_warning, pid_warning)
    ):
        log.warning("%s", warning)
    if not (sockets.listeners or sockets.datagrams):
        log.warning("nothing to listen on: give a TCP port with -p or a Unix socket with -s")
    life = Life(config, engine, memory, sockets, manager, reread, door, daemon, ready.users, ready.rules)
    ended = live(life)
    while isinstance(ended, Ended):
        del life, engine  # with the memory's mapping
        try:
            with manager.working(memory.look_seconds()):
                life = again(ended)
        except StartError as error:
            return failed(error, None)
        except OSError as error:
            return failed(StartError(f"can't serve again: {error.strerror or error}"), None)
        engine, ended = life.engine, live(life)
    return ended


class Ended(NamedTuple):
    """What is left of a life that is to go on."""

    config: Config
    memory: Memory
    sockets: Sockets
    manager: Manager
    reread: Callable[[], Config] | None
    logins: Logins | None
    rules: TlsRules | None
    regained: Regained


def live(life: Life) -> int | Ended:
    """Serves until the end. The exit code, or what is to go on."""
    config, memory, sockets = life.config, life.memory, life.sockets
    signals.block()
    connections = Connections(config, life.engine, sockets.listeners, sockets.datagrams)
    if life.rules is not None:
        connections.set_tls(life.rules)
    early = Early(connections)
    try:
        # A member has to know first what it missed, and who takes over whether it may.
        if config.cluster is None and config.verbosity < 2 and memory.sockets is None:
            early.start()
        loop_factory, loop_name = load_server(config)
        from mcserver.server.loop import Server, serve

        server = Server(life, connections, early, loop_name)
        serve(server, loop_factory)
    except StartError as error:
        return failed(error, life.daemon)
    except Exception:  # noqa: BLE001  # its log tells all of it
        log.exception("internal error: the server ends")
        give_up(life.daemon)
    finally:
        early.stop()
    if server.heir is None and server.graceful:
        memory.keep(life.engine, server.place)
    if config.daemonize and config.pid_file is not None:
        remove_pid_file(config.pid_file)
    if server.heir is None:
        return 0
    # Who takes over writes its own pid file.
    regained = memory.hand_over(server.heir, life.engine, server.place, life.manager.waiting)
    if regained is None:
        return 0
    return Ended(
        server.config, memory, sockets, life.manager, life.reread, server.logins, connections.tls_rules, regained
    )


def again(ended: Ended) -> Life:
    """The next life of a process whose heir did not serve. Raises StartError."""
    config, memory, sockets, manager, reread, logins, rules, regained = ended
    gc.unfreeze()
    gc.collect()
    engine = memory.regain(config, regained)
    if logins is not None:
        engine.require_login(*logins)
    for each in sockets.listeners:
        each.listen(config.tcp_backlog)  # this one may have had no room for clients when it ended
    warning = write_pid(config, 0)  # the other may have written its own
    if warning:
        log.warning("%s", warning)
    return Life(config, engine, memory, sockets, manager, reread, memory.open_door_again(), None, logins, rules)


def failed(error: StartError, daemon: Daemon | None) -> int:
    """Says why there is no start, and tells the process that waits for it. Returns the exit code."""
    log.error("%s", error)
    if daemon is not None:
        early_log.load().finish()
        daemon.failed(error.code)
    return error.code


def give_up(daemon: Daemon | None) -> NoReturn:
    """The end of a server whose loop can't go on: at once, since its threads would keep a process that hears no signal."""
    early_log.load().finish()
    if daemon is not None:
        daemon.failed(os.EX_SOFTWARE)
    os._exit(os.EX_SOFTWARE)


# The steps of a start ------------------------------------------------------------------------------------------------


class Prepared(NamedTuple):
    """What a start finds out before it opens anything, as the user who started it."""

    user: pwd.struct_passwd | None
    users: Logins | None
    rules: TlsRules | None


def prepare(config: Config) -> Prepared:
    """Limits, and all files that another user may not be able to read. Raises StartError."""
    raise_descriptor_limit(config.maxconns, config.num_threads, inherited_descriptors())
    if config.core_dumps:
        allow_core_dumps()
    if config.lock_memory:
        raise_lock_limit()
    return Prepared(
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
        if handed_over.datagrams and (config.auth_file is not None or config.sasl):
            raise StartError(
                "--take-over: the other server has a UDP port, where nobody can log in (-Y, -S): end it first"
            )
        listeners, datagrams, metrics = handed_over.listeners, handed_over.datagrams, handed_over.metrics or metrics
    else:
        listeners = open_listeners(config) if listeners is None else listeners
        datagrams = open_datagrams(config)
    if metrics is None and config.metrics:
        metrics = open_metrics(config.metrics)
    return Sockets(listeners, datagrams, metrics, handed_over=handed_over is not None)


def write_ports(config: Config, sockets: Sockets) -> None:
    """The file of ports, if it is wanted. Raises StartError."""
    if config.port_file is not None and (config.domain_socket is None or sockets.handed_over):
        write_port_file(config.port_file, sockets.listeners + sockets.datagrams)


def write_pid(config: Config, predecessor: int) -> str:
    """The file of the pid, if it is wanted. Returns what to warn of, or ""."""
    return write_pid_file(config.pid_file, predecessor) if config.pid_file is not None else ""


def become(user: pwd.struct_passwd | None, config: Config) -> None:
    """Gives up root where it is to be given up, and all further rights for ever."""
    if user is not None:
        load_rest(config)
        switch_user(user)
    forbid_new_privileges()


def load_rest(config: Config) -> None:
    """Everything that is else loaded when it is needed: the user to come may not be able to read it."""
    wanted = ["concurrent.futures.thread", "ipaddress", "json", "mcserver.system.logs", "pathlib"]
    wanted += ["mcserver.server.handover", "mcserver.server.loop"]
    wanted += ["uvloop"] if config.loop == "uvloop" else []
    if config.cluster is not None:
        wanted += ["mcserver.coordination.opening"]
    if config.memory_file is not None:
        wanted += ["mcserver.server.memory_file"]
    if config.metrics:
        wanted += ["mcserver.observe.answers", "mcserver.observe.http"]
    if config.config_file is not None:
        wanted += ["mcserver.settings.file", "mcserver.server.reload"]
    if config.ephemeral:
        wanted += ["mcserver.system.ephemeral"]
    for name in wanted:
        import_module(name)


def load_server(config: Config) -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """All that a server needs on its loop, and that takes its time to load. As choose_loop. Raises StartError."""
    early_log.load()
    try:
        import_module("mcserver.server.loop")
        return choose_loop(config.loop)
    except (OSError, MemoryError, ImportError) as error:  # no descriptor, no memory for a file of it
        advice = "; --loop asyncio needs nothing beside Python" if config.loop == "uvloop" else ""
        raise StartError(f"can't load the event loop: {error!r}{advice}") from error


def choose_loop(name: str) -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """The maker of event loops, and the loop's name and version without a space."""
    if name == "uvloop":
        import uvloop

        version = uvloop.__version__
        return uvloop.new_event_loop, f"uvloop-{version}"
    import asyncio

    return asyncio.new_event_loop, f"asyncio-{PYTHON}"
