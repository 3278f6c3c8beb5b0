"""Virtual time, tasks and processes. Knows nothing of ZooKeeper or caches.

One heap of events, and a queue of those of now. An event belongs to a process or to the world. A paused process (SIGSTOP) gets
its events when it goes on, in their order; a killed one never. A process may be paused between any two of its events.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from typing import Any

MS = 1_000_000
SECOND = 1_000_000_000


class World:
    """The clock and the events. `now` is true time in nanoseconds; `stamp` orders what happens at one instant."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.events = 0
        self._heap: list[tuple[int, int, Process | None, Callable[..., object], tuple[Any, ...]]] = []
        self._soon: deque[tuple[int, int, Process | None, Callable[..., object], tuple[Any, ...]]] = deque()  # of now
        self._count = 0
        self._stamp = 0
        self.tasks: list[Task] = []
        self.note: Callable[[str], None] | None = None  # a readable trace, when somebody wants it

    def stamp(self) -> int:
        self._stamp += 1
        return self._stamp

    def at(self, time: int, process: Process | None, call: Callable[..., object], *args: Any) -> None:
        self._count += 1
        if time == self.now:
            self._soon.append((time, self._count, process, call, args))
        else:
            heappush(self._heap, (time, self._count, process, call, args))

    def after(self, delay: float, process: Process | None, call: Callable[..., object], *args: Any) -> None:
        """In `delay` ns."""
        self.at(self.now + int(delay), process, call, *args)

    def run(self, until: int) -> None:
        heap, soon = self._heap, self._soon
        chance = self.random.random
        while True:
            if soon and not (heap and heap[0] < soon[0]):
                time, count, process, call, args = soon.popleft()
            elif heap and heap[0][0] <= until:
                time, count, process, call, args = heappop(heap)
            else:
                break
            if process is not None:
                if process.killed:
                    continue
                if process.paused_until > time:
                    heappush(heap, (process.paused_until, count, process, call, args))
                    continue
                if process.hiccups and chance() < process.hiccups:
                    process.hiccup()
                    heappush(heap, (max(time, process.paused_until), count, process, call, args))
                    continue
            self.now = time
            self.events += 1
            call(*args)
        self.now = until

    def close(self) -> None:
        """The end of this world: no coroutine is left for the garbage collector to wake."""
        self._heap.clear()
        self._soon.clear()
        for task in self.tasks:
            task.coroutine.close()


class Process:
    """One server process: its own clock rate, pauses and death. Implements ports.Runtime."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.killed = False
        self.paused_until = 0
        self.slept = 0  # ns by which its timers are late, since the machine slept
        self.hiccups = 0.0
        self.random = random.Random(world.random.getrandbits(32))
        self.rate = 1.0 + world.random.uniform(-0.02, 0.02)
        self.offset = world.random.randrange(10**12)
        self.wakes_later = (
            False  # other events may come between an answer and whoever waits for it, as on an event loop
        )
        self.forgives = ""  # an error with this text ends a task, and not the run
        self.on_pause: Callable[[], None] = lambda: None

    def pause(self, duration: float) -> None:
        self.paused_until = max(self.paused_until, self.world.now + int(duration))
        if self.world.note:
            self.world.note(f"{self.name} paused for {duration / MS:.0f} ms")
        self.on_pause()

    def sleep(self, duration: float) -> None:
        """The machine sleeps: its clock runs on, as CLOCK_BOOTTIME does, and its timers do not."""
        self.pause(duration)
        self.slept += int(duration)

    def hiccup(self) -> None:
        """A short pause between two steps; now and then a long one."""
        roll = self.world.random.random()
        self.pause(MS * (0.2 + 5 * roll) if roll < 0.95 else MS * 2000 * (roll - 0.94))

    def now(self) -> int:
        return int(self.world.now * self.rate) + self.offset

    def future(self) -> Future:
        return Future(self)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        due = self.world.now + int(seconds * SECOND / self.rate + 2 if seconds > 0 else 0)
        self.world.at(due, self, self._ring, timer, due, self.slept)
        return timer

    def _ring(self, timer: Timer, due: int, slept: int) -> None:
        due += self.slept - slept
        if due > self.world.now:
            self.world.at(due, self, self._ring, timer, due, self.slept)
        else:
            timer.fire()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Task:
        task = Task(self, coroutine)
        self.world.after(0, self, task.step)
        return task


class Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback

    def fire(self) -> None:
        if self.callback is not None:
            self.callback()

    def cancel(self) -> None:
        self.callback = None


class Future:
    """Enough of asyncio.Future. Whoever waits goes on in a later event of the same process."""

    __slots__ = ("error", "finished", "process", "result", "waiters")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.waiters: list[Callable[[], None]] = []

    def done(self) -> bool:
        return self.finished

    def set_result(self, result: Any) -> None:
        assert not self.finished
        self.result = result
        self._finish()

    def set_exception(self, error: BaseException) -> None:
        assert not self.finished
        self.error = error
        self._finish()

    def finish_now(self, result: Any, error: BaseException | None) -> None:
        """As set_result or set_exception, but whoever waits goes on within this event. Only for the end of an event."""
        self.result, self.error, self.finished = result, error, True
        if self.process.wakes_later:
            self._finish()
            return
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()

    def _finish(self) -> None:
        self.finished = True
        world = self.process.world
        for waiter in self.waiters:
            world.at(world.now, self.process, waiter)
        self.waiters.clear()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        if self.finished:
            self.process.world.after(0, self.process, callback)
        else:
            self.waiters.append(callback)

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.finished:
            yield self
        if self.error is not None:
            raise self.error
        return self.result


class Task:
    """Drives one coroutine."""

    __slots__ = ("cancelled", "coroutine", "process")

    def __init__(self, process: Process, coroutine: Coroutine[Any, Any, None]) -> None:
        self.process = process
        self.coroutine = coroutine
        self.cancelled = False
        process.world.tasks.append(self)

    def step(self) -> None:
        if self.cancelled:
            return
        try:
            waits_for = self.coroutine.send(None)
        except StopIteration:
            return
        except ValueError as error:
            if self.process.forgives and self.process.forgives in str(error):
                return
            raise
        waits_for.waiters.append(self.step)

    def cancel(self) -> None:
        self.cancelled = True
        self.process.world.after(0, None, self.coroutine.close)
