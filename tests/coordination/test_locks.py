"""Locked writes: order, exclusion, loss."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mcserver.coordination.ports import Level, LockLost

from .quiet import Quiet
from .simulator.fleet import Host
from .simulator.scheduler import MS, Timer


def write(host: Host, key: bytes, done: list[str]) -> Any:
    def put() -> None:
        done.append(host.process.name)
        host.cache.put(key)

    return host.node.locked(key, put)


def test_the_invalidation_is_in_the_log_before_the_write() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.cache.put(b"k")
    seen: list[bytes] = []
    answer: Any = one.node.locked(b"k", lambda: seen.extend(fleet.log()))
    fleet.run(100)
    assert answer.done()
    assert answer.error is None
    assert b"d k" in seen[0]
    assert two.cache.get(b"k") is None


def test_a_lock_is_kept_until_somebody_else_wants_it() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(100)
    assert (one.node.stats()["locks_held"], two.node.stats()["locks_held"]) == (1, 0)
    write(two, b"k", done)
    fleet.run(150)
    assert (one.node.stats()["locks_held"], two.node.stats()["locks_held"]) == (0, 1)
    assert done == ["n1.0", "n2.0"]
    assert two.node.stats()["lock_waits"] in (0, 1)  # the first may have given way before the second looked


def test_writers_of_one_bucket_take_turns() -> None:
    fleet = Quiet(3, lock_buckets=1)
    done: list[str] = []
    answers = [write(host, b"%d" % n, done) for n in range(5) for host in fleet.hosts]
    fleet.run(900)
    assert all(answer.done() and answer.error is None for answer in answers)
    assert len(done) == 15


def test_without_zookeeper_the_lock_is_lost_and_nothing_is_written() -> None:
    fleet = Quiet(2)
    one, _ = fleet.hosts
    done: list[str] = []
    one.zk.cut()
    answer = write(one, b"k", done)
    fleet.run(1100)
    assert isinstance(answer.error, LockLost)
    assert done == []
    one.zk.heal()
    fleet.run(600)
    assert done == []


def test_each_lock_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Quiet(3, lock_buckets=2, write_rate=1000.0)
    asked: Counter[str] = Counter()
    for host in fleet.hosts:

        def delete(path: str, version: int = -1, delete: Any = host.zk.delete) -> Any:
            asked[path] += 1
            return delete(path, version)

        monkeypatch.setattr(host.zk, "delete", delete)
    done: list[str] = []
    for n in range(60):
        write(fleet.hosts[n * 7 % 3], b"k%d" % (n % 4), done)
        fleet.run(n % 8)
    fleet.run(400)
    given_up = {path: times for path, times in asked.items() if "/locks/" in path}
    assert len(done) == 60
    assert len(given_up) > 5
    assert set(given_up.values()) == {1}


def test_a_lock_deleted_by_hand_is_lost() -> None:
    fleet = Quiet(2, lock_buckets=1)
    one, _ = fleet.hosts
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(100)
    (name,) = fleet.ensemble.tree.nodes["/cache/locks/00"].children
    for server in fleet.ensemble.servers:
        server.behind = 50 * MS  # what it reads is from before
    fleet.by_hand(f"/cache/locks/00/{name}")
    answer = write(one, b"k", done)
    fleet.run(40)
    for server in fleet.ensemble.servers:
        server.behind = 0
    fleet.run(200)
    assert isinstance(answer.error, LockLost)
    assert done == ["n1.0"], "the second had no effect"
    again = write(one, b"k", done)
    fleet.run(200)
    assert again.error is None


def test_a_commit_that_is_answered_late_proves_no_lock() -> None:
    fleet = Quiet(1, lock_buckets=1, lock_window=0.05, reply_deadline=0.3, max_stale=4.0)
    (one,) = fleet.hosts
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(100)
    answer = write(one, b"k", done)
    while not one.zk.writes:
        fleet.run(0.1)
    one.process.pause(80e6)
    fleet.run(300)
    assert isinstance(answer.error, LockLost)
    assert done == ["n1.0"]


def test_a_dead_holder_gives_way_when_its_session_ends() -> None:
    fleet = Quiet(2, lock_buckets=1)
    one, two = fleet.hosts
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(100)
    one.kill()
    fleet.hosts.remove(one)
    answer = write(two, b"k", done)
    fleet.run(900)
    assert answer.done()
    assert done == ["n1.0", "n2.0"]


def test_after_leaving_no_lock_is_taken() -> None:
    fleet = Quiet(1)
    (one,) = fleet.hosts
    one.process.spawn(one.node.leave(0.1), "leave")
    fleet.run(300)
    assert isinstance(write(one, b"k", []).error, LockLost)


def test_at_level_applied_the_others_have_lost_the_key_before_the_write() -> None:
    fleet = Quiet(2, ack=Level.APPLIED)
    one, two = fleet.hosts
    two.cache.put(b"k")
    seen: list[Any] = []
    answer: Any = one.node.locked(b"k", lambda: seen.append(two.cache.get(b"k")))
    fleet.run(150)
    assert answer.done()
    assert seen == [None]


def test_at_level_applied_a_peer_that_says_nothing_means_no_write() -> None:
    fleet = Quiet(2, ack=Level.APPLIED, max_stale=4.0)
    one, two = fleet.hosts
    two.process.pause(3000e6)
    done: list[str] = []
    answer = write(one, b"k", done)
    fleet.run(1200)
    assert isinstance(answer.error, LockLost)
    assert done == []
    fleet.run(3000)
    assert not one.cache.is_closed
    answer = write(one, b"k", done)
    fleet.run(300)
    assert done == ["n1.0"], "the bucket goes on"


def test_a_lock_that_nobody_else_wants_is_watched_once() -> None:
    """Each watch costs the client memory until it fires: for ever, when nobody comes."""
    fleet = Quiet(2)
    one, two = fleet.hosts
    done: list[str] = []
    for _ in range(50):
        write(one, b"k", done)
        fleet.run(20)
    (watches,) = [
        watches for (kind, path), watches in one.zk._watches.items() if "/locks/" in path and kind == "children"
    ]
    assert len(watches) == 1
    write(two, b"k", done)
    fleet.run(150)
    assert done == ["n1.0"] * 50 + ["n2.0"]


def test_an_outage_keeps_no_more_writes_than_clients_wait_for() -> None:
    fleet = Quiet(1, ack_timeout=0.2)
    (one,) = fleet.hosts
    write(one, b"k", [])
    fleet.run(100)
    one.zk.cut()
    fleet.run(300)
    answers = []
    for _ in range(100):
        answers.append(write(one, b"k", []))
        fleet.run(20)
    (bucket,) = one.node.locks._buckets.values()
    assert len(bucket.requests) <= 12
    one.zk.heal()
    fleet.run(800)
    assert all(answer.done() for answer in answers)
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(200)
    assert done == ["n1.0"]


def test_a_write_that_is_done_has_no_timer_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """--ack-timeout may be an hour, and a timer keeps the client's session."""
    fleet = Quiet(1, ack_timeout=3600.0)
    (one,) = fleet.hosts
    timers: list[Timer] = []
    call_later = one.process.call_later

    def noting(seconds: float, callback: Any) -> Timer:
        timer = call_later(seconds, callback)
        if seconds == 3600.0:
            timers.append(timer)
        return timer

    monkeypatch.setattr(one.process, "call_later", noting)
    done: list[str] = []
    for _ in range(3):
        write(one, b"k", done)
        fleet.run(100)
    assert [timer.callback for timer in timers] == [None] * 3


def test_a_place_in_the_queue_that_cannot_be_seen_yet_is_given_up_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer is lost, the next server is late, and the client has gone: the znode would stand until the session ends."""
    fleet = Quiet(2, lock_buckets=1, ack_timeout=0.1, max_stale=4.0)
    one, two = fleet.hosts
    bucket, asked = "/cache/locks/00", []
    really_children, really_set = one.zk.children, one.zk.set

    async def children(path: str, watch: Any = None) -> Any:
        names, stat = await really_children(path, watch)
        if path == bucket:
            asked.append("looked")
        return ([] if path == bucket and asked == ["looked"] else names), stat

    async def set_data(path: str, data: bytes, version: int = -1) -> Any:
        answer = await really_set(path, data, version)
        if path == bucket:
            asked.append("behind a write")
        return answer

    monkeypatch.setattr(one.zk, "children", children)
    monkeypatch.setattr(one.zk, "set", set_data)
    answer = write(one, b"k", [])
    while not (bucket in fleet.ensemble.tree.nodes and fleet.ensemble.tree.nodes[bucket].children):
        fleet.run(0.1)
    one.zk.cut()
    fleet.run(150)
    one.zk.heal()
    fleet.run(600)
    assert isinstance(answer.error, LockLost)
    done: list[str] = []
    for _ in range(2):
        write(two, b"k", done)
        fleet.run(200)
    assert done[-1:] == ["n2.0"]


def test_numbers_of_candidates_begin_anew_long_before_they_are_used_up() -> None:
    fleet = Quiet(2, lock_buckets=1)
    one, two = fleet.hosts
    done: list[str] = []
    write(one, b"k", done)
    fleet.run(100)
    write(two, b"k", done)
    fleet.run(200)
    trees = (fleet.ensemble.tree, *(server.tree for server in fleet.ensemble.servers if server.connections))
    for tree in trees:
        tree.nodes["/cache/locks/00"].creates = (1 << 30) + 5
    for host in (one, two, one, two):
        write(host, b"k", done)
        fleet.run(300)
    assert len(done) == 6
    assert fleet.ensemble.tree.nodes["/cache/locks/00"].creates < 1000
