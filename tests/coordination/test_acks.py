"""The level `applied`: who is waited for, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from mcserver.coordination.ports import Level, NotConfirmed

from .quiet import Quiet, tell


def test_alone_it_is_confirmed_at_the_commit() -> None:
    fleet = Quiet(1)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(30)
    assert answer.done()


def test_a_peer_confirms_in_a_few_trips() -> None:
    fleet = Quiet(3)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(60)
    assert answer.done()
    assert all(host.node.reader.applied == answer.result for host in fleet.hosts)


def test_a_killed_peer_is_waited_for_until_its_gate_must_be_closed() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.kill()
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(600)  # the session ends after 400 ms at most; then max_stale, 400 ms
    assert not answer.done()
    fleet.run(350)
    assert answer.error is None
    assert answer.done()


def test_a_peer_whose_session_was_ended_by_force_still_counts() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.zk.cut()
    fleet.ensemble.end_session(fleet.ensemble.sessions[two.zk.session], forced=True)
    fleet.run(50)
    two.cache.put(b"k")
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(250)
    assert two.cache.get(b"k") is not None
    assert not answer.done()
    fleet.run(300)
    assert two.cache.get(b"k") is None
    assert answer.done()


def test_a_peer_that_takes_a_new_session_is_not_waited_for_twice() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    fleet.ensemble.end_session(fleet.ensemble.sessions[two.zk.session], forced=True)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(250)
    assert answer.done(), "its old record goes as soon as the new session has a certificate"


def test_a_peer_that_left_is_not_waited_for() -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts
    two.process.spawn(two.node.leave(0.1), "leave")
    fleet.run(200)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(40)
    assert answer.done()


def test_a_peer_that_serves_stale_is_named_and_not_waited_for() -> None:
    fleet = Quiet(1)
    from dataclasses import replace

    fleet.settings = replace(fleet.settings, on_stale="serve")
    two = fleet.start("n2")
    fleet.run(300)
    two.zk.cut()
    one = fleet.hosts[0]
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(60)
    assert answer.done()
    assert one.node.stats()["not_waited_for"] == two.node.membership.name


def test_a_peer_that_stays_silent_ends_in_not_confirmed() -> None:
    fleet = Quiet(2, max_stale=4.0)
    one, two = fleet.hosts
    two.zk.cut()
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(1100)
    assert isinstance(answer.error, NotConfirmed)
    assert one.node.stats()["unconfirmed"] == 1


def test_who_comes_back_looks_as_soon_as_it_may() -> None:
    fleet = Quiet(2, max_stale=4.0, ack_timeout=3.0)
    one, _ = fleet.hosts
    fleet.ensemble.end_session(fleet.ensemble.sessions[one.zk.session], forced=True)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(400)
    assert answer.done()


def test_many_wait_for_one_look() -> None:
    fleet = Quiet(3)
    answers = [tell(host, b"%d" % n, Level.APPLIED) for n in range(10) for host in fleet.hosts]
    fleet.run(300)
    assert all(answer.done() and answer.error is None for answer in answers)


@pytest.mark.parametrize("late", [False, True])
def test_a_look_during_which_the_connection_changes_confirms_nothing_by_itself(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers had come when it changed: what the look had found was thrown away, and nobody seemed to be left to wait for."""
    fleet = Quiet(3, direct_max=0, cell_size=4)
    fleet.run(800)
    one, two, _ = fleet.hosts
    two.process.pause(300e6)
    acks, cells = one.node.acks, one.node.cells
    read, by_records = cells.read, acks._by_records

    async def changed(*args: Any) -> Any:
        answer = await read(*args)
        acks.session_changed()
        return answer

    async def changed_late(names: Any) -> Any:
        answer = await by_records(names)
        acks.session_changed()
        return answer

    if late:
        monkeypatch.setattr(acks, "_by_records", changed_late)
    else:
        monkeypatch.setattr(cells, "read", changed)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(270)
    assert not answer.done()
