"""Loads that mean the policy no good: what must stay true however sizes, scans and lifetimes are mixed, in small memories."""

import itertools
import random

import pytest

from tests.core.harness import MIB, Client, fill, fresh, held, settle
from tests.stateful.invariants import check_figures, check_lists

SMALL = [(2, MIB), (4, MIB), (8, MIB), (4, 1024)]


def stores(client: Client, key: bytes, size: int, exptime: int = 0) -> None:
    assert client.set(key, b"x" * size, exptime=exptime) == b"STORED\r\n"


def left(client: Client) -> int:
    """Items that are gone though nobody deleted them."""
    figures = client.engine.stats()
    return sum(int(figures[name]) for name in ("evictions", "reclaimed", "crawler_reclaimed"))


@pytest.mark.slow
@pytest.mark.parametrize(("mib", "slab_chunk_max"), SMALL)
def test_scans_of_large_values_by_turns_with_a_hot_set(mib: int, slab_chunk_max: int) -> None:
    """A burst of values that nobody asks for again, of another size each time, then the set, all of it: it stays, all of it."""
    client = fresh(memory_limit=mib * MIB, item_size_max=MIB, slab_chunk_max=slab_chunk_max)
    fill(client, b"h", 100, 500 * mib)
    gets = b"".join(b"mg h%d\r\n" % i for i in range(500 * mib))
    sizes = itertools.cycle((1500, 900_000, 5000, 20_000, 120_000, 700, 300_000))
    for turn in range(60):
        assert client.send(gets).count(b"HD") == 500 * mib
        size = next(sizes)
        for i in range(max(1, mib * MIB // 4 // size)):
            stores(client, b"s%d-%d" % (turn, i), size)
    assert client.engine.stats()["evictions"] > 100
    assert client.engine.stats()["store_no_memory"] == 0
    check_figures(client.engine)
    check_lists(client.engine)


@pytest.mark.slow
@pytest.mark.parametrize(("mib", "slab_chunk_max"), SMALL)
def test_sizes_that_drift(mib: int, slab_chunk_max: int) -> None:
    """Through every class and band, up and down: each size finds its room, and what came last is there."""
    client = fresh(memory_limit=mib * MIB, item_size_max=MIB, slab_chunk_max=slab_chunk_max)
    steps = [int(60 * 1.08**step) for step in range(110)]  # to a quarter of a million bytes
    lately: list[tuple[bytes, int]] = []
    for turn, size in enumerate(steps + steps[::-1]):
        count = max(2, min(200, mib * MIB // 8 // size))
        for i in range(count):
            stores(client, b"d%d-%d" % (turn, i), size)
        lately = [(b"d%d-%d" % (turn, i), size) for i in range(count)]
        there = sum(client.get(key) == b"x" * size for key, size in lately[-max(1, count // 4) :])
        assert there == max(1, count // 4), (turn, size)
    assert client.engine.stats()["evictions"] > 100
    assert client.engine.stats()["store_no_memory"] == 0
    check_figures(client.engine)
    check_lists(client.engine)


@pytest.mark.parametrize("maintained", [True, False])
def test_those_that_stay_and_those_that_expire(maintained: bool) -> None:
    """Nine values in ten live for a few seconds: what lives for ever loses no room to the dead, and all that left are counted."""
    chance = random.Random(8)
    client = fresh(memory_limit=3 * MIB, maintained=maintained)
    fill(client, b"l", 800, 1000)
    stored = 1000
    for second in range(30):
        for i in range(100):
            lives, size = chance.choice((1, 2, 3)), int(100 * 60 ** chance.random())
            stores(client, b"t%d-%d" % (second, i), size, exptime=lives)
            stored += 1
        client.engine.advance(1)
        settle(client.engine)
        assert client.engine.stats()["curr_items"] == stored - left(client)
    client.engine.advance(4)
    settle(client.engine)
    assert client.engine.stats()["evictions"] == 0
    assert held(client, b"l", 1000) == 1000
    few = 1000 // 63  # a pass over all items begins when more than one in 64 is dead
    assert 1000 <= client.engine.stats()["curr_items"] == stored - left(client) <= 1000 + few
    check_figures(client.engine)
    check_lists(client.engine)


@pytest.mark.parametrize("mib", [2, 4, 8])
def test_overwrites_of_another_size_each_time(mib: int) -> None:
    """The same keys, grown and shrunk without end: an overwritten value leaves its room, and nobody is evicted for want of it."""
    client = fresh(memory_limit=mib * MIB, item_size_max=MIB)
    chance, sizes = random.Random(9), dict[bytes, int]()
    for i in range(6000):
        key = b"o%d" % (i % (4 * mib))
        sizes[key] = int(50 * 2000 ** chance.random())
        stores(client, key, sizes[key])
    there = {key: value for key in sizes if (value := client.get(key)) is not None}
    assert all(len(value) == sizes[key] for key, value in there.items())
    assert len(there) > 2 * mib
    assert client.engine.stats()["store_no_memory"] == 0
    check_figures(client.engine)
    check_lists(client.engine)


def rounds(client: Client, largest: int, turns: int) -> None:
    """Values of all sizes by turns, the largest among them, in a memory full of others: each is taken, and there at once."""
    chance = random.Random(10)
    for i in range(turns):
        size = largest if i % 7 == 0 else int(largest ** chance.random())
        stores(client, b"r%d" % i, size)
        assert client.get(b"r%d" % i) == b"x" * size
        if i % 100 == 50:
            client.engine.set_segmented(i % 200 == 50)
            client.engine.advance(1)
            settle(client.engine)


@pytest.mark.slow
@pytest.mark.parametrize("mib", [2, 3])
@pytest.mark.parametrize("largest", [1024, 64 << 10, MIB])
@pytest.mark.parametrize("classes", [{}, {"chunk_size": 1, "growth_factor": 1.01}])
def test_any_size_in_a_small_memory_however_it_is_cut(mib: int, largest: int, classes: dict[str, float]) -> None:
    """Whatever the memory is full of, any value that -I allows is stored, and each class goes on to hold some."""
    choices = itertools.product((1024, largest), (True, False), (True, False), ("requests", "bytes"))
    for slab_chunk_max, segmented, maintained, room_for in choices:
        client = fresh(
            memory_limit=mib * MIB,
            item_size_max=largest,
            slab_chunk_max=slab_chunk_max,
            segmented=segmented,
            maintained=maintained,
            room_for=room_for,
            **classes,
        )
        fill(client, b"f", 10, 3000 * mib)
        other = Client(client.engine)
        assert other.send(b"set announced 0 0 %d\r\n" % (largest - 200)) == b""
        rounds(client, largest - 200, 60)
        assert client.engine.slab_stats()[2] <= mib * MIB
        check_figures(client.engine)
        check_lists(client.engine)
