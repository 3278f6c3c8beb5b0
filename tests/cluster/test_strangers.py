"""What operators and strangers do to a fleet's znodes while it runs, and rare moments of its life, on a real ensemble."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable

import pytest
from kazoo.exceptions import KazooException, NotEmptyError

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import PATIENCE, CacheServer, until
from .workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(180)]

SESSION = MAX_STALE = 2.0
PATIENT = ("--ack-timeout", "30")
LASTING = ("--zk-session-timeout", "20")
READ_AND_ADMIN = 1 | 16
LARGEST = (1 << 20) - 500  # bytes that ZooKeeper's default packet limit still takes


def insist(call: Callable[..., object]) -> None:
    """A deletion with all that is below, while servers write there."""

    def done() -> bool:
        try:
            call()
        except NotEmptyError:
            return False
        return True

    until(done)


def works(fleet: Fleet, key: bytes = b"a:works") -> None:
    """A delete at each is confirmed as applied, and gone at all."""
    for teller in fleet.servers:
        for server in fleet.servers:
            until(lambda server=server: server.set(key, b"old") == b"STORED")
        until(lambda teller=teller: teller.delete(key) in {b"DELETED", b"NOT_FOUND"})
        assert [server.get(key) for server in fleet.servers] == [None] * len(fleet.servers)


def test_somebody_deletes_what_the_fleet_is_made_of(ensemble: Ensemble, name: str) -> None:
    """The log with what counts logs; then everything, with the chroot. Who held something flushes; all is made again."""
    with Fleet(ensemble, name, *PATIENT, *LASTING) as fleet, ensemble.client() as client:
        holder = fleet.servers[1]
        for what in ("/cache/invalidation", ""):
            assert holder.set(b"n:stays?", b"old") == b"STORED"
            insist(lambda what=what: client.delete(f"/{name}{what}", recursive=True))
            until(lambda: holder.get(b"n:stays?") is None, what="no flush")
            fleet.wait_fresh()
            until(lambda: all(server.stats()["members"] == "3" for server in fleet.servers))
            works(fleet)


def test_somebody_deletes_the_record_that_names_the_log_and_nothing_else(ensemble: Ensemble, name: str) -> None:
    """The version of the next one is what that of the first was, and the log before is still there."""
    with Fleet(ensemble, name, *PATIENT) as fleet, ensemble.client() as client:
        before = fleet.servers[0].stats()["log"]
        works(fleet)
        client.delete(f"/{name}/cache/invalidation/meta")
        until(lambda: before not in (logs := {server.stats()["log"] for server in fleet.servers}) and len(logs) == 1)
        fleet.wait_fresh()
        held = len(client.get_children(f"/{name}/cache/invalidation/{before}"))
        works(fleet)
        assert len(client.get_children(f"/{name}/cache/invalidation/{before}")) == held


def test_a_mebibyte_of_garbage_in_each_kind_of_znode(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *PATIENT) as fleet, Workload(fleet.servers, seed=31, writers=1, readers=1) as work:
        stats, garbage = fleet.servers[1].stats(), b"\xff" * LARGEST
        records = ["roll/news", "roll/list", f"members/{stats['node']}", f"nodes/{stats['node']}"]
        records += [f"invalidation/{stats['log']}", "invalidation/meta"]
        with ensemble.client() as client:
            for record in records:
                client.set(f"/{name}/cache/{record}", garbage)
                time.sleep(0.3)

            def is_mended() -> bool:
                meta = client.get(f"/{name}/cache/invalidation/meta")[0]
                return meta != garbage and {server.stats()["log"] for server in fleet.servers} == {
                    json.loads(meta)["log"]
                }

            until(is_mended)
            fleet.wait_fresh()
            before = fleet.total("malformed")
            entry = f"/{name}/cache/invalidation/{fleet.leader.stats()['log']}/e-"
            client.create(entry, b"d " * (LARGEST // 2), sequence=True)
        until(lambda: fleet.total("malformed") >= before + 3, what="the entry is not read")
        late = fleet.servers[2]
        late.end()
        work.restarted(late)
        late.start()
        fleet.wait_fresh()
        until(lambda: all(server.stats()["members"] == "3" for server in fleet.servers))
        fleet.verify(work)


def test_the_acl_of_everything_changes_under_a_fleet(ensemble: Ensemble, name: str) -> None:
    """Nothing can be written: no certificate, so the gates close, and no delete is confirmed. Then it is mended."""
    with Fleet(ensemble, name, "--ack-timeout", "1") as fleet, ensemble.client() as client:
        server = fleet.servers[0]
        assert server.set(b"n:x", b"value") == b"STORED"
        paths = [f"/{name}/cache/nodes/{each.stats()['node']}" for each in fleet.servers]
        paths += [f"/{name}/cache/{each}" for each in ("nodes", "members", "invalidation/meta")]
        paths.append(f"/{name}/cache/invalidation/{server.stats()['log']}")
        kept = {path: client.get_acls(path)[0] for path in paths}
        for path, acls in kept.items():
            client.set_acls(path, [acl._replace(perms=READ_AND_ADMIN) for acl in acls])
        until(lambda: all(each.stats()["stale"] == "1" for each in fleet.servers))
        assert server.get(b"n:x") is None
        assert server.delete(b"c:x") == b"SERVER_ERROR invalidation not confirmed"
        until(lambda: "NoAuth" in server.stats()["why"] or "refuses" in server.stats()["why"])
        for path, acls in kept.items():
            with contextlib.suppress(KazooException):  # an ephemeral one may have gone with its session
                client.set_acls(path, acls)
        fleet.wait_fresh()
        works(fleet)


def test_two_members_with_one_advertised_address(ensemble: Ensemble, name: str) -> None:
    """A mistake of configuration: both are members, both are told, both are waited for; the list names the address twice."""
    with Fleet(ensemble, name, "--advertise", "127.0.0.1:11999") as fleet:
        works(fleet)
        with fleet.servers[0].client() as client:
            listed = client.lines(b"cluster members")
        assert sum(b"127.0.0.1:11999" in line for line in listed) == 3


def test_zookeeper_elects_in_the_middle_of_a_batch(ensemble: Ensemble, name: str) -> None:
    """A thousand keys are queued, their append under way, when ZooKeeper's leader dies: all are told, none is lost."""
    with Fleet(ensemble, name, *PATIENT, *LASTING) as fleet:
        teller, other = fleet.servers[:2]
        keys = [b"c:batch:%d" % number for number in range(3000)]
        with other.client() as client:
            for key in keys:
                assert client.set(key, b"old") == b"STORED"
        with teller.client() as client:
            client.send(b"".join(b"delete %s\r\n" % key for key in keys))
            killed = ensemble.leader
            killed.end()
            answers = {client.line() for _ in keys}
        assert answers == {b"NOT_FOUND"}, "confirmed within --ack-timeout, all of them"
        killed.start()
        ensemble.wait_quorum()
        fleet.wait_fresh()
        with other.client() as client:
            assert [key for key in keys if client.get(key) is not None] == []
        assert fleet.total("gaps") + fleet.total("overflows") == 0


def test_a_prefix_is_flushed_while_the_leadership_changes_hands(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *PATIENT) as fleet:
        leader = fleet.leader
        others = [server for server in fleet.servers if server is not leader]
        for server in fleet.servers:
            assert server.set(b"p:1", b"old") == b"STORED"
            assert server.set(b"q:1", b"kept") == b"STORED"
        answers: list[bytes] = []
        leader.pause()
        flushing = threading.Thread(target=lambda: answers.append(others[0].ask(b"cluster flush p:")))
        flushing.start()
        until(lambda: any(server.stats()["is_leader"] == "1" for server in others))
        flushing.join(PATIENCE)
        assert answers == [b"OK"]
        assert others[1].get(b"p:1") is None
        leader.resume()
        assert leader.get(b"p:1") is None, "the first read after the stop"
        fleet.wait_fresh()
        assert [server.get(b"p:1") for server in fleet.servers] == [None] * 3
        assert others[1].get(b"q:1") == b"kept"


def test_a_delayed_flush_is_due_while_a_server_is_stopped(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, *PATIENT) as fleet:
        teller, stopped, other = fleet.servers
        for server in fleet.servers:
            assert server.set(b"n:x", b"old") == b"STORED"
        assert teller.ask(b"flush_all 3") == b"OK"
        until(lambda: all(server.stats()["lag_entries"] == "0" for server in fleet.servers))
        stopped.pause()
        until(lambda: other.get(b"n:x") is None, 20)
        until(lambda: teller.get(b"n:x") is None, 20)
        time.sleep(SESSION)
        with stopped.client() as client:
            client.send(b"get n:x\r\n" * 50)
            stopped.resume()
            assert {client.line() for _ in range(50)} == {b"END"}
        fleet.wait_fresh()
        assert stopped.get(b"n:x") is None
        works(fleet)


def test_a_client_reads_on_while_its_server_is_stopped_for_longer_than_its_session(
    ensemble: Ensemble, name: str
) -> None:
    """The stopped server's clients wait; what they get when it goes on was not deleted meanwhile, and none of it is stale."""
    with Fleet(ensemble, name, *PATIENT) as fleet:
        stopped, other = fleet.servers[:2]
        read: list[tuple[float, float, bytes | None]] = []
        over = threading.Event()

        def reads(server: CacheServer) -> None:
            with server.client() as client:
                while not over.is_set():
                    asked = time.monotonic()
                    value = client.get(b"a:x")
                    read.append((asked, time.monotonic(), value))

        assert stopped.set(b"a:x", b"old") == b"STORED"
        reader = threading.Thread(target=reads, args=(stopped,))
        reader.start()
        until(lambda: read)
        stopped.pause()
        assert other.delete(b"a:x") == b"NOT_FOUND"
        confirmed = time.monotonic()
        time.sleep(0.5)
        stopped.resume()
        until(lambda: read[-1][0] > confirmed + 0.5)
        fleet.wait_fresh()
        over.set()
        reader.join(PATIENCE)
        late = [value for _, answered, value in read if answered > confirmed]
        assert late
        assert set(late) == {None}
