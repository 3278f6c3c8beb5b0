"""Looking in: the value that a get would give, and nothing that tells of it."""

from __future__ import annotations

import random

import pytest

from tests.core.harness import fresh


@pytest.mark.parametrize("size", [0, 1, 1000, 40_000, 900_000])
def test_a_value_of_any_size_comes_whole(size: int) -> None:
    client = fresh(slab_chunk_max=16 << 10)
    value = random.Random(size).randbytes(size)
    client.set(b"a", value)
    client.send(b"append a 0 0 3\r\nend\r\n")
    assert client.engine.peek(b"a") == value + b"end"


def test_what_is_dead_is_not_there_and_stays_where_it_was() -> None:
    client = fresh()
    for key in (b"expired", b"user:1", b"lives"):
        client.set(key, b"1", exptime=5 if key == b"expired" else 0)
    client.engine.flush_prefix(b"user:")
    client.engine.advance(6)
    assert [client.engine.peek(key) for key in (b"expired", b"user:1", b"lives", b"none")] == [None, None, b"1", None]
    stats = client.engine.stats()
    assert (stats["curr_items"], stats["get_expired"], stats["get_flushed"]) == (3, 0, 0)
    client.engine.flush_all()
    client.engine.advance(1)
    assert client.engine.peek(b"lives") is None


@pytest.mark.parametrize("key", [b"", b"k" * 251])
def test_what_is_no_key_is_not_there(key: bytes) -> None:
    assert fresh().engine.peek(key) is None


@pytest.mark.parametrize(("gate", "value"), [("miss", None), ("error", None), ("serve", b"1"), (None, b"1")])
def test_it_is_answered_as_the_gate_says(gate: str | None, value: bytes | None) -> None:
    client = fresh()
    client.set(b"a", b"1")
    client.engine.set_gate(gate, 0)
    assert client.engine.peek(b"a") == value


def test_a_lease_is_not_won() -> None:
    client = fresh()
    client.set(b"a", b"1")
    client.engine.mark_stale(b"a")
    for _ in range(2):
        assert client.engine.peek(b"a") == b"1"
    assert client.send(b"mg a v h\r\n").startswith(b"VA 1 h0 X W\r\n")
    assert client.send(b"mg new N30\r\n") == b"HD W\r\n"
    assert client.engine.peek(b"new") == b"", "somebody's lease"
