"""Pages on their way from one class to another or into the pool: what moves, what stays, what is counted."""

import pytest

from tests.core.harness import MIB, Client, fill, fresh, held, settle
from tests.stateful.invariants import check_figures, check_lists


def filled(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(251)) * (size // 251) + b"e" * (size % 251)


def half_deleted(mib: int, count: int, size: int, **options: object) -> Client:
    """Every second one of so many values is gone."""
    client = fresh(memory_limit=mib * MIB, **options)
    fill(client, b"k", size, count)
    client.send(b"".join(b"delete k%d noreply\r\n" % i for i in range(0, count, 2)))
    return client


def pages(client: Client) -> dict[int, int]:
    return {cls: figures["total_pages"] for cls, figures in client.engine.slab_stats()[0].items()}


def test_a_page_of_pieces_moves_and_nobody_leaves() -> None:
    client = fresh(memory_limit=12 * MIB, slab_chunk_max=16_384)
    client.engine.automove = 0
    client.engine.crawler_enabled = False
    value = filled(30_000)
    for i in range(300):
        assert client.set(b"k%d" % i, value) == b"STORED\r\n"
    client.send(b"".join(b"delete k%d noreply\r\n" % i for i in range(0, 300, 2)))
    source = max(pages(client), key=lambda cls: pages(client)[cls])
    before = pages(client)[source]
    for n in range(1, 6):
        assert client.engine.reassign_page(source, 0) == "OK"
        settle(client.engine)
        assert pages(client)[source] == before - n
    stats = client.engine.stats()
    assert stats["slabs_moved"] == 5
    assert stats["slab_reassign_chunk_rescues"] > 0
    assert stats["evictions"] == 0
    assert stats["slab_global_page_pool"] == 5
    assert client.engine.slab_stats()[0][source]["pages_given"] == 5
    for i in range(1, 300, 2):
        assert client.get(b"k%d" % i) == value
    check_lists(client.engine)


def test_a_page_of_items_moves_and_nobody_leaves() -> None:
    client = half_deleted(8, 4000, 1000)
    client.engine.automove = 0
    source = max(pages(client), key=lambda cls: pages(client)[cls])
    assert client.engine.reassign_page(source, source + 1) == "OK"
    assert client.engine.reassign_page(source, source + 1) == "BUSY"
    settle(client.engine)
    stats = client.engine.stats()
    assert (stats["slabs_moved"], stats["evictions"]) == (1, 0)
    assert stats["slab_reassign_rescues"] > 0
    assert stats["slab_reassign_chunk_rescues"] == 0
    assert held(client, b"k", 4000) == 2000
    assert client.engine.slab_stats()[0][source]["pages_given"] == 1
    client.set(b"new", b"x" * 1200)
    assert client.engine.slab_stats()[0][source + 1]["pages_taken"] == 1


def test_reassigning_says_what_it_cannot_do() -> None:
    client = fresh(memory_limit=8 * MIB)
    client.engine.automove = 0
    fill(client, b"k", 1000, 20_000)
    source = max(pages(client), key=lambda cls: pages(client)[cls])
    client.set(b"other", b"x" * 5000)
    alone = next(cls for cls, count in pages(client).items() if count == 1 and cls != source)
    assert client.engine.reassign_page(source, source) == "SAME"
    assert client.engine.reassign_page(source, 200) == "BADCLASS"
    assert client.engine.reassign_page(alone, source) == "NOSPARE", "the last page of a class stays"
    assert client.engine.reassign_page(0, source) == "NOSPARE", "the pool is empty"
    assert client.engine.reassign_page(-1, alone) == "OK"
    settle(client.engine)
    assert pages(client)[alone] == 2
    assert client.engine.reassign_page(source, 0) == "OK"
    settle(client.engine)
    assert client.engine.stats()["slab_global_page_pool"] == 1
    assert client.engine.reassign_page(0, alone) == "OK"
    assert pages(client)[alone] == 3
    assert client.engine.stats()["slab_global_page_pool"] == 0


def test_a_half_empty_class_goes_into_the_pool_in_advance() -> None:
    client = half_deleted(60, 6000, 11_000)
    before = client.engine.stats()
    total = client.engine.slab_stats()[2]
    kept = held(client, b"k", 6000)
    for _ in range(10):
        client.engine.advance(1)
        settle(client.engine)
    stats = client.engine.stats()
    page = 262_144
    assert stats["slab_global_page_pool"] * page > 20 * MIB
    assert stats["evictions"] == before["evictions"]
    assert client.engine.slab_stats()[2] == total, "the pool counts as allocated"
    assert held(client, b"k", 6000) == kept
    fill(client, b"n", 100, 100_000)
    assert client.engine.stats()["evictions"] == before["evictions"], "the pool serves any class"
    assert held(client, b"n", 100_000) == 100_000


def test_however_little_is_done_at_a_time_it_is_done_without_a_rest() -> None:
    client = half_deleted(60, 6000, 11_000)
    client.engine.advance(1)
    turns = 0
    while (
        client.engine.maintain(0) < 0.01
    ):  # as much as a slice does that has no time left, as on a machine that is busy
        turns += 1
    assert client.engine.stats()["slab_global_page_pool"] * 262_144 > 20 * MIB
    assert turns > 100


@pytest.mark.parametrize("automove", [0, 1, 2])
def test_what_automove_says(automove: int) -> None:
    client = half_deleted(16, 8000, 1500)
    client.engine.automove = automove
    before = pages(client)
    source = max(before, key=lambda cls: before[cls])
    for _ in range(3):
        client.engine.advance(1)
        settle(client.engine)
    if automove == 0:
        assert pages(client) == before
        assert client.engine.stats()["slab_global_page_pool"] == 0
    else:
        assert pages(client)[source] < before[source]
    fill(client, b"n", 1500, 20_000)
    full = pages(client)[source]
    fill(client, b"m", 3000, 6000)
    assert held(client, b"m", 6000) > 0, "a class without a page gets one in any case"
    if automove == 0:
        assert held(client, b"m", 6000) <= 21 * (256 - full + 1)
    else:
        assert pages(client)[source] < full / 2, "pages follow what is stored"


@pytest.mark.parametrize("size", [3000, 30_000])
def test_compacting_never_costs_an_item(size: int) -> None:
    """Stores come while a half-empty page is on its way to the pool: as long as there is room, nobody leaves for them."""
    room = 8 * MIB // (size + 1200) * 8 // 10
    client = half_deleted(8, room, size)
    assert client.engine.stats()["evictions"] == 0
    for i in range(room // 2):
        client.engine.maintain(budget_us=1)
        assert client.set(b"n%d" % i, b"n" * size) == b"STORED\r\n"
    assert client.engine.stats()["evictions"] == 0
    assert held(client, b"k", room) + held(client, b"n", room) == room // 2 * 2
    check_figures(client.engine)


def test_each_class_shows_what_decides() -> None:
    client = fresh(memory_limit=8 * MIB)
    fill(client, b"a", 100, 60_000)
    fill(client, b"b", 5000, 2000)
    client.send(b"get %b\r\n" % b" ".join(b"b%d" % i for i in range(1900, 2000)))
    client.send(b"get %b\r\n" % b" ".join(b"a%d" % i for i in range(59_700, 60_000)))
    items, (slabs, _, _) = client.engine.item_stats(), client.engine.slab_stats()
    assert sum(figures["hits_share"] for figures in items.values()) == pytest.approx(100)
    large = max(items)
    assert items[large]["hits_share"] == pytest.approx(25, abs=3)
    assert all(figures["page_worth"] > 0 for figures in items.values())
    given = sum(figures["pages_given"] for figures in slabs.values())
    assert (
        given == sum(figures["pages_taken"] for figures in slabs.values()) == client.engine.stats()["slabs_moved"] > 0
    )
    assert slabs[large]["pages_taken"] > slabs[large]["pages_given"]


@pytest.mark.parametrize("steps", range(6))
def test_a_page_that_nobody_asked_for_costs_no_life(steps: int) -> None:
    """What a class has free goes to the pool. A value that comes meanwhile takes that memory, and nobody leaves for the page."""
    moving = 0
    for size in range(150_000, 200_000, 4_000):
        client = fresh(memory_limit=4 * MIB, item_size_max=2 * MIB)
        client.engine.crawler_enabled = False
        for i in range(90):
            client.set(b"k%d" % i, filled(50_000))
        settle(client.engine)
        here = [b"k%d" % i for i in range(90) if client.send(b"mg k%d\r\n" % i) == b"HD\r\n"]
        gone = here[5:26:4]
        client.send(b"".join(b"delete %b noreply\r\n" % key for key in gone))
        for _ in range(steps):
            client.engine.maintain(0)
        before = client.engine.stats()["evictions"]
        assert client.set(b"new", filled(size)) == b"STORED\r\n"
        assert client.engine.stats()["evictions"] == before
        moving += client.engine.stats()["slab_reassign_running"]
        settle(client.engine)
        assert client.engine.stats()["evictions"] == before
        assert all(client.send(b"mg %b\r\n" % key) == b"HD\r\n" for key in {*here, b"new"} - {*gone})
        check_lists(client.engine)
    assert steps != 3 or moving  # else nothing was shown
