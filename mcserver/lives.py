"""The engine, and its memory from one process to the next: new, of a file (-e), or of the process that serves (--take-over).

Knows when the two rooms that do it are needed (memory_file.py, handover.py), and loads none before: most starts need neither.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mcserver import MEMCACHED_VERSION
from mcserver.core import Engine
from mcserver.early_log import log
from mcserver.process import StartError
from mcserver.rules import EX_USAGE

if TYPE_CHECKING:
    import socket

    from mcserver.config import Config
    from mcserver.handover import Inheritance, Offer
    from mcserver.listeners import Sockets
    from mcserver.memory_file import MemoryFile


def make_engine(
    config: Config, *, manual_clock: bool = False, reserve: int | None = None, memory_fd: int = -1
) -> Engine:
    """The engine that the settings describe; tests move its clock. Raises StartError for what only the engine can judge.

    reserve: bytes of address space for items, which the memory limit can't outgrow (None: as the engine thinks best).
    memory_fd: the file that they lie in, whose descriptor is the engine's from then on; -1: none.
    """
    try:
        engine = Engine(
            **config.engine_arguments(),
            version=MEMCACHED_VERSION.encode(),
            manual_clock=manual_clock,
            reserve=reserve,
            memory_fd=memory_fd,
        )
    except (ValueError, MemoryError, OSError) as error:
        raise StartError(f"can't set up the memory: {error}; see -m, -I, -f, -n and -o slab_sizes", EX_USAGE) from error
    engine.detail = config.detail_enabled
    engine.verbosity = min(config.verbosity, 2)
    engine.crawler_enabled = config.lru_crawler
    engine.automove = config.slab_automove if config.slab_reassign else 0
    return engine


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
            from mcserver.handover import inherit

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
            from mcserver.memory_file import MemoryFile

            self._file = MemoryFile(self._config.memory_file, offered)
            self._fd = self._file.fd
        elif offered >= 0:
            self._fd = offered
        elif self._config.take_over is not None:
            self._fd = os.memfd_create("mcserver")

    def engine(self) -> Engine:
        """With all that can be served. A process that hands over has ended then. Raises StartError."""
        if self._inheritance is not None:
            return self._handed_over(self._inheritance)
        if self._file is not None:
            return self._kept(self._file)
        return self._new()

    def _new(self) -> Engine:
        return make_engine(self._config, memory_fd=os.dup(self._fd) if self._fd >= 0 else -1)

    def _emptied(self) -> Engine:
        if self._file is not None:
            self._file.clear()
        else:
            os.ftruncate(self._fd, 0)
        return self._new()

    def _handed_over(self, inheritance: Inheritance) -> Engine:
        from mcserver.handover import HandOverError

        offer, engine = inheritance.offer, self._new()
        reason = engine.differs(offer.layout)
        if self._fd != offer.memory:
            os.close(offer.memory)  # it would stay as large as it is for as long as this process lives
            reason = reason or "-e names another file"
        try:
            record, place = inheritance.take()
            if not reason:
                engine.resume(record, 0)
        except (HandOverError, ValueError) as error:
            reason = str(error)
        for each in offer.sockets.listeners:
            each.listen(self._config.tcp_backlog)  # the other may have had no room for clients when it ended
        if reason:
            log.warning("--take-over: starting empty: %s", reason)
            return self._emptied()
        self.resumed, self.place = True, place
        log.info("--take-over: %d items go on", engine.stats()["curr_items"])
        return engine

    def _kept(self, file: MemoryFile) -> Engine:
        from mcserver.memory_file import UnusableError

        try:
            kept = file.read()
            engine = self._new()
            if kept is None:
                return engine
            engine.resume(kept.record, kept.away)
        except (UnusableError, ValueError) as reason:
            log.warning("-e %s: starting empty: %s", file.path, reason)
            return self._emptied()
        self.resumed, self.place = True, kept.fleet
        log.info("-e %s: %d items go on, after %.1f s", file.path, engine.stats()["curr_items"], kept.away)
        return engine

    # The end ---------------------------------------------------------------------------------------------------------

    def open_door(self) -> socket.socket | None:
        """Where the next process asks (--take-over). Raises StartError."""
        if self._config.take_over is None:
            return None
        from mcserver.handover import open_door

        return open_door(self._config.take_over)

    def offer(self, sockets: Sockets, engine: Engine) -> Offer:
        """What the next process is told and given."""
        from mcserver.handover import Offer

        return Offer(sockets, self._fd, engine.layout())

    def hand_over(self, heir: socket.socket, engine: Engine, place: dict[str, Any] | None) -> None:
        """The last word of a process whose sockets and memory another one has."""
        from mcserver.handover import bequeath

        try:
            bequeath(heir, engine.keep(sums=False), place)
        except OSError as error:
            log.error("--take-over: the other process has gone: %s", error.strerror or error)

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
