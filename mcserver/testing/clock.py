"""The time of a server in a test: it runs by itself, stands still, jumps, or follows the process's own.

Owns what the engine's clock says. It never sleeps, and never goes back.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

    from mcserver.core import Engine

JUMP_MOST = 400 * 86400
"""Seconds by which one jump of followed time moves the engine's clock: more than any relative time to live."""


class Timed(Protocol):
    """Whose time it is."""

    engine: Engine
    lock: threading.RLock

    def reach(self) -> None:
        """What clients have sent has taken effect when it returns. Raises RuntimeError when it can't be reached."""

    def check(self) -> None:
        """Raises RuntimeError when there is no engine any more, or it is another process's."""


class Clock:
    """The server's time. It can only go forward. Where the server has ended, RuntimeError.

    While it is paused or follows, `catch_up` takes back before each command what has passed by itself: the engine's clock stands
    in the middle of a second.
    """

    def __init__(self, server: Timed) -> None:
        self._server = server
        self._followed: float | None = None
        self._target: float | None = None

    @property
    def now(self) -> float:
        """Unix time at the server, in seconds."""
        with self._settled() as engine:
            self.catch_up()
            return engine.wall(engine.now() if self._target is None else self._target)

    def advance(self, seconds: float | dt.timedelta) -> None:
        """So many seconds pass at once, 0 or more: what was to live for less is gone, exactly. Raises TypeError, ValueError."""
        if not isinstance(seconds, int | float):
            if not hasattr(seconds, "total_seconds"):
                raise TypeError(f"time advances by a number of seconds or a timedelta, not by {seconds!r}")
            seconds = seconds.total_seconds()
        if not 0 <= seconds < float("inf"):
            raise ValueError("a server's time can't go back, nor to its end")
        with self._settled() as engine:
            if self._target is None:
                engine.advance(seconds)
            else:
                self._target += seconds
                self.catch_up()

    def pause(self) -> None:
        """No time passes any more but by `advance`."""
        with self._settled() as engine:
            if self._target is None:
                self._target = int(engine.now()) + 0.5
                self.catch_up()

    def resume(self) -> None:
        """Time passes again by itself, from where it stands; it follows nothing any more."""
        with self._settled():
            self.catch_up()
            self._target = None
            if self._followed is not None:
                self.reset()

    def reset(self) -> None:
        """It runs by itself, and the date is today's again, however far it was moved."""
        with self._server.lock:
            self._target = self._followed = None
            self._server.engine.set_wall(time.clock_gettime(time.CLOCK_REALTIME))

    def follow(self) -> None:
        """From now on the server's time is the process's own, which freezegun or time-machine moves.

        A jump back moves only the date that absolute times to live count from: what is stored ages no less. What
        was sent without asking for a reply may be met after time has moved: look in before you move it.
        """
        self.pause()
        with self._server.lock:
            self._followed = _now()
            self._server.engine.set_wall(self._followed)

    @contextmanager
    def _settled(self) -> Iterator[Engine]:
        """The engine, for whoever moves its clock, when what clients have sent has taken effect."""
        self._server.reach()
        with self._server.lock:
            self._server.check()
            yield self._server.engine

    def catch_up(self) -> None:
        """Before each command, under the server's lock."""
        if self._target is None:
            return
        engine = self._server.engine
        now = self._followed if self._followed is None else _now()
        if now is not None and self._followed is not None and now > self._followed:
            self._target += min(now - self._followed, JUMP_MOST)
        engine.advance(self._target - engine.now())
        if now != self._followed and now is not None:
            engine.set_wall(now)
            self._followed = now


def _now() -> float:
    """Unix time as the process sees it. Not by time.time(): freezegun leaves threads with the real one there."""
    return dt.datetime.now(dt.timezone.utc).timestamp()  # noqa: UP017  # the module's attributes are patched
