"""The leader: election, the log's making, trimming and rotation, what the dead leave behind."""

from __future__ import annotations

import pytest

from mcserver.coordination.layout import Floor
from mcserver.coordination.ports import ConnectionLoss, Level, Set
from mcserver.testing.tree import Delta, ZNode

from .quiet import META, Quiet, tell, tell_several


def floor_of(fleet: Quiet) -> Floor:
    return Floor.decode(fleet.ensemble.tree.nodes[f"/cache/invalidation/{fleet.meta()['log']}"].data)


def test_one_leads_and_all_know_its_name() -> None:
    fleet = Quiet(3)
    leader = fleet.leading()
    assert {host.node.leader() for host in fleet.hosts} == {leader.node.membership.name}
    assert fleet.meta()["token"] == leader.node.election.token


def test_on_a_new_connection_a_leader_writes_nothing_until_it_has_looked_again() -> None:
    """In an ensemble restored from a backup the candidate before it may stand again, beside its own."""
    fleet = Quiet(2)
    election, record = fleet.leading().node.election, fleet.ensemble.tree.nodes[META]
    length = len(fleet.ensemble.log)
    election.session_changed()
    with pytest.raises(ConnectionLoss):
        election._write(Set(META, record.data)).send(None)
    assert len(fleet.ensemble.log) == length
    fleet.run(300)
    assert fleet.leading().node.election is election


def test_a_record_of_the_leaders_own_that_a_backup_has_brought_back_goes() -> None:
    """It had cleared it away, and forgotten it: whoever waited for `applied` waited for that name, too."""
    fleet = Quiet(2)
    name = fleet.leading().node.membership.name
    record = fleet.ensemble.tree.nodes[f"/cache/members/{name}"].data
    back = f"/cache/members/{name.rsplit('.', 2)[0]}.1.0"
    fleet.ensemble.change_by_hand([Delta("create", back, record)])
    fleet.run(1200)
    assert back not in fleet.ensemble.tree.nodes
    assert f"/cache/members/{name}" in fleet.ensemble.tree.nodes


def test_a_dead_leader_is_replaced_with_a_higher_token() -> None:
    fleet = Quiet(3)
    old = fleet.leading()
    old.kill()
    fleet.hosts.remove(old)
    fleet.run(1000)
    new = fleet.leading()
    assert new.node.election.token > old.node.election.token
    assert {host.node.leader() for host in fleet.hosts} == {new.node.membership.name}


def test_a_suspended_leader_stops_acting() -> None:
    fleet = Quiet(2)
    leader = fleet.leading()
    leader.zk.cut()
    fleet.run(300)
    assert not leader.node.election.is_leader


def test_the_log_is_trimmed_behind_everybody() -> None:
    fleet = Quiet(2, keep_seconds=0.3, keep_entries=5)
    one, _ = fleet.hosts
    tell_several(fleet, one, 20, pause=50)
    fleet.run(1000)
    assert floor_of(fleet).floor == 15
    assert len(fleet.log()) == 5
    assert not floor_of(fleet).capped


def test_a_slow_member_holds_the_floor_until_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Quiet(2, keep_seconds=0.1, keep_entries=2, cap_entries=12, max_stale=0.8)
    leader = fleet.leading()
    (slow,) = [host for host in fleet.hosts if host is not leader]
    monkeypatch.setattr(slow.node.context, "sleep", lambda seconds: slow.process.future())
    slow.node.context.settings.__dict__["slice_keys"] = 1
    tell_several(fleet, leader, 10, pause=40)
    fleet.run(500)
    assert floor_of(fleet).floor == 0
    tell_several(fleet, leader, 10, pause=40)
    fleet.run(500)
    assert (floor_of(fleet).floor, floor_of(fleet).capped) == (8, True)


def test_trimming_passes_over_what_somebody_has_deleted() -> None:
    fleet = Quiet(1, keep_seconds=0.1, keep_entries=2)
    (host,) = fleet.hosts
    tell_several(fleet, host, 5, pause=20)
    fleet.by_hand(f"/cache/invalidation/{fleet.meta()['log']}/e-0000000001")
    tell_several(fleet, host, 5, pause=20)
    fleet.run(800)
    assert floor_of(fleet).floor == 8


def test_what_somebody_made_below_an_entry_does_not_keep_the_log_from_being_trimmed_and_cleared_away() -> None:
    fleet = Quiet(1, keep_seconds=0.1, keep_entries=2, rotate_at=14)
    (host,) = fleet.hosts
    tell_several(fleet, host, 5, pause=20)
    old = f"/cache/invalidation/{fleet.meta()['log']}"
    for entry, below in (("e-0000000001", "/x"), ("e-0000000001", "/x/y"), ("e-0000000004", "/z")):
        fleet.ensemble.change_by_hand([Delta("create", f"{old}/{entry}{below}", b"")])
    fleet.by_hand(f"{old}/e-0000000000")
    tell_several(fleet, host, 5, pause=20)
    fleet.run(1500)
    assert floor_of(fleet).floor == 8
    fleet.ensemble.change_by_hand([Delta("create", f"{old}/e-0000000009/x", b"")])
    tell_several(fleet, host, 8, pause=60)
    fleet.run(2500)
    assert fleet.meta()["gen"] == 2
    assert old not in fleet.ensemble.tree.nodes


def test_rotation_seals_the_old_log_and_clears_it_away_later() -> None:
    fleet = Quiet(2, rotate_at=5, keep_seconds=0.5)
    one, _ = fleet.hosts
    old = fleet.meta()["log"]
    tell_several(fleet, one, 5, pause=30)
    fleet.run(400)
    assert (fleet.meta()["gen"], fleet.meta()["previous"]) == (2, old)
    assert f"/cache/invalidation/{old}" in fleet.ensemble.tree.nodes
    tell(one, b"x")
    fleet.run(1500)
    assert sorted(fleet.ensemble.tree.nodes["/cache/invalidation"].children) == [fleet.meta()["log"], "meta"]
    assert one.node.stats()["applied"] == "2:0"


def test_dead_members_are_cleared_away_only_after_they_may_have_served() -> None:
    fleet = Quiet(3)
    (one, two, three) = sorted(fleet.hosts, key=lambda host: not host.node.election.is_leader)
    two.kill()
    fleet.hosts.remove(two)
    name = two.node.membership.name
    fleet.run(750)
    assert name in fleet.ensemble.tree.nodes["/cache/members"].children
    fleet.run(1000)
    assert name not in fleet.ensemble.tree.nodes["/cache/members"].children
    assert sorted(member.name for member in one.node.members()[1]) == sorted(
        host.node.membership.name for host in (one, three)
    )


def test_meta_deleted_by_hand_comes_back_with_a_higher_generation() -> None:
    fleet = Quiet(2)
    fleet.by_hand(META)
    used = fleet.used()
    fleet.run(800)
    assert fleet.meta()["gen"] == used + 1 > 2
    assert not any(host.cache.is_closed for host in fleet.hosts)


def test_a_wiped_ensemble_is_built_again() -> None:
    fleet = Quiet(2)
    fleet.checkers.on_restore()
    fleet.ensemble.restore(0)
    fleet.run(3000)
    assert fleet.meta()["gen"] == 2
    assert not any(host.cache.is_closed for host in fleet.hosts)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(100)
    assert answer.done()


def test_scheduled_refresh_marks_the_prefixes_everywhere() -> None:
    fleet = Quiet(2, refresh_every=1.0, refresh_prefixes=(b"a:",))
    for host in fleet.hosts:
        host.cache.put(b"a:1")
        host.cache.put(b"b:1")
    fleet.run(1300)
    for host in fleet.hosts:
        assert {key: item.stale for key, item in host.cache.items.items()} == {b"a:1": True, b"b:1": False}


def test_the_version_of_the_membership_rises_with_each_change_and_is_shared() -> None:
    fleet = Quiet(2)
    before = fleet.hosts[0].node.members()[0]
    fleet.start("n3")
    fleet.run(400)
    versions = {host.node.members()[0] for host in fleet.hosts}
    assert len(versions) == 1
    assert versions.pop() > before
    assert isinstance(fleet.ensemble.tree.nodes["/cache/nodes"], ZNode)


def test_a_log_that_fills_up_at_once_puts_nothing_off() -> None:
    fleet = Quiet(3, rotate_at=2)
    gone = next(host for host in fleet.hosts if not host.node.election.is_leader)
    gone.kill()
    for n in range(70):
        tell(fleet.leading(), b"k%d" % n)
        fleet.run(20)
    assert f"/cache/members/{gone.node.membership.name}" not in fleet.ensemble.tree.nodes


def test_a_generation_is_not_used_twice_though_its_record_is_gone() -> None:
    """The next leader may not know of the last one: then the members that do would see their versions go back."""
    fleet = Quiet(3, rotate_at=2)
    for n in range(8):
        tell(fleet.leading(), b"k%d" % n)
        fleet.run(60)
    before = fleet.meta()["gen"]
    leader = fleet.leading()
    leader.node.reader.gen = 1  # as one that was cut off for long
    fleet.by_hand(META)
    fleet.run(400)
    assert fleet.meta()["gen"] > before > 2
