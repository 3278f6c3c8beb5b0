"""--take-over in a fleet: what is handed over is served when its freshness is proved, and not before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import CacheServer, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

GRACE = 60  # s in which the first process must have ended


@contextmanager
def upgraded(fleet: Fleet, *options: str) -> Iterator[CacheServer]:
    """The fleet's first server, when another process has taken its place, and the first has ended."""
    old = fleet.servers[0]
    new = CacheServer(None, name=old.name)
    new.port, new.options = old.port, [*old.options, *options]
    assert old.process is not None
    with new:
        assert old.process.wait(GRACE) == 0, old.log
        old.process = None
        yield new


def test_an_upgrade_keeps_the_cache_and_its_place(ensemble: Ensemble, name: str, tmp_path: Path) -> None:
    with Fleet(ensemble, name, "--take-over", str(tmp_path / "s"), "--ack", "applied", count=1) as fleet:
        for number in range(1000):
            fleet.servers[0].set(b"k%d" % number, b"value")
        with upgraded(fleet) as new:
            fleet.wait_fresh(new)
            with new.client() as client:
                kept = sum(client.get(b"k%d" % number) == b"value" for number in range(1000))
            assert kept == 1000
            assert "what was kept is served when the log has been replayed" in new.log
            assert new.delete(b"k1") in {b"DELETED", b"NOT_FOUND"}
            assert new.get(b"k1") is None


def test_what_was_flushed_by_prefix_stays_so(ensemble: Ensemble, name: str, tmp_path: Path) -> None:
    """And what was stored since is there, if the old process had read its own flush in the log: the new one goes on behind it."""
    with Fleet(ensemble, name, "--take-over", str(tmp_path / "s"), count=1) as fleet:
        old = fleet.servers[0]
        for key in (b"p:a", b"p:b", b"q:a"):
            old.set(key, b"before")
        assert old.ask(b"cluster flush p:") == b"OK"
        flushed = time.monotonic()

        def has_read_it() -> bool:
            """Whether what it knows is of a moment after the flush."""
            now = time.monotonic()
            return int(old.stats()["fresh_age_ms"]) / 1000 < now - flushed - 0.01

        until(has_read_it)
        old.set(b"p:b", b"since")
        with upgraded(fleet) as new:
            fleet.wait_fresh(new)
            assert [new.get(key) for key in (b"p:a", b"p:b", b"q:a")] == [None, b"since", b"before"]
            assert new.ask(b"cluster flush q:") == b"OK"
            assert [new.get(key) for key in (b"p:b", b"q:a")] == [b"since", None]


def test_a_delete_that_the_first_never_heard_of(ensemble: Ensemble, name: str, tmp_path: Path) -> None:
    """The second has the first's memory, with a value in it that another server's clients have deleted since."""
    with Fleet(ensemble, name, count=2) as fleet:
        old, other = fleet.servers
        old.end()
        old.options += ["--take-over", str(tmp_path / "s")]
        old.start()
        fleet.wait_fresh()
        for key in (b"kept", b"gone"):
            old.set(key, b"value")
        for link in fleet.links(old):
            link.present(False)
        until(lambda: old.stats()["stale"] == "1")
        other.delete(b"gone")
        with upgraded(fleet) as new:
            assert new.stats()["stale"] == "1"
            for key in (b"gone", b"kept"):
                assert new.get(key) is None, "not served before it is known to be fresh"
            for link in fleet.links(old):
                link.present(True)
            fleet.wait_fresh(new)
            assert new.get(b"gone") is None
            assert new.get(b"kept") == b"value"


def test_another_fleet_gets_nothing_of_it(ensemble: Ensemble, name: str, tmp_path: Path) -> None:
    with Fleet(ensemble, name, "--take-over", str(tmp_path / "s"), count=1) as fleet:
        fleet.servers[0].set(b"k", b"value")
        with upgraded(fleet, "--zookeeper", ensemble.hosts_for(f"{name}-other") + f"/{name}-other") as new:
            fleet.wait_fresh(new)
            assert new.get(b"k") is None
            assert "which does not continue" in new.log
            assert "the cache is flushed" in new.log
