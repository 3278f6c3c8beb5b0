"""The text of an entry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcserver.coordination.entry import decode, encode, line
from mcserver.coordination.ports import Change

KEYS = st.binary(min_size=1, max_size=40)
PREFIXES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20).map(str.encode)
TTLS = st.integers(-1, (1 << 31) - 1)
CHANGES = st.one_of(
    st.builds(Change, st.just("delete"), KEYS, st.just(0)),
    st.builds(Change, st.just("stale"), KEYS, TTLS),
    st.builds(Change, st.just("flush"), st.just(b""), st.integers(0, (1 << 31) - 1)),
    st.builds(Change, st.just("prefix"), PREFIXES, st.just(0)),
    st.builds(Change, st.just("refresh"), st.one_of(st.just(b""), PREFIXES), st.integers(0, (1 << 31) - 1)),
)


@pytest.mark.slow
@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(CHANGES), st.booleans())
def test_what_is_written_is_read(changes: list[Change], need_ack: bool) -> None:
    entry = decode(encode("n1.b.1.0", need_ack, map(line, changes)))
    assert entry is not None
    assert (entry.name, entry.need_ack, entry.changes) == ("n1.b.1.0", need_ack, changes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("delete", b"user:1"), b"d user:1"),
        (Change("delete", b"a b"), b"b YSBi"),
        (Change("delete", b"line\nbreak"), b"b bGluZQpicmVhaw=="),
        (Change("stale", b"k", 30), b"s 30 k"),
        (Change("stale", b"\x00", 30), b"t 30 AA=="),
        (Change("flush"), b"F"),
        (Change("flush", b"", 5), b"F 5"),
        (Change("prefix", b"user:"), b"P user:"),
        (Change("prefix", b""), b"F"),
        (Change("refresh", b"user:", 60), b"R 60 user:"),
        (Change("refresh", b"", 60), b"R 60"),
    ],
)
def test_each_change_has_its_line(change: Change, text: bytes) -> None:
    assert line(change) == text


@pytest.mark.parametrize("change", [Change("prefix", b"a b"), Change("refresh", b"a\n", 1), Change("rename", b"k")])
def test_what_cannot_be_written_is_refused(change: Change) -> None:
    with pytest.raises(ValueError, match=r"prefix|unknown"):
        line(change)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MI3 n 0\nd k",
        b"MI1 n\nd k",
        b"MI1 n x\nd k",
        b"MI1 n 0\nz k",
        b"MI1 n 0\nb not-base64!",
        b"MI1 n 0\ns k",
        b"MI1 n 0\nF soon",
        b"MI1 n 0\nP",
        b"MI1 n 0\n",
    ],
)
def test_anything_else_is_unknown(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.slow
@settings(deadline=None)  # a loaded machine is no failure
@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    decode(data)
    decode(b"MI1 n 0\n" + data)
