"""The checks over histories find what they look for, in made-up histories and in that of a fleet without a gate."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .history import Fill, History, Invalidation, Read
from .servers import until
from .workload import Workload

SECOND = 1_000_000_000


def history(
    level: str, *, stored: int, deleted: tuple[int, int], read: int, boot: int = 0, final: bool = False
) -> History:
    """One fill at server s, one delete, one read; times in seconds, max_stale 2 s."""
    made = History(max_stale=2.0)
    number = made.new_fill(Fill(b"k", "s", 0, 1, stored * SECOND))
    invoked, answered = (moment * SECOND for moment in deleted)
    made.invalidations.append(Invalidation(b"k", False, "t", level, invoked, answered, "DELETED"))
    made.reads.append(Read(b"k", "s", boot, number, read * SECOND, read * SECOND + 1, final))
    return made


@pytest.mark.parametrize(
    ("level", "stored", "deleted", "read", "promises"),
    [
        ("applied", 1, (2, 3), 4, {"P2"}),
        ("applied", 1, (2, 3), 6, {"P1", "P2"}),
        ("committed", 1, (2, 3), 6, {"P1"}),
        ("committed", 1, (2, 3), 4, set()),  # within max_stale
        ("", 1, (2, 3), 60, set()),  # not confirmed
        ("async", 1, (2, 3), 60, set()),
        ("applied", 2, (2, 3), 6, set()),  # stored when the delete had begun: it may have come after
        ("applied", 1, (4, 5), 4, set()),  # read before the answer
    ],
)
def test_what_is_an_anomaly(level: str, stored: int, deleted: tuple[int, int], read: int, promises: set[str]) -> None:
    made = history(level, stored=stored, deleted=deleted, read=read)
    assert {anomaly.promise for anomaly in made.anomalies()} == promises


def test_flushes_count_for_every_key_of_their_prefix() -> None:
    for prefix, found in ((b"", 1), (b"k", 1), (b"x", 0)):
        made = history("applied", stored=1, deleted=(2, 3), read=4)
        made.invalidations[0] = made.invalidations[0]._replace(key=prefix, prefix=True)
        assert len(made.anomalies()) == found


def test_what_is_left_in_the_end_is_an_anomaly() -> None:
    made = history("committed", stored=1, deleted=(2, 3), read=4, final=True)
    assert [anomaly.promise for anomaly in made.anomalies()] == ["P3"]


def test_an_item_of_an_earlier_life_is_an_anomaly(tmp_path: Path) -> None:
    made = history("committed", stored=1, deleted=(2, 3), read=1, boot=1)
    assert [anomaly.promise for anomaly in made.anomalies()] == ["P10"]
    made.event("kill")
    made.dump(tmp_path / "history.jsonl")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 4


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
def test_a_fleet_without_a_gate_is_caught(ensemble: Ensemble, name: str) -> None:
    """`--on-stale serve` is outside of the guarantees, and the clients see it."""
    with Fleet(ensemble, name, "--on-stale", "serve") as fleet, Workload(fleet.servers, seed=1, readers=6) as work:
        time.sleep(0.5)
        for link in fleet.links(fleet.servers[0]):
            link.blackhole()
        time.sleep(4)
        until(lambda: "P1" in {anomaly.promise for anomaly in work.history.anomalies()})
        ensemble.heal()
        fleet.settle(work)
        lost = [anomaly.text for anomaly in work.history.anomalies() if anomaly.promise == "P3"]
        assert lost == [], "\n".join(f"--- {server.name}\n{server.log}" for server in fleet.servers)
