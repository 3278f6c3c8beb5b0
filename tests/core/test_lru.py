"""The LRU: who leaves first, flat and segmented, and what `stats items` says of it."""

import pytest

from tests.core.harness import MIB, Client, fill, fresh, held, settle

WORKING_SET = 10_000


def use(client: Client, prefix: bytes, count: int) -> int:
    """Gets the keys prefix0, prefix1, ...; the number of hits."""
    lines = (
        b"get %b\r\n" % b" ".join(b"%b%d" % (prefix, i) for i in range(at, at + 100)) for at in range(0, count, 100)
    )
    return sum(client.send(line).count(b"VALUE") for line in lines)


def after_a_scan(segmented: bool) -> int:
    """How much of a working set that was in use is left after a scan of three times the memory."""
    client = fresh(memory_limit=16 * MIB, segmented=segmented)
    fill(client, b"w", 500, WORKING_SET)
    for _ in range(3):
        use(client, b"w", WORKING_SET)
        settle(client.engine)
        client.engine.advance(1)
    for part in range(10):
        fill(client, b"scan%d-" % part, 500, 9000)
        settle(client.engine)
    return held(client, b"w", WORKING_SET)


@pytest.mark.slow
def test_a_scan_does_not_flush_the_working_set() -> None:
    assert after_a_scan(segmented=False) == 0
    assert after_a_scan(segmented=True) > WORKING_SET * 0.5


def test_the_flat_lru_evicts_the_oldest() -> None:
    client = fresh(memory_limit=8 * MIB, segmented=False)
    fill(client, b"k", 5000, 1200)
    client.engine.advance(100)
    use(client, b"k", 300)
    client.engine.advance(100)
    fill(client, b"n", 5000, 800)
    evicted = client.engine.stats()["evictions"]
    assert evicted > 300
    kept = [client.get(b"k%d" % i) is not None for i in range(1200)]
    assert all(kept[:300]), "what was used is younger"
    first = kept[300:].index(True)
    assert all(kept[300 + first :]), "the rest left in the order in which it came"


def test_evictions_are_counted_by_what_left() -> None:
    client = fresh(memory_limit=8 * MIB, segmented=False)
    lines = b"".join(b"set k%d 0 %d 5000 noreply\r\n%b\r\n" % (i, 1000 * (i % 2), b"x" * 5000) for i in range(1000))
    client.send(lines)
    use(client, b"k", 200)
    fill(client, b"n", 5000, 3000)
    total = client.engine.stats()
    items = list(client.engine.item_stats().values())
    assert sum(figures["evicted"] for figures in items) == total["evictions"]
    assert sum(figures["evicted_nonzero"] for figures in items) == 500
    assert total["evicted_unfetched"] == total["evictions"] - 200
    assert sum(figures["evicted_unfetched"] for figures in items) == total["evicted_unfetched"]


def segments(client: Client) -> tuple[float, float, float]:
    figures = list(client.engine.item_stats().values())
    return (
        sum(f["number_hot"] for f in figures),
        sum(f["number_warm"] for f in figures),
        sum(f["number_cold"] for f in figures),
    )


def test_what_was_used_goes_from_hot_into_the_ring_and_counts_as_warm_when_it_is_used_there() -> None:
    client = fresh(memory_limit=8 * MIB)
    fill(client, b"k", 500, 8000)
    assert segments(client) == (8000, 0, 0), "while there is room nothing moves"
    use(client, b"k", 2000)
    fill(client, b"n", 500, 12_000)
    hot, warm, cold = segments(client)
    assert hot + warm + cold == client.engine.stats()["curr_items"]
    assert warm == 0
    assert cold == 2000, "all that was used, and nothing else"
    kept = cold
    use(client, b"k", 2000)
    use(client, b"k", 2000)
    hot, warm, cold = segments(client)
    assert (warm, cold) == (kept, 0)
    stats = client.engine.stats()
    assert stats["moves_to_cold"] == stats["moves_to_warm"] == kept
    assert (
        sum(f["hits_to_hot"] + f["hits_to_warm"] + f["hits_to_cold"] for f in client.engine.item_stats().values())
        == 2000 + 2 * kept
    )


def test_short_lived_items_stay_by_themselves() -> None:
    client = fresh(memory_limit=8 * MIB, temporary_ttl=10)
    client.set(b"brief", b"x", exptime=5)
    client.set(b"long", b"x", exptime=50)
    figures = next(iter(client.engine.item_stats().values()))
    assert figures["number_temp"] == 1
    assert figures["number"] == 2


def test_ages_are_seconds_since_the_last_use() -> None:
    client = fresh(segmented=False)
    client.set(b"a", b"x")
    client.engine.advance(50)
    client.set(b"b", b"x")
    client.engine.advance(7)
    figures = next(iter(client.engine.item_stats().values()))
    assert figures["age"] == 57


@pytest.mark.parametrize("on", [True, False])
def test_the_mode_can_change_while_it_runs(on: bool) -> None:
    client = fresh(memory_limit=8 * MIB, segmented=not on)
    fill(client, b"k", 500, 5000)
    client.engine.set_segmented(on)
    fill(client, b"n", 500, 50_000)
    settle(client.engine)
    assert held(client, b"n", 50_000) > 8000
    assert client.engine.slab_stats()[2] <= 8 * MIB


def test_the_share_of_new_items_can_be_tuned() -> None:
    client = fresh(memory_limit=8 * MIB)
    client.engine.tune_lru(60, 10, 0.9, 3.0)
    fill(client, b"k", 500, 10_000)
    use(client, b"k", 10_000)
    fill(client, b"n", 500, 10_000)
    hot, warm, cold = segments(client)
    assert 0.27 < hot / (hot + warm + cold) < 0.33, "half of it"
