"""append and prepend wrote a value of up to three tail pieces into one of them, and over what lay behind it."""

import pytest

from tests.core.harness import MIB, fresh


@pytest.mark.slow
@pytest.mark.parametrize("verb", [b"append", b"prepend"])
@pytest.mark.parametrize("slab_chunk_max", [1024, 16_384, MIB])
@pytest.mark.parametrize(
    ("first", "more"), [(12_158, 152_416), (152_416, 12_158), (5000, 20_000), (700, 1200), (20_000, 3500)]
)
def test_nothing_is_lost_or_overwritten(verb: bytes, slab_chunk_max: int, first: int, more: int) -> None:
    client = fresh(memory_limit=4 * MIB, item_size_max=MIB, slab_chunk_max=slab_chunk_max)
    old, new = (b"<old>" * first)[:first], (b"<new!>" * more)[:more]
    others = {b"o%d" % i: (b"%d," % i * 4000)[: 500 * (i % 30)] for i in range(200)}
    for key, value in others.items():
        client.set(key, value)
    for i in range(20):
        key = b"k%d" % i
        client.set(key, old)
        assert client.send(b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, more, new)) == b"STORED\r\n"
        assert client.get(key) == (old + new if verb == b"append" else new + old)
    for key, value in others.items():
        assert client.get(key) in {value, None}
