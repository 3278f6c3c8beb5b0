"""The reader: rounds, the fast path, gaps, other logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mcserver.coordination import ports
from mcserver.coordination.layout import Floor, version
from mcserver.coordination.ports import Change, Level

from .quiet import META, Quiet, tell
from .simulator.ensemble import Session
from .simulator.fleet import Host
from .simulator.scheduler import Timer


def applied(host: Host) -> tuple[int, int]:
    return divmod(host.node.reader.applied, 1 << 32)


def append(fleet: Quiet, data: bytes) -> None:
    """Writes an entry as some other release would."""
    path = f"/cache/invalidation/{fleet.meta()['log']}/e-"
    session = Session(-1, fleet.hosts[0].zk, 0)
    fleet.ensemble.write([ports.Create(path, data, sequence=True)], session)


def test_a_join_flushes_and_gets_a_certificate() -> None:
    fleet = Quiet()
    host = fleet.start("n1")
    assert host.cache.is_closed
    fleet.run(400)
    assert host.cache.flush_count == 1
    assert not host.cache.is_closed
    assert host.node.stats()["state"] == "ready"


def test_a_delete_reaches_a_peer_by_the_fast_path() -> None:
    fleet = Quiet(2, max_stale=4.0)  # so no round is due
    one, two = fleet.hosts
    two.cache.put(b"k")
    began = two.node.gate.fresh
    tell(one, b"k")
    fleet.run(80)  # a follower may be 60 behind
    assert two.cache.get(b"k") is None
    assert two.node.gate.fresh == began, "the fast path must not move the certificate"


def test_own_entries_are_skipped_whatever_session_wrote_them() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    tell(host, b"k")
    fleet.run(50)
    fleet.ensemble.end_session(fleet.ensemble.sessions[host.zk.session])
    host.cache.put(b"k")
    fleet.run(800)
    assert host.node.membership.is_registered
    assert host.cache.get(b"k") is not None
    assert applied(host) == (1, 0)


def test_after_a_lost_session_the_log_is_replayed_without_a_flush() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.cache.put(b"k")
    two.cache.put(b"other")
    flushes = two.cache.flush_count
    two.zk.cut()
    fleet.run(600)
    tell(one, b"k")
    fleet.run(100)
    two.zk.heal()
    fleet.run(600)
    assert (two.cache.get(b"k"), two.cache.get(b"other") is not None) == (None, True)
    assert (two.cache.flush_count, two.node.context.figures.gaps) == (flushes, 0)


def leaves(host: Host) -> None:
    assert isinstance(host.fleet, Quiet)
    host.leave()
    while host.is_live:
        host.fleet.run(20)


def test_what_was_kept_is_served_when_the_log_was_replayed() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"before")
    two.cache.put(b"k")
    two.cache.put(b"other")
    fleet.run(100)
    leaves(two)
    tell(one, b"k")
    fleet.run(100)
    three = fleet.start("n2", left=two)
    assert three.cache.is_closed
    fleet.run(400)
    assert not three.cache.is_closed
    assert (three.cache.get(b"k"), three.cache.get(b"other") is not None) == (None, True)
    assert (three.cache.flush_count, three.node.context.figures.gaps) == (0, 0)


def test_what_was_kept_is_flushed_when_the_log_does_not_reach_back() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"before")
    two.cache.put(b"other")
    fleet.run(100)
    leaves(two)
    path = f"/cache/invalidation/{fleet.meta()['log']}"
    tell(one, b"k")
    fleet.run(100)
    fleet.by_hand(*(f"{path}/{name}" for name in sorted(fleet.ensemble.tree.nodes[path].children)))
    tell(one, b"k")
    fleet.run(100)
    three = fleet.start("n2", left=two)
    fleet.run(600)
    assert not three.cache.is_closed
    assert three.cache.get(b"other") is None


def test_a_place_that_is_none_flushes() -> None:
    fleet = Quiet(2)
    _, two = fleet.hosts
    good = {"path": "/cache", "log": "log-1-ab", "gen": 1, "next": 5, "last": [4, 99, 1700], "later": [], "done": []}
    for wrong in (
        None, {}, good | {"path": "/other"}, good | {"log": "../x"}, good | {"log": 5}, good | {"gen": -1}, good | {"gen": True},
        good | {"next": "5"}, good | {"next": 1 << 60}, good | {"last": [4]}, good | {"last": ["4", 5, 6]},
        good | {"last": None}, good | {"later": [1.5]}, good | {"done": 7},
    ):  # fmt: skip
        flushes = two.cache.flush_count
        two.node.resume(wrong)
        assert two.cache.flush_count == flushes + 1, wrong
    for right in (good, good | {"last": [4, 99]}):
        assert two.node.reader.resume(right)


def test_delayed_flushes_that_were_waiting_come() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"k")
    one.node.submit([Change("flush", b"", 3)], Level.COMMITTED)
    fleet.run(100)
    leaves(two)
    assert two.place is not None
    assert two.place["later"]
    assert not two.place["done"]
    three = fleet.start("n2", left=two)
    fleet.run(600)
    three.cache.put(b"k")
    assert three.cache.flush_count == 0
    fleet.run(4000)
    assert three.cache.get(b"k") is None


def test_cut_off_for_longer_than_max_stale_it_stops_serving() -> None:
    fleet = Quiet(2)
    _, two = fleet.hosts
    two.cache.put(b"k")
    two.zk.cut()
    fleet.run(250)
    assert two.cache.get(b"k") is not None
    fleet.run(250)
    assert two.cache.get(b"k") is None
    assert two.node.stats()["stale"] == 1
    two.zk.heal()
    fleet.run(600)
    assert two.cache.get(b"k") is not None, "what it held is visible again once it is fresh"


def test_below_the_floor_is_a_gap() -> None:
    fleet = Quiet(2, keep_seconds=0.1, keep_entries=2, cap_entries=4)
    one, two = fleet.hosts
    two.cache.put(b"k")
    two.zk.cut()
    for n in range(12):
        tell(one, b"%d" % n)
        fleet.run(60)
    fleet.run(1000)
    two.zk.heal()
    fleet.run(600)
    assert (two.node.context.figures.gaps, two.node.context.figures.holes) == (1, 0)
    assert two.cache.get(b"k") is None
    assert applied(two) == (1, 11)


@pytest.mark.parametrize("moved", [False, True], ids=["the same log", "sealed, and another one behind it"])
def test_a_log_that_went_back_and_was_trimmed_up_to_the_next_entry_is_a_gap(moved: bool) -> None:
    """Nothing is left of what was seen last: whether these are the entries that follow it can't be known."""
    fleet = Quiet(2, keep_seconds=0.1, keep_entries=4, rotate_at=8)
    one, two = fleet.hosts
    lengths = []
    for n in range(3):
        tell(one, b"%d" % n)
        fleet.run(60)
        lengths.append(len(fleet.ensemble.log))
    assert applied(two) == (1, 2)
    two.cache.put(b"k")
    two.zk.cut()
    fleet.checkers.on_restore()
    fleet.ensemble.restore(lengths[0])
    fleet.run(1000)
    for n in range(6):
        tell(one, b"k" if n == 0 else b"%d" % n)
        fleet.run(60)
    fleet.run(1000)
    path = f"/cache/invalidation/{fleet.meta()['log']}"
    assert Floor.decode(fleet.ensemble.tree.nodes[path].data).floor == 3, "exactly what the other needs next"
    for n in range(3 * moved):
        tell(one, b"%d" % n)
        fleet.run(60)
    assert (fleet.meta()["gen"] > 1) is moved
    two.zk.heal()
    fleet.run(1200)
    assert not two.cache.is_closed
    assert two.cache.get(b"k") is None
    assert two.node.context.figures.gaps == 1


def test_an_entry_of_another_history_is_another_one_though_it_has_the_same_zxid() -> None:
    """An ensemble goes on from a backup with the epoch that it had when it went on from it the first time."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"0")
    fleet.run(100)
    length, path = len(fleet.ensemble.log), f"/cache/invalidation/{fleet.meta()['log']}/e-0000000001"
    zxids = []
    for key in (b"another", b"k"):
        fleet.checkers.on_restore()
        fleet.ensemble.restore(length)
        append(fleet, b"MI1 x.y.1.0 0\nd " + key)
        zxids.append(fleet.ensemble.tree.nodes[path].czxid)
        if key == b"another":
            fleet.run(1500)
            assert applied(two) == (1, 1)
            two.zk.cut()
            two.cache.put(b"k")
    assert zxids[0] == zxids[1]
    fleet.run(100)
    tell(one, b"2")
    fleet.run(600)
    two.zk.heal()
    fleet.run(1500)
    assert not two.cache.is_closed
    assert two.cache.get(b"k") is None


def test_who_has_flushed_and_not_yet_seen_the_last_entry_flushes_again_on_a_new_connection() -> None:
    """The log may be another one by then: what stands before the next entry is not known."""
    fleet = Quiet(2, max_stale=4.0)
    one, two = fleet.hosts
    lengths = [len(fleet.ensemble.log)]
    for n in range(4):
        tell(one, b"%d" % n)
        fleet.run(100)
        lengths.append(len(fleet.ensemble.log))
    two.node.reader._skip_to(3, "a gap")
    two.zk.cut()
    two.cache.put(b"k")
    fleet.checkers.on_restore()
    fleet.ensemble.restore(lengths[1])
    fleet.run(1000)
    for key in (b"k", b"1", b"2", b"3"):
        tell(one, key)
        fleet.run(100)
    two.zk.heal()
    fleet.run(1500)
    assert not two.cache.is_closed
    assert applied(two) == (1, 4)
    assert two.cache.get(b"k") is None


def test_a_missing_entry_is_a_gap() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.cache.put(b"k")
    two.zk.cut()
    for n in range(3):
        tell(one, b"%d" % n)
        fleet.run(50)
    fleet.by_hand(f"/cache/invalidation/{fleet.meta()['log']}/e-0000000001")
    two.zk.heal()
    fleet.run(800)
    assert (two.node.context.figures.gaps, two.node.context.figures.holes) == (1, 1)
    assert two.cache.get(b"k") is None


def test_an_unknown_entry_flushes() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    host.cache.put(b"k")
    append(fleet, b"MI9 something new")
    fleet.run(100)
    assert host.cache.get(b"k") is None
    assert applied(host) == (1, 0)


def test_all_kinds_of_changes_are_carried_out() -> None:
    fleet = Quiet(1, soft_prefixes=(b"soft:",))
    (host,) = fleet.hosts
    for key in (b"a:1", b"a:2", b"b:1", b"soft:1", b"c:1", b"d d"):
        host.cache.put(key)
    append(fleet, b"MI1 x.y.1.0 0\nP a:\ns 30 b:1\nd soft:1\nR 30 c:\nb ZCBk")
    fleet.run(100)
    assert {key: item.stale for key, item in host.cache.items.items()} == {b"b:1": True, b"soft:1": True, b"c:1": True}
    append(fleet, b"MI1 x.y.1.0 0\nF 1")
    fleet.run(900)
    assert host.cache.items
    fleet.run(200)
    assert not host.cache.items


def test_a_delayed_flush_survives_every_other_flush() -> None:
    """`flush_all 2`, then a flush, a gap and an order for an earlier time: it still comes when it is due."""
    fleet = Quiet(3)
    one, two, three = fleet.hosts
    one.node.submit([Change("flush", b"", 2)], Level.COMMITTED)
    fleet.run(100)
    one.node.flush()
    append(fleet, b"MI1 x.y.1.0 0\nwhat is this")
    append(fleet, b"MI1 x.y.1.0 0\nF 1")
    fleet.run(60)
    three.node.reader._skip_to(3, "a gap")
    fleet.run(1300)
    for host in (two, three):
        host.cache.put(b"k")
    fleet.run(200)
    flushes = two.cache.flush_count
    fleet.run(800)
    assert not two.cache.items
    assert not three.cache.items
    assert two.cache.flush_count > flushes


def test_who_joins_before_a_delayed_flush_is_due_carries_it_out() -> None:
    fleet = Quiet(1)
    (one,) = fleet.hosts
    one.node.submit([Change("flush", b"", 3)], Level.COMMITTED)
    fleet.run(100)
    late = fleet.start("late")
    fleet.run(1500)
    late.cache.put(b"k")
    fleet.run(300)
    assert late.cache.get(b"k") is not None
    fleet.run(1500)
    assert late.cache.get(b"k") is None


def test_a_rotation_takes_delayed_flushes_along() -> None:
    fleet = Quiet(1, rotate_at=3)
    (one,) = fleet.hosts
    one.node.submit([Change("flush", b"", 4)], Level.COMMITTED)
    for n in range(6):
        tell(one, b"%d" % n)
        fleet.run(100)
    assert fleet.meta()["gen"] > 1
    late = fleet.start("late")
    fleet.run(1500)
    late.cache.put(b"k")
    fleet.run(2500)
    assert late.cache.get(b"k") is None


def test_a_delayed_flush_is_due_when_it_was_ordered_not_when_it_was_read() -> None:
    fleet = Quiet(2, max_stale=20.0)
    one, two = fleet.hosts
    two.cache.put(b"k")
    two.process.pause(2500e6)
    one.node.submit([Change("flush", b"", 2)], Level.COMMITTED)
    fleet.run(3500)
    assert two.cache.get(b"k") is None, "it was stopped when the flush was due: done as soon as it is read"


def test_a_flush_that_waits_in_the_queue_keeps_its_time() -> None:
    fleet = Quiet(2)
    one, _ = fleet.hosts
    one.zk.cut()
    one.node.submit([Change("flush", b"", 3)], Level.ASYNC)
    fleet.run(1500)
    one.zk.heal()
    fleet.run(600)
    assert fleet.log()[0].split(b"\n")[1] in {b"F 1", b"F 2"}


def test_a_rotated_log_is_read_to_its_end_and_on() -> None:
    fleet = Quiet(2, rotate_at=5, keep_seconds=60)
    one, two = fleet.hosts
    two.zk.cut()
    for n in range(8):
        two.cache.put(b"%d" % n)
        tell(one, b"%d" % n)
        fleet.run(60)
    two.zk.heal()
    fleet.run(800)
    assert two.node.context.figures.gaps == 0
    assert not two.cache.items
    assert fleet.meta()["gen"] == 2
    assert two.node.reader.applied == one.node.reader.applied


def test_a_log_that_does_not_continue_ours_is_a_gap() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"x")
    fleet.run(50)
    two.cache.put(b"k")
    log = f"/cache/invalidation/{fleet.meta()['log']}"
    fleet.by_hand(*(f"{log}/{name}" for name in list(fleet.ensemble.tree.nodes[log].children)), log, META)
    used = fleet.used()
    fleet.run(1000)
    assert two.cache.get(b"k") is None
    assert two.node.context.figures.gaps == 1
    assert fleet.meta()["gen"] == used + 1 > 2
    assert not two.cache.is_closed


def test_a_log_that_went_back_and_grew_again_is_a_gap() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"x")
    fleet.run(50)
    length = len(fleet.ensemble.log)
    tell(one, b"y")
    fleet.run(50)
    two.cache.put(b"k")
    fleet.checkers.on_restore()
    fleet.ensemble.restore(length)
    append(fleet, b"MI1 x.y.1.0 0\nd k")
    append(fleet, b"MI1 x.y.1.0 0\nd k")
    fleet.run(1500)
    assert two.node.context.figures.gaps == 1
    assert two.cache.get(b"k") is None


def test_a_znode_deleted_by_hand_is_registered_under_a_new_name() -> None:
    fleet = Quiet(1)
    (host,) = fleet.hosts
    name = host.node.membership.name
    fleet.by_hand(f"/cache/nodes/{name}")
    fleet.run(400)
    assert host.node.membership.name not in (name, "")
    assert list(fleet.ensemble.tree.nodes["/cache/nodes"].children) == [host.node.membership.name]
    assert list(fleet.ensemble.tree.nodes["/cache/members"].children) == [host.node.membership.name]


def test_join_serve_serves_before_the_first_certificate_only() -> None:
    fleet = Quiet(0, join="serve")
    fleet.ensemble.writable = False
    host = fleet.start("n1")
    fleet.run(1000)
    host.cache.put(b"k")
    assert host.cache.get(b"k") is not None
    fleet.ensemble.writable = True
    fleet.run(1000)
    assert host.cache.get(b"k") is None, "the join flushes what was stored before"
    host.zk.cut()
    fleet.run(1000)
    assert host.cache.is_closed


def test_a_flush_here_and_everywhere() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    for host in fleet.hosts:
        host.cache.put(b"a:1")
        host.cache.put(b"b:1")
    answer: Any = one.node.flush(b"a:")
    assert list(one.cache.items) == [b"b:1"]
    fleet.run(100)
    assert list(two.cache.items) == [b"b:1"]
    assert answer.result == version(1, 0)
    one.node.refresh(b"", 30)
    fleet.run(100)
    assert two.cache.items[b"b:1"].stale
    one.node.flush()
    fleet.run(100)
    assert not two.cache.items
    assert one.node.submit([Change("delete", b"k")], Level.ASYNC) is None


def test_a_new_log_is_no_lag() -> None:
    fleet = Quiet(2, rotate_at=2)
    for n in range(3):
        tell(fleet.hosts[0], b"k%d" % n)
        fleet.run(50)
    fleet.run(1000)
    assert fleet.meta()["gen"] > 1
    assert [host.node.stats()["lag_entries"] for host in fleet.hosts] == [0, 0]


@pytest.mark.parametrize("direct_max", [64, 0])
def test_who_flushes_for_a_gap_acknowledges_what_the_flush_stands_for(direct_max: int) -> None:
    """It never read that somebody waits: he waited for the next certificate, in a large fleet for the next sheet but one."""
    fleet = Quiet(2, max_stale=4.0, ack_timeout=3.0, direct_max=direct_max, cell_size=4)
    fleet.run(4500)
    one, two = fleet.hosts
    asked: list[int] = []
    want = two.node.reader.on_need_ack

    def on_need_ack(number: int) -> None:
        asked.append(number)
        want(number)

    two.node.reader.on_need_ack = on_need_ack
    two.process.pause(100e6)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(30)
    fleet.by_hand(fleet.path_of_the_last_entry())
    fleet.run(300)
    assert two.node.context.figures.holes == 1
    assert max(asked) == two.node.reader.applied
    if direct_max:
        assert answer.done()
        assert answer.error is None


def test_what_was_missed_is_read_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Quiet(2, max_stale=4.0)
    one, two = fleet.hosts
    two.zk.cut()
    for n in range(5):
        tell(one, b"k%d" % n)
        fleet.run(50)
    asked: list[int] = []
    read = two.zk.gets

    def gets(paths: Sequence[str]) -> Any:
        asked.append(len(paths))
        return read(paths)

    monkeypatch.setattr(two.zk, "gets", gets)
    two.zk.heal()
    fleet.run(1000)
    assert asked == [5]
    assert applied(two) == applied(one) == (1, 4)


def test_a_machine_that_slept_when_a_delayed_flush_was_due_carries_it_out_before_it_is_fresh() -> None:
    """Timers stand still while a machine sleeps; the clock that the gate goes by does not."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    one.node.submit([Change("flush", b"", 2)], Level.COMMITTED)
    fleet.run(100)
    two.cache.put(b"k")
    two.process.sleep(3000e6)
    fleet.run(3000)
    while two.cache.is_closed:
        fleet.run(1)
    assert two.cache.get(b"k") is None


@pytest.mark.parametrize(("jump", "before", "behind"), [(10, 100, 500), (-5, 6500, 7500)])
def test_a_delayed_flush_moves_with_the_clock_of_zookeepers_leader(jump: int, before: int, behind: int) -> None:
    """... as for those who join later, and read the time in the log's record."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    one.node.submit([Change("flush", b"", 2)], Level.COMMITTED)
    fleet.run(100)
    fleet.ensemble.clock += jump * 10**9
    fleet.run(before - 100)
    if before > 5500:  # one second before it all is flushed, too
        two.cache.put(b"k")
    flushes = two.cache.flush_count
    two.cache.put(b"k")
    fleet.run(behind - before)
    assert two.cache.get(b"k") is None
    assert two.cache.flush_count > flushes


def test_a_delayed_flush_that_no_timer_has_carried_out_is_not_taken_for_done_by_the_next_process() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    tell(one, b"0")
    one.node.submit([Change("flush", b"", 1)], Level.COMMITTED)
    fleet.run(200)
    two.cache.put(b"k")
    two.process.sleep(1500e6)
    fleet.run(1400)
    place = two.node.place()
    assert place is not None
    assert two.cache.items
    assert place["later"]
    assert not place["done"]
    fleet.run(400)
    place = two.node.place()
    assert place is not None
    assert not two.cache.items
    assert not place["later"]
    assert place["done"]


def test_any_number_of_delayed_flushes_is_one_timer_and_the_last_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may order them without end, for days ahead."""
    fleet = Quiet(2, batch_keys=50, write_rate=1000.0)
    one, two = fleet.hosts
    timers: list[Timer] = []
    call_later = two.process.call_later

    def noting(seconds: float, callback: Callable[[], None]) -> Timer:
        timer = call_later(seconds, callback)
        if seconds > 5:
            timers.append(timer)
        return timer

    monkeypatch.setattr(two.process, "call_later", noting)
    for ttl in range(30, 1030):
        one.node.submit([Change("flush", b"", ttl)], Level.ASYNC)
        if ttl % 50 == 0:
            fleet.run(20)
    one.node.submit([Change("flush", b"", 6)], Level.COMMITTED)
    fleet.run(1000)
    assert sum(timer.callback is not None for timer in timers) <= 1
    place = two.node.place()
    assert place is not None
    assert len(place["later"]) <= 256
    fleet.run(4500)
    two.cache.put(b"k")
    assert two.cache.items
    fleet.run(700)
    assert not two.cache.items
