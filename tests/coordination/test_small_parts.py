"""Signal, quantiles, the trimming rule, the gate's figures, the view of the fleet."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mcserver.coordination
from mcserver.coordination.context import Signal
from mcserver.coordination.figures import Quantiles, Rates
from mcserver.coordination.layout import version
from mcserver.coordination.node import show, some
from mcserver.coordination.settings import Settings
from mcserver.coordination.trim import History

from .quiet import Quiet, tell
from .simulator.scheduler import MS, SECOND, Process, World

MACHINES = [
    "acks",
    "budget",
    "cells",
    "context",
    "entry",
    "figures",
    "gate",
    "layout",
    "leader",
    "locks",
    "log",
    "membership",
    "node",
]
MACHINES += ["ports", "publisher", "queue", "reader", "registrar", "roll", "settings", "trim"]


@pytest.mark.parametrize("name", MACHINES)
def test_machines_know_no_loop_no_wall_clock_and_no_driver(name: str) -> None:
    folder = Path(mcserver.coordination.__file__).parent
    imported: set[str] = set()
    for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in MACHINES
    assert not imported & {"asyncio", "time", "datetime", "threading", "kazoo", "socket", "mcserver"}


def waits(signal: Signal, seconds: float | None) -> tuple[World, list[Any]]:
    process = signal._runtime
    assert isinstance(process, Process)
    seen: list[Any] = []

    async def wait() -> None:
        seen.append((await signal.wait(seconds), process.world.now // MS))

    process.spawn(wait(), "wait")
    return process.world, seen


def test_a_signal_set_before_the_wait_is_not_lost() -> None:
    signal = Signal(Process(World(1), "p"))
    signal.set()
    signal.set()
    world, seen = waits(signal, None)
    world.run(SECOND)
    assert seen == [(True, 0)]
    world, seen = waits(signal, 0.5)
    world.run(3 * SECOND)
    assert [fired for fired, _ in seen] == [False]


def test_a_signal_wakes_its_waiter() -> None:
    signal = Signal(Process(World(1), "p"))
    world, seen = waits(signal, 5.0)
    world.after(20 * MS, None, signal.set)
    world.run(SECOND)
    assert seen == [(True, 20)]


@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=600), st.floats(0, 0.999))
def test_quantiles_are_of_the_last_samples(samples: list[float], share: float) -> None:
    quantiles = Quantiles()
    for sample in samples:
        quantiles.add(sample)
    last = sorted(samples[-512:])
    assert quantiles.at(share) == last[int(share * len(last))]
    assert Quantiles().at(0.5) == 0.0


def history(*samples: tuple[float, int, int], **settings: Any) -> History:
    kept = History(Settings(**{"keep_seconds": 10, "keep_entries": 5, "cap_entries": 100, **settings}))
    for seconds, sequence, size in samples:
        kept.add(int(seconds * 1e9), version(1, sequence), size)
    return kept


@pytest.mark.parametrize(
    ("now", "lowest", "floor"),
    [
        (31, 49, (41, False)),  # what was there ten seconds ago, at least
        (40, 49, (45, False)),  # all is old: the last five stay
        (31, 30, (30, False)),  # a member needs 31, and 30 to know the log again
        (31, -1, (0, False)),  # a member has applied nothing of this log
        (31, None, (41, False)),  # nobody knows any version
    ],
)
def test_what_is_old_and_applied_may_go(now: float, lowest: int | None, floor: tuple[int, bool]) -> None:
    kept = history((10, 20, 0), (20, 40, 0), (30, 49, 0))
    lowest = None if lowest is None else version(1, lowest)
    assert kept.floor(int(now * 1e9), 1, 49, lowest) == floor


def test_nothing_goes_while_nothing_is_old() -> None:
    assert history((10, 20, 0), (11, 40, 0)).floor(int(15e9), 1, 49, version(1, 49)) == (0, False)


def test_the_last_entries_stay_however_old() -> None:
    assert history((0, 8, 0), (50, 9, 0)).floor(int(99e9), 1, 9, version(1, 9)) == (5, False)


def test_caps_do_not_wait_for_anybody() -> None:
    assert history((0, 150, 0)).floor(int(1e9), 1, 149, version(1, 3)) == (50, True)
    kept = history((0, 10, 1000), (1, 20, 2000), (2, 30, 3000), cap_bytes=1500)
    assert kept.floor(int(2e9), 1, 30, version(1, 3)) == (11, True)


def test_entries_of_an_earlier_log_do_not_move_the_floor_of_this_one() -> None:
    assert history((0, 500, 0)).floor(int(99e9), 2, 20, version(1, 500)) == (0, False)


def test_what_was_known_of_a_log_of_a_higher_generation_does_not_move_the_floor_either() -> None:
    """An ensemble that was restored from a backup goes on with an earlier one: the floor would be above all that there is."""
    kept = History(Settings(keep_seconds=10, keep_entries=5, cap_entries=100, cap_bytes=1000))
    kept.add(int(1e9), version(2, 500), 0)
    kept.add(int(2e9), version(1, 20), 10)
    kept.add(int(3e9), version(1, 50), 1005)
    assert kept.floor(int(3e9), 1, 50, version(1, 50)) == (0, False)


def test_an_answer_that_took_long_says_nothing_of_zookeepers_clock() -> None:
    """Half of an hour in which a machine slept would be taken for a difference of the clocks."""
    fleet = Quiet(1)
    context = fleet.hosts[0].node.context
    due = context.ensemble_time() + 60_000
    assert 59.9 < context.until(due) <= 60
    context.compare_clocks(context.now() - 3600 * 10**9, context.ensemble_time() - 3_600_000)
    assert 59.9 < context.until(due) <= 60
    context.compare_clocks(context.now() - 10**6, context.ensemble_time() + 30_000)
    assert 29.9 < context.until(due) <= 30.1


def test_the_fleet_is_seen_by_all_and_a_failure_shows() -> None:
    fleet = Quiet(3)
    names = sorted(host.node.membership.name for host in fleet.hosts)
    for host in fleet.hosts:
        members = host.node.members()[1]
        assert [member.name for member in members] == names
        assert [member.name for member in members if member.is_self] == [host.node.membership.name]
        assert {member.state for member in members} == {"ready"}
        assert {member.address for member in members} == {"n1:11211", "n2:11211", "n3:11211"}
    changes: list[str] = []
    fleet.hosts[0].node.on_change(changes.append)
    fleet.hosts[1].kill()
    fleet.run(500)
    assert "members" in changes
    assert len(fleet.hosts[0].node.members()[1]) == 2


def test_changes_of_the_gate_are_reported() -> None:
    fleet = Quiet(1)
    changes: list[str] = []
    fleet.hosts[0].node.on_change(changes.append)
    fleet.hosts[0].zk.cut()
    fleet.run(700)
    fleet.hosts[0].zk.heal()
    fleet.run(700)
    assert changes.index("stale") < changes.index("fresh")


FIGURES = {
    *("state", "session", "server", "members", "leader", "is_leader", "token", "log", "applied", "head", "lag_entries"),
    *(
        "fresh_age_ms",
        "stale",
        "queue_keys",
        "queue_bytes",
        "queue_age_ms",
        "appends",
        "append_ms_p50",
        "append_ms_p99",
    ),
    *("resent", "gaps", "holes", "overflows", "flushes", "locks_held", "lock_waits", "reconnects", "client_rebuilds"),
    *("round_trip_ms", "loop_lag_ms"),
}


def test_the_page_says_what_each_figure_of_stats_is() -> None:
    page = (Path(__file__).parents[2] / "docs/coherence.md").read_text()
    stats = Quiet(1).hosts[0].node.stats()
    drivers = {"server", "session_id", "outstanding", "reconnects", "client_rebuilds", "loop_lag_ms"}
    named = {
        name if not name.startswith("writes_") else "writes_*" for name in stats.keys() | drivers | {"held_replies"}
    }
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_all_figures_of_stats_are_there_and_true() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    for n in range(3):
        tell(one, b"%d" % n)
        fleet.run(50)
    stats = two.node.stats()
    drivers = {"server", "reconnects", "client_rebuilds", "loop_lag_ms"}  # from the driver's figures()
    assert FIGURES - drivers <= set(stats)
    assert (stats["members"], stats["applied"], stats["head"], stats["lag_entries"]) == (2, "1:2", "1:2", 0)
    assert (stats["state"], stats["session"], stats["stale"]) == ("ready", "connected", 0)
    assert 0 <= int(stats["fresh_age_ms"]) <= 110
    assert one.node.stats()["appends"] == 3
    assert 0 < float(one.node.stats()["append_ms_p50"]) <= float(one.node.stats()["append_ms_p99"]) < 50
    assert float(stats["round_trip_ms"]) > 0


@pytest.mark.parametrize(("number", "text"), [(-1, "none"), (version(3, 7), "3:7"), (version(1, -1), "1:-1")])
def test_versions_for_people(number: int, text: str) -> None:
    assert show(number) == text


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates(0, 0, 0)
    assert rates.at(SECOND // 10, 5, 10) == (1.0, 2.0), "a start is no flow"
    assert rates.at(5 * SECOND, 50, 10) == (10.0, 2.0)
    assert rates.at(10 * SECOND, 50, 60) == (0.0, 10.0)
    assert rates.at(12 * SECOND, 50, 60)[0] == 0.0


def test_a_statistic_spells_a_bounded_number_of_names() -> None:
    names = [f"host{number}" for number in range(25)]
    assert some(()) == ""
    assert some(names[:20]) == ",".join(names[:20])
    assert some(names) == ",".join(names[:20]) + ",+5"
