"""The wall clock is stepped, by faketime, while a server serves, or between its end and the next start (-e).

Lifetimes go on as if it had not been.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcserver.server.memory_file import away_since
from tests.conftest import Start
from tests.peer import end_gracefully, memcached
from tests.serving import Client

HOUR, DAY = 3600, 86400
STEPS = (-5400, 5400, -200_000, 200_000)
pytestmark = pytest.mark.slow


class Clock:
    """The wall clock of the processes that have its environment; no other clock of theirs is changed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._began = time.monotonic()
        self.step(0)

    def step(self, seconds: int) -> None:
        """So far from the real one it is from now on."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._file)
        self.ahead = seconds

    @property
    def now(self) -> int:
        return int(time.time()) + self.ahead

    def left_of(self, lifetime: int) -> range:
        """The seconds that an item may have left which was stored after this clock was made; each server rounds in its way."""
        return range(lifetime - math.ceil(time.monotonic() - self._began) - 2, lifetime + 3)


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a tmpfs."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def clock(folder: Path) -> Clock:
    return Clock(folder)


def store(client: Client, clock: Clock) -> None:
    """With lifetimes of an hour, a day, until a time, and for ever."""
    for key, lifetime in ((b"hour", HOUR), (b"day", DAY), (b"until", clock.now + 2 * HOUR), (b"ever", 0)):
        assert client.command(b"ms %b 1 T%d\r\nx" % (key, lifetime)) == b"HD\r\n"


def left(client: Client, key: bytes) -> int:
    return int(client.command(b"mg %b t" % key).removeprefix(b"HD t"))


def go_on(client: Client, clock: Clock) -> None:
    assert left(client, b"hour") in clock.left_of(HOUR)
    assert left(client, b"day") in clock.left_of(DAY)
    assert left(client, b"until") in clock.left_of(2 * HOUR)
    assert left(client, b"ever") == -1


@pytest.mark.parametrize("step", STEPS)
def test_between_the_end_and_the_next_start(start: Start, folder: Path, clock: Clock, step: int) -> None:
    options = ("-e", str(folder / "memory"))
    server = start(*options, environment=clock.environment)
    client = server.connect()
    store(client, clock)
    client.command(b"flush_all %d" % DAY)
    client.close()
    server.signal(signal.SIGUSR1)
    assert server.end() == 0
    clock.step(step)
    client = start(*options, environment=clock.environment).connect()
    assert abs(int(client.stats()["time"]) - clock.now) < 60, "its clock was stepped"
    go_on(client, clock)
    assert client.command(b"ms later 1 T%d\r\nx" % (clock.now + 2 * HOUR)) == b"HD\r\n"
    assert left(client, b"later") in clock.left_of(2 * HOUR), "a time is that of the clock as it is now"
    shown = client.command(b"lru_crawler metadump all", b"END\r\n").decode()
    expires = int(
        next(line for line in shown.splitlines() if line.startswith("key=hour ")).split()[1].removeprefix("exp=")
    )
    assert expires - clock.now in clock.left_of(HOUR)


@pytest.mark.parametrize("step", [-5400, -60, 60, 5400, 200_000])
def test_between_the_end_and_the_next_start_beside_memcached(
    start: Start, folder: Path, clock: Clock, step: int
) -> None:
    """Memcached keeps the wall clock's times: it begins empty when that went back, and takes a step on for time gone by."""
    options, theirs, printed = ("-e", str(folder / "memory")), ("-e", str(folder / "theirs")), folder / "printed"
    server = start(*options, environment=clock.environment)
    client = server.connect()
    store(client, clock)
    client.close()
    server.signal(signal.SIGUSR1)
    assert server.end() == 0
    with pytest.MonkeyPatch.context() as stepped:
        for name, value in clock.environment.items():
            stepped.setenv(name, value)
        with memcached(*theirs) as address:
            other = Client(address)
            store(other, clock)
            pid = int(other.stats()["pid"])
            other.close()
            end_gracefully(pid)
        clock.step(step)
        with memcached(*theirs, stderr=printed) as address:
            other = Client(address)
            if step < 0:
                assert other.stats()["curr_items"] == "0"
                assert "incompatible due to setting for [stop_time]" in printed.read_text()
            else:
                for key, lifetime in ((b"hour", HOUR), (b"day", DAY), (b"until", 2 * HOUR)):
                    if lifetime > step:
                        assert left(other, key) in clock.left_of(lifetime - step), key
                    else:
                        assert other.command(b"mg %b t" % key) == b"EN\r\n", key
                assert left(other, b"ever") == -1
            other.close()
    go_on(start(*options, environment=clock.environment).connect(), clock)


@pytest.mark.parametrize("step", STEPS)
def test_while_it_serves(monkeypatch: pytest.MonkeyPatch, start: Start, clock: Clock, step: int) -> None:
    """As in memcached, to which a time stays that of the clock with which it started."""
    stepped(start(environment=clock.environment).connect(), clock, step)
    clock.step(0)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    with memcached() as address:
        client = Client(address)
        stepped(client, clock, step)
        client.close()


def stepped(client: Client, clock: Clock, step: int) -> None:
    store(client, clock)
    clock.step(step)
    go_on(client, clock)
    assert client.command(b"ms later 1 T%d\r\nx" % (clock.now - step + 2 * HOUR)) == b"HD\r\n"
    assert left(client, b"later") in clock.left_of(2 * HOUR)


@pytest.mark.parametrize(("step", "away"), [(-5400.0, 0.0), (5400.0, 5400.0)])
def test_when_the_machine_was_started_anew(step: float, away: float) -> None:
    """Then there is the wall clock alone: an item never has longer to live than it had."""
    fields = {"boot": "another", "boot_time": 1e6, "wall_time": time.time() - step}
    assert away <= away_since(fields) < away + 60
