"""`stats` and its sub-commands: the exact keys, in order, and figures that follow what was done."""

from __future__ import annotations

import re

from tests.admin.harness import Wire

GENERAL = """
    pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections
    total_connections rejected_connections connection_structures response_obj_oom response_obj_count response_obj_bytes
    read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta
    get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits
    cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read
    bytes_written limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields
    hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues
    slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem
    slab_reassign_last_busy_status slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts
    lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent
    log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items total_items slab_global_page_pool
    expired_unfetched evicted_unfetched evicted_active evictions reclaimed crawler_reclaimed crawler_items_checked
    lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped
"""
OWN = """
    unfinished_bytes unfinished_limit unfinished_refused slow_readers_dropped ghost_bytes lock_waits lock_wait_us wrong_protocol
    udp_requests udp_dropped
"""
ITEMS = """
    number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted evicted_nonzero evicted_time
    outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched evicted_active crawler_reclaimed
    crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims hits_to_hot
    hits_to_warm hits_to_cold hits_to_temp page_worth hits_share new_worth use_ratio
"""
SLABS = """
    chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end get_hits cmd_set delete_hits
    incr_hits decr_hits cas_hits cas_badval touch_hits pages_given pages_taken
"""
ONLY_WITH_MAINTAINER = {
    *("number_hot", "number_warm", "number_cold", "age_hot", "age_warm", "evicted_active", "moves_to_cold"),
    *("moves_to_warm", "moves_within_lru", "direct_reclaims"),
    *("hits_to_hot", "hits_to_warm", "hits_to_cold", "hits_to_temp"),
}


def test_stats_has_memcacheds_keys_in_their_order_and_ours_behind() -> None:
    keys = list(Wire().stats())
    assert keys[:93] == GENERAL.split()
    assert keys[93:] == OWN.split()


def test_general_keys_without_crawler_and_maintainer() -> None:
    wire = Wire(lru_crawler=False, lru_maintainer_thread=False, lru_segmented=False)
    assert len(wire.stats()) == 84 + len(OWN.split())


def test_keys_that_depend_on_settings() -> None:
    assert "idle_kicks" in Wire(idle_timeout=1).stats()
    assert "rejected_connections" not in Wire(maxconns_fast=False).stats()
    fixed = Wire(slab_reassign=False).stats()
    assert "slabs_moved" not in fixed
    assert len(fixed) == 93 - 9 + len(OWN.split())


def test_first_stats_of_a_fresh_server() -> None:
    stats = Wire().stats()
    at_zero = (
        "bytes_written curr_items total_items bytes cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses "
        "delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits "
        "touch_misses evictions reclaimed rejected_connections listen_disabled_num"
    )
    assert {key: stats[key] for key in at_zero.split()} == dict.fromkeys(at_zero.split(), "0")
    assert stats["accepting_conns"] == "1"
    assert stats["version"] == "1.6.45"
    assert stats["limit_maxbytes"] == "67108864"
    assert re.fullmatch(r"\d+\.\d{6}", stats["rusage_user"])
    assert re.fullmatch(r"\d+\.\d{6}", stats["rusage_system"])


def test_every_other_figure_is_an_integer() -> None:
    words = {"version", "libevent", "rusage_user", "rusage_system", "slab_reassign_last_busy_status"}
    assert all(value.isdigit() for key, value in Wire().stats().items() if key not in words)


def test_figures_follow_the_commands() -> None:
    wire = Wire()
    wire.set(b"a", b"1")
    wire.set(b"b", b"2")
    wire.ask(b"get a b c")
    wire.ask(b"gat 0 a c")
    wire.ask(b"incr a 1")
    wire.ask(b"incr c 1")
    wire.ask(b"decr a 1")
    wire.ask(b"decr c 1")
    wire.ask(b"touch a 10")
    wire.ask(b"touch c 10")
    wire.ask(b"delete b")
    wire.ask(b"delete b")
    wire.send(b"cas a 0 0 1 0\r\nx\r\n")
    wire.send(b"cas c 0 0 1 0\r\nx\r\n")
    wire.ask(b"me a")
    wire.ask(b"flush_all 1000")
    expected = {
        "cmd_get": 3,
        "get_hits": 2,
        "get_misses": 1,
        "cmd_set": 4,
        "cmd_touch": 4,
        "touch_hits": 2,
        "touch_misses": 2,
        "incr_hits": 1,
        "incr_misses": 1,
        "decr_hits": 1,
        "decr_misses": 1,
        "delete_hits": 1,
        "delete_misses": 1,
        "cas_badval": 1,
        "cas_misses": 1,
        "cmd_meta": 1,
        "cmd_flush": 1,
        "curr_items": 1,
    }
    stats = wire.stats()
    assert {key: int(stats[key]) for key in expected} == expected


def test_bytes_read_and_written_are_the_connections() -> None:
    wire = Wire()
    sent = b"set a 0 0 1\r\nx\r\nget a\r\n"
    received = wire.send(sent)
    stats = wire.stats()
    assert int(stats["bytes_read"]) == len(sent) + len(b"stats \r\n")
    assert int(stats["bytes_written"]) == len(received)


def test_reset_clears_counters_and_keeps_what_is() -> None:
    wire = Wire()
    wire.set(b"a", b"x")
    wire.ask(b"get a")
    wire.network.figures.rejected_connections = 4
    assert wire.ask(b"stats reset") == b"RESET\r\n"
    stats = wire.stats()
    cleared = ("cmd_get", "cmd_set", "get_hits", "total_items", "rejected_connections", "total_connections")
    assert {key: stats[key] for key in cleared} == dict.fromkeys(cleared, "0")
    assert stats["curr_items"] == "1"
    assert stats["curr_connections"] == "1"


def test_items_are_counted_by_class() -> None:
    wire = Wire()
    wire.set(b"a", b"x")
    wire.set(b"b", b"y" * 1000)
    stats = wire.stats(b"items")
    classes = sorted({key.split(":")[1] for key in stats}, key=int)
    assert len(classes) == 2
    assert list(stats) == [f"items:{number}:{key}" for number in classes for key in ITEMS.split()]
    assert [stats[f"items:{number}:number"] for number in classes] == ["1", "1"]
    assert stats[f"items:{classes[0]}:mem_requested"] == str(48 + 1 + 1 + 1 + 2 + 8)


def test_items_leaves_out_empty_classes() -> None:
    wire = Wire()
    wire.set(b"a", b"x")
    wire.ask(b"delete a")
    assert wire.stats(b"items") == {}


def test_items_without_maintainer() -> None:
    wire = Wire(lru_crawler=False, lru_maintainer_thread=False, lru_segmented=False)
    wire.set(b"a", b"x")
    keys = [key.split(":")[2] for key in wire.stats(b"items")]
    assert keys == [key for key in ITEMS.split() if key not in ONLY_WITH_MAINTAINER]


def test_slabs_are_shown_once_they_have_a_page() -> None:
    wire = Wire()
    assert wire.stats(b"slabs") == {"active_slabs": "0", "total_malloced": "0"}
    wire.set(b"a", b"x")
    wire.ask(b"get a")
    stats = wire.stats(b"slabs")
    assert list(stats) == [*(f"1:{key}" for key in SLABS.split()), "active_slabs", "total_malloced"]
    assert stats["1:used_chunks"] == stats["1:get_hits"] == stats["1:cmd_set"] == stats["active_slabs"] == "1"
    assert int(stats["1:total_chunks"]) == int(stats["1:used_chunks"]) + int(stats["1:free_chunks"])
    wire.ask(b"delete a")
    assert wire.stats(b"slabs")["1:used_chunks"] == "0"


def test_sizes_are_counted_only_if_asked_for() -> None:
    assert Wire().stats(b"sizes") == {"sizes_status": "disabled"}
    wire = Wire(track_sizes=True)
    assert wire.stats(b"sizes") == {}
    wire.set(b"a", b"x")
    wire.set(b"b", b"x" * 50)
    assert wire.stats(b"sizes") == {"64": "1", "128": "1"}


def test_detail_counts_by_prefix_until_a_reset() -> None:
    wire = Wire()
    wire.ask(b"stats detail on")
    wire.set(b"a:1", b"x")
    wire.ask(b"get a:1 a:2")
    wire.ask(b"delete a:1")
    wire.set(b"b", b"x")
    assert wire.ask(b"stats detail dump") == b"PREFIX a get 2 hit 1 set 1 del 1\r\nEND\r\n"
    wire.ask(b"stats reset")
    assert wire.ask(b"stats detail dump") == b"END\r\n"


def test_cachedump_has_sizes_and_expiry_and_its_limit() -> None:
    wire = Wire()
    wire.set(b"a", b"xyz")
    assert wire.ask(b"stats cachedump 1 0") == b"ITEM a [3 b; 0 s]\r\nEND\r\n"
    wire.set(b"b", b"x", exptime=100)
    reply = wire.ask(b"stats cachedump 1 1")
    assert reply.count(b"ITEM ") == 1
    expiry = re.search(rb"ITEM b \[1 b; (\d+) s\]", wire.ask(b"stats cachedump 1 10"))
    assert expiry
    assert abs(int(expiry[1]) - int(wire.stats()["time"]) - 100) <= 2


def test_trailing_and_doubled_spaces() -> None:
    wire = Wire()
    assert wire.ask(b"stats ").startswith(b"STAT pid ")
    assert wire.ask(b"stats  settings").startswith(b"STAT maxbytes ")


def test_memory_curve_says_when_it_knows_too_little() -> None:
    stats = Wire().stats(b"mrc")
    assert stats["status"] == "too_little_traffic"
    assert not [key for key in stats if key.endswith("hit_percent")]


def test_mrc_has_a_ratio_for_each_memory() -> None:
    wire = Wire()
    wire.send(b"set k 0 0 1\r\nv\r\n")
    for _ in range(3000):
        wire.send(b"get k\r\n")
    stats = wire.stats(b"mrc")
    limit = int(wire.stats()["limit_maxbytes"])
    assert list(stats) == [
        *("status", "gets", "samples", "sampling_rate", "sampled_keys", "memory_used"),
        *(f"{factor}x:{key}" for factor in ("0.25", "0.5", "1", "2", "4") for key in ("limit_maxbytes", "hit_percent")),
    ]
    assert stats["status"] == "ok"
    assert stats["gets"] == stats["samples"] == "3000"
    assert stats["0.25x:limit_maxbytes"] == str(limit // 4)
    assert {stats[f"{factor}x:hit_percent"] for factor in ("0.25", "0.5", "1", "2", "4")} == {"100.00"}
    wire.send(b"stats reset\r\n")
    assert wire.stats(b"mrc")["status"] == "too_little_traffic"
    assert wire.stats(b"mrc")["samples"] == "0"
