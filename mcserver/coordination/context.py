"""What the machines of one server share: ports, settings, figures, and the loop that keeps a machine going."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from .budget import Budget
from .figures import Figures
from .layout import Layout
from .ports import (
    SECOND,
    Cache,
    Future,
    NoAuth,
    NoNode,
    NotConnected,
    Runtime,
    SessionState,
    Stat,
    Watch,
    ZooKeeper,
    ZooKeeperError,
)
from .settings import Settings

log = logging.getLogger("mcserver.coordination")

UNREADABLE_MAX = 1000  # paths remembered
ACCESS = (
    "the user or password of --zk-auth-file (or MCSERVER_ZK_AUTH) is not that of the ACL of --cluster-path, or is missing; "
    "compare with getAcl, then correct one of them"
)
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


class Counting:
    """ZooKeeper, with a count of the requests that read."""

    def __init__(self, zk: ZooKeeper) -> None:
        self._zk = zk
        self.reads = 0

    def get(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[bytes, Stat]]:
        self.reads += 1
        return self._zk.get(path, watch)

    def gets(self, paths: Sequence[str]) -> Awaitable[list[tuple[bytes, Stat] | None]]:
        self.reads += 1
        return self._zk.gets(paths)

    def exists(self, path: str, watch: Watch | None = None) -> Awaitable[Stat | None]:
        self.reads += 1
        return self._zk.exists(path, watch)

    def children(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[list[str], Stat]]:
        self.reads += 1
        return self._zk.children(path, watch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._zk, name)


class Context:
    """Handed to every machine. `trace` reports what a machine does, for tests: it must never change anything."""

    def __init__(self, zk: ZooKeeper, runtime: Runtime, cache: Cache, settings: Settings) -> None:
        self._counting = Counting(zk)
        self.zk: ZooKeeper = cast("ZooKeeper", self._counting)
        self.runtime = runtime
        self.cache = cache
        self.settings = settings
        self.layout = Layout(settings.path)
        self.figures = Figures()
        self.budget = Budget(settings.write_rate, settings.max_stale, runtime.now())
        self.trace: Callable[..., None] = lambda kind, *details: None
        self.changed: Callable[[str], None] = lambda kind: None
        self._waiting: list[Future[None]] = []
        self._alarms: dict[str, str] = {}
        self._unreadable: dict[str, int] = {}  # path: what was found there, so that the same bytes are told once
        self._offset: int | None = None  # ns from this machine's boot to the epoch of ZooKeeper's leader

    @property
    def reads(self) -> int:
        """What this server has asked of ZooKeeper, writes excepted."""
        return self._counting.reads

    def now(self) -> int:
        return self.runtime.now()

    # The clock of ZooKeeper's leader, in ms: what all servers can compare, whatever their own clocks say.

    def compare_clocks(self, began: int, mtime: int) -> None:
        """A write that was sent at `began` and answered now got this time. An answer that took long says when too roughly."""
        took = self.now() - began
        if mtime and (self._offset is None or took <= self.settings.reply_deadline * SECOND):
            self._offset = mtime * 1_000_000 - (began + self.now()) // 2

    def ensemble_time(self) -> int:
        """NotConnected before the first write came back."""
        if self._offset is None:
            raise NotConnected("the clock of ZooKeeper is not known yet")
        return (self.now() + self._offset) // 1_000_000

    def until(self, due: int) -> float:
        """Seconds from now to a time of that clock; 0 when it has passed, or the clock is not known."""
        return 0.0 if self._offset is None else max(0.0, (due * 1_000_000 - self._offset - self.now()) / SECOND)

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

    async def get_each(self, items: Sequence[T], path: Callable[[T], str]) -> list[tuple[T, tuple[bytes, Stat] | None]]:
        """What is at the path of each item, a window of them in one request; None where there is nothing."""
        answers: list[tuple[T, tuple[bytes, Stat] | None]] = []
        for start in range(0, len(items), self.settings.read_ahead):
            part = items[start : start + self.settings.read_ahead]
            answers += zip(part, await self.zk.gets([path(item) for item in part]), strict=True)
        return answers

    async def remove_copy(self, path: str, stat: Stat) -> bool:
        """Deletes a candidate that belongs to no session: tools that copy trees make such, which would stand for ever."""
        if stat.ephemeral_owner:
            return False
        log.warning("%s is no server's: it is deleted", path)
        self.budget.wrote("leader", self.now())
        try:
            await self.zk.delete(path)
        except NoNode:
            pass
        return True

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
            self._alarms[kind] = text
            log.error("%s", text)
            self.changed("alarm")

    def settled(self, kind: str) -> None:
        if self._alarms.pop(kind, None) is not None:
            log.warning("mended: %s", kind)

    @property
    def why(self) -> str:
        """What an operator must mend, or ""."""
        return next(iter(self._alarms.values()), "")

    def unreadable(self, path: str, data: bytes, error: object) -> bool:
        """A record that nobody of ours wrote: one line and one count for the same bytes. True the first time."""
        found = hash(data)
        if self._unreadable.get(path) == found:
            return False
        if len(self._unreadable) >= UNREADABLE_MAX:
            self._unreadable.clear()
        self._unreadable[path] = found
        self.figures.malformed += 1
        log.error("%s is left out: %s", path, error)
        return True

    async def forever(self, name: str, step: Callable[[], Awaitable[Any]]) -> None:
        """Repeats one machine's step while connected. After an error it waits: never a spin, never the end."""
        failures = 0
        while True:
            await self.connected()
            try:
                await step()
                failures = 0
                self.settled(f"access of the {name}")
                continue
            except ZooKeeperError as error:
                log.debug("%s: %r", name, error)
                if isinstance(error, NoAuth) and not self._alarms:
                    self.alarm(
                        f"access of the {name}", f"ZooKeeper refuses this server ({str(error) or 'NoAuth'}): {ACCESS}"
                    )
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
        return self.jittered(delay)

    def jittered(self, seconds: float) -> float:
        """About so long, a quarter more or less by chance: who waits for the same thing does not come back at the same time."""
        return seconds * (0.75 + 0.5 * self.runtime.random.random())
