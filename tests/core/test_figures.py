"""Figures and logs: every counter as memcached counts it, prefix statistics, sizes, walks, log events, traces."""

import time

import pytest

from tests.core.harness import Client, fresh

COUNTED: list[tuple[bytes, dict[str, int]]] = [
    (b"get a none\r\n", {"cmd_get": 2, "get_hits": 1, "get_misses": 1}),
    (b"gets a\r\n", {"cmd_get": 1, "get_hits": 1}),
    (b"gat 0 a none\r\n", {"cmd_touch": 2, "touch_hits": 1, "touch_misses": 1}),
    (b"touch a 0\r\n", {"cmd_touch": 1, "touch_hits": 1}),
    (b"touch none 0\r\n", {"cmd_touch": 1, "touch_misses": 1}),
    (b"mg a\r\n", {"cmd_get": 1, "get_hits": 1}),
    (b"mg none\r\n", {"cmd_get": 1, "get_misses": 1}),
    (b"mg a T30\r\n", {"cmd_touch": 1, "touch_hits": 1}),
    (b"me a\r\n", {"cmd_meta": 1}),
    (b"set a 0 0 1\r\ny\r\n", {"cmd_set": 1, "total_items": 1}),
    (b"add a 0 0 1\r\ny\r\n", {"cmd_set": 1}),
    (b"set a 0 0 1\r\nyyy", {"cmd_set": 1}),
    (b"set a 0 0 1048577\r\n", {"store_too_large": 1}),
    (b"ms a 1\r\ny\r\n", {"cmd_set": 1, "total_items": 1}),
    (b"cas a 0 0 1 77\r\ny\r\n", {"cmd_set": 1, "cas_badval": 1}),
    (b"cas none 0 0 1 77\r\ny\r\n", {"cmd_set": 1, "cas_misses": 1}),
    (b"delete a\r\n", {"delete_hits": 1}),
    (b"delete none\r\n", {"delete_misses": 1}),
    (b"md a\r\n", {"delete_hits": 1}),
    (b"md none\r\n", {"delete_misses": 1}),
    (b"incr a 1\r\n", {"incr_hits": 1}),
    (b"incr none 1\r\n", {"incr_misses": 1}),
    (b"decr a 1\r\n", {"decr_hits": 1}),
    (b"decr none 1\r\n", {"decr_misses": 1}),
    (b"ma a\r\n", {"incr_hits": 1}),
    (b"ma none MD\r\n", {"decr_misses": 1}),
    (b"md a C77\r\n", {"delete_misses": 1}),
    (b"md a C77 I q\r\n", {"delete_misses": 1}),
    (b"flush_all\r\n", {"cmd_flush": 1}),
    (b"flush_all x\r\n", {"cmd_flush": 1}),
    (b"me none\r\n", {"cmd_meta": 1}),
    (b"me\r\n", {}),
    (b"me a +\r\n", {}),
    (b"me ! b b\r\n", {}),
    (b"me " + b"k" * 251 + b"\r\n", {}),
    (b"mn\r\n", {}),
    (b"bogus\r\n", {}),
]
WATCHED = sorted({name for _, changes in COUNTED for name in changes} | {"cas_hits", "get_expired", "get_flushed"})


@pytest.mark.parametrize(("command", "changes"), COUNTED, ids=lambda value: repr(value)[:40])
def test_a_command_moves_these_counters_and_no_others(command: bytes, changes: dict[str, int]) -> None:
    client = fresh()
    client.set(b"a", b"1")
    before = client.engine.stats()
    client.send(command)
    after = client.engine.stats()
    changed = {name: after[name] - before[name] for name in WATCHED if after[name] != before[name]}
    assert changed == changes


def test_a_cas_that_matches_is_counted() -> None:
    client = fresh()
    client.set(b"a", b"1")
    cas = int(client.send(b"gets a\r\n").split()[4])
    assert client.send(b"cas a 0 0 1 %d\r\n2\r\n" % cas) == b"STORED\r\n"
    assert client.engine.stats()["cas_hits"] == 1


def test_figures_are_integers_and_reset() -> None:
    client = fresh()
    client.set(b"a", b"1")
    client.send(b"get a b\r\ndelete b\r\nincr a 1\r\n")
    stats = client.engine.stats()
    assert all(type(value) is int for value in stats.values())
    assert stats["bytes_read"] > 0
    assert stats["bytes_written"] > 0
    client.engine.reset_stats()
    after = client.engine.stats()
    assert after["curr_items"] == 1
    assert after["bytes"] == stats["bytes"] > 0
    assert after["limit_maxbytes"] == stats["limit_maxbytes"]
    zero = ("cmd_get", "cmd_set", "get_hits", "get_misses", "delete_misses", "incr_hits", "total_items", "bytes_read")
    assert {name: after[name] for name in zero} == dict.fromkeys(zero, 0)


def test_a_fresh_engine_has_done_nothing() -> None:
    stats = fresh().engine.stats()
    names = (
        "curr_items",
        "total_items",
        "bytes",
        "cmd_get",
        "cmd_set",
        "get_hits",
        "evictions",
        "bytes_written",
        "reclaimed",
    )
    assert {name: stats[name] for name in names} == dict.fromkeys(names, 0)


def test_prefixes_are_counted_while_detail_is_on() -> None:
    client = fresh()
    client.send(b"set a:1 0 0 1\r\nx\r\n")
    client.engine.detail = True
    client.send(b"set a:1 0 0 1\r\nx\r\nget a:1 a:2\r\ndelete a:1\r\nset b 0 0 1\r\nx\r\nget a::x :y\r\n")
    rows = {row[0]: tuple(row[1:]) for row in client.engine.prefix_stats()}
    assert rows[b"a"] == (3, 1, 1, 1)
    assert b"b" not in rows
    client.engine.detail = False
    client.send(b"get a:1\r\n")
    assert {row[0]: row[1] for row in client.engine.prefix_stats()}[b"a"] == 3


def test_the_prefix_delimiter_can_be_another() -> None:
    client = fresh(prefix_delimiter=b"/")
    client.engine.detail = True
    client.send(b"get x/1 y:1\r\n")
    assert [row[:2] for row in client.engine.prefix_stats()] == [(b"x", 1)]


def test_prefix_statistics_do_not_grow_without_bound() -> None:
    client = fresh()
    client.engine.detail = True
    for start in range(0, 300_000, 1000):
        client.send(b"get " + b" ".join(b"p%d:x" % i for i in range(start, start + 1000)) + b"\r\n")
    known = {prefix: gets for prefix, gets, *_ in client.engine.prefix_stats()}
    assert len(known) == 65_536, "memcached's cap"
    assert set(known.values()) == {1}
    assert client.engine.prefixes_left_out == 300_000 - 65_536
    client.send(b"get p0:x p299999:x\r\n")
    assert (b"p0", 2, 0, 0, 0) in client.engine.prefix_stats()
    client.engine.reset_stats()
    assert client.engine.prefixes_left_out == 0
    assert list(client.engine.prefix_stats()) == []


def test_cachedump_goes_on_where_it_was_though_items_move_and_go() -> None:
    client = fresh(segmented=False)
    for number in range(100):
        client.set(b"key%03d" % number, b"x")
    cls = next(iter(client.engine.item_stats()))
    dump = client.engine.cachedump(cls, 0, budget=10)
    seen = [key for key, _, _ in next(dump)]
    assert seen == [b"key%03d" % number for number in range(99, 89, -1)]
    client.engine.delete(b"key090")  # the last that was looked at
    client.engine.delete(b"key089")  # and the next
    seen += [key for found in dump for key, _, _ in found]
    assert seen == [b"key%03d" % number for number in range(99, -1, -1) if number != 89]
    assert client.engine.slab_stats()[0][cls]["used_chunks"] == 98, "what it held on to is free again"
    dump = client.engine.cachedump(cls, 0, budget=10)
    next(dump)
    client.engine.flush()
    client.send(b"get " + b" ".join(b"key%03d" % number for number in range(100)) + b"\r\n")
    assert [found for found in dump if found] == [], "all of the place it was in is gone"
    dump.close()
    dump = client.engine.cachedump(cls, 0, budget=1)
    client.set(b"a", b"x")
    next(dump)
    dump.close()
    client.engine.delete(b"a")
    assert client.engine.slab_stats()[0][cls]["used_chunks"] == 0


def sizes_of(client: Client) -> dict[int, int]:
    sizes = client.engine.sizes()
    assert sizes is not None
    return dict(sizes)


def test_sizes_by_buckets_of_32_bytes() -> None:
    assert fresh().engine.sizes() is None
    client = fresh(track_sizes=True)
    assert sizes_of(client) == {}
    client.set(b"a", b"1")  # 48 + 1 + 1 + 1 + 2 + 8 = 61
    client.set(b"b", b"1")
    client.set(b"c", b"x" * 100)
    sizes = sizes_of(client)
    assert sum(sizes.values()) == 3
    assert sizes[64] == 2
    client.send(b"delete a\r\nincr b 9\r\nappend c 0 0 200\r\n%b\r\nflush_all\r\nget b c\r\n" % (b"y" * 200))
    assert sizes_of(client) == {}


def test_walks_show_every_item_once() -> None:
    client = fresh()
    for i in range(1000):
        client.set(b"k%d" % i, b"x" * i, flags=i % 3, exptime=100 if i % 2 else 0)
    client.send(b"ms YQo= 1 b\r\nx\r\nget k7\r\n")
    items = [item for part in client.engine.walk(None, 50) for item in part]
    assert len(items) == 1001
    by_key = {item.key: item for item in items}
    assert by_key[b"a\n"].binary
    seventh = by_key[b"k7"]
    now = time.time()
    assert abs(seventh.exptime - now - 100) < 3
    assert abs(seventh.last_access - now) < 3
    assert by_key[b"k8"].exptime == -1
    assert (seventh.fetched, by_key[b"k8"].fetched) == (True, False)
    assert (seventh.flags, seventh.size) == (1, 48 + 2 + 1 + 4 + 7 + 2 + 8)
    assert seventh.cas > 0
    assert [item.key for part in client.engine.walk([by_key[b"k999"].cls]) for item in part].count(b"k999") == 1


def test_a_walk_survives_changes_under_it() -> None:
    client = fresh()
    for i in range(2000):
        client.set(b"k%d" % i, b"x")
    seen = []
    for number, part in enumerate(client.engine.walk(None, 20)):
        seen += [item.key for item in part]
        client.send(b"delete k%d\r\n" % (number * 7))
        client.set(b"n%d" % number, b"x" * 500)
        client.set(b"k%d" % (number * 3), b"y")
    assert len(set(seen)) > 1500
    client.engine.flush()
    assert [item for part in client.engine.walk(None) for item in part] == []


def test_cachedump_has_lengths_and_expiry() -> None:
    client = fresh()
    client.set(b"a", b"xyz")
    client.set(b"b", b"xyz", exptime=100)
    cls = next(iter(client.engine.item_stats()))
    dump = {key: (size, exptime) for found in client.engine.cachedump(cls, 0) for key, size, exptime in found}
    assert dump[b"a"] == (3, 0)
    assert dump[b"b"][0] == 3
    assert abs(dump[b"b"][1] - time.time() - 100) < 3
    assert [len(found) for found in client.engine.cachedump(cls, 1)] == [1]


def observed(client: Client, mask: int, *commands: bytes) -> list[tuple[str, dict[str, object]]]:
    events: list[tuple[str, dict[str, object]]] = []
    client.engine.observe(mask, lambda kind, fields: events.append((kind, dict(fields))))
    for command in commands:
        client.send(command)
    client.engine.observe(0, None)
    client.send(b"get a\r\nset a 0 0 1\r\nx\r\ndelete a\r\n")
    return events


def test_fetches_are_logged() -> None:
    client = fresh()
    client.set(b"a", b"xyz")
    client.set(b"e", b"x", exptime=1)
    client.set(b"f", b"x")
    client.engine.advance(2)
    events = observed(client, 1, b"get a none e\r\n", b"flush_all\r\n", b"get f\r\n")
    assert [kind for kind, _ in events] == ["item_get"] * 4
    assert [(fields["key"], fields["status"]) for _, fields in events] == [
        (b"a", "found"), (b"none", "not_found"), (b"e", "expired"), (b"f", "flushed"),
    ]  # fmt: skip


def test_mutations_are_logged() -> None:
    client = fresh()
    stored = (b"set a 0 100 3\r\nxyz\r\n", b"add a 0 0 1\r\nx\r\n", b"cas a 0 0 1 99\r\nx\r\n", b"cas n 0 0 1 9\r\nx\r\n",
              b"append a 0 0 1\r\nx\r\n", b"set a 0 0 1048577\r\n%b\r\n" % (b"x" * 1048577))  # fmt: skip
    events = [fields for kind, fields in observed(client, 2, *stored) if kind == "item_store"]
    assert [(fields["cmd"], fields["status"]) for fields in events] == [
        ("set", "stored"), ("add", "not_stored"), ("cas", "exists"), ("cas", "not_found"), ("append", "stored"),
        ("set", "too_large"),
    ]  # fmt: skip
    assert events[0]["ttl"] == 100
    assert events[0]["size"] == 3, "the value alone"


def test_evictions_and_deletions_are_logged() -> None:
    client = fresh(memory_limit=8 << 20)
    fill = [b"set k%d 0 0 5000\r\n%b\r\n" % (i, b"x" * 5000) for i in range(2000)]
    evicted = observed(client, 4, *fill)
    assert evicted
    assert {kind for kind, _ in evicted} == {"eviction"}
    assert evicted[0][1]["key"] == b"k0"
    client = fresh()
    deleted = observed(client, 8, b"set a 0 0 1\r\nx\r\n", b"delete a\r\n", b"delete a\r\n", b"set a 0 0 1\r\nx\r\n",
                       b"md a I\r\n", b"md a\r\n")  # fmt: skip
    assert [(kind, fields["key"], fields["cmd"]) for kind, fields in deleted] == [
        ("deleted", b"a", "delete"), ("deleted", b"a", "md"),
    ]  # fmt: skip


def test_traces_only_while_verbosity_is_above_one() -> None:
    client = fresh()
    client.send(b"get a\r\n")
    client.engine.verbosity = 1
    client.send(b"get a\r\n")
    assert client.owner.traces == []
    client.engine.verbosity = 2
    client.send(b"get a\r\nset a 0 0 1\r\nx\r\n")
    text = b"\n".join(client.owner.traces)
    assert b"get a" in text
    assert b"END" in text
    assert b"set a 0 0 1" in text
    assert b"STORED" in text
    client.engine.verbosity = 0
    before = len(client.owner.traces)
    client.send(b"get a\r\n")
    assert len(client.owner.traces) == before


def test_idle_time_is_known() -> None:
    client = fresh()
    client.send(b"mn\r\n")
    before = client.session.last_command
    client.engine.advance(10)
    assert client.engine.now() - client.session.last_command == pytest.approx(10, abs=1.1)
    client.send(b"mn\r\n")
    assert client.session.last_command > before


@pytest.mark.parametrize(
    ("whole", "rest"),
    [(b"", b"get a b c"), (b"mn\r\n", b"set a 0 0 1"), (b"", bytes((0x80, 0x0A)) + bytes(21)), (b"", b"      ")],
    ids=["line", "behind-another", "packet", "blanks"],
)
def test_who_never_completes_a_command_is_idle(whole: bytes, rest: bytes) -> None:
    client = fresh()
    client.send(whole)
    before = client.session.last_command
    for number in range(len(rest)):
        client.engine.advance(1)
        assert client.send(rest[number : number + 1]) == b""
    assert client.session.last_command == before


def test_a_value_that_is_coming_is_a_command() -> None:
    client = fresh()
    client.send(b"set a 0 0 3\r\n")
    before = client.session.last_command
    client.engine.advance(10)
    assert client.send(b"abc\r\n") == b"STORED\r\n"
    assert client.session.last_command == before + 10
