"""The publisher: batches, answers, lost answers, refusals, draining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcserver.coordination.layout import Floor, Meta
from mcserver.coordination.ports import Change, Level, NotConfirmed, SessionState
from mcserver.testing.tree import Delta

from .quiet import META, Quiet, tell, told
from .simulator.scheduler import Future


def test_what_arrives_while_one_append_is_in_flight_is_the_next_batch() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    first = tell(host, b"0")
    fleet.run(0.5)
    rest = [tell(host, b"%d" % n) for n in range(1, 6)]
    fleet.run(100)
    assert [entry.count(b"\n") for entry in fleet.log()] == [1, 5]
    assert first.result < rest[0].result == rest[-1].result


def test_each_level_is_reached_at_its_time() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    assert tell(one, b"a", Level.ASYNC) is None
    committed = tell(one, b"b", Level.COMMITTED)
    two.process.pause(300e6)
    applied = tell(one, b"c", Level.APPLIED)
    fleet.run(150)
    assert committed.done()
    assert not applied.done()
    fleet.run(400)
    assert applied.result == one.node.reader.applied


def test_what_was_known_of_the_log_is_not_believed_on_a_new_connection() -> None:
    """After a backup was restored the record that names the log may have the version that it had, and name another one."""
    fleet = Quiet(2)
    one, _ = fleet.hosts
    length, record = len(fleet.ensemble.log), Meta.decode(fleet.ensemble.tree.nodes[META].data)
    old = f"/cache/invalidation/{record.log}"
    fleet.ensemble.change_by_hand([Delta("set", META, record.encode())])
    tell(one, b"0")
    fleet.run(100)
    version = fleet.ensemble.tree.nodes[META].version
    one.zk.cut()
    fleet.checkers.on_restore()
    fleet.ensemble.restore(length)
    log = Delta("create", "/cache/invalidation/log-2-00", Floor(0, 0).encode())
    sealed = record._replace(gen=2, log="log-2-00", previous=record.log)
    fleet.ensemble.change_by_hand([log, Delta("set", META, sealed.encode())])
    assert fleet.ensemble.tree.nodes[META].version == version
    before = len(fleet.ensemble.tree.nodes[old].children)
    answer = tell(one, b"k")
    one.zk.heal()
    fleet.run(500)
    assert answer.done()
    assert answer.error is None
    assert len(fleet.ensemble.tree.nodes[old].children) == before, "nothing is written into a log that is sealed"


def test_a_lost_answer_is_sent_again_with_the_same_changes() -> None:
    fleet = Quiet(1, max_stale=4.0)  # so that the append is the only write
    (host,) = fleet.hosts
    fleet.ensemble.lose_replies = 1.0
    answer = tell(host, b"k")
    while host.zk.state is SessionState.CONNECTED:
        fleet.run(1)
    fleet.ensemble.lose_replies = 0.0
    fleet.run(500)
    assert answer.done()
    entries = fleet.log()
    assert len(entries) == 2
    assert told(entries[0]).changes == told(entries[1]).changes
    assert host.node.context.figures.resent == 1


def test_without_zookeeper_the_answer_is_not_confirmed_but_the_change_stays() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    host.zk.cut()
    fleet.run(300)
    answer = tell(host, b"k")
    fleet.run(1100)
    assert isinstance(answer.error, NotConfirmed)
    assert host.node.stats()["queue_keys"] == 1
    assert int(host.node.stats()["queue_age_ms"]) >= 1000
    host.zk.heal()
    fleet.run(800)
    assert host.node.stats()["queue_keys"] == 0
    assert b"d k" in fleet.log()[0]


def test_an_outage_fills_the_queue_up_to_one_flush() -> None:
    fleet = Quiet(2, queue_keys=50)
    one, two = fleet.hosts
    two.cache.put(b"k")
    one.zk.cut()
    fleet.run(300)
    answers = [tell(one, b"%d" % n) for n in range(200)]
    assert one.node.stats()["queue_keys"] == 1
    assert one.node.stats()["overflows"] == 1
    one.zk.heal()
    fleet.run(800)
    assert {answer.result for answer in answers} == {answers[0].result}
    assert two.cache.get(b"k") is None


def test_a_refused_append_alarms_once_and_does_not_spin() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    alarms: list[str] = []
    host.node.on_change(alarms.append)
    fleet.ensemble.refuse_entries = True
    answer = tell(host, b"k")
    events = fleet.world.events
    fleet.run(900)
    assert alarms.count("alarm") == 1
    assert fleet.world.events - events < 900
    fleet.ensemble.refuse_entries = False
    fleet.run(400)
    assert fleet.log()
    assert isinstance(answer.error, NotConfirmed)


def test_too_large_a_batch_is_split() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    fleet.ensemble.packet_limit = 200
    answers = [tell(host, b"key-%04d" % n) for n in range(20)]
    fleet.run(900)
    assert all(answer.done() for answer in answers)
    assert fleet.lines() == [b"d key-%04d" % n for n in range(20)]


def test_after_leaving_it_names_itself_neither_member_nor_leader() -> None:
    fleet = Quiet(2)
    leader = fleet.leading()
    before, _ = leader.node.members()
    leader.process.spawn(leader.node.leave(0.3), "leave")
    fleet.run(600)
    version, members = leader.node.members()
    (other,) = [host for host in fleet.hosts if host is not leader]
    assert [member.name for member in members] == [other.node.membership.name]
    assert version == before + 1 == other.node.members()[0]
    assert (leader.node.leader(), leader.node.stats()["is_leader"], leader.node.stats()["leader"]) == (None, 0, "")


def test_a_burst_above_the_budget_is_slowed() -> None:
    fleet = Quiet(2, write_rate=60.0, batch_keys=1, max_stale=4.0)
    one, _ = fleet.hosts
    fleet.run(2000)
    for n in range(300):
        tell(one, b"%d" % n, Level.ASYNC)
    fleet.run(3000)
    assert 100 <= len(fleet.log()) <= 240  # 60 a second less two certificates, and what goes at once
    assert int(one.node.stats()["append_waits"]) > 50


def test_below_the_budget_nobody_waits_however_many_there_are() -> None:
    fleet = Quiet(12, write_rate=400.0, max_stale=4.0)
    fleet.run(1500)
    answers = []
    for n in range(20):
        answers += [tell(host, b"%d" % n) for host in fleet.hosts]
        fleet.run(100)
    assert all(answer.done() for answer in answers)
    assert sum(int(host.node.stats()["append_waits"]) for host in fleet.hosts) == 0


@pytest.mark.slow
def test_above_the_budget_it_is_shared_evenly() -> None:
    fleet = Quiet(4, write_rate=40.0, batch_keys=1, queue_keys=5000, max_stale=8.0)
    fleet.run(1500)
    for n in range(400):
        for host in fleet.hosts:
            tell(host, b"%d" % n, Level.ASYNC)
    fleet.run(12000)
    before = [int(host.node.stats()["writes_appends"]) for host in fleet.hosts]
    fleet.run(10000)
    sent = [int(host.node.stats()["writes_appends"]) - was for host, was in zip(fleet.hosts, before, strict=True)]
    assert 250 <= sum(sent) <= 420, sent
    assert max(sent) <= 1.5 * min(sent), sent


def test_every_kind_of_write_is_counted() -> None:
    fleet = Quiet(2, max_stale=0.4)
    one, _ = fleet.hosts
    tell(one, b"k", Level.APPLIED)
    one.node.locked(b"k", lambda: None)
    fleet.run(500)
    stats = [host.node.stats() for host in fleet.hosts]
    assert [stat["writes_appends"] for stat in stats] == [2, 0]
    assert stats[1]["writes_acknowledgements"]
    assert stats[0]["writes_locks"]
    assert all(stat["writes_certificates"] and stat["writes_membership"] for stat in stats)
    assert sum(int(stat["writes_leader"]) for stat in stats) >= 3
    assert all(int(stat["fleet_writes"]) >= 2 * 4 / 0.4 for stat in stats), "the certificates alone"


@pytest.mark.parametrize(("seconds", "least", "most"), [(2.0, 10, 10), (0.02, 1, 9)])
def test_leaving_drains_the_queue_or_flushes(seconds: float, least: int, most: int) -> None:
    """A short time is enough for some of the queue; the rest becomes a flush."""
    fleet = Quiet(2, batch_keys=1)
    one, two = fleet.hosts
    for n in range(10):
        tell(one, b"%d" % n, Level.ASYNC)
    one.process.spawn(one.node.leave(seconds), "leave")
    fleet.run(1500)
    lines = fleet.lines()
    told = lines.index(b"F") if b"F" in lines else len(lines)
    assert least <= told <= most
    assert lines == [b"d %d" % n for n in range(told)] + [b"F"] * (told < 10)
    assert one.cache.is_closed
    assert list(fleet.ensemble.tree.nodes["/cache/members"].children) == [two.node.membership.name]
    assert [member.is_self for member in two.node.members()[1]] == [True]


def test_after_leaving_nothing_is_confirmed() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    host.process.spawn(host.node.leave(0.1), "leave")
    fleet.run(300)
    for level in Level:
        assert isinstance(tell(host, b"k", level).error, NotConfirmed), "nothing is queued any more"
    assert host.node.stats()["state"] == "left"


def test_leaving_without_zookeeper_ends_in_time() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    host.zk.cut()
    fleet.run(300)
    tell(host, b"k")
    host.process.spawn(host.node.leave(0.5), "leave")
    fleet.run(700)
    assert host.node.stats()["state"] == "left"


def test_nothing_to_tell_is_an_error() -> None:
    fleet = Quiet(1)
    with pytest.raises(ValueError, match="nothing"):
        fleet.hosts[0].node.submit([], Level.ASYNC)


def test_the_level_of_a_key_is_that_of_its_longest_prefix() -> None:
    fleet = Quiet(1, ack_prefixes=((b"user:", Level.APPLIED), (b"user:log:", Level.ASYNC)))
    level = fleet.hosts[0].node.level
    assert [level(b"x"), level(b"user:1"), level(b"user:log:1")] == [Level.COMMITTED, Level.APPLIED, Level.ASYNC]


def test_a_delayed_flush_reaches_the_log_when_the_one_that_was_known_is_cleared_away() -> None:
    fleet = Quiet(2, rotate_at=3, keep_seconds=0.1)
    one, two = fleet.hosts
    tell(one, b"k")
    fleet.run(100)
    for n in range(4):
        tell(two, b"%d" % n)
        fleet.run(100)
    fleet.run(1500)
    answer: Any = one.node.submit([Change("flush", b"", 30)], Level.COMMITTED)
    fleet.run(300)
    assert answer is not None
    assert answer.done()
    assert fleet.lines()[-1][:2] == b"F "


def test_the_first_append_asks_nothing_that_the_reader_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trip: a lone delete, the first at its server, waits for the append and for nothing else."""
    fleet = Quiet(2)
    host = fleet.hosts[1]
    asked: list[str] = []
    get = host.zk.get

    def noting(path: str, watch: Callable[[], None] | None = None) -> Future:
        asked.append(path)
        return get(path, watch)

    monkeypatch.setattr(host.zk, "get", noting)
    answer = tell(host, b"k")
    while not answer.done():
        fleet.run(0.1)
    assert answer.error is None
    assert META not in asked


def test_the_record_that_names_the_log_is_another_though_its_version_is_the_same() -> None:
    """Somebody deletes it, as docs/coherence.md says: of the one that the leader makes the version begins anew."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"0")
    fleet.run(50)
    before, version = fleet.meta(), fleet.ensemble.tree.nodes[META].version
    fleet.by_hand(META)
    fleet.run(600)
    assert fleet.meta()["log"] != before["log"]
    assert fleet.ensemble.tree.nodes[META].version == version
    two.cache.put(b"k")
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(200)
    assert answer.error is None
    assert two.cache.get(b"k") is None
    assert fleet.lines() == [b"d k"]


def test_an_append_that_was_under_way_when_that_record_was_deleted_is_sent_again() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"0")
    fleet.run(50)
    record, old = fleet.ensemble.tree.nodes[META].data, fleet.meta()["log"]
    for server in fleet.ensemble.servers:
        server.slow = 10.0
    answer = tell(one, b"k", Level.APPLIED)
    two.cache.put(b"k")
    fleet.run(0.5)
    other = f"log-9-{9:08x}"
    fleet.ensemble.change_by_hand(
        [
            Delta("delete", META),
            Delta("create", f"/cache/invalidation/{other}", Floor(0, 0).encode()),
            Delta("create", META, Meta.decode(record)._replace(gen=9, log=other, previous=None).encode()),
        ]
    )
    fleet.run(900)
    path = f"/cache/invalidation/{old}"
    assert len(fleet.ensemble.tree.nodes[path].children) == 2, "the version was the same"
    assert answer.error is None
    assert two.cache.get(b"k") is None
    assert b"d k" in fleet.lines()


def test_an_answer_that_waits_for_an_hour_keeps_none_of_those_behind_it() -> None:
    fleet = Quiet(2, ack_timeout=3600.0, max_stale=600.0)
    one, two = fleet.hosts
    two.process.pause(500e9)
    waiting = tell(one, b"k", Level.APPLIED)
    for n in range(3000):
        tell(one, b"%d" % n)
        fleet.run(4)
    assert not waiting.done()
    assert len(one.node.publisher._deadlines) <= 1001


def test_a_long_outage_leaves_nothing_of_the_answers_that_were_given() -> None:
    fleet = Quiet(1, ack_timeout=0.1, queue_keys=10)
    (host,) = fleet.hosts
    host.zk.cut()
    fleet.run(300)
    publisher = host.node.publisher
    for n in range(3000):
        tell(host, b"%d" % n)
        fleet.run(11)
    assert len(publisher._tickets) <= 15
    assert len(publisher._ages) <= 1000
    assert 32_000 <= publisher.age_ms <= 34_000
    host.zk.heal()
    fleet.run(800)
    assert (publisher.age_ms, len(publisher._ages)) == (0.0, 0)
