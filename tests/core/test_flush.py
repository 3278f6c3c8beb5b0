"""Flushes: of everything, delayed, and of a prefix; and refreshes, which mark stale."""

import pytest

from tests.core.harness import Client, crawl, fresh

FLUSHES_MOST = 65536
REFRESHES_MOST = 1024
"""As rules.pxd has them."""


def keys(client: Client, *names: bytes) -> list[bool]:
    return [client.get(name) is not None for name in names]


def test_a_flush_takes_what_is_there_and_spares_what_comes() -> None:
    client = fresh()
    client.set(b"a", b"x")
    assert client.send(b"flush_all\r\nset b 0 0 1\r\ny\r\nget a b\r\n") == (
        b"OK\r\nSTORED\r\nVALUE b 0 1\r\ny\r\nEND\r\n"
    ), "in the same second"
    stats = client.engine.stats()
    assert stats["get_flushed"] == 1
    assert stats["cmd_flush"] == 1
    client.engine.advance(100)
    assert keys(client, b"a", b"b") == [False, True]


@pytest.mark.parametrize(
    "command",
    [b"set a 0 0 1\r\ny\r\n", b"add a 0 0 1\r\ny\r\n", b"ms a 1\r\ny\r\n", b"ms a 1 ME\r\ny\r\n", b"mg a N30 v\r\n"],
)
def test_a_flushed_key_is_like_one_that_never_was(command: bytes) -> None:
    client, other = fresh(), fresh()
    client.set(b"a", b"old", flags=5)
    client.send(b"flush_all\r\n")
    assert client.send(command + b"mg a v f t\r\n") == other.send(command + b"mg a v f t\r\n")


@pytest.mark.parametrize(
    "command",
    [b"replace a 0 0 1\r\ny\r\n", b"append a 0 0 1\r\ny\r\n", b"cas a 0 0 1 2\r\ny\r\n", b"incr a 1\r\n", b"touch a 9\r\n",
     b"delete a\r\n", b"md a\r\n", b"ma a\r\n", b"mg a\r\n", b"me a\r\n", b"gat 5 a\r\n", b"ms a 1 MR\r\ny\r\n"],
)  # fmt: skip
def test_a_flushed_key_is_not_found(command: bytes) -> None:
    client, other = fresh(), fresh()
    client.set(b"a", b"1")
    client.send(b"flush_all\r\n")
    assert client.send(command) == other.send(command)
    assert client.get(b"a") is None


def test_cas_uniques_do_not_repeat_after_a_flush() -> None:
    client = fresh()
    client.set(b"a", b"x")
    before = int(client.send(b"mg a c\r\n").split(b"c")[1])
    client.send(b"flush_all\r\n")
    client.set(b"a", b"x")
    assert int(client.send(b"mg a c\r\n").split(b"c")[1]) > before
    assert client.send(b"cas a 0 0 1 %d\r\ny\r\n" % before) == b"EXISTS\r\n"


def test_a_delayed_flush_takes_what_was_stored_before_it() -> None:
    client = fresh()
    client.set(b"a", b"x")
    client.engine.flush_all(10)
    client.engine.advance(5)
    client.set(b"b", b"x")
    assert keys(client, b"a", b"b") == [True, True]
    client.engine.advance(6)
    assert keys(client, b"a", b"b") == [False, False]
    client.set(b"c", b"x")
    client.engine.advance(100)
    assert keys(client, b"c") == [True]


@pytest.mark.parametrize("passed", [0, 1, 2, 50, 5000])
def test_a_flush_at_a_date_that_has_passed_spares_what_comes(passed: int) -> None:
    client = fresh()
    client.engine.advance(100)
    client.set(b"a", b"x")
    date = int(client.engine.wall(client.engine.now())) - passed
    lines = b"flush_all %d\r\nset b 0 0 1\r\ny\r\nget a b\r\n" % date
    assert client.send(lines) == b"OK\r\nSTORED\r\nVALUE b 0 1\r\ny\r\nEND\r\n"
    assert keys(client, b"a", b"b") == [False, True]
    client.engine.advance(2)
    assert keys(client, b"a", b"b") == [False, True]
    client.engine.flush_all(3)
    client.send(lines)
    client.engine.advance(5)
    assert keys(client, b"a", b"b") == [False, True], "and takes the place of one that is pending"


def test_a_new_flush_takes_the_place_of_a_delayed_one() -> None:
    client = fresh()
    client.engine.flush_all(10)
    client.engine.flush_all(100)
    client.set(b"a", b"x")
    client.engine.advance(20)
    assert keys(client, b"a") == [True]
    client.engine.flush_all()
    client.set(b"b", b"x")
    client.engine.advance(200)
    assert keys(client, b"a", b"b") == [False, True]


def test_a_delayed_flush_that_nobody_looks_at_still_works() -> None:
    client = fresh()
    client.set(b"a", b"x")
    client.engine.flush_all(10)
    client.engine.advance(1000)
    client.engine.maintain()
    client.set(b"b", b"x")
    assert keys(client, b"a", b"b") == [False, True]


def test_the_crawler_frees_what_was_flushed() -> None:
    client = fresh()
    client.send(b"".join(b"set k%d 0 0 3 noreply\r\nabc\r\n" % i for i in range(1000)))
    client.send(b"flush_all\r\n")
    crawl(client.engine)
    assert client.engine.stats()["curr_items"] == 0
    assert client.engine.stats()["bytes"] == 0


def test_flushes_by_prefix() -> None:
    client = fresh()
    for key in (b"user:1", b"user:2", b"users", b"page:1", b"u"):
        client.set(key, b"x")
    client.engine.flush_prefix(b"user:")
    assert keys(client, b"user:1", b"user:2", b"users", b"page:1", b"u") == [False, False, True, True, True]
    client.set(b"user:1", b"new")
    assert client.get(b"user:1") == b"new"
    client.engine.flush_prefix(b"")
    assert keys(client, b"user:1", b"users", b"page:1", b"u") == [False] * 4


def test_a_refresh_marks_stale_and_lets_one_win() -> None:
    client = fresh()
    client.set(b"user:1", b"old", exptime=1000)
    client.set(b"page:1", b"old")
    cas = int(client.send(b"mg user:1 c\r\n").split(b"c")[1])
    client.engine.refresh_prefix(b"user:", 30)
    client.engine.advance(10)
    assert client.send(b"mg user:1 v t\r\n") == b"VA 3 t20 X W\r\nold\r\n", "the lifetime runs from the refresh"
    assert client.send(b"mg user:1 v t\r\n") == b"VA 3 t20 Z X\r\nold\r\n"
    assert client.send(b"ms user:1 3 C%d\r\nnew\r\n" % cas) == b"EX\r\n", "an older lease is dead"
    now = int(client.send(b"mg user:1 c\r\n").split(b" ")[1][1:])
    assert now > cas
    assert client.send(b"ms user:1 3 C%d\r\nnew\r\n" % now) == b"HD\r\n"
    assert client.send(b"mg user:1 v\r\nmg page:1 v\r\n") == b"VA 3\r\nnew\r\nVA 3\r\nold\r\n"
    client.engine.refresh_prefix(b"page:", 30)
    client.engine.advance(31)
    assert client.get(b"page:1") is None


def test_many_prefixes_at_once() -> None:
    client = fresh()
    for i in range(500):
        client.set(b"p%d:k" % i, b"x")
    for i in range(0, 500, 2):
        client.engine.flush_prefix(b"p%d:" % i)
    for i in range(500):
        if i % 2 == 0:
            assert client.get(b"p%d:k" % i) is None
    for i in range(0, 500, 2):
        client.set(b"p%d:k" % i, b"new")
        assert client.get(b"p%d:k" % i) == b"new"


@pytest.mark.slow
def test_as_many_prefixes_at_once_as_there_is_room_for() -> None:
    """Nothing else is emptied before a pass has carried them out; one more, and everything is."""
    client = fresh()
    client.send(b"".join(b"set p%d:k 0 0 1 noreply\r\nx\r\n" % i for i in range(FLUSHES_MOST)))
    client.set(b"stays", b"x")
    for i in range(FLUSHES_MOST):
        client.engine.flush_prefix(b"p%d:" % i)
    assert client.get(b"stays") == b"x"
    assert client.send(b"get" + b"".join(b" p%d:k" % i for i in range(FLUSHES_MOST)) + b"\r\n") == b"END\r\n"
    client.engine.flush_prefix(b"p1:")
    assert client.get(b"stays") == b"x", "that one is there"
    client.engine.flush_prefix(b"one more")
    assert client.get(b"stays") is None


@pytest.mark.slow
def test_more_prefixes_than_epochs_with_passes_in_between() -> None:
    """No two are the same, with stores in between: what was not flushed stays, what was is gone, what came since stays."""
    client = fresh()
    client.send(b"".join(b"set item%d 0 0 1 noreply\r\nx\r\n" % i for i in range(20_000)))
    for i in range(70_000):
        client.set(b"p%d:old" % i, b"x")
        client.engine.flush_prefix(b"p%d:" % i)
        assert client.get(b"p%d:old" % i) is None
        if i % 7 == 0:
            client.set(b"p%d:new" % i, b"x")
        if i % 100 == 0:
            client.engine.maintain(200)
    assert all(keys(client, *(b"item%d" % i for i in range(20_000))))
    assert all(keys(client, *(b"p%d:new" % i for i in range(0, 70_000, 7))))


def test_prefixes_of_prefixes() -> None:
    """Each length is looked for, however many there are."""
    client = fresh()
    names = [b"k" * n for n in range(1, 251)]
    for name in names:
        client.set(name, b"x")
    for flushed in (250, 249, 120, 1):
        client.engine.flush_prefix(b"k" * flushed)
        assert keys(client, *names) == [n < flushed for n in range(1, 251)]
        client.set(b"k" * flushed, b"x")
        assert client.get(b"k" * flushed) == b"x"
        client.engine.delete(b"k" * flushed)


def test_too_many_refreshes_flush_their_own_prefixes() -> None:
    client = fresh()
    for i in range(REFRESHES_MOST + 2):
        client.set(b"r%d:k" % i, b"x")
    client.set(b"stays", b"x")
    for i in range(REFRESHES_MOST + 2):
        client.engine.refresh_prefix(b"r%d:" % i, 30)
    assert client.get(b"stays") == b"x"
    there = keys(client, *(b"r%d:k" % i for i in range(REFRESHES_MOST + 2)))
    assert there == [True] * REFRESHES_MOST + [False] * 2


def test_a_pass_cut_short_leaves_its_flushes_to_the_next() -> None:
    client = fresh()
    for i in range(3000):
        client.set(b"%d:k" % (i % 10), b"x" * 400) if i < 10 else client.set(b"k%d" % i, b"x" * 400)
    client.engine.flush_prefix(b"1:")
    client.engine.maintain(1)  # its pass has begun
    client.engine.flush_prefix(b"2:")
    client.engine.crawl([63], 1)  # another one takes its place
    client.engine.flush_prefix(b"3:")
    crawl(client.engine)
    assert keys(client, *(b"%d:k" % i for i in range(5))) == [True, False, False, False, True]


def test_more_flushes_than_can_be_counted() -> None:
    client = fresh()
    client.set(b"old", b"x")
    for i in range(70_000):
        client.engine.flush()
        if i % 20_000 == 0:
            client.set(b"k%d" % i, b"x")
    assert keys(client, b"old", *(b"k%d" % i for i in range(0, 70_000, 20_000))) == [False] * 5
    client.set(b"new", b"x")
    assert client.get(b"new") == b"x"
    crawl(client.engine)
    assert client.engine.stats()["curr_items"] == 1


@pytest.mark.slow
def test_epochs_come_round_and_empty_nothing_that_was_not_flushed() -> None:
    """Three times round, by prefix flushes with stores in between; then flushes of everything among them."""
    client = fresh()
    client.set(b"stays", b"x")
    for i in range(200):
        client.set(b"item%d" % i, b"x")
    client.send(b"ms refreshed 1 T0\r\nx\r\n")
    client.engine.refresh_prefix(b"refre", 0)
    for i in range(200_000):
        client.engine.flush_prefix(b"gone")
        assert client.get(b"gone:1") is None, i
        client.engine.delete(b"gone:1")
        client.set(b"gone:1", b"%d" % i)
        if i % 5000 == 0:
            client.engine.maintain()
    assert client.get(b"stays") == b"x"
    assert keys(client, *(b"item%d" % i for i in range(200))) == [True] * 200
    assert b" W" in client.send(b"mg refreshed v\r\n"), "still stale"
    for i in range(140_000):
        client.set(b"gone:1", b"%d" % i)
        if i % 40_000 == 0:
            client.engine.flush()
            client.set(b"stays", b"%d" % i)
        client.engine.flush_prefix(b"gone")
    assert client.get(b"stays") == b"120000"
    assert client.get(b"gone:1") is None
    assert keys(client, *(b"item%d" % i for i in range(200))) == [False] * 200


def test_flushes_without_a_store_between_them_use_no_epoch() -> None:
    client = fresh()
    client.set(b"a", b"x")
    for _ in range(70_000):
        client.engine.flush()
    client.set(b"b", b"x")
    client.engine.flush_prefix(b"c")
    assert keys(client, b"a", b"b") == [False, True]


def test_a_rule_that_comes_during_a_pass_is_carried_out_on_what_the_pass_has_seen() -> None:
    client = fresh()
    for i in range(3000):
        client.set(b"k%d" % i, b"x" * 400)
    client.engine.crawl(None)
    client.engine.maintain(1)  # the pass has begun, and seen some
    client.engine.flush_prefix(b"k1")
    for _ in range(100_000):
        if not client.engine.maintain(1) < 0.01:
            break
    crawl(client.engine)
    kept = [i for i in range(3000) if client.get(b"k%d" % i) is not None]
    assert kept == [i for i in range(3000) if not str(i).startswith("1")]


def test_rules_added_without_end_are_carried_out_nevertheless() -> None:
    client = fresh()
    client.set(b"stays", b"x")
    for i in range(5000):
        client.set(b"p%d" % i, b"x")
        client.engine.flush_prefix(b"p%d" % i)
        client.engine.maintain()
    assert client.get(b"stays") == b"x"
    assert not any(keys(client, *(b"p%d" % i for i in range(5000))))
    for _ in range(10_000):  # the same prefix is one rule, however often it comes
        client.engine.flush_prefix(b"q")
    assert client.get(b"stays") == b"x"
