"""The faults that a fleet must survive, on a real ensemble. The numbers are those of the list in docs/coherence.md.

Servers run with max_stale 2 s and sessions of 2 s, so that both run out within a test. Each test ends with everything
healed and a check of every promise over all that the clients saw (history.py).
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoNodeError, NotEmptyError

from .ensemble import SYNC_LIMIT, TICK_MS, Ensemble
from .fleet import Fleet, Probe
from .ledger import broken_promises, transactions
from .network import OP_GET, Direction, Frame, Network
from .servers import PATIENCE, CacheServer, until
from .workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(400)]

SESSION = MAX_STALE = 2.0
PATIENT = ("--ack-timeout", "30")  # where a delete at `applied` waits until a server that is stopped or cut off is out
LASTING = ("--zk-session-timeout", "20")  # longer than an election takes on a machine that has other things to do
READ_AND_ADMIN = 1 | 16
LIMIT_MISSED = TICK_MS / 1000 * SYNC_LIMIT


def test_01_kill_the_leader_of_zookeeper(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *LASTING) as fleet, Workload(fleet.servers, seed=1) as work:
        time.sleep(1)
        sessions = [server.session for server in fleet.servers]
        killed = ensemble.leader
        killed.end()
        time.sleep(1)
        killed.start()
        ensemble.wait_quorum()
        fleet.wait_fresh()
        time.sleep(0.5)
        fleet.verify(work)
        assert fleet.total("gaps") + fleet.total("holes") == 0, "replayed, not flushed"
        assert [server.session for server in fleet.servers] == sessions


def test_02_kill_the_follower_of_one_server(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *LASTING) as fleet, Workload(fleet.servers, seed=2) as work:
        time.sleep(0.5)
        server = fleet.servers[0]
        number, session = fleet.connected_to(server), server.session
        follower = ensemble.servers[number - 1]
        follower.end()
        until(lambda: fleet.connected_to(server) not in {0, number})
        fleet.wait_fresh(server)
        assert server.session == session
        follower.start()
        ensemble.wait_quorum()
        time.sleep(0.5)
        fleet.verify(work)
        assert fleet.total("gaps") == 0


def test_03_stop_the_leader_of_zookeeper(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=3) as work:
        time.sleep(0.5)
        stopped = ensemble.leader
        stopped.pause()
        time.sleep(3 * LIMIT_MISSED)
        stopped.resume()
        ensemble.wait_quorum()
        time.sleep(0.5)
        fleet.verify(work)


def test_03_isolate_a_follower_with_its_server(ensemble: Ensemble, name: str) -> None:
    """The follower answers reads for a while; without a write through a quorum they make no certificate."""
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=33) as work:
        server, follower = fleet.servers[0], ensemble.followers[0]
        for number, link in enumerate(fleet.links(server), 1):
            if number != follower.number:
                link.present(False)
        until(lambda: fleet.connected_to(server) == follower.number)
        fleet.wait_fresh(server)
        ensemble.isolate(follower.number)
        until(lambda: server.stats()["stale"] == "1")
        time.sleep(1)
        for link in fleet.links(server):
            link.present(True)
        ensemble.heal()
        ensemble.wait_quorum()
        fleet.wait_fresh()
        fleet.verify(work)


@pytest.mark.parametrize("directions", [(), ("up",), ("down",)], ids=["both", "up", "down"])
def test_04_blackhole(ensemble: Ensemble, name: str, directions: tuple[Direction, ...]) -> None:
    """The server keeps sending, so kazoo never looks whether anything comes back; the reply deadline does."""
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=4) as work:
        time.sleep(0.5)
        server = fleet.servers[0]
        for link in fleet.links(server):
            link.blackhole(*directions)
        until(lambda: server.stats()["session"] != "connected")
        until(lambda: server.stats()["stale"] == "1")
        time.sleep(0.5)
        for link in fleet.links(server):
            link.heal()
        fleet.wait_fresh()
        fleet.verify(work)


@pytest.mark.parametrize("share", [0.5, 1.5, 3.0])
def test_05_stop_a_server_while_clients_fill_its_buffers(ensemble: Ensemble, name: str, share: float) -> None:
    with Fleet(ensemble, name, *PATIENT) as fleet:
        stopped, other = fleet.servers[:2]
        with Workload(fleet.servers, seed=5) as work, stopped.client() as client:
            assert client.set(b"a:x", b"old") == b"STORED"
            stopped.pause()
            answers: list[bytes] = []
            deleting = threading.Thread(target=lambda: answers.append(other.delete(b"a:x")))
            deleting.start()
            time.sleep(share * SESSION)
            if share > 2:
                until(lambda: answers, what="a delete is not confirmed while a server is stopped")
            confirmed = bool(answers)
            client.send(b"get a:x\r\n" * 500)
            stopped.resume()
            values = [client.line() for _ in range(500)]
            deleting.join(PATIENCE)
            assert answers == [b"NOT_FOUND"], "the delete was confirmed in the end"
            if confirmed:
                assert set(values) == {b"END"}, "the first read after the stop is gated already"
            client.send(b"quit\r\n")
            fleet.wait_fresh()
            fleet.verify(work)


@pytest.mark.parametrize("delay", [0.0, 0.5, 2.0])
def test_06_end_a_session_then_delete_from_a_third_server(ensemble: Ensemble, name: str, delay: float) -> None:
    """The ephemeral znode is gone at once, while its server still serves."""
    with Fleet(ensemble, name, *PATIENT) as fleet, Workload(fleet.servers, seed=6) as work:
        victim, third = fleet.servers[0], fleet.servers[2]
        for _ in range(3):
            assert victim.set(b"a:x", b"old") == b"STORED"
            for link in fleet.links(victim):
                link.blackhole("down")
            ensemble.kill_session(victim.session)
            time.sleep(delay)
            assert third.delete(b"a:x") in {b"NOT_FOUND", b"DELETED"}
            assert victim.get(b"a:x") is None, "confirmed as applied, and still there"
            for link in fleet.links(victim):
                link.heal()
            fleet.wait_fresh()
        fleet.verify(work)


@pytest.fixture
def wall_clock(tmp_path: Path) -> Path:
    """A library that moves a server's wall clock, compiled here; beside it the file that says by how much."""
    library = tmp_path / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def test_07_the_wall_clock_jumps(ensemble: Ensemble, name: str, wall_clock: Path) -> None:
    """Nothing here goes by it: not the gate, not the certificates, not the items' time to live."""
    offset = wall_clock.with_name("offset")
    offset.write_text("0")
    steady = 10.0  # s: the jumps are hours, and a busy machine is slow
    with Fleet(ensemble, name, *LASTING, "--max-stale", str(steady)) as fleet:
        moved, other = fleet.servers[:2]
        moved.end(signal.SIGTERM)
        moved.environment |= {"LD_PRELOAD": str(wall_clock), "WALL_CLOCK_OFFSET": str(offset)}
        moved.start()
        fleet.wait_fresh()
        with Workload(fleet.servers, seed=7) as work:
            for seconds in (3600, -86_400 * 365, 0):
                offset.write_text(str(seconds))
                assert moved.set(b"n:kept", b"value") == b"STORED"
                assert abs(wall_time_of(moved) - time.time() - seconds) < 5, "the clock was moved"
                time.sleep(1)
                stats = moved.stats()
                assert (stats["stale"], stats["session"]) == ("0", "connected")
                assert int(stats["fresh_age_ms"]) < steady * 1000
                assert moved.get(b"n:kept") in {b"value", None}  # None: the clients' own flushes
                assert moved.set(b"a:x", b"old") == b"STORED"
                assert other.delete(b"a:x") == b"NOT_FOUND"
                assert moved.get(b"a:x") is None
            fleet.verify(work)


def wall_time_of(server: CacheServer) -> float:
    with server.client() as client:
        return float(client.stats(b"")["time"])


def test_08_kill_a_server_and_start_it_at_once(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *PATIENT) as fleet, Workload(fleet.servers, seed=8) as work:
        time.sleep(0.5)
        killed, other = fleet.servers[:2]
        killed.set(b"a:x", b"old")
        killed.end()
        work.restarted(killed)
        killed.start()
        assert killed.get(b"a:x") is None
        other.delete_confirmed(b"a:y")
        time.sleep(0.5)
        fleet.verify(work)


def test_09_no_zookeeper_and_many_deletes(ensemble: Ensemble, name: str) -> None:
    """The queue is bounded; what does not fit becomes one flush; clients notice nothing."""
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=9, writers=1, readers=1) as work:
        flooded, other = fleet.servers[:2]
        other.set(b"n:k:119999", b"old")
        for server in ensemble.servers:
            server.end()
        before = rss(flooded)
        with Probe(flooded) as probe, flooded.client() as client:
            for start in range(0, 120_000, 2000):
                client.send(b"".join(b"delete n:k:%d noreply\r\n" % number for number in range(start, start + 2000)))
                assert client.get(b"none") is None
                time.sleep(0.05)
        stats = flooded.stats()
        assert int(stats["overflows"]) >= 1
        assert int(stats["queue_keys"]) <= 100_000
        assert rss(flooded) - before < 100 << 20
        probe.noticed_nothing()
        for server in ensemble.servers:
            server.start()
        ensemble.wait_quorum()
        fleet.wait_fresh()
        until(lambda: other.get(b"n:k:119999") is None)
        fleet.verify(work)


def rss(server: CacheServer) -> int:
    """Resident memory in bytes."""
    assert server.process is not None
    pid = server.process.pid
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_10_slow_zookeeper(ensemble: Ensemble, name: str) -> None:
    """Runs a tenth of the time, and half a second away."""
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=10) as work:
        for server in fleet.servers:
            for link in fleet.links(server):
                link.delay(0.25)
        with Probe(fleet.servers[0]) as probe:
            for _ in range(12):
                for zookeeper in ensemble.servers:
                    zookeeper.pause()
                time.sleep(0.36)
                for zookeeper in ensemble.servers:
                    zookeeper.resume()
                time.sleep(0.04)
        probe.noticed_nothing()
        ensemble.heal()
        ensemble.wait_quorum()
        fleet.wait_fresh()
        fleet.verify(work)
        assert fleet.total("resent") < 60, "no explosion of duplicates"


def test_13_stop_the_fleets_leader(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=13) as work:
        old = fleet.leader
        token = int(old.stats()["token"])
        old.pause()
        others = [server for server in fleet.servers if server is not old]
        until(lambda: any(server.stats()["is_leader"] == "1" for server in others))
        time.sleep(1)
        old.resume()
        fleet.wait_fresh()
        until(lambda: sum(server.stats()["is_leader"] == "1" for server in fleet.servers) == 1)
        assert fleet.leader is not old
        assert int(fleet.leader.stats()["token"]) > token
        fleet.verify(work)
        assert broken_promises(transactions(ensemble), f"/{name}") == []


def test_14_delete_the_log_by_hand(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=14) as work:
        time.sleep(0.5)
        fleet.servers[1].set(b"n:stays?", b"old")
        with ensemble.client() as client:
            remove_log(client, f"/{name}/cache/invalidation")
        until(lambda: fleet.servers[1].get(b"n:stays?") is None, what="no flush")
        fleet.wait_fresh()
        assert fleet.servers[1].set(b"a:x", b"old") == b"STORED"
        fleet.servers[0].delete_confirmed(b"a:x")
        assert fleet.servers[1].get(b"a:x") is None
        fleet.verify(work)


def remove_log(client: KazooClient, path: str) -> None:
    """While servers write to it, and a busy ensemble may drop a connection."""
    while True:
        try:
            for child in client.get_children(path):
                client.delete(f"{path}/{child}", recursive=True)
            return
        except (NotEmptyError, NoNodeError, ConnectionLoss):
            continue


def test_14_wipe_the_ensemble(network: Network, name: str) -> None:
    with Ensemble(network) as own, Fleet(own, name) as fleet, Workload(fleet.servers, seed=141) as work:
        time.sleep(0.5)
        for server in own.servers:
            server.end()
            server.wipe()
        own.start()
        fleet.wait_fresh()
        assert fleet.servers[1].set(b"a:x", b"old") == b"STORED"
        fleet.servers[0].delete_confirmed(b"a:x")
        assert fleet.servers[1].get(b"a:x") is None
        fleet.verify(work)


def test_15_an_error_inside_kazoo(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=15) as work:
        server = fleet.servers[0]
        left = [1]

        def spoil(frame: Frame) -> bytes:
            if left[0] and frame.direction == "down" and frame.op == OP_GET:
                left[0] = 0
                return frame.body[:12] + (-999).to_bytes(4, "big", signed=True)
            return frame.body

        for link in fleet.links(server):
            link.tamper(spoil)
            link.reset()
        until(lambda: server.stats()["client_rebuilds"] == "1")
        fleet.wait_fresh()
        fleet.verify(work)


def test_16_lose_the_answer_to_an_append(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=16) as work:
        server, other = fleet.servers[:2]
        cuts = []
        for link in fleet.links(server):
            cuts.append(link.cut_after(2))
            link.reset()
        for number in range(20):
            other.set(b"c:%d" % number, b"old")
            assert server.delete(b"c:%d" % number) == b"NOT_FOUND"
        assert any(cut.is_set() for cut in cuts) or int(server.stats()["resent"]) >= 1
        until(lambda: all(other.get(b"c:%d" % number) is None for number in range(20)))
        for link in fleet.links(server):
            link.heal()
            link.reset()
        fleet.wait_fresh()
        assert int(server.stats()["resent"]) >= 1
        fleet.verify(work)


def test_17_no_right_to_append(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, "--ack-timeout", "1") as fleet:
        server = fleet.servers[0]
        with ensemble.client() as client:
            log = f"/{name}/cache/invalidation/{server.stats()['log']}"
            acls, _ = client.get_acls(log)
            client.set_acls(log, [acl._replace(perms=READ_AND_ADMIN) for acl in acls])
            assert server.delete(b"c:x") == b"SERVER_ERROR invalidation not confirmed"
            appends = zxid(ensemble)
            time.sleep(2)
            assert zxid(ensemble) - appends < 100, "no spin"
            client.set_acls(log, acls)
        until(lambda: "NoAuth" in server.log)
        assert server.log.count("NoAuth") == 1
        until(lambda: server.delete(b"c:x") == b"NOT_FOUND")


def zxid(ensemble: Ensemble) -> int:
    line = next(line for line in ensemble.leader.ask(b"srvr").splitlines() if line.startswith("Zxid"))
    return int(line.split()[1], 16)


def test_18_many_calls_during_an_outage(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet:
        server = fleet.servers[0]
        for link in fleet.links(server):
            link.blackhole()
        with Probe(server) as probe, server.client() as client:
            for number in range(3000):
                client.send(b"delete n:%d\r\n" % number)
                client.line()
                time.sleep(0.001)
        probe.noticed_nothing()
        assert int(server.stats()["outstanding"]) <= 128
        for link in fleet.links(server):
            link.heal()
        fleet.wait_fresh()


def test_20_start_without_zookeeper_and_join_later(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, "--join", "serve", count=2) as fleet:
        late = fleet.servers[0]
        late.end()
        for link in fleet.links(late):
            link.present(False)
        late.start()
        assert late.set(b"x", b"unproved") == b"STORED"
        assert late.get(b"x") == b"unproved"
        until(lambda: "can't be used" in late.log)
        assert late.log.count("connection refused") == 3, "one line that says what was tried"
        for link in fleet.links(late):
            link.present(True)
        fleet.wait_fresh()
        assert late.get(b"x") is None, "the join flushes"


def test_21_a_new_session_at_a_follower_that_lags(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=21) as work:
        server, follower = fleet.servers[0], ensemble.followers[0]
        for number, link in enumerate(fleet.links(server), 1):
            if number != follower.number:
                link.present(False)
        until(lambda: fleet.connected_to(server) == follower.number)
        for ends, links in ensemble.server_links.items():
            if follower.number in ends:
                links[0].delay(0.15)
        for _ in range(3):
            ensemble.kill_session(server.session)
            time.sleep(1)
        for link in fleet.links(server):
            link.present(True)
        ensemble.heal()
        fleet.wait_fresh()
        fleet.verify(work)


def test_22_old_records_go_while_servers_register_anew(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet, Workload(fleet.servers, seed=22) as work:
        for round_ in range(9):
            victim = fleet.servers[round_ % 3]
            if victim.stats()["session"] == "connected":
                ensemble.kill_session(victim.session)
            time.sleep(1.7)
        fleet.wait_fresh()
        fleet.verify(work)
        with ensemble.client() as client:
            until(lambda: len(client.get_children(f"/{name}/cache/members")) == 3, 20, "old records stay")
