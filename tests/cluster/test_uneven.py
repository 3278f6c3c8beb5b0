"""Fleets that nobody planned: servers of one name, of different options, at a ZooKeeper that is late or went back."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .network import Network
from .servers import CacheServer, until
from .workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(180)]

MAX_STALE = SESSION = 2.0  # s
PATIENT = ("--ack-timeout", "30")
LASTING = ("--zk-session-timeout", "20")


def test_servers_of_one_name_of_which_one_is_stopped_and_comes_back(ensemble: Ensemble, name: str) -> None:
    """One is killed and started again while another sleeps for longer than its session: all three bear the same name."""
    same = ("--node-name", "same", "--advertise", "127.0.0.1:11999")
    with Fleet(ensemble, name, *PATIENT, *same) as fleet, Workload(fleet.servers, seed=71) as work:
        _, stopped, killed = fleet.servers
        killed.end()
        work.restarted(killed)
        stopped.pause()
        killed.start()
        time.sleep(1.5 * SESSION)
        stopped.resume()
        fleet.wait_fresh()
        until(lambda: all(server.stats()["members"] == "3" for server in fleet.servers))
        assert len({server.stats()["node"] for server in fleet.servers}) == 3
        fleet.verify(work)
        assert fleet.total("overflows") == 0


def test_members_at_an_observer_that_is_behind(network: Network, name: str) -> None:
    """Its reads are old, so what a certificate is worth counts from when it was asked for; when that is too long ago, the gate
    closes, though the observer answers.
    """
    with Ensemble(network, size=4, observers=1) as ensemble:
        observer, voter = ensemble.servers[3], ensemble.servers[0]
        fleet = Fleet(ensemble, name, *PATIENT, hosts=f"127.0.0.1:{observer.client_port}")
        fleet.servers[2] = CacheServer(
            f"127.0.0.1:{voter.client_port}/{name}", *PATIENT, "--ack", "a:=applied", "--ack", "n:=async", name="s2"
        )
        with fleet, Workload(fleet.servers, seed=72) as work:
            near = fleet.servers[:2]
            links = [links[0] for ends, links in ensemble.server_links.items() if observer.number in ends]
            for link in links:
                link.delay(0.3)
            time.sleep(1.5 * MAX_STALE)
            until(lambda: all(server.is_fresh for server in near), what="half a second behind is not too far")
            assert max(float(server.stats()["fresh_age_ms"]) for server in near) > 100
            for link in links:
                link.delay(MAX_STALE)
            until(lambda: not any(server.is_fresh for server in near), what="the gate is open")
            assert near[0].set(b"c:p:0", b"1") == b"NOT_STORED"
            assert near[0].get(b"c:p:0") is None
            for link in links:
                link.heal()
            fleet.wait_fresh()
            fleet.verify(work)


def test_an_ensemble_restored_from_a_backup_while_its_sessions_live_on(network: Network, name: str) -> None:
    """Its epoch is higher than all that the servers have seen, so they are not refused; and the log grows beyond where it was.

    A server that was dropped by ZooKeeper's servers while those began takes another session: then all is done once more.
    """
    for attempt in range(3):
        with Ensemble(network) as own, Fleet(own, f"{name}-{attempt}", *PATIENT, *LASTING) as fleet:
            if is_restored_under_one_session(own, fleet):
                return
    raise AssertionError("no session has lived on")


def is_restored_under_one_session(own: Ensemble, fleet: Fleet) -> bool:
    """Whether the last server's session has lived on. What it must not answer it does not, either way."""
    teller, _, stopped = fleet.servers
    teller.delete_confirmed(b"c:before")
    for server in own.servers:
        server.end()
        shutil.copytree(server.directory / "version-2", server.directory / "backup")
    own.start()
    fleet.wait_fresh()
    for number in range(5):
        teller.delete_confirmed(b"c:lost%d" % number)
    fleet.wait_fresh()
    node, seen = stopped.stats()["node"], stopped.stats()["applied"]
    assert stopped.set(b"c:x", b"old") == b"STORED"
    stopped.pause()
    for server in own.servers:
        server.end()
        server.wipe()
        (server.directory / "backup").rename(server.directory / "version-2")
    own.start()
    fleet.wait_fresh(*fleet.servers[:2])
    teller.delete_confirmed(b"c:x")
    for number in range(9):
        teller.delete_confirmed(b"c:after%d" % number)
    stopped.resume()
    assert stopped.get(b"c:x") is None, "the first read after the stop"
    fleet.wait_fresh()
    assert stopped.get(b"c:x") is None
    assert int(stopped.stats()["applied"].split(":")[1]) > int(seen.split(":")[1])
    if stopped.stats()["node"] != node:
        return False
    assert stopped.stats()["gaps"] == "1"
    return True


def test_two_fleets_on_one_path_with_different_options(ensemble: Ensemble, name: str) -> None:
    """One server may serve for three times as long as the others without a certificate: by its record `applied` waits for it."""
    with Fleet(ensemble, name, *PATIENT) as fleet:
        teller, other, patient = fleet.servers
        patient.end()
        patient.options += ["--max-stale", "6", "--on-stale", "error", "--zk-writes", "500"]
        patient.start()
        fleet.wait_fresh()
        until(lambda: all(server.stats()["members"] == "3" for server in fleet.servers))
        for server in fleet.servers:
            assert server.set(b"a:x", b"old") == b"STORED"
        for link in fleet.links(patient):
            link.blackhole()
        confirmed: list[float] = []

        def tell() -> None:
            assert teller.delete(b"a:x") == b"DELETED"
            confirmed.append(time.monotonic())

        telling = threading.Thread(target=tell)
        telling.start()
        until(lambda: other.get(b"a:x") is None)
        served = time.monotonic()
        with patient.client() as client:
            while client.lines(b"get a:x")[:1] != [b"SERVER_ERROR stale"]:
                served = time.monotonic()
        telling.join()
        assert confirmed
        assert confirmed[0] > served
