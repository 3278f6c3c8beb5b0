"""Expiry: lazily when an item is met, and by the crawler in slices. Only ``advance`` moves the time."""

import statistics
import time

import pytest

from tests.core.harness import MIB, crawl, fill, fresh, settle

MONTH = 30 * 24 * 3600


@pytest.mark.parametrize(
    ("exptime", "seconds"), [(1, 1), (2, 2), (100, 100), (MONTH, MONTH), (0, None), (-1, 0), (-2147483648, 0)]
)
def test_a_relative_lifetime_ends_at_its_second(exptime: int, seconds: int | None) -> None:
    client = fresh()
    client.set(b"a", b"x", exptime=exptime)
    if seconds is None:
        client.engine.advance(20 * MONTH)
        assert client.get(b"a") == b"x"
        return
    if seconds:
        client.engine.advance(seconds - 1)
        assert client.get(b"a") == b"x"
        client.engine.advance(1)
    assert client.get(b"a") is None


def test_a_lifetime_above_thirty_days_is_a_date() -> None:
    client = fresh()
    now = int(time.time())
    client.set(b"past", b"x", exptime=MONTH + 1)
    client.set(b"yesterday", b"x", exptime=now - 86_400)
    client.set(b"soon", b"x", exptime=now + 1000)
    assert client.get(b"past") is None
    assert client.get(b"yesterday") is None
    assert client.get(b"soon") == b"x"
    assert client.send(b"mg soon t\r\n") in {b"HD t%d\r\n" % t for t in (998, 999, 1000, 1001)}
    client.engine.advance(1002)
    assert client.get(b"soon") is None


def test_touch_gat_and_append_and_incr_treat_lifetimes_as_memcached_does() -> None:
    client = fresh()
    for key in (b"touched", b"gat", b"appended", b"counted", b"replaced"):
        client.set(key, b"1", exptime=10)
    assert client.send(b"touch touched 100\r\n") == b"TOUCHED\r\n"
    assert client.send(b"gat 100 gat\r\n") == b"VALUE gat 0 1\r\n1\r\nEND\r\n"
    assert client.send(b"append appended 0 100 1\r\n2\r\n") == b"STORED\r\n"
    assert client.send(b"incr counted 9\r\n") == b"10\r\n"
    assert client.send(b"replace replaced 0 100 1\r\n2\r\n") == b"STORED\r\n"
    client.engine.advance(10)
    assert client.send(b"mg touched t\r\nmg gat t\r\nmg appended t\r\nmg counted t\r\nmg replaced t\r\n") == (
        b"HD t90\r\nHD t90\r\nEN\r\nEN\r\nHD t90\r\n"
    )


def test_an_expired_item_is_counted_and_freed_when_it_is_met() -> None:
    client = fresh()
    client.set(b"a", b"x", exptime=5)
    client.engine.advance(6)
    assert client.engine.stats()["curr_items"] == 1, "nobody has met it yet"
    assert client.get(b"a") is None
    stats = client.engine.stats()
    assert (stats["curr_items"], stats["get_expired"], stats["get_misses"], stats["bytes"]) == (0, 1, 1, 0)
    assert client.send(b"add a 0 0 1\r\ny\r\n") == b"STORED\r\n"


def test_the_crawler_reclaims_what_has_expired() -> None:
    client = fresh(maintained=False)
    for exptime, prefix in ((5, b"s"), (500, b"l"), (0, b"n")):
        lines = b"".join(b"set %b%d 0 %d 3 noreply\r\nabc\r\n" % (prefix, i, exptime) for i in range(1000))
        client.send(lines)
    client.engine.advance(6)
    crawl(client.engine)
    stats = client.engine.stats()
    assert stats["curr_items"] == 2000
    assert (stats["crawler_reclaimed"], stats["reclaimed"], stats["expired_unfetched"]) == (1000, 0, 1000)
    assert stats["crawler_items_checked"] >= 3000
    assert stats["lru_crawler_starts"] >= 1


@pytest.mark.slow
def test_the_crawler_works_in_short_slices() -> None:
    client = fresh(memory_limit=128 * MIB)
    fill(client, b"k", 10, 300_000)
    assert client.engine.crawl(None)
    assert not client.engine.crawl(None), "busy"
    slices = []
    while client.engine.crawler_running:
        begin = time.thread_time()
        client.engine.maintain(100)
        slices.append(time.thread_time() - begin)
        assert len(slices) < 1_000_000
    assert len(slices) > 10
    assert statistics.median(slices) < 0.01


def test_background_work_finds_the_expired_by_itself() -> None:
    client = fresh()
    fill(client, b"k", 10, 100)
    client.send(b"".join(b"set s%d 0 30 3 noreply\r\nabc\r\n" % i for i in range(5000)))
    for _ in range(7200):
        client.engine.advance(1)
        settle(client.engine)
        if client.engine.stats()["curr_items"] == 100:
            break
    assert client.engine.stats()["curr_items"] == 100


def test_a_crawler_that_is_switched_off_does_not_run() -> None:
    client = fresh(maintained=False)
    client.send(b"".join(b"set s%d 0 30 3 noreply\r\nabc\r\n" % i for i in range(100)))
    client.engine.crawler_enabled = False
    for _ in range(600):
        client.engine.advance(60)
        client.engine.maintain()
    assert client.engine.stats()["curr_items"] == 100


def test_flushed_items_are_not_expired_unfetched_for_the_crawler() -> None:
    client = fresh(maintained=False)
    client.send(b"".join(b"set s%d 0 0 3 noreply\r\nabc\r\n" % i for i in range(100)))
    client.send(b"flush_all\r\n")
    crawl(client.engine)
    stats = client.engine.stats()
    assert (stats["curr_items"], stats["crawler_reclaimed"], stats["expired_unfetched"]) == (0, 100, 0)


def test_the_dead_at_the_ends_of_the_lists_go_without_a_crawler() -> None:
    client = fresh()
    client.engine.crawler_enabled = False
    for i in range(10):
        client.send(b"set k%d 0 2 66560\r\n%b\r\n" % (i, b"x" * 66560))
    client.engine.advance(4)
    settle(client.engine)
    stats = client.engine.stats()
    assert (stats["curr_items"], stats["reclaimed"], stats["expired_unfetched"]) == (0, 10, 10)


def test_in_a_flat_lru_the_dead_go_at_the_next_stores_of_their_class() -> None:
    client = fresh(segmented=False, maintained=False)
    client.engine.crawler_enabled = False
    fill(client, b"k", 10, 100)
    client.send(b"".join(b"set s%d 0 5 3 noreply\r\nabc\r\n" % i for i in range(100)))
    for i in range(100):
        client.get(b"k%d" % i)
    client.engine.advance(6)
    fill(client, b"n", 10, 50)
    assert client.engine.stats()["curr_items"] == 150
    assert client.engine.stats()["reclaimed"] == 100


def test_many_that_expire_at_once_go_at_once() -> None:
    client = fresh(memory_limit=128 * MIB)
    value = b"v" * 10
    for i in range(0, 200_000, 1000):  # the living between them keep them from the lists' ends
        client.send(
            b"".join(b"set k%d 0 %d 10 noreply\r\n%b\r\n" % (j, 5 * (j % 2), value) for j in range(i, i + 1000))
        )
    client.engine.advance(6)
    settle(client.engine)
    assert client.engine.stats()["curr_items"] == 100_000


def test_expired_items_make_room_before_living_ones_leave() -> None:
    client = fresh(memory_limit=8 * MIB)
    client.send(b"".join(b"set s%d 0 5 5000 noreply\r\n%b\r\n" % (i, b"x" * 5000) for i in range(700)))
    fill(client, b"l", 5000, 500)
    client.engine.advance(6)
    crawl(client.engine)
    fill(client, b"n", 5000, 650)
    assert client.engine.stats()["evictions"] == 0
    assert all(client.get(b"l%d" % i) for i in range(500))


def test_the_clock_can_stop() -> None:
    client = fresh()
    before = client.engine.now()
    client.engine.advance(3)
    assert client.engine.now() == before + 3
