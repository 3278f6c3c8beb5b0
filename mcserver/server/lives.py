"""What a server is made of (Life), and its memory from one process to the next: new, in a file (-e), handed over (--take-over).

Knows when the two rooms that do it are needed (memory_file.py, handover.py), and loads none before: most starts need neither.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from mcserver import MEMCACHED_VERSION
from mcserver.core import Engine
from mcserver.system.early_log import log
from mcserver.system.process import StartError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from mcserver.core import TlsRules
    from mcserver.server.handover import Inheritance, Offer
    from mcserver.server.listeners import Sockets
    from mcserver.server.memory_file import MemoryFile
    from mcserver.server.users import Logins
    from mcserver.settings.config import Config
    from mcserver.system.process import Daemon
    from mcserver.system.systemd import Manager


def make_engine(
    config: Config,
    *,
    manual_clock: bool = False,
    reserve: int | None = None,
    memory_fd: int = -1,
    like: bytes | None = None,
) -> Engine:
    """The engine that the settings describe; tests move its clock. Raises StartError for what only the engine can judge.

    reserve: bytes of address space for items, which the memory limit can't outgrow (None: as the engine thinks best).
    memory_fd: the file that they lie in, whose descriptor is the engine's from then on; -1: none.
    like: the layout or the record of an engine whose items are to go on: pages have the size that they had there.
    """
    try:
        engine = Engine(
            **config.engine_arguments(),
            version=MEMCACHED_VERSION.encode(),
            manual_clock=manual_clock,
            reserve=reserve,
            memory_fd=memory_fd,
            like=like,
        )
    except (ValueError, MemoryError, OSError) as error:
        raise StartError(
            f"can't set up the memory: {error}; see -m, -I, -f, -n and -o slab_sizes", os.EX_USAGE
        ) from error
    engine.detail = config.detail_enabled
    engine.verbosity = config.verbosity
    engine.crawler_enabled = config.lru_crawler
    engine.automove = config.engine_automove
    return engine


class Life(NamedTuple):
    """What a server is made of. A process has one, and another if it has ended for one that then died (--take-over)."""

    config: Config
    engine: Engine
    memory: Memory
    sockets: Sockets
    manager: Manager
    reread: Callable[[], Config] | None
    """Gives the configuration anew, for SIGHUP, or raises ConfigError."""
    door: socket.socket | None
    """Where the next process asks for everything (--take-over)."""
    daemon: Daemon | None
    """Who waits to hear that it serves (-d)."""
    logins: Logins | None
    """Who may come in, as it was told to the engine."""
    rules: TlsRules | None


class Regained(NamedTuple):
    """What a process that was to end has of its memory: the record (None: another may have changed it), its time, the place."""

    record: bytes | None
    since: float
    place: dict[str, Any] | None


class Memory:
    """Where the items lie, from the start of this process to its end."""

    def __init__(self, config: Config) -> None:
        """With --take-over it asks the process that serves. Raises StartError for an answer that can't be used."""
        self._config = config
        self._file: MemoryFile | None = None
        self._fd = -1
        self._inheritance: Inheritance | None = None
        self.resumed = False
        """Whether the engine has another process' items; `place` is their place in the fleet's log, if it was in one."""
        self.place: dict[str, Any] | None = None
        if config.take_over is not None:
            from mcserver.server.handover import inherit

            self._inheritance = inherit(config.take_over)

    @property
    def sockets(self) -> Sockets | None:
        """What another process hands over with its memory."""
        return None if self._inheritance is None else self._inheritance.offer.sockets

    @property
    def predecessor(self) -> int:
        """The pid of the process that hands over; 0: none."""
        return 0 if self._inheritance is None else self._inheritance.pid

    def open(self) -> None:
        """The file of -e, or what the other process hands over, or memory to be handed over. Raises StartError."""
        offered = -1 if self._inheritance is None else self._inheritance.offer.memory
        if self._config.memory_file is not None:
            from mcserver.server.memory_file import MemoryFile

            self._file = MemoryFile(self._config.memory_file, offered)
            self._fd = self._file.fd
        elif offered >= 0:
            self._fd = offered
        elif self._config.take_over is not None:
            self._fd = os.memfd_create("mcserver")

    def engine(self) -> Engine:
        """With all that can be served. A process that hands over has stopped then. Raises StartError."""
        if self._inheritance is not None:
            return self._handed_over(self._inheritance)
        if self._file is not None:
            return self._kept(self._file)
        return self._new()

    def _new(self, like: bytes | None = None) -> Engine:
        return make_engine(self._config, memory_fd=os.dup(self._fd) if self._fd >= 0 else -1, like=like)

    def _emptied(self) -> Engine:
        if self._file is not None:
            self._file.clear()
        else:
            os.ftruncate(self._fd, 0)
        return self._new()

    def _handed_over(self, inheritance: Inheritance) -> Engine:
        from mcserver.server.handover import HandOverError

        offer = inheritance.offer
        engine = self._new(offer.layout)
        reason = engine.differs(offer.layout)
        if self._fd != offer.memory:
            os.close(offer.memory)  # it would stay as large as it is for as long as this process lives
            reason = reason or "-e names another file"
        ended = False
        try:
            legacy = inheritance.take()
            if not reason:
                engine.resume(legacy.record, legacy.away)
        except HandOverError as error:
            reason, ended = str(error) or "no answer", True
        except ValueError as error:
            reason = str(error)
        for each in offer.sockets.listeners:
            each.listen(self._config.tcp_backlog)  # the other may have had no room for clients when it ended
        if ended and self._file is not None and self._fd == offer.memory:
            log.warning("--take-over: nothing was handed over: %s", reason)
            del engine  # with its mapping
            return self._kept(self._file)  # it may have left a record
        if reason:
            log.warning("--take-over: starting empty: %s", reason)
            if self._file is not None:
                self.claim()  # what the other has under this name is emptied
                return self._emptied()
            os.close(self._fd)  # the other's, who may yet serve it
            self._fd = os.memfd_create("mcserver")
            return self._new()
        return self._goes_on(engine, legacy.place)

    def _goes_on(self, engine: Engine, place: dict[str, Any] | None) -> Engine:
        """What the other process had is served."""
        self.resumed, self.place = True, place
        log.info("--take-over: %d items go on", engine.stats()["curr_items"])
        return engine

    def _kept(self, file: MemoryFile) -> Engine:
        from mcserver.server.memory_file import UnusableError

        try:
            kept = file.read()
            engine = self._new(kept.record if kept else None)
            if kept is None:
                return engine
            engine.resume(kept.record, kept.away)
        except (UnusableError, ValueError) as reason:
            log.warning("-e %s: starting empty: %s", file.path, reason)
            return self._emptied()
        self.resumed, self.place = True, kept.fleet
        log.info("-e %s: %d items go on, after %.1f s", file.path, engine.stats()["curr_items"], kept.away)
        return engine

    def claim(self) -> None:
        """From here on the items may be changed. Raises StartError when another process keeps them."""
        if self._inheritance is not None:
            self._inheritance.claim()

    def serving(self) -> None:
        """Whoever handed over may end."""
        if self._inheritance is not None:
            self._inheritance.serving()
            self._inheritance = None

    # The end ---------------------------------------------------------------------------------------------------------

    def open_door(self, *, again: bool = False) -> socket.socket | None:
        """Where the next process asks (--take-over). Raises StartError. again: a process that took over had one there."""
        if self._config.take_over is None:
            return None
        from mcserver.server.handover import open_door

        return open_door(self._config.take_over, instead=again or self._inheritance is not None)

    def open_door_again(self) -> socket.socket | None:
        """For a process that serves again. None: there is something else, which the log names."""
        try:
            return self.open_door(again=True)
        except StartError as error:
            log.error("%s", error)
            return None

    def offer(self, sockets: Sockets, engine: Engine) -> Offer:
        """What the next process is told and given."""
        from mcserver.server.handover import Offer

        return Offer(sockets, self._fd, engine.layout())

    def hand_over(
        self, heir: socket.socket, engine: Engine, place: dict[str, Any] | None, meanwhile: Callable[[], None]
    ) -> Regained | None:
        """The last words of a process whose sockets and memory another one has; what it needs to serve again if that one died.

        meanwhile: called often while it waits.
        """
        from mcserver.server.handover import Outcome, bequeath

        record, since = engine.keep(sums=False), time.clock_gettime(time.CLOCK_BOOTTIME)
        outcome = bequeath(heir, record, place, self.look_seconds(), meanwhile)
        if outcome is Outcome.TAKEN:
            return None
        log.error("--take-over: the other process has gone, or hangs: this one serves again")
        return Regained(record if outcome is Outcome.UNTOUCHED else None, since, place)

    def look_seconds(self) -> float:
        """How long it may take to look at all of it."""
        from mcserver.server.handover import READY_SECONDS, READY_SECONDS_A_GIB

        return READY_SECONDS + READY_SECONDS_A_GIB * os.fstat(self._fd).st_blocks * 512 / (1 << 30)

    def regain(self, config: Config, regained: Regained) -> Engine:
        """The engine of a process that serves again. Raises StartError.

        Where the file of -e can't be begun anew its memory has no name: that serves, though nothing of it will be kept.
        """
        self._config, self.resumed, self.place = config, False, None
        if regained.record is not None:
            engine = self._new(regained.record)
            try:
                engine.resume(regained.record, time.clock_gettime(time.CLOCK_BOOTTIME) - regained.since)
            except ValueError as error:
                log.warning("--take-over: starting empty: %s", error)
            else:
                return self._goes_on(engine, regained.place)
        else:
            log.warning("--take-over: starting empty: the other process had the memory")
        before = self._fd
        if self._file is not None:
            try:
                self._file = self._file.anew()
                self._fd = self._file.fd
            except StartError as error:
                log.error("-e: the memory has no file until the next start: %s", error)
                self._file = None
        if self._file is None:
            self._fd = os.memfd_create("mcserver")
        os.close(before)  # the other may yet have it
        return self._new()

    def keep(self, engine: Engine, place: dict[str, Any] | None) -> None:
        """Leaves everything to the next process, with -e."""
        if self._file is None:
            return
        try:
            self._file.write(engine.keep(), place)
        except OSError as error:
            meta = self._file.meta
            log.error("-e %s: nothing is kept: can't write %s: %s", self._file.path, meta, error.strerror)
            return
        finally:
            self._file.close()
        log.info("-e %s: %d items are kept", self._file.path, engine.stats()["curr_items"])
