"""Pulse: the timer that a worker keeps while it sleeps between single requests (pulse.pxd), as the system shows it."""

from __future__ import annotations

import re
import time
from pathlib import Path

from mcserver.core import Engine
from tests.core.threaded import Owner
from tests.serving import eventually

SECONDS = 30


def timers() -> set[Path]:
    """The descriptors of this process's timers."""
    return {each for each in Path("/proc/self/fd").iterdir() if points_to(each) == "anon_inode:[timerfd]"}


def points_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # that of the list itself
        return ""


def due(timer: Path) -> int:
    """Nanoseconds until it rings; 0: it won't."""
    told = re.search(r"^it_value: \((\d+), (\d+)\)", Path(f"/proc/self/fdinfo/{timer.name}").read_text(), re.MULTILINE)
    assert told
    return int(told[1]) * 1_000_000_000 + int(told[2])


def naps(thread: Path) -> int:
    """How often it went to sleep by itself."""
    told = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", (thread / "status").read_text(), re.MULTILINE)
    assert told
    return int(told[1])


def workers() -> set[Path]:
    return {each for each in Path("/proc/self/task").iterdir() if (each / "comm").read_text() == "mc-worker\n"}


def test_it_is_kept_while_single_requests_come_and_wakes_nobody() -> None:
    timers_before, workers_before = timers(), workers()
    with Owner(Engine(), 1) as owner:
        (timer,), (worker,) = timers() - timers_before, workers() - workers_before
        assert due(timer) == 0, "nobody has asked for anything"
        peer, end = owner.connect(), time.monotonic() + SECONDS
        kept = 0
        while not kept and time.monotonic() < end:
            assert peer.ask(b"mn") == b"MN\r\n"
            kept = due(timer)
        assert 0 < kept <= 1_000_000
        eventually(lambda: due(timer) == 0)
        slept = naps(worker)
        time.sleep(0.01)
        assert naps(worker) == slept
    assert timers() == timers_before
