"""A unique that doesn't fit is told before a value that is no number; but of an item that memcached would keep in pieces (above
slab_chunk_max) it is told first that it is no number.
"""

from __future__ import annotations

import pytest

from tests.core.harness import fresh

NON_NUMERIC = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"


@pytest.mark.parametrize(
    ("size", "reply"),
    [(2, b"EX\r\n"), (16_383, b"EX\r\n"), (70_000, b"EX\r\n"), (520_000, b"EX\r\n"), (525_000, NON_NUMERIC)],
)
def test_another_unique_is_told_before_what_is_no_number(size: int, reply: bytes) -> None:
    client = fresh()
    assert client.set(b"a", b"y" * size) == b"STORED\r\n"
    assert client.send(b"ma a C7\r\n") == reply
    assert client.send(b"ma a\r\n") == NON_NUMERIC


def test_of_smaller_pieces() -> None:
    client = fresh(slab_chunk_max=1024)
    assert client.set(b"a", b"y" * 2000) == b"STORED\r\n"
    assert client.send(b"ma a C7\r\n") == NON_NUMERIC


@pytest.mark.parametrize("size", [200, 16_383, 70_000, 500_000])
def test_a_number_before_other_words(size: int) -> None:
    """memcached reads what stands before the first blank, however long the value is, and pads the new number to its length."""
    client = fresh()
    assert client.set(b"a", b"y" * size) == b"STORED\r\n"
    assert client.send(b"prepend a 0 0 3\r\n17 \r\n") == b"STORED\r\n"
    assert client.send(b"incr a 84\r\n") == b"101\r\n"
    assert client.get(b"a") == b"101".ljust(size + 3)
    assert client.send(b"decr a 100\r\n") == b"1\r\n"
    assert client.get(b"a") == b"1".ljust(size + 3)


def test_a_number_must_have_ended() -> None:
    client = fresh()
    assert client.set(b"a", b"0" * 70_000) == b"STORED\r\n"
    assert client.send(b"incr a 1\r\n") == NON_NUMERIC
    assert client.set(b"a", b"y" * 70_000) == b"STORED\r\n"
    assert client.send(b"prepend a 0 0 2\r\n17\r\n") == b"STORED\r\n"
    assert client.send(b"incr a 1\r\n") == NON_NUMERIC
