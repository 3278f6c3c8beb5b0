"""Somebody who may write to ZooKeeper deletes, or writes over, what is the fleet's: it heals, and no promise is broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mcserver.coordination.layout import Floor, MemberRecord, Meta, NodeRecord
from mcserver.coordination.ports import Level
from mcserver.testing.tree import Delta

from .quiet import META, Quiet, tell
from .simulator.ensemble import Transaction
from .simulator.faults import Fault, delete_candidates, delete_invalidation, delete_meta, delete_path, delete_roll
from .simulator.fleet import Host


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def is_whole(fleet: Quiet) -> bool:
    """Everybody is fresh, sees everybody, and one leads."""
    boots = {host.node.membership.boot for host in fleet.hosts}
    seen = [{name.rsplit(".", 2)[0] for name in host.node.membership.nodes} for host in fleet.hosts]
    leaders = [host for host in fleet.hosts if host.node.election.is_leader]
    return len(leaders) == 1 and all(
        each == boots and not host.node.gate.is_stale for each, host in zip(seen, fleet.hosts, strict=True)
    )


def works(fleet: Quiet, key: bytes) -> bool:
    """A delete at each is confirmed as applied, and gone at all others."""
    for teller in fleet.hosts:
        for host in fleet.hosts:
            host.cache.put(key)
        answer = tell(teller, key, Level.APPLIED)
        fleet.run(200)
        if not answer.done() or answer.error or any(host.cache.get(key) for host in fleet.hosts):
            return False
    return True


@pytest.mark.parametrize("fault", [delete_invalidation, delete_path, delete_candidates, delete_roll, delete_meta])
def test_what_is_deleted_is_made_again(fault: Fault) -> None:
    fleet = Quiet(3)
    fault(fleet)
    fleet.run(1500)
    assert is_whole(fleet)
    assert works(fleet, b"k")


@pytest.mark.parametrize("name", ["nodes", "members", "roll", "cells", "leader", "locks", "invalidation"])
def test_a_directory_that_is_deleted_with_all_that_is_in_it_is_made_again(name: str) -> None:
    fleet = Quiet(3, direct_max=0)
    top = f"/cache/{name}"
    below = sorted((path for path in fleet.ensemble.tree.nodes if f"{path}/".startswith(f"{top}/")), reverse=True)
    fleet.by_hand(*below)
    fleet.run(1500)
    assert is_whole(fleet)
    assert works(fleet, b"k")


@pytest.mark.parametrize("fault", ["/cache/nodes", "/cache", "backup"])
def test_the_version_of_the_list_of_members_rises_whatever_becomes_of_what_counts_them(fault: str) -> None:
    """Clients of auto discovery take no list of a lower version."""
    fleet = Quiet(2)
    length = len(fleet.ensemble.log)
    for n in range(5):
        late = fleet.start(f"late{n}")
        fleet.run(300)
        late.kill()
        fleet.hosts.remove(late)
        fleet.run(1200)
    before = [host.node.members()[0] for host in fleet.hosts]
    assert len(set(before)) == 1
    if fault == "backup":
        fleet.checkers.on_restore()
        fleet.ensemble.restore(length)
    else:
        fleet.checkers.on_restore()
        fleet.by_hand(
            *sorted((each for each in fleet.ensemble.tree.nodes if f"{each}/".startswith(f"{fault}/")), reverse=True)
        )
    fleet.run(1500)
    meanwhile = [host.node.members()[0] for host in fleet.hosts]
    assert min(meanwhile) >= before[0]
    assert len(set(meanwhile)) == 1
    fleet.start("n3")
    fleet.run(800)
    after = [host.node.members()[0] for host in fleet.hosts]
    assert min(after) > max(meanwhile)
    assert len(set(after)) == 1
    assert is_whole(fleet)


def test_what_a_tool_that_copies_trees_leaves_behind_belongs_to_nobody() -> None:
    """What belonged to sessions belongs to none then: it would lead, hold locks and be waited for for ever."""
    fleet = Quiet(3, lock_buckets=1)
    done: list[str] = []
    fleet.hosts[0].node.locked(b"k", lambda: done.append("first"))
    fleet.run(100)
    member, guid = "gone.0123456789ab.1.0", "0123456789abcdef"
    for path in ("nodes", "members", "leader", "locks/00"):
        fleet.by_hand(*(f"/cache/{path}/{name}" for name in list(fleet.ensemble.tree.nodes[f"/cache/{path}"].children)))
    records = {
        f"leader/{guid}-n-0000000000": member.encode(),
        f"locks/00/{guid}-l-0000000000": b"",
        f"nodes/{member}": NodeRecord("", "ready", 5, "gone.0123456789ab").encode(),
        f"members/{member}": MemberRecord(0.4, "miss").encode(),
    }
    fleet.ensemble.change_by_hand([Delta("create", f"/cache/{path}", data) for path, data in records.items()])
    fleet.run(2500)
    assert is_whole(fleet)
    assert works(fleet, b"k")
    fleet.hosts[1].node.locked(b"k", lambda: done.append("second"))
    fleet.run(400)
    assert done == ["first", "second"]
    assert not [path for path in fleet.ensemble.tree.nodes if "gone" in path or guid in path]


@pytest.mark.parametrize(
    "path", ["/cache/roll", "/cache/roll/news", "/cache/roll/list", "/cache/nodes", "/cache/members"]
)
def test_what_could_not_be_read_for_a_while_is_read_again(path: str) -> None:
    """Somebody has changed its ACL, and mends it when somebody has come."""
    fleet = Quiet(3)
    fleet.ensemble.forbidden = path
    for host in fleet.hosts:
        assert host.zk.wire is not None
        host.zk.wire.break_off()
    fleet.run(300)
    fleet.ensemble.forbidden = ""
    fleet.start("n4")
    fleet.run(1500)
    assert is_whole(fleet)
    assert works(fleet, b"k")


def test_a_generation_is_not_used_again_when_what_counts_them_is_gone() -> None:
    """Used twice, a record from before would say that its server has applied what it has not."""
    fleet = Quiet(2)
    for _ in range(3):
        fleet.by_hand(META, f"/cache/invalidation/{fleet.meta()['log']}")
        fleet.run(400)
    before = fleet.meta()["gen"]
    assert before > 1
    delete_invalidation(fleet)
    fleet.leading().node.reader.gen = 0  # as of one that has just joined
    fleet.run(600)
    assert fleet.meta()["gen"] > before
    assert works(fleet, b"k")


def test_a_server_under_a_new_name_proves_nothing_before_its_first_certificate() -> None:
    """Its old place in the log may be that of another log, if everything was deleted."""
    fleet = Quiet(2)
    made: list[NodeRecord] = []
    seen = fleet.ensemble.on_commit

    def on_commit(transaction: Transaction) -> None:
        made.extend(
            NodeRecord.decode(delta.data)
            for delta in transaction.deltas
            if delta.kind == "create" and delta.path.startswith("/cache/nodes/n2")
        )
        seen(transaction)

    fleet.ensemble.on_commit = on_commit
    fleet.by_hand(fleet.hosts[1].node.context.layout.node(fleet.hosts[1].node.membership.name))
    fleet.run(400)
    assert [record.state for record in made] == ["joining"]
    assert is_whole(fleet)


def member_path(host: Host) -> str:
    return host.node.context.layout.member(host.node.membership.name)


def test_a_live_server_without_a_record_is_waited_for_and_gets_it_again() -> None:
    fleet = Quiet(2)
    other = fleet.hosts[1] if fleet.leading() is fleet.hosts[0] else fleet.hosts[0]
    teller, path = fleet.leading(), member_path(other)
    record = fleet.ensemble.tree.nodes[path].data
    other.process.pause(150e6)
    fleet.by_hand(path)
    other.cache.items.clear()
    answer = tell(teller, b"k", Level.APPLIED)
    fleet.run(100)
    assert not answer.done()
    fleet.run(300)
    assert answer.done()
    assert answer.error is None
    assert fleet.ensemble.tree.nodes[path].data == record


def test_who_joins_finds_a_list_that_was_deleted_and_does_not_spin() -> None:
    fleet = Quiet(2)
    fleet.by_hand("/cache/roll/list")
    late = fleet.start("n3")
    fleet.run(150)
    assert late.node.context.reads < 100
    fleet.run(1000)
    assert is_whole(fleet)


def test_what_is_written_over_a_live_servers_record_does_not_take_it_off_the_view() -> None:
    fleet = Quiet(3)
    victim = fleet.hosts[2].node.membership.name
    fleet.ensemble.change_by_hand([Delta("set", f"/cache/nodes/{victim}", b"x" * 20_000)])
    answers = [tell(host, b"k", Level.APPLIED) for host in fleet.hosts]
    fleet.run(700)
    assert all(answer.done() and answer.error is None for answer in answers)
    assert is_whole(fleet)


def test_what_is_written_over_the_roll_is_mended_though_nobody_comes_or_goes() -> None:
    fleet = Quiet(2)
    for name in ("list", "news"):
        fleet.ensemble.change_by_hand([Delta("set", f"/cache/roll/{name}", b"[" * 5000)])
        fleet.run(900)
        assert fleet.ensemble.tree.nodes[f"/cache/roll/{name}"].data.startswith(b"{")
    fleet.start("n3")
    fleet.run(600)
    assert is_whole(fleet)


@pytest.mark.parametrize(("by_cells", "gens"), [(False, [0]), (True, [0]), (True, [7, 0]), (False, [7, 0])])
def test_another_log_of_a_generation_that_was_used_is_followed_by_one_of_a_new_generation(
    by_cells: bool, gens: list[int]
) -> None:
    """Members' records say of its versions that they were applied: a delete would be confirmed that nobody has seen."""
    fleet = Quiet(3, **({"direct_max": 0, "cell_size": 2} if by_cells else {}))
    for n in range(12):
        tell(fleet.hosts[0], b"k%d" % n, Level.APPLIED)
        fleet.run(30)
    meta = Meta.decode(fleet.ensemble.tree.nodes[META].data)
    fleet.checkers.on_replaced()
    for more in gens:
        log = f"log-{meta.gen + more}-{more:08x}"
        fleet.ensemble.change_by_hand(
            [
                Delta("create", f"/cache/invalidation/{log}", Floor(0, 0).encode()),
                Delta("set", META, meta._replace(gen=meta.gen + more, log=log, previous=None).encode()),
            ]
        )
        fleet.run(60)
    fleet.run(200)
    assert fleet.meta()["gen"] > meta.gen + max(gens)
    fleet.run(600)
    assert is_whole(fleet)
    stopped = next(host for host in fleet.hosts[1:] if not host.node.election.is_leader)
    stopped.process.pause(300e6)
    stopped.cache.items.clear()
    answer = tell(fleet.hosts[0] if stopped is not fleet.hosts[0] else fleet.hosts[1], b"k", Level.APPLIED)
    fleet.run(150)
    assert not answer.done(), "one that is stopped has applied nothing"
    fleet.run(800)
    assert works(fleet, b"k")


def test_a_log_that_is_made_again_before_a_server_has_come_to_it_is_another_log() -> None:
    """The leader is stopped when it has sealed the log that it had read: what the next one had said is gone when it goes on."""
    fleet = Quiet(2, rotate_at=5)
    two = fleet.leading()
    (one,) = [host for host in fleet.hosts if host is not two]
    two.cache.put(b"k")
    for n in range(5):
        tell(one, b"k%d" % n)
        fleet.run(15)
    while fleet.meta()["gen"] == 1:
        fleet.run(0.05)
    two.process.pause(200e6)
    fleet.run(60)
    tell(one, b"k")
    fleet.run(60)
    path = f"/cache/invalidation/{fleet.meta()['log']}"
    fleet.checkers.on_replaced()
    below = [each for each in sorted(fleet.ensemble.tree.nodes, reverse=True) if each.startswith(path)]
    assert len(below) > 1
    fleet.ensemble.change_by_hand(
        [*(Delta("delete", each) for each in below), Delta("create", path, Floor(0, 0).encode())]
    )
    fleet.run(900)
    assert two.cache.get(b"k") is None
    assert is_whole(fleet)
    assert works(fleet, b"k")


def test_a_log_that_is_made_again_under_its_name_is_another_log() -> None:
    """Its entries up to the place of a member were never read by that: what they delete was served until its TTL."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    for n in range(3):
        tell(one, b"k%d" % n)
        fleet.run(20)
    fleet.run(100)
    before = fleet.meta()
    path = f"/cache/invalidation/{before['log']}"
    two.cache.put(b"k")
    two.process.pause(100e6)
    fleet.checkers.on_replaced()
    below = [each for each in sorted(fleet.ensemble.tree.nodes, reverse=True) if each.startswith(path)]
    fleet.ensemble.change_by_hand(
        [*(Delta("delete", each) for each in below), Delta("create", path, Floor(0, 0).encode())]
    )
    tell(one, b"k")
    for n in range(4):
        fleet.run(15)
        tell(one, b"l%d" % n)
    fleet.run(500)
    assert two.cache.get(b"k") is None
    assert fleet.meta()["gen"] > before["gen"], "versions that were used before are used no more"
    fleet.run(600)
    assert is_whole(fleet)
    assert works(fleet, b"k")
