"""The thread with an event loop on which all servers of this process live: it begins with the first and ends with the last.

It is nobody else's loop, and changes nothing of the process: no policy, no signal handler. Its clock is the machine's even while
time is frozen (freezegun, time-machine), so that timers go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

FOREIGN = (
    "this server lives in the process that this one was forked from: reach it by its address, or start another one"
)


class Loop(asyncio.SelectorEventLoop):
    """A loop that frozen time doesn't stop: libraries that freeze it leave clock_gettime alone."""

    def time(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)


class Loopback:
    """A packet to itself. On a busy machine the kernel delivers what was sent on 127.0.0.1 only later, but in its order."""

    SECONDS = 1.0

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.connect(self._socket.getsockname())
        self._socket.settimeout(self.SECONDS)

    def let_arrive(self, rounds: int) -> None:
        """What this thread has sent has arrived when it returns; with a second round also what that let others send."""
        with self._guard, contextlib.suppress(OSError):
            for _ in range(rounds):
                self._socket.send(b".")
                self._socket.recv(1)

    def close(self) -> None:
        """The end of it."""
        self._socket.close()


class Host:
    """`join` gives the one of this process; each `join` asks for one `leave`."""

    _current: Host | None = None
    _guard = threading.Lock()

    def __init__(self) -> None:
        self.loop = Loop()
        self.loopback = Loopback()
        self._users = 0
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="mcserver.testing", daemon=True)
        self._thread.start()

    @classmethod
    def join(cls) -> Host:
        """The host of this process, which is started if there is none (or only that of the process before a fork)."""
        with cls._guard:
            if cls._current is None or cls._current.is_foreign:
                cls._current = Host()
            cls._current._users += 1
            return cls._current

    def leave(self) -> None:
        """The last one to leave ends the thread."""
        with self._guard:
            self._users -= 1
            if self._users or self.is_foreign:
                return
            if Host._current is self:
                Host._current = None
        self.loopback.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        if not self.is_here:
            self._thread.join()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @property
    def is_here(self) -> bool:
        """Whether the caller is on the loop's thread."""
        return threading.current_thread() is self._thread

    @property
    def is_foreign(self) -> bool:
        """Whether its thread is another process's: of the one that this process was forked from."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Raises RuntimeError in a process that was forked from its own: nobody would answer there, for ever."""
        if self.is_foreign:
            raise RuntimeError(FOREIGN)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls it on the loop's thread and waits for what it returns or raises. RuntimeError in a forked process."""
        self.check()
        if self.is_here:
            return function(*arguments)
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001  # it is raised where it was asked for
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return done.result()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it on the loop's thread and waits for what it returns or raises. Never on the loop's thread."""
        if self.is_foreign:
            coroutine.close()
        self.check()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()
