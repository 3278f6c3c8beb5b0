"""What the machines of one server share: ports, settings, figures, and the loop that keeps a machine going."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from .figures import Figures
from .layout import Layout
from .ports import Cache, Future, NoNode, Runtime, SessionState, ZooKeeper, ZooKeeperError
from .settings import Settings

log = logging.getLogger("mcserver.coordination")

SECOND = 1_000_000_000  # nanoseconds
T = TypeVar("T")
R = TypeVar("R")


class Signal:
    """Wakes the one task that waits for it. A set before the wait is not lost; many sets are one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._set = False
        self._waiter: Future[None] | None = None

    def set(self) -> None:
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Until the next set (True), or for at most so many seconds (False)."""
        if not self._set:
            waiter = self._waiter = self._runtime.future()
            timer = None
            if seconds is not None:
                timer = self._runtime.call_later(seconds, lambda: None if waiter.done() else waiter.set_result(None))
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        fired, self._set = self._set, False
        return fired


class Context:
    """Handed to every machine. `trace` reports what a machine does, for tests: it must never change anything."""

    def __init__(self, zk: ZooKeeper, runtime: Runtime, cache: Cache, settings: Settings) -> None:
        self.zk = zk
        self.runtime = runtime
        self.cache = cache
        self.settings = settings
        self.layout = Layout(settings.path)
        self.figures = Figures()
        self.trace: Callable[..., None] = lambda kind, *details: None
        self.changed: Callable[[str], None] = lambda kind: None
        self._waiting: list[Future[None]] = []
        self._alarms: set[str] = set()

    def now(self) -> int:
        return self.runtime.now()

    def guid(self) -> str:
        return f"{self.runtime.random.getrandbits(64):016x}"

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Gives way to everything else, for so long."""
        done = self.runtime.future()
        self.runtime.call_later(seconds, lambda: None if done.done() else done.set_result(None))
        return done

    async def ask_each(self, items: Sequence[T], ask: Callable[[T], Awaitable[R]]) -> list[tuple[T, R | None]]:
        """The answers to a read for each item, pipelined, a window at a time; None for NoNode."""
        answers: list[tuple[T, R | None]] = []
        for start in range(0, len(items), self.settings.read_ahead):
            for item, reply in [(item, ask(item)) for item in items[start : start + self.settings.read_ahead]]:
                try:
                    answers.append((item, await reply))
                except NoNode:
                    answers.append((item, None))
        return answers

    @property
    def is_connected(self) -> bool:
        return self.zk.state is SessionState.CONNECTED

    async def connected(self) -> None:
        """Until the session is usable."""
        while not self.is_connected:
            waiter = self.runtime.future()
            self._waiting.append(waiter)
            await waiter

    def session_changed(self) -> None:
        """To be called after each change of the session's state."""
        if self.is_connected:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def alarm(self, kind: str, text: str) -> None:
        """Something that an operator must mend. Logged once until `settled`."""
        if kind not in self._alarms:
            self._alarms.add(kind)
            log.error("%s", text)
            self.changed("alarm")

    def settled(self, kind: str) -> None:
        if kind in self._alarms:
            self._alarms.remove(kind)
            log.warning("mended: %s", kind)

    async def forever(self, name: str, step: Callable[[], Awaitable[Any]]) -> None:
        """Repeats one machine's step while connected. After an error it waits: never a spin, never the end."""
        failures = 0
        while True:
            await self.connected()
            try:
                await step()
                failures = 0
                continue
            except ZooKeeperError as error:
                log.debug("%s: %r", name, error)
                self.trace("retry", name, error)
            except Exception as error:
                log.exception("%s failed; it starts again", name)
                self.trace("bug", name, error)
            failures += 1
            await self.sleep(self.backoff(failures))

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        settings = self.settings
        delay = min(settings.retry_delay * 1.6 ** (failures - 1), settings.retry_delay_max)
        return delay * (0.75 + 0.5 * self.runtime.random.random())
