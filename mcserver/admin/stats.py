"""`stats` and its sub-commands (settings and conns have files of their own). Every figure is asked for, none is kept.

The order and the presence of keys are memcached's (protocol.txt, "General-purpose statistics"): exporters fail on a key
that is missing or doesn't parse, so nothing is added and nothing left out.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mcserver import MEMCACHED_VERSION
from mcserver.admin import cluster
from mcserver.admin.conns import conns
from mcserver.admin.context import Context, Reply
from mcserver.admin.words import CLASS_MOST, INT32_MAX, is_word, pieces, stat_lines, stat_pieces, unsigned
from mcserver.core import BAD_FORMAT, END, ERROR, OK
from mcserver.keys import plain, plain_or_escaped

if TYPE_CHECKING:
    from mcserver.core import Session

RESET = b"RESET\r\n"

_GENERAL = """
    pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections
    total_connections rejected_connections connection_structures response_obj_oom response_obj_count
    response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set
    cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses
    incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large
    store_no_memory auth_cmds auth_errors idle_kicks bytes_read bytes_written limit_maxbytes accepting_conns
    listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes hash_is_expanding
    slab_reassign_rescues slab_reassign_chunk_rescues slab_reassign_inline_reclaim slab_reassign_busy_items
    slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status slab_reassign_running
    slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails log_worker_dropped
    log_worker_written log_watcher_skipped log_watcher_sent log_watchers
    ssl_new_sessions ssl_handshake_errors ssl_proto_errors time_since_server_cert_refresh unexpected_napi_ids round_robin_fallback
    bytes curr_items total_items slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions
    reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru
    direct_reclaims lru_bumps_dropped
"""

GENERAL = tuple(_GENERAL.split())
"""All that `stats` can print, in memcached's order."""

OWN = (
    *("unfinished_bytes", "unfinished_limit", "unfinished_refused", "slow_readers_dropped", "ghost_bytes"),
    *("lock_waits", "lock_wait_us", "wrong_protocol", "udp_requests", "udp_dropped"),
)
"""What memcached does not have; it stands behind."""

WITH_IDLE_TIMEOUT = {"idle_kicks"}
WITH_MAXCONNS_FAST = {"rejected_connections"}
WITH_SLAB_REASSIGN = {key for key in GENERAL if key.startswith("slab_reassign_")} | {"slabs_moved"}
WITH_TLS = {"ssl_new_sessions", "ssl_handshake_errors", "ssl_proto_errors", "time_since_server_cert_refresh"}
WITH_SESSION_CACHE = {"ssl_new_sessions"}
WITH_CRAWLER = {"lru_crawler_running", "lru_crawler_starts"}
_MOVES = {"evicted_active", "moves_to_cold", "moves_to_warm", "moves_within_lru", "direct_reclaims"}
WITH_MAINTAINER = _MOVES | {"lru_maintainer_juggles", "lru_bumps_dropped"}
ITEMS_WITH_MAINTAINER = _MOVES | {
    *("number_hot", "number_warm", "number_cold", "age_hot", "age_warm"),
    *("hits_to_hot", "hits_to_warm", "hits_to_cold", "hits_to_temp"),
}

SCALED = {"page_worth": 1_000_000, "hits_share": 10, "new_worth": 1000, "use_ratio": 1000}
"""Figures of `stats items` that are fractions: printed as whole numbers, since clients read nothing else there."""

_NOTHING_TO_COUNT = """
    response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free
    read_buf_oom malloc_fails unexpected_napi_ids round_robin_fallback
    slab_reassign_inline_reclaim slab_reassign_busy_deletes slab_reassign_busy_nomem lrutail_reflocked lru_bumps_dropped
"""

NOTHING_TO_COUNT: Mapping[str, object] = dict.fromkeys(_NOTHING_TO_COUNT.split(), 0)
"""Keys of mechanisms that are not here, unless the engine says otherwise: handing over to threads, pools of buffers."""


def stats(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`stats [SUB ...]`. Sub-commands may be abbreviated, but for items, slabs and sizes."""
    if len(words) == 1:
        return general(context)
    sub = words[1]
    if is_word(sub, b"reset"):
        return _reset(context)
    if is_word(sub, b"detail"):
        return _detail(context, words[2:])
    if is_word(sub, b"settings"):
        return stat_lines(context.settings.in_force(context.engine.verbosity, context.engine.detail).items())
    if is_word(sub, b"cachedump"):
        return _cachedump(context, words[2:])
    if is_word(sub, b"conns"):
        return conns(context, session)
    if sub == b"items":
        return items(context)
    if sub == b"slabs":
        return slabs(context)
    if sub == b"sizes":
        return _sizes(context)
    if sub == b"mrc":
        return memory_curve(context)
    if sub == b"cluster" and context.cluster is not None:
        return cluster.stats(context.cluster)
    return ERROR


def general(context: Context) -> bytes:
    """`stats`: 93 keys by default, 84 with no_lru_crawler and no_lru_maintainer, 3 or 4 more with TLS; then those of OWN."""
    values = general_values(context)
    left_out = _left_out(context)
    return stat_lines((key, values[key]) for key in (*GENERAL, *OWN) if key not in left_out)


def general_values(context: Context) -> dict[str, object]:
    """Everything that `stats` can print, by its key."""
    return {**NOTHING_TO_COUNT, **context.engine.stats(), **_process(context), **_network(context)}


def _left_out(context: Context) -> set[str]:
    config = context.config
    left_out: set[str] = set()
    for present, keys in (
        (config.idle_timeout > 0, WITH_IDLE_TIMEOUT),
        (config.maxconns_fast, WITH_MAXCONNS_FAST),
        (config.slab_reassign, WITH_SLAB_REASSIGN),
        (context.engine.crawler_enabled, WITH_CRAWLER),
        (config.lru_maintainer_thread, WITH_MAINTAINER),
        (config.ssl_enabled, WITH_TLS),
        (config.ssl_session_cache, WITH_SESSION_CACHE),
    ):
        if not present:
            left_out |= keys
    return left_out


def _process(context: Context) -> dict[str, object]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pid": os.getpid(),
        "uptime": int(context.engine.now()),
        "time": int(time.time()),
        "version": MEMCACHED_VERSION,
        "libevent": context.loop,
        "pointer_size": 64,
        "rusage_user": f"{usage.ru_utime:.6f}",
        "rusage_system": f"{usage.ru_stime:.6f}",
        "threads": context.config.num_threads,
        "slab_reassign_last_busy_status": "none",
    }


def _network(context: Context) -> dict[str, object]:
    network, watchers = context.network, context.watchers
    return {
        **vars(network.figures),
        "max_connections": context.config.maxconns,
        "curr_connections": network.connections - 1,  # memcached leaves out one listener, however many there are
        "connection_structures": network.most_connections,
        "reserved_fds": network.reserved_descriptors,
        "accepting_conns": int(network.accepting),
        "time_since_server_cert_refresh": network.certificate_seconds,
        "log_worker_dropped": network.log_lines_lost + context.engine.stats()["journal_dropped"],
        "log_worker_written": watchers.written,
        "log_watcher_skipped": watchers.skipped,
        "log_watcher_sent": watchers.sent,
        "log_watchers": len(watchers),
    }


def items(context: Context) -> Reply:
    """`stats items`: classes that hold items."""
    left_out = set() if context.config.lru_maintainer_thread else set(ITEMS_WITH_MAINTAINER)
    if context.settings["temp_lru"] == "no":
        left_out.add("number_temp")
    return stat_pieces(
        (f"items:{number}:{key}", round(value * SCALED.get(key, 1)))
        for number, figures in context.engine.item_stats().items()
        for key, value in figures.items()
        if key not in left_out
    )


def slabs(context: Context) -> Reply:
    """`stats slabs`: classes that ever had a page, and the two sums."""
    classes, active, malloced = context.engine.slab_stats()
    lines: list[tuple[str, object]] = [
        (f"{number}:{key}", value) for number, figures in classes.items() for key, value in figures.items()
    ]
    return stat_pieces([*lines, ("active_slabs", active), ("total_malloced", malloced)])


def memory_curve(context: Context) -> bytes:
    """`stats mrc`: the hit ratio, in percent, that other sizes of the memory would have given since the last reset."""
    figures = context.engine.mrc_stats()
    lines: list[tuple[str, object]] = [
        ("status", "ok" if figures["curve"][1][1] is not None else "too_little_traffic"),
        ("gets", figures["gets"]),
        ("samples", figures["samples"]),
        ("sampling_rate", f"{figures['sampling_rate']:.6f}"),
        ("sampled_keys", figures["keys"]),
        ("memory_used", figures["memory"]),
    ]
    for factor, (size, ratio) in figures["curve"].items():
        lines.append((f"{factor:g}x:limit_maxbytes", size))
        if ratio is not None:
            lines.append((f"{factor:g}x:hit_percent", f"{100 * ratio:.2f}"))
    return stat_lines(lines)


def _sizes(context: Context) -> Reply:
    sizes = context.engine.sizes()
    if sizes is None:
        return stat_lines([("sizes_status", "disabled")])
    return pieces(b"STAT %d %d\r\n" % each if each[1] else b"" for each in sizes)


def _reset(context: Context) -> bytes:
    context.engine.reset_stats()
    context.network.figures.reset()
    context.watchers.reset()
    return RESET


def _detail(context: Context, words: list[bytes]) -> Reply:
    if not context.config.dump_enabled:
        return b"CLIENT_ERROR stats detail not allowed\r\n"
    word = words[0] if words else b"?"
    if is_word(word, b"on"):
        context.engine.detail = True
        return OK
    if is_word(word, b"off"):
        context.engine.detail = False
        return OK
    if is_word(word, b"dump"):
        return pieces(
            b"PREFIX %b get %d hit %d set %d del %d\r\n" % (plain_or_escaped(prefix), gets, hits, sets, deletes)
            for prefix, gets, hits, sets, deletes in context.engine.prefix_stats()
        )
    return b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"


def _cachedump(context: Context, words: list[bytes]) -> Reply:
    if not context.config.dump_enabled:
        return b"CLIENT_ERROR stats cachedump not allowed\r\n"
    if len(words) < 2:
        return b"CLIENT_ERROR bad command line\r\n"
    number, limit = unsigned(words[0]), unsigned(words[1])
    if number is None or limit is None:
        return BAD_FORMAT
    if number > CLASS_MOST:
        return b"CLIENT_ERROR Illegal slab id\r\n"
    return _item_lines(context.engine.cachedump(number, min(limit, INT32_MAX)))


def _item_lines(slices: Iterator[list[tuple[bytes, int, int]]]) -> Iterator[bytes]:
    """Without the keys that would break a line."""
    for found in slices:
        yield b"".join([b"ITEM %b [%d b; %d s]\r\n" % item for item in found if plain(item[0]) is not None])
    yield END
