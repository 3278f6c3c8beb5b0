"""From earlier releases to this one, server by server: both in one fleet, with the released machines as they were."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mcserver.coordination.entry import NEWEST
from mcserver.coordination.leader import Leader
from mcserver.coordination.ports import Level
from tests.released import FIRST, RELEASES

from .quiet import Quiet, tell
from .simulator.fleet import Host
from .simulator.run import simulate


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def released(fleet: Quiet, name: str) -> Host:
    """Starts a server of the first release."""
    fleet.released = 1.0
    host = fleet.start(name)
    fleet.released = 0.0
    return host


def heads(fleet: Quiet) -> set[bytes]:
    return {entry[:4] for entry in fleet.log()}


def test_the_format_is_the_highest_that_every_member_reads() -> None:
    fleet = Quiet()
    old = [released(fleet, "n1"), released(fleet, "n2")]
    fleet.run(400)
    new = [fleet.start("n3"), fleet.start("n4")]
    fleet.run(400)
    assert all(host.is_live and not host.node.gate.is_stale for host in fleet.hosts)
    answers = [tell(host, b"k%d" % n, Level.APPLIED) for n, host in enumerate(fleet.hosts)]
    fleet.run(200)
    assert all(answer.done() and answer.error is None for answer in answers)
    assert (fleet.meta()["format"], heads(fleet)) == (1, {b"MI1 "})
    for host in old:
        host.leave()
    fleet.run(900)
    assert fleet.meta()["format"] == NEWEST == new[0].node.stats()["format"]
    answers = [tell(host, b"l%d" % n, Level.APPLIED) for n, host in enumerate(new)]
    fleet.run(200)
    assert all(answer.done() and answer.error is None for answer in answers)
    assert heads(fleet) == {b"MI1 ", b"MI2 "}


def test_one_of_the_first_release_that_comes_later_brings_the_format_down() -> None:
    fleet = Quiet(2)
    tell(fleet.hosts[0], b"k")
    fleet.run(100)
    assert heads(fleet) == {b"MI2 "}
    old = released(fleet, "n3")
    fleet.run(900)
    assert fleet.meta()["format"] == 1
    assert not old.node.gate.is_stale
    old.cache.put(b"k")
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(100)
    assert answer.done()
    assert old.cache.get(b"k") is None


def test_one_of_the_first_release_that_comes_to_lead_a_newer_log_is_deposed() -> None:
    """It can't read the log, so it could never lower the format, and whoever can would wait behind it for ever."""
    fleet = Quiet(1)
    first = fleet.hosts[0]
    first.zk.cut()
    fleet.ensemble.end_session(fleet.ensemble.sessions[first.zk.session], forced=True)
    old = released(fleet, "n2")
    fleet.run(100)
    assert old.node.election.is_leader
    assert fleet.meta()["format"] == NEWEST
    first.zk.heal()
    fleet.run(1500)
    assert first.node.election.is_leader
    assert fleet.meta()["format"] == 1
    assert not old.node.gate.is_stale
    answer = tell(old, b"k", Level.APPLIED)
    fleet.run(100)
    assert answer.done()
    assert answer.error is None


@pytest.mark.parametrize(
    ("seed", "release"),
    [
        # one of the first release was first in the queue of candidates, and the log of a format that it does not read
        *((seed, FIRST) for seed in (10152, 10905, 11561, 11784)),
        (730079, RELEASES[-1]),  # connections broke when all was said to be healed: who waits for the dead begins anew
    ],
)
def test_a_seed_that_once_failed_holds(seed: int, release: str) -> None:
    replay = f"python -m tests.coordination.simulator {seed} --upgrade {release}"
    assert simulate(seed, upgrade=release).violation is None, replay


def test_a_member_that_does_not_understand_an_entry_flushes_once() -> None:
    fleet = Quiet(1)
    old = released(fleet, "n2")
    fleet.run(900)
    old.cache.put(b"x")
    flushes = old.cache.flush_count
    from mcserver.coordination.entry import encode

    from .test_reader import append

    append(fleet, encode("a.b.1.0", False, [b"d key-%d" % n for n in range(100)], NEWEST))
    fleet.run(100)
    assert old.cache.flush_count == flushes + 1
    assert old.cache.get(b"x") is None


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("release", RELEASES)
def test_every_property_holds_while_servers_are_upgraded(release: str) -> None:
    for seed in range(100):
        replay = f"python -m tests.coordination.simulator {seed} --upgrade {release}"
        assert simulate(seed, upgrade=release).violation is None, replay


@pytest.mark.parametrize("direct_max", [64, 0])
def test_both_releases_of_one_format_acknowledge_each_other(direct_max: int) -> None:
    """By records and by sheets, whoever writes them, and whoever leads."""
    fleet = Quiet(direct_max=direct_max, cell_size=8)
    fleet.release = RELEASES[-1]
    for n in range(6):
        released(fleet, f"old{n}") if n % 2 else fleet.start(f"new{n}")
    fleet.run(900)
    assert fleet.meta()["format"] == NEWEST
    for _ in range(2):
        for host in [host for host in fleet.hosts if host.is_live]:
            for other in fleet.hosts:
                other.cache.put(b"k")
            answer = tell(host, b"k", Level.APPLIED)
            fleet.run(200)
            assert answer.done()
            assert answer.error is None
            assert not any(other.cache.get(b"k") for other in fleet.hosts if other.is_live)
        assert not any(host.node.context.figures.gaps for host in fleet.hosts)
        next(host for host in fleet.hosts if host.node.election.is_leader).kill()
        fleet.run(1500)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_format_that_not_everybody_reads_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_format", lambda self: NEWEST)
    assert any(simulate(seed, upgrade=FIRST).violation for seed in range(40))
