"""The roll: whoever follows it, however late, sees what the leader sees; and one short read tells what has changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcserver.coordination.layout import MemberRecord
from mcserver.coordination.ports import Level, Malformed
from mcserver.coordination.roll import KEPT, NEWS, Listing, News, Roll, Row, next_news
from mcserver.testing.tree import Delta

from .quiet import Quiet, tell

NEWS_PATH, LIST_PATH = "/cache/roll/news", "/cache/roll/list"


def row(number: int, state: str = "ready") -> Row:
    return Row(MemberRecord(10.0, "miss", f"h{number}:11211", 2), state)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sets(st.integers(0, 40)), st.booleans()), max_size=30))
def test_whoever_follows_sees_what_the_leader_sees(steps: list[tuple[set[int], bool]]) -> None:
    """Each step: who is there then, and whether the follower looks."""
    news, listing = News("a", "l", 0, 0, ()), Listing("a", 0, {})
    leader, follower = Roll(), Roll()
    leader.mark = "a"
    for version, (there, looks) in enumerate(steps):
        rows = {f"m{number}": row(number) for number in sorted(there)}
        news = news._replace(version=version)
        news, renewed = next_news(news, leader.differences(rows), rows)
        listing = renewed or listing
        leader.start(Listing("a", news.serial, rows))
        assert len(news.changes) <= NEWS
        assert news.base <= listing.serial <= news.serial, "the news reach back to the list"
        if looks:
            read = News.decode(news.encode())
            if not follower.follow(read):
                follower.start(Listing.decode(listing.encode()))
                assert follower.follow(read)
            assert follower.rows == rows
            assert follower.version == version


def test_many_changes_make_a_new_list_and_short_news() -> None:
    rows = {f"m{number}": row(number) for number in range(NEWS + 1)}
    news, listing = next_news(News("a", "l", 0, 0, ()), Roll().differences(rows), rows)
    assert (len(news.changes), news.serial) == (KEPT, NEWS + 1)
    assert listing == Listing("a", NEWS + 1, rows)


@pytest.mark.parametrize("field", ["mark", "leader", "version", "base", "changes"])
def test_news_that_nobody_of_ours_wrote_are_refused(field: str) -> None:
    good = json.loads(News("a", "l", 1, 2, ()).encode())
    odd: Any
    for odd in (None, -1, "", "a b\n", [1], [["x", 1]], [["x y", None]], {}, 1 << 70, True, [["x", [1, 2, 3, 4, 5]]]):
        record: dict[str, Any] = {**good, field: odd}
        if odd == good[field] or (field == "changes" and odd == []):
            continue
        with pytest.raises(Malformed):
            News.decode(json.dumps(record).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b'{"mark": "a", "serial": 1, "rows": {"a b": []}}', b'{"mark": 1}'])
def test_lists_that_nobody_of_ours_wrote_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Listing.decode(data)


# In a fleet -----------------------------------------------------------------------------------------------------------------


def views(fleet: Quiet) -> set[tuple[int, tuple[str, ...]]]:
    live = [host for host in fleet.hosts if host.is_live]
    return {(host.node.members()[0], tuple(member.address for member in host.node.members()[1])) for host in live}


def test_everybody_sees_the_same_members_and_the_same_version() -> None:
    fleet = Quiet(5)
    ((version, seen),) = views(fleet)
    assert len(seen) == 5
    fleet.start("n6")
    fleet.run(300)
    ((later, seen),) = views(fleet)
    assert (later > version, len(seen)) == (True, 6)
    fleet.hosts[2].kill()
    fleet.run(900)
    ((last, seen),) = views(fleet)
    assert (last > later, len(seen)) == (True, 5)


def test_a_version_is_the_same_list_at_every_moment() -> None:
    """A leader that had seen a server come told the new list under the old version, until the roll was written."""
    fleet = Quiet(3)
    told: dict[int, set[tuple[str, ...]]] = {}
    seen: set[tuple[int, int]] = set()

    def run(moments: int) -> None:
        for _ in range(moments):
            fleet.run(1)
            for host in [host for host in fleet.hosts if host.is_live]:
                version, addresses = host.node.discovery()
                told.setdefault(version, set()).add(tuple(addresses))
                seen.add((version, len(host.node.members()[1])))

    fleet.start("n4")
    run(300)
    fleet.hosts[1].kill()
    run(900)
    assert told.pop(0) == {()}, "who has just started knows nobody"
    assert [len(addresses) for (addresses,) in told.values()] == [3, 4, 3]
    assert len(seen) > len(told), "somebody knew earlier than the list said"


def test_a_change_is_one_read_for_everybody_else() -> None:
    fleet = Quiet(5, max_stale=40.0)
    fleet.run(500)
    others = [host for host in fleet.hosts if not host.node.election.is_leader]
    before = [host.node.context.reads for host in others]
    fleet.start("n6")
    fleet.run(300)
    grown = [host.node.context.reads - was for host, was in zip(others, before, strict=True)]
    assert all(1 <= reads <= 2 for reads in grown), (grown, "once when it joins, once when it is ready")


def test_states_are_shown_without_asking() -> None:
    fleet = Quiet(3)
    assert [member.state for member in fleet.hosts[1].node.members()[1]] == ["ready"] * 3


def test_the_next_leader_goes_on_with_the_roll() -> None:
    fleet = Quiet(3)
    mark = json.loads(fleet.ensemble.tree.nodes[NEWS_PATH].data)["mark"]
    first = fleet.leading()
    first.kill()
    fleet.run(900)
    second = next(host for host in fleet.hosts if host.is_live and host.node.election.is_leader)
    assert json.loads(fleet.ensemble.tree.nodes[NEWS_PATH].data)["mark"] == mark
    assert {host.node.leader() for host in fleet.hosts if host.is_live} == {second.node.membership.name}


@pytest.mark.parametrize("data", [b"{}", b"what", b'{"mark":"zz","leader":"x","version":1,"base":7,"changes":[]}'])
@pytest.mark.parametrize("path", [NEWS_PATH, LIST_PATH])
def test_a_roll_that_was_spoilt_is_made_anew_by_the_next_leader(path: str, data: bytes) -> None:
    fleet = Quiet(3)
    fleet.ensemble.change_by_hand([Delta("set", path, data)])
    fleet.run(100)
    fleet.leading().kill()
    fleet.run(1200)
    ((_, seen),) = views(fleet)
    assert len(seen) == 2


def test_a_roll_that_was_deleted_is_made_anew() -> None:
    fleet = Quiet(3)
    fleet.by_hand(NEWS_PATH, LIST_PATH)
    fleet.start("n4")
    fleet.run(800)
    ((_, seen),) = views(fleet)
    assert len(seen) == 4


def test_an_absence_that_the_roll_has_told_counts_from_then_on() -> None:
    """A delete at level applied that comes long after a member has died need not wait for it anew."""
    fleet = Quiet(3, member_margin=30.0)
    leader = fleet.leading()
    dead, other = (host for host in fleet.hosts if host is not leader)
    dead.kill()
    fleet.run(1100)  # 400 ms until its session ends, 420 until its gate is closed for certain
    answer = tell(other, b"k", Level.APPLIED)
    fleet.run(60)
    assert answer.done()
    assert answer.error is None


def test_what_was_known_on_another_connection_is_not_relied_on() -> None:
    """An ensemble restored from a backup goes on with the roll: the same mark, the same serials, other changes."""
    fleet = Quiet(3)
    other = next(host for host in fleet.hosts if not host.node.election.is_leader)
    other.node.membership.roll.rows["never.aa.1.0"] = row(9)
    other.zk.cut()
    fleet.run(150)
    other.zk.heal()
    fleet.run(300)
    ((_, seen),) = views(fleet)
    assert len(seen) == 3
