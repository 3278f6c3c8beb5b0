"""What stays: small memories, sets that are only read, sizes that change, and clocks that run at another speed."""

import random
from collections.abc import Callable
from itertools import accumulate

import pytest

from tests.core.harness import MIB, Client, fill, fresh, held, settle

COUNTED = 48 + 1 + 2 + 8  # bytes of an item besides key and value, as memcached counts them


# Small memory


@pytest.mark.slow
@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.parametrize("slab_chunk_max", [1024, MIB])
@pytest.mark.parametrize("mib", [2, 4, 8])
def test_any_size_can_be_stored_in_a_small_memory(mib: int, slab_chunk_max: int, segmented: bool) -> None:
    client = fresh(memory_limit=mib * MIB, item_size_max=MIB, slab_chunk_max=slab_chunk_max, segmented=segmented)
    largest = MIB - COUNTED - len(b"k:0000000")
    sizes = [1, 100, 900, 3000, 16_300, 16_400, 60_000, 250_000, 500_000, 900_000, largest]
    fill(client, b"small", 40, mib * 8000)
    for turn in range(3):
        for size in sizes if turn % 2 == 0 else reversed(sizes):
            key = b"k:%07d" % size
            value = b"%d" % turn + b"x" * (size - 1)
            assert client.set(key, value) == b"STORED\r\n"
            assert client.get(key) == value
        for i in range(3 * mib):
            assert client.set(b"l:%05d" % i, b"y" * (largest - 10)) == b"STORED\r\n"
    assert client.engine.stats()["store_no_memory"] == 0
    assert client.engine.slab_stats()[2] <= mib * MIB


@pytest.mark.slow
@pytest.mark.parametrize("mib", [2, 4, 8])
@pytest.mark.parametrize(("many", "few"), [(100, 100_000), (100_000, 100), (100, 5000), (5000, 100), (20_000, 1000)])
def test_no_class_starves_another(mib: int, many: int, few: int) -> None:
    """Values of one size fill the memory and are read all the time; those of the other size live, too."""
    client = fresh(memory_limit=mib * MIB)
    residents = mib * MIB // (many + 100)
    fill(client, b"m", many, 2 * residents)
    there = 0
    for i in range(300):
        assert client.set(b"f%d" % i, b"f" * few) == b"STORED\r\n"
        client.send(b"get %b\r\n" % b" ".join(b"m%d" % (2 * residents - 1 - j) for j in range(min(residents, 20))))
        for j in range(3):
            assert client.set(b"n%d" % (3 * i + j), b"m" * many) == b"STORED\r\n"
        there += client.get(b"f%d" % i) is not None
    assert there >= 290, "gone before its class stored another one"
    assert held(client, b"n", 900) > 0
    assert held(client, b"m", 2 * residents) > 0


# Sets that are read and never stored again

USES = {
    "get": lambda key: b"get %b\r\n" % key,
    "gat": lambda key: b"gat 0 %b\r\n" % key,
    "touch": lambda key: b"touch %b 0\r\n" % key,
    "mg": lambda key: b"mg %b\r\n" % key,
    "mg T": lambda key: b"mg %b v T0\r\n" % key,
    "mg u": lambda key: b"mg %b u v\r\n" % key,
}
SCANS: dict[str, Callable[[int], int]] = {
    "large": lambda _: 8000,
    "larger": lambda _: 60_000,
    "same": lambda _: 100,
    "any": lambda n: (10, 100, 130, 1000, 8000, 40_000, 200_000)[n % 7],
}


def kept(mib: int, keys: int, use: str, scan: str, rounds: int, stores: int) -> int:
    """Of so many keys of 100 B that are used in each round and never stored again; between the rounds others are stored."""
    client = fresh(memory_limit=mib * MIB)
    fill(client, b"r", 100, keys)
    used = b"".join(USES[use](b"r%d" % i) for i in range(keys))
    for n in range(rounds):
        client.send(used)
        for i in range(n * stores, (n + 1) * stores):
            assert client.set(b"s%d" % i, b"s" * SCANS[scan](i)) == b"STORED\r\n"
    assert client.engine.stats()["evictions"] > 0, "nobody had to leave"
    return held(client, b"r", keys)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["get", "gat", "touch", "mg", "mg T"])
def test_a_set_that_is_read_before_each_store_stays(use: str) -> None:
    assert kept(4, 2000, use, "large", 600, 1) == 2000


@pytest.mark.slow
def test_a_larger_set_in_a_larger_memory_stays() -> None:
    client = fresh(memory_limit=64 * MIB)
    fill(client, b"r", 100, 5000)
    lines = b"".join(b"get %b\r\n" % b" ".join(b"r%d" % i for i in range(at, at + 100)) for at in range(0, 5000, 100))
    for n in range(200):
        client.send(lines)
        assert client.set(b"s%d" % n, b"s" * 900_000) == b"STORED\r\n"
    assert client.engine.stats()["evictions"] > 0
    assert held(client, b"r", 5000) == 5000


@pytest.mark.parametrize(("scan", "stores"), [("large", 30), ("larger", 4), ("same", 1000), ("any", 7)])
def test_a_set_that_is_read_stays_under_scans(scan: str, stores: int) -> None:
    """Not one leaves, though hundreds that were used stand in a row at the end of the FIFO of new ones."""
    assert kept(4, 2000, "get", scan, 30 if scan == "same" else 100, stores) == 2000


@pytest.mark.slow
def test_a_set_that_is_read_once_in_a_third_of_the_memorys_turn_stays() -> None:
    """Nobody uses it for thousands of stores at a time; it is in use all the same, and its class gives no page."""
    assert kept(4, 2000, "get", "same", 12, 8000) == 2000


@pytest.mark.slow
@pytest.mark.parametrize("mib", [2, 8])
@pytest.mark.parametrize(
    ("size", "scan", "part"),
    [(3000, 50, 8), (12_000, 50, 32), (1000, 50, 8), (12_000, 600, 8), (300, 20, 8), (60_000, 100, 8)],
)
def test_a_set_that_is_read_between_bursts_of_small_keys_stays(mib: int, size: int, scan: int, part: int) -> None:
    """A sixth of the memory, read before each burst; an LRU of the whole memory would keep it, too."""
    client = fresh(memory_limit=mib * MIB)
    keys = mib * MIB // 6 // (size + 60)
    burst = mib * MIB // part // scan
    fill(client, b"r", size, keys)
    used = b"".join(b"mg r%d\r\n" % i for i in range(keys))
    for n in range(12):
        client.send(used)
        client.send(b"".join(b"ms s%d %d q\r\n%b\r\n" % (n * burst + i, scan, b"s" * scan) for i in range(burst)))
    assert client.engine.stats()["evictions"] > 0, "nobody had to leave"
    assert held(client, b"r", keys) == keys


@pytest.mark.slow
def test_a_class_whose_new_items_were_no_use_gets_its_memory_back() -> None:
    """A long scan has shown that nobody wants what is new there; then its keys are read again and again."""
    client, never = fresh(memory_limit=8 * MIB), fresh(memory_limit=8 * MIB)
    for each, scanned in ((client, True), (never, False)):
        fill(each, b"r", 3000, 500)
        for n in range(8):
            each.send(b"".join(b"mg r%d\r\n" % i for i in range(500)))
            fill(each, b"s%d-" % n if scanned else b"s", 50, 10_000)
        chance = random.Random(3)
        weights = list(accumulate(1 / (i + 1) ** 0.8 for i in range(60_000)))
        hits = 0
        for i in chance.choices(range(60_000), cum_weights=weights, k=100_000):
            if each.get(b"z%d" % i) is None:
                each.set(b"z%d" % i, b"z" * 50)
            else:
                hits += 1
        if scanned:
            after_scan = hits
    assert after_scan >= hits - 1000, (after_scan, hits)


@pytest.mark.slow
def test_a_read_that_says_so_is_no_use() -> None:
    assert kept(4, 2000, "mg u", "same", 30, 1000) == 0


# Sizes that change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"), [(100, 5000), (5000, 100), (200, 260), (260, 200), (1000, 1200), (5000, 40_000), (40_000, 100)]
)
def test_memory_follows_sizes_within_one_pass(first: int, then: int) -> None:
    """The keys of the pass are twice what there is room for."""
    limit = 8 * MIB
    changed, new = fresh(memory_limit=limit), fresh(memory_limit=limit)
    fill(changed, b"a", first, 2 * limit // first)
    count = 2 * limit // then
    for client in (changed, new):
        fill(client, b"b", then, count)
        settle(client.engine)
    assert changed.engine.stats()["evictions"] > 0
    assert held(changed, b"b", count) >= 0.9 * held(new, b"b", count)


@pytest.mark.slow
def test_memory_follows_sizes_there_and_back() -> None:
    limit = 8 * MIB
    client, new = fresh(memory_limit=limit), fresh(memory_limit=limit)
    for turn, size in enumerate((100, 5000, 100)):
        fill(client, b"%d-" % turn, size, 2 * limit // size)
    fill(new, b"2-", 100, 2 * limit // 100)
    assert held(client, b"2-", 2 * limit // 100) >= 0.9 * held(new, b"2-", 2 * limit // 100)


# Clocks


def replayed(seconds: float, segmented: bool) -> int:
    """Hits of one fixed load on a clock that moves by so many seconds a request; a miss is followed by a store."""
    client = fresh(memory_limit=4 * MIB, segmented=segmented)
    chance = random.Random(5)
    keys = 8000
    weights = list(accumulate(1 / (i + 1) ** 0.8 for i in range(keys)))
    sizes = [int(40 * 230 ** chance.random()) for _ in range(keys)]
    hits = 0
    for i in chance.choices(range(keys), cum_weights=weights, k=40_000):
        if client.get(b"%d" % i) is None:
            assert client.set(b"%d" % i, b"x" * sizes[i]) == b"STORED\r\n"
        else:
            hits += 1
        client.engine.advance(seconds)
    assert client.engine.stats()["evictions"] > 1000
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("segmented", [True, False])
def test_nothing_depends_on_seconds(segmented: bool) -> None:
    """Within half a point: which ghosts share a set depends on the seed of the hash."""
    fast, slow = replayed(0.0, segmented), replayed(0.001, segmented)
    very_slow = replayed(3.0, segmented)
    assert max(fast, slow, very_slow) - min(fast, slow, very_slow) <= 200


def test_background_work_takes_no_hits() -> None:
    """Compaction between the requests moves pages that are free, and nobody's items."""
    client: Client = fresh(memory_limit=8 * MIB)
    fill(client, b"k", 3000, 1500)
    client.send(b"".join(b"delete k%d\r\n" % i for i in range(0, 1500, 2)))
    for _ in range(20):
        client.engine.advance(1)
        settle(client.engine)
    assert held(client, b"k", 1500) == 750
    assert client.engine.stats()["evictions"] == 0


# Loads in which an age says little


def test_where_every_key_is_as_likely_the_small_stay() -> None:
    """By their ages alone 28.9 per cent would be found. The smallest that fit would be 35.0: nothing is better."""
    client, random_ = fresh(memory_limit=16 * MIB), random.Random(7)
    size = [int(100 * 200 ** random_.random()) for _ in range(40_000)]
    hits = 0
    for _ in range(90_000):
        key = random_.randrange(40_000)
        if client.send(b"mg k%d\r\n" % key).startswith(b"HD"):
            hits += 1
        else:
            client.send(b"ms k%d %d\r\n%b\r\n" % (key, size[key], b"x" * size[key]))
    assert hits / 90_000 > 0.33


def test_keys_asked_for_all_the_time_make_their_class_no_more_precious() -> None:
    """Five hot keys among 100,000 that are hardly asked for; 1,500 larger ones deserve the memory: 33.5 per cent at best."""
    client, random_ = fresh(memory_limit=6 * MIB), random.Random(1)
    for i in range(5):
        client.set(b"h%d" % i, b"x" * 500)
    hits = 0
    for _ in range(20_000):
        client.send(b"".join(b"mg h%d\r\n" % random_.randrange(5) for _ in range(8)))
        for key, size in ((b"a%d" % random_.randrange(100_000), 500), (b"b%d" % random_.randrange(1500), 5000)):
            if client.send(b"mg %b\r\n" % key).startswith(b"HD"):
                hits += 1
            else:
                client.send(b"ms %b %d\r\n%b\r\n" % (key, size, b"x" * size))
    assert hits / 40_000 > 0.31


def test_what_was_useful_and_what_was_not_change_places() -> None:
    """Small values are read and large ones are not, then the reverse: a quarter is found in 30,000 requests, not an eighth."""
    client, random_ = fresh(memory_limit=16 * MIB), random.Random(5)

    def hits(requests: int, small: tuple[bytes, int], large: tuple[bytes, int]) -> int:
        found = 0
        for _ in range(requests):
            is_small = random_.random() < 0.5
            (name, keys), size = (small, 1000) if is_small else (large, 5000)
            key = b"%b%d" % (name, random_.randrange(keys))
            if client.send(b"mg %b\r\n" % key).startswith(b"HD"):
                found += 1
            else:
                client.send(b"ms %b %d\r\n%b\r\n" % (key, size, b"x" * size))
        return found

    assert hits(100_000, (b"useful", 13_000), (b"once", 10**6)) > 35_000
    assert hits(30_000, (b"rare", 10**6), (b"wanted", 2500)) > 6000
