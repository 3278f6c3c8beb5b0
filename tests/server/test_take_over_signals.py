"""--take-over: each signal, sent to either process at each step of the exchange, under load.

One of the two serves afterwards, or both have ended; neither waits for what doesn't come, and no log has a traceback.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Start
from tests.server.test_take_over_faults import (
    ITEMS,
    NEW_STEPS,
    OLD_STEPS,
    Upgrade,
    answer,
    gets_on,
    loaded,
    stepping,
    upgrade,
)
from tests.serving import Server, eventually

SETTLED_SECONDS = 30
"""Far more than it takes, and half of what each would wait for the other's next word."""
ENDING = {signal.SIGTERM, signal.SIGINT}
ALONE = {"before offer", "after offer"}
"""Of the old process: it has not been told yet that the new one is ready."""
TOLD = {"after claim", "before serving", "after serving"}
"""Of the new process: the old one leaves everything to it."""
FEW_OLD, FEW_NEW = ("after offer", "before end", "before yours"), ("before go", "before ready", "after serving")
"""SIGINT is handled as SIGTERM is, and SIGUSR2 as little as SIGKILL."""


@pytest.fixture
def options(tmp_path: Path) -> Iterator[list[str]]:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield ["--take-over", str(tmp_path / "door"), "-t", "2", "-e", str(Path(folder, "items"))]


def settled(old: Server, new: Upgrade) -> bool:
    """Whether one is left, and serves, or none is."""
    alive = [each for each in (old, new) if each.process.poll() is None]
    return not alive or (len(alive) == 1 and (alive[0] is old or " listens on " in new.log()))


def is_quiet(*servers: Server) -> None:
    for each in servers:
        assert "Traceback" not in each.log(), each.log()
        assert "internal error" not in each.log(), each.log()


def cases(steps: tuple[str, ...], few: tuple[str, ...]) -> list[tuple[signal.Signals, str]]:
    every: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    some: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGUSR2)
    if "MCSERVER_SOAK" in os.environ:
        every, some = (*every, *some), ()
    return [
        *((number, step) for number in every for step in steps),
        *((number, step) for number in some for step in few),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "step"), cases(OLD_STEPS, FEW_OLD))
def test_to_the_old_process(start: Start, options: list[str], number: signal.Signals, step: str) -> None:
    """The new one serves, with all that there was if it was handed over or kept."""
    old = start(*options, environment=stepping(step, number))
    with loaded(old) as load, upgrade(*options, "-p", str(old.port), environment=stepping("", 0)) as new:
        assert old.end(SETTLED_SECONDS) == (-number if number is signal.SIGUSR2 else 0), old.log()
        eventually(lambda: settled(old, new), SETTLED_SECONDS)
        is_quiet(old, new)
        assert not load.wrong
        if new.process.poll() is not None:
            assert step in ALONE, new.log()
            assert "can't take over" in new.log()
            return
        gets_on(load)
        pid, items = answer(old)
        assert pid == new.pid
        if number in ENDING and step in ALONE:
            assert items < ITEMS, "nobody was to keep them"
        elif number is not signal.SIGUSR2:
            assert items >= ITEMS, new.log()
        assert not load.wrong
        if step != "before offer":
            assert not load.refused


@pytest.mark.slow
@pytest.mark.parametrize(("number", "step"), cases(NEW_STEPS, FEW_NEW))
def test_to_the_new_process(start: Start, options: list[str], number: signal.Signals, step: str) -> None:
    """The old one serves when it is ended before it has all; SIGUSR1 and SIGHUP wait until it serves."""
    old = start(*options, environment=stepping("", 0))
    with loaded(old) as load:
        with upgrade(*options, "-p", str(old.port), environment=stepping(step, number)) as new:
            eventually(lambda: settled(old, new), SETTLED_SECONDS)
            if number is signal.SIGHUP:
                assert old.process.poll() == 0, old.log()
                gets_on(load)
                pid, items = answer(old)
                assert pid == new.pid
                assert items >= ITEMS
                eventually(lambda: "SIGHUP" in new.log())
                assert not load.refused
            else:
                new.process.wait(SETTLED_SECONDS)
            is_quiet(old, new)
            logged = new.log()
        if number is signal.SIGUSR1:
            assert new.process.poll() == 0, new.log()
            assert old.process.wait(SETTLED_SECONDS) == 0, old.log()  # it may end a moment after the new one
            third = start(*options)
            assert answer(third)[1] >= ITEMS, third.log()
        elif number is not signal.SIGHUP:
            eventually(lambda: old.process.poll() is not None or "serves again" in old.log() or step not in TOLD)
            if old.process.poll() is None:
                gets_on(load)
                assert answer(old)[0] == old.pid
                assert not load.refused
            else:
                assert step in TOLD, old.log() + logged
                assert old.process.poll() == 0, old.log()
        is_quiet(old)
        assert not load.wrong


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before end", "after end", "before record", "before yours", "after yours"])
def test_to_both(start: Start, options: list[str], step: str) -> None:
    """As a service manager does at its end: nobody serves again whom nobody is left to end, but for a moment."""
    old = start(*options, environment=stepping(step, signal.SIGTERM))
    with (
        loaded(old),
        upgrade(*options, "-p", str(old.port), environment=stepping("before claim", signal.SIGTERM)) as new,
    ):
        assert old.end(SETTLED_SECONDS) == 0, old.log()
        new.process.wait(SETTLED_SECONDS)
        is_quiet(old, new)
