"""What is appended or prepended to a value in pieces may need more than a tail's piece, and must not run over its end."""

import pytest

from tests.core.harness import MIB, crawl, fresh
from tests.stateful.invariants import check_figures


@pytest.mark.parametrize("verb", [b"append", b"prepend"])
@pytest.mark.parametrize("size", [900, 1100, 3000, 4100, 6595, 10_000, 12_200, 16_000])
def test_every_byte_is_there(verb: bytes, size: int) -> None:
    client = fresh(memory_limit=8 * MIB)
    want = bytes(range(251)) * 132  # 33,132 bytes: two whole pieces and a short one
    client.set(b"k", want)
    for i in range(60):
        client.set(b"n%d" % i, b"n" * 4000)
    for i in range(5):
        more = bytes([65 + i]) * size
        assert client.send(b"%b k 0 0 %d\r\n%b\r\n" % (verb, size, more)) == b"STORED\r\n"
        want = want + more if verb == b"append" else more + want
        assert client.get(b"k") == want
    for i in range(60):
        client.set(b"m%d" % i, b"m" * 4000)
        assert client.get(b"n%d" % i) == b"n" * 4000
    assert client.get(b"k") == want
    check_figures(client.engine)
    client.engine.flush()
    crawl(client.engine)
    assert client.engine.stats()["curr_items"] == 0


@pytest.mark.parametrize("size", [4100, 6595, 10_000, 16_000])
def test_a_large_value_behind_one_in_a_chunk(size: int) -> None:
    client = fresh(memory_limit=8 * MIB)
    want = b"s" * size
    client.set(b"k", want)
    assert client.send(b"append k 0 0 40000\r\n" + b"l" * 40_000 + b"\r\n") == b"STORED\r\n"
    want += b"l" * 40_000
    assert client.get(b"k") == want
    check_figures(client.engine)
