"""Memory: the limit holds, large values survive in pieces, the size rule is memcached's, pages follow the demand."""

import itertools
import random
import time
from typing import Any

import pytest

from mcserver.core import Engine
from mcserver.core.engine import MEMORY_LIMIT_MOST
from tests.core.harness import MIB, Client, crawl, fill, fresh, held, settle
from tests.stateful.invariants import check_figures, check_lists, check_nothing_leaks

TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
NO_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"


@pytest.mark.parametrize("segmented", [True, False])
def test_the_limit_holds_whatever_is_stored(segmented: bool) -> None:
    client = fresh(memory_limit=8 * MIB, segmented=segmented)
    sizes = random.Random(5)
    for i in range(4000):
        assert client.set(b"k%d" % i, b"x" * sizes.choice((1, 100, 3000, 60_000, 300_000))) == b"STORED\r\n"
        assert client.engine.slab_stats()[2] <= 8 * MIB
    stats = client.engine.stats()
    assert stats["evictions"] > 0
    assert stats["bytes"] <= 8 * MIB


@pytest.mark.slow
def test_pages_follow_when_sizes_change() -> None:
    limit, large = 32 * MIB, 2 * 32 * MIB // 5000
    changed, new = fresh(memory_limit=limit), fresh(memory_limit=limit)
    fill(changed, b"small", 100, 300_000)
    assert changed.engine.stats()["evictions"] > 0, "the memory was full"
    for client in (changed, new):
        fill(client, b"large", 5000, large)
        settle(client.engine)
    assert held(new, b"large", large) > 5000
    assert held(changed, b"large", large) >= 0.9 * held(new, b"large", large)
    assert changed.engine.stats()["slabs_moved"] > 0


def test_the_limit_can_be_lowered_and_raised() -> None:
    client = fresh(memory_limit=32 * MIB)
    fill(client, b"k", 1000, 40_000)
    before = client.engine.stats()["curr_items"]
    assert client.engine.set_memory_limit(8 * MIB)
    assert client.engine.stats()["limit_maxbytes"] == 8 * MIB
    settle(client.engine)
    assert client.engine.slab_stats()[2] <= 8 * MIB
    lowered = client.engine.stats()["curr_items"]
    assert 0.15 * before < lowered < 0.3 * before
    assert held(client, b"k", 40_000) == lowered, "what is counted is there"
    assert client.engine.set_memory_limit(32 * MIB)
    fill(client, b"n", 1000, 40_000)
    assert client.engine.stats()["curr_items"] > 0.95 * before


@pytest.mark.slow
def test_lowering_works_in_slices() -> None:
    client = fresh(memory_limit=64 * MIB)
    fill(client, b"k", 200, 200_000)
    client.engine.set_memory_limit(8 * MIB)
    slices = 0
    while client.engine.slab_stats()[2] > 8 * MIB:
        client.engine.maintain(500)
        slices += 1
        assert slices < 100_000
    assert slices > 3, "not all at once"


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000, 524_187, 524_288, 524_289, 1_048_000])
def test_large_values_come_back_as_they_were(size: int) -> None:
    value = random.Random(size).randbytes(size)
    client = fresh(memory_limit=64 * MIB)
    assert client.set(b"whole", value, flags=7) == b"STORED\r\n"
    assert client.send(b"set pieces 7 0 %d\r\n" % size) == b""
    at = 0
    while at < size:
        step = random.Random(at).choice((1, 2, 511, 4096, 70_000))
        assert client.send(value[at : at + step]) == b""
        at += step
    assert client.send(b"\r") == b""
    assert client.send(b"\n") == b"STORED\r\n"
    assert client.get(b"whole") == value
    assert client.get(b"pieces") == value
    assert client.send(b"mg pieces s f v\r\n") == b"VA %d s%d f7\r\n%b\r\n" % (size, size, value)
    assert client.send(b"append pieces 0 0 3\r\nend\r\n") == b"STORED\r\n"
    assert client.get(b"pieces") == value + b"end"


def test_a_large_value_byte_by_byte() -> None:
    value = random.Random(9).randbytes(70_001)
    client = fresh()
    assert client.dribble(b"set a 0 0 70001\r\n%b\r\n" % value) == b"STORED\r\n"
    assert client.get(b"a") == value


@pytest.mark.parametrize(
    ("key", "flags", "cas"),
    [(b"a", 0, True), (b"k" * 250, 0, True), (b"a", 5, True), (b"a", 0, False), (b"kk", 9, False)],
)
def test_the_largest_item_is_memcacheds(key: bytes, flags: int, cas: bool) -> None:
    limit = 16 * 1024
    client = fresh(item_size_max=limit, cas=cas)
    most = limit - 48 - len(key) - 1 - (4 if flags else 0) - 2 - (8 if cas else 0)
    assert client.set(key, b"x" * (most + 1), flags) == TOO_LARGE
    assert client.set(key, b"x" * most, flags) == b"STORED\r\n"
    assert client.get(key) == b"x" * most
    assert client.engine.stats()["store_too_large"] == 1
    assert client.send(b"append %b 0 0 1\r\ny\r\n" % key) == b"NOT_STORED\r\n"
    assert client.get(key) == b"x" * most


def test_the_printed_size_is_memcacheds() -> None:
    client = fresh()
    client.set(b"key", b"12345", flags=3)
    assert b" size=%d\r\n" % (48 + 3 + 1 + 4 + 5 + 2 + 8) in client.send(b"me key\r\n")
    assert client.engine.stats()["bytes"] == 71


@pytest.mark.parametrize(
    "options",
    [
        {"item_size_max": 1023},
        {"item_size_max": 5 * MIB, "memory_limit": 8 * MIB},
        {"growth_factor": 1.0},
        {"chunk_size": 0},
        {"slab_sizes": [0]},
        {"slab_sizes": [47, 200]},
        {"memory_limit": 1 << 50},
        {"hot_lru_pct": 50, "warm_lru_pct": 50},
    ],
)
def test_bad_settings_are_refused_with_a_reason(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        Engine(**options)


def test_an_item_of_half_the_memory() -> None:
    value = random.Random(1).randbytes(4 * MIB - 1000)
    client = fresh(memory_limit=8 * MIB, item_size_max=4 * MIB)
    for i in range(5):
        assert client.set(b"k%d" % i, value) == b"STORED\r\n"
    assert client.get(b"k4") == value
    assert client.engine.slab_stats()[2] <= 8 * MIB


def test_the_growth_factor_and_the_least_chunk_are_real() -> None:
    def chunk_sizes(**options: object) -> list[int]:
        client = fresh(**options)
        for size in range(1, 3000, 16):
            client.set(b"k%d" % size, b"x" * size)
        return sorted(figures["chunk_size"] for figures in client.engine.slab_stats()[0].values())

    usual, coarse, large = chunk_sizes(), chunk_sizes(growth_factor=2.0), chunk_sizes(chunk_size=400)
    assert len(chunk_sizes(chunk_size=1_000_000)) == 1, "as in memcached the largest class is all that is left"
    assert len(coarse) < len(usual)
    assert large[0] >= 400 > usual[0]
    ratios = [b / a for a, b in itertools.pairwise(usual)]
    assert all(1.0 < ratio < 1.4 for ratio in ratios), ratios


def test_own_slab_sizes() -> None:
    client = fresh(slab_sizes=[200, 1000, 8000])
    for size in (10, 500, 3000):
        client.set(b"k%d" % size, b"x" * size)
    sizes = [figures["chunk_size"] for figures in client.engine.slab_stats()[0].values()]
    assert sizes == [200, 1000, 8000], "of a whole chunk, the item's header included, as in memcached"


def test_an_own_size_is_rounded_up_as_memcached_rounds_it() -> None:
    client = fresh(slab_sizes=[48, 100, 8192])
    client.set(b"k", b"x" * 51)
    assert {number: figures["chunk_size"] for number, figures in client.engine.slab_stats()[0].items()} == {2: 104}


def test_without_evictions_a_full_memory_refuses() -> None:
    client = fresh(memory_limit=8 * MIB, evictions=False)
    count = 0
    while client.set(b"k%d" % count, b"x" * 5000) == b"STORED\r\n":
        count += 1
    assert count > 1300
    assert client.set(b"more", b"x" * 5000) == NO_MEMORY
    assert client.set(b"k0", b"y" * 6000) == NO_MEMORY
    assert client.get(b"k0") is None, "an old value must not stay where a new one was to be"
    assert client.send(b"add k1 0 0 5000\r\n%b\r\n" % (b"z" * 5000)) in {b"NOT_STORED\r\n", NO_MEMORY}
    assert client.get(b"k1") == b"x" * 5000
    assert client.engine.stats()["evictions"] == 0
    assert client.engine.stats()["store_no_memory"] >= 2
    for i in range(2, 60):
        assert client.send(b"delete k%d\r\n" % i) == b"DELETED\r\n"
    assert client.set(b"again", b"x" * 5000) == b"STORED\r\n"


def test_a_value_in_transit_does_not_leak() -> None:
    engine = fresh(memory_limit=8 * MIB).engine
    for i in range(200):
        client = Client(engine)
        client.send(b"set k 0 0 500000\r\n" + b"x" * (i * 2000))
        client.session.close()
    client = Client(engine)
    fill(client, b"k", 500, 10_000)
    used = sum(figures["used_chunks"] * figures["chunk_size"] for figures in engine.slab_stats()[0].values())
    assert used < 1.3 * engine.stats()["bytes"]


def test_a_page_can_be_reassigned_by_hand() -> None:
    client = fresh(memory_limit=16 * MIB)
    fill(client, b"small", 100, 120_000)
    client.set(b"large", b"x" * 5000)
    classes = client.engine.slab_stats()[0]
    by_pages = sorted(classes, key=lambda cls: classes[cls]["total_pages"])
    target, source = by_pages[0], by_pages[-1]
    assert client.engine.reassign_page(source, source) == "SAME"
    assert client.engine.reassign_page(source, 99) == "BADCLASS"
    assert client.engine.reassign_page(target, source) == "NOSPARE"
    assert client.engine.reassign_page(source, target) == "OK"
    settle(client.engine)
    after = client.engine.slab_stats()[0]
    assert after[target]["total_pages"] == classes[target]["total_pages"] + 1
    assert after[source]["total_pages"] == classes[source]["total_pages"] - 1
    assert client.get(b"large") == b"x" * 5000


@pytest.mark.parametrize("slab_chunk_max", [1024, MIB])
def test_work_on_pieces_is_linear(slab_chunk_max: int) -> None:
    """A value eight times as large takes about eight times as long; if a walk began at the first piece each time, 64 times."""

    def seconds(size: int) -> float:
        client = fresh(memory_limit=128 * MIB, item_size_max=32 * MIB, slab_chunk_max=slab_chunk_max)
        value = b"x" * size
        requests = [b"set k 0 0 %d\r\n" % size]
        requests += [value[at : at + 4000] for at in range(0, size, 4000)]
        requests += [b"\r\n"] + [b"append k 0 0 3\r\nend\r\n", b"prepend k 0 0 3\r\nbeg\r\n"] * (size // 50_000)
        began = time.process_time()
        for request in requests:
            client.send(request)
        got = len(client.send(b"get k\r\n"))
        while client.session.unsent:  # others have their turn every 4 MB
            client.session.limit(None)
            got += len(client.session.drain())
        assert got > size
        assert client.send(b"delete k\r\n") == b"DELETED\r\n"
        settle(client.engine)
        taken = time.process_time() - began
        assert client.engine.stats()["curr_items"] == 0
        assert client.engine.stats()["get_hits"] == 1
        return taken

    assert min(seconds(24 * MIB) for _ in range(3)) < 30 * min(seconds(3 * MIB) for _ in range(3))


@pytest.mark.parametrize("gib", [16, 32, 64, 128, MEMORY_LIMIT_MOST >> 30])
def test_large_memories_have_coarser_handles(gib: int) -> None:
    """What is stored comes back, whatever a handle counts in; address space is all that this takes."""
    client = fresh(memory_limit=gib << 30)
    chance = random.Random(gib)
    values = {b"k%d" % i: chance.randbytes(chance.choice((0, 1, 60, 333, 5000, 20_000, 100_000))) for i in range(400)}
    for _ in range(2):
        for key, value in values.items():
            assert client.set(key, value) == b"STORED\r\n"
            assert client.send(b"append %b 0 0 3\r\nend\r\n" % key) == b"STORED\r\n"
    fullest = max(client.engine.slab_stats()[0].items(), key=lambda each: each[1]["total_pages"])[0]
    client.engine.reassign_page(fullest, 1)
    settle(client.engine)
    assert {key: client.get(key) for key in values} == {key: value + b"end" for key, value in values.items()}
    check_figures(client.engine)
    check_lists(client.engine)
    client.engine.flush()
    crawl(client.engine)
    settle(client.engine)
    check_nothing_leaks(client.engine)
