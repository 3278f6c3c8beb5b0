"""What a large fleet does, on a real ensemble: acknowledgements by cells, with a cell's writer failing; a rolling upgrade."""

from __future__ import annotations

import json
import signal
import time

import pytest

from tests.released import FIRST, RELEASES

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import CacheServer, until
from .workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(180)]

SESSION = 2.0  # s


def in_cells(fleet: Fleet) -> Fleet:
    for server in fleet.servers:
        server.module = "tests.cluster.in_cells"
    return fleet


def writer_of_a_cell(fleet: Fleet) -> CacheServer:
    """One that has written sheets."""
    found: list[CacheServer] = []

    def look() -> bool:
        found[:] = [server for server in fleet.servers if int(server.stats()["writes_sheets"]) > 0]
        return bool(found)

    until(look, 10, "nobody writes for a cell")
    return found[0]


def test_applied_by_cells(ensemble: Ensemble, name: str) -> None:
    with in_cells(Fleet(ensemble, name, count=4)) as fleet:
        until(lambda: all(server.stats()["format"] == "2" for server in fleet.servers))
        for number in range(3):
            for server in fleet.servers:
                assert server.set(b"a:%d" % number, b"x") == b"STORED"
            assert fleet.servers[0].delete(b"a:%d" % number) == b"DELETED"
            assert [server.get(b"a:%d" % number) for server in fleet.servers] == [None] * 4
        addresses = sorted(f"127.0.0.1:{server.port}" for server in fleet.servers)
        until(lambda: figures(fleet.servers[1]) == addresses)


def figures(server: CacheServer) -> list[str]:
    """The addresses in `cluster figures`; each line must have every figure."""
    with server.client() as client:
        lines = [line.decode().split() for line in client.lines(b"cluster figures")[1:]]
    assert all({"lag", "age_ms", "queue_keys", "writes", "reads"} <= set(line) for line in lines)
    return sorted(line[1] for line in lines)


@pytest.mark.parametrize("fate", ["kill", "kill with a batch under way", "stop", "stop through an election", "cut"])
def test_the_writer_of_a_cell_fails_under_load(ensemble: Ensemble, name: str, fate: str) -> None:
    with in_cells(Fleet(ensemble, name, count=4)) as fleet, Workload(fleet.servers, seed=3) as work:
        writer = writer_of_a_cell(fleet)
        if fate == "kill":
            writer.end()
            work.restarted(writer)
            time.sleep(0.3)
            writer.start()
        elif fate == "kill with a batch under way":
            asked = int(writer.stats()["writes_appends"])
            for link in fleet.links(writer):
                link.delay(0.3)  # the request is sent, and its answer can't have come
            with writer.client() as client:
                client.send(b"delete c:x\r\ndelete a:x\r\n")
                until(lambda: int(writer.stats()["writes_appends"]) > asked)
                writer.end()
            work.restarted(writer)
            for link in fleet.links(writer):
                link.heal()
            writer.start()
        elif fate == "stop":
            writer.pause()
            time.sleep(1.5 * SESSION)
            writer.resume()
        elif fate == "stop through an election":
            writer.pause()
            killed = ensemble.leader
            killed.end()
            time.sleep(1.5 * SESSION)
            writer.resume()  # its session is over, and what it believes of the others is old, before it hears of either
            killed.start()
            ensemble.wait_quorum()
        else:
            for link in fleet.links(writer):
                link.blackhole()
            time.sleep(1.5 * SESSION)
            for link in fleet.links(writer):
                link.heal()
        fleet.wait_fresh()
        time.sleep(1)
        fleet.verify(work)


def test_members_at_an_observer(name: str) -> None:
    """Two members whose only ZooKeeper server is an observer, one at a voter: every promise as before, also when the observer
    is away for a while.
    """
    with Ensemble(size=4, observers=1) as ensemble:
        observer = ensemble.servers[3]
        assert observer.role() == "observer"
        near, voter = f"127.0.0.1:{observer.client_port}/{name}", f"127.0.0.1:{ensemble.servers[0].client_port}/{name}"
        fleet = Fleet(ensemble, name, hosts=near.partition("/")[0])
        fleet.servers[2] = CacheServer(voter, "--ack", "a:=applied", "--ack", "n:=async", name="s2")
        with fleet, Workload(fleet.servers, seed=5) as work:
            assert fleet.servers[0].stats()["server"] == f"127.0.0.1:{observer.client_port}"
            fleet.servers[2].set(b"a:x", b"x")
            assert fleet.servers[0].delete(b"a:x") == b"NOT_FOUND"
            assert fleet.servers[2].get(b"a:x") is None
            observer.end()
            time.sleep(0.5)
            observer.start()
            ensemble.wait_quorum()
            fleet.wait_fresh()
            time.sleep(0.5)
            fleet.verify(work)
            assert fleet.total("gaps") + fleet.total("holes") == 0, "replayed, not flushed"


@pytest.mark.parametrize("release", RELEASES)
def test_a_rolling_upgrade(ensemble: Ensemble, name: str, release: str) -> None:
    """Both in one fleet, under load: nothing is served that must not be, and at the end the log has the newer format."""
    fleet = Fleet(ensemble, name)
    for server in fleet.servers:
        server.module, server.environment["RELEASED"] = "tests.released", release
    with fleet, Workload(fleet.servers, seed=4) as work:
        for server, sig in zip(fleet.servers, (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), strict=True):
            time.sleep(0.7)
            server.end(sig)
            work.restarted(server)
            server.module = "mcserver"
            server.start()
            fleet.wait_fresh()
            if release == FIRST and server is not fleet.servers[-1]:
                assert server.stats()["format"] == "1", "one of the first release is still there"
        until(lambda: all(server.stats()["format"] == "2" for server in fleet.servers))
        time.sleep(1)
        fleet.verify(work)
        assert fleet.total("gaps") + fleet.total("holes") + fleet.total("malformed") == 0
    with ensemble.client() as client:
        meta = json.loads(client.get(f"/{name}/cache/invalidation/meta")[0])
        entries = client.get_children(f"/{name}/cache/invalidation/{meta['log']}")
        heads = {client.get(f"/{name}/cache/invalidation/{meta['log']}/{entry}")[0][:3] for entry in entries}
    assert heads == ({b"MI1", b"MI2"} if release == FIRST else {b"MI2"})
