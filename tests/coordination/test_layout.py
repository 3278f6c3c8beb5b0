"""Paths, versions and records."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcserver.coordination.layout import (
    UNKNOWN,
    Floor,
    Layout,
    MemberRecord,
    Meta,
    NodeRecord,
    head_of,
    sequence_of,
    version,
)
from mcserver.coordination.ports import Malformed, Stat


def test_skeleton_has_parents_first() -> None:
    paths = Layout("/mc/prod").skeleton()
    assert paths[:2] == ["/mc", "/mc/prod"]
    assert paths[-1] == "/mc/prod/invalidation"


def test_entries_are_found_by_sequence() -> None:
    layout = Layout("/cache")
    assert layout.entry("log-1-a", 7) == layout.entries("log-1-a") + "0000000007"
    assert sequence_of(layout.entry("log-1-a", 7)) == 7


def test_a_key_stays_in_its_bucket() -> None:
    layout = Layout("/cache")
    assert layout.bucket(b"k", 64) == layout.bucket(b"k", 64)
    assert {layout.bucket(b"%d" % n, 4) for n in range(100)} == {f"/cache/locks/0{n}" for n in range(4)}


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_head_is_known_from_the_stat_after_any_trim(created: int, deleted: int) -> None:
    left = max(0, created - deleted)
    assert head_of(Stat(0, 0, 0, 2 * created - left, left, 0)) == created - 1


def test_versions_are_ordered_over_logs() -> None:
    order = [UNKNOWN, version(1, -1), version(1, 0), version(1, 5), version(2, -1), version(2, 0)]
    assert order == sorted(order)
    assert version(1, (1 << 32) - 2) < version(2, -1)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.integers(0, 5), st.integers(-1, 1 << 28))
def test_records_come_back(gen: int, sequence: int) -> None:
    node = NodeRecord("h:1", "ready", version(gen, sequence), "n.b")
    assert NodeRecord.decode(node.encode()) == node
    meta = Meta(gen, f"log-{gen}-a", None, 17)
    assert Meta.decode(meta.encode()) == meta
    assert Floor.decode(Floor(sequence, 3, True).encode()) == Floor(sequence, 3, True)
    assert MemberRecord.decode(MemberRecord(10.0, "miss").encode()) == MemberRecord(10.0, "miss")


@pytest.mark.parametrize("data", [b'{"format": 3, "gen": 1}', b"[]", b"nonsense"])
def test_a_newer_meta_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"format|not readable"):
        Meta.decode(data)
