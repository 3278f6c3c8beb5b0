"""The figures as Prometheus reads them, under the names of its memcached_exporter; what is ours begins with mcserver_.

Each figure is asked for when it is scraped, none is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mcserver import MEMCACHED_VERSION, __version__
from mcserver.admin.stats import general_values

if TYPE_CHECKING:
    from mcserver.admin.context import Context


class Figure(NamedTuple):
    """A figure of `stats`, and how it is called here. Counters get their `_total`."""

    key: str
    name: str
    meaning: str
    is_counter: bool = False
    parts: int = 1
    """How many of the figure's units are one of the metric's: 1,000,000 for microseconds that are told in seconds."""

    @property
    def family(self) -> type[CounterMetricFamily | GaugeMetricFamily]:
        """How the library calls its kind."""
        return CounterMetricFamily if self.is_counter else GaugeMetricFamily

    def of(self, values: Mapping[str, Any]) -> float:
        """The figure among these of `stats`, in the metric's unit."""
        return number(values[self.key]) / self.parts


def gauge(key: str, name: str, meaning: str) -> Figure:
    """A figure that may fall."""
    return Figure(key, name, meaning)


def counter(key: str, name: str, meaning: str, parts: int = 1) -> Figure:
    """A figure that only rises, until `stats reset`."""
    return Figure(key, name, meaning, True, parts)


# The exporter's few counters without `_total` are gauges here: the library would give them one.
GENERAL = (
    gauge("uptime", "memcached_uptime_seconds", "Seconds since the server started"),
    gauge("time", "memcached_time_seconds", "The server's time, UNIX"),
    counter("rusage_user", "memcached_process_user_cpu_seconds", "CPU time of the process, user"),
    counter("rusage_system", "memcached_process_system_cpu_seconds", "CPU time of the process, system"),
    gauge("max_connections", "memcached_max_connections", "Most clients that are allowed (-c)"),
    gauge("curr_connections", "memcached_current_connections", "Open connections"),
    counter("total_connections", "memcached_connections", "Connections opened since the start"),
    counter("rejected_connections", "memcached_connections_rejected", "Connections refused because of -c"),
    counter("conn_yields", "memcached_connections_yielded", "Turns of a connection that were cut so that others got theirs"),
    counter("listen_disabled_num", "memcached_connections_listener_disabled", "Times that the listeners were paused"),
    gauge("accepting_conns", "memcached_accepting_connections", "1 while connections are accepted"),
    counter("bytes_read", "memcached_read_bytes", "Bytes received"),
    counter("bytes_written", "memcached_written_bytes", "Bytes sent"),
    gauge("bytes", "memcached_current_bytes", "Bytes of the items"),
    gauge("limit_maxbytes", "memcached_limit_bytes", "Memory for items (-m)"),
    gauge("curr_items", "memcached_current_items", "Items"),
    counter("total_items", "memcached_items", "Items stored since the start"),
    counter("evictions", "memcached_items_evicted", "Items that made room for others"),
    counter("reclaimed", "memcached_items_reclaimed", "Items whose room was used after they had expired"),
    counter("lru_crawler_starts", "memcached_lru_crawler_starts", "Passes of the crawler"),
    counter("crawler_reclaimed", "memcached_lru_crawler_reclaimed", "Dead items that the crawler freed"),
    counter("crawler_items_checked", "memcached_lru_crawler_items_checked", "Items that the crawler looked at"),
    counter("moves_to_cold", "memcached_lru_crawler_moves_to_cold", "Items moved to the cold list"),
    counter("moves_to_warm", "memcached_lru_crawler_moves_to_warm", "Items moved to the warm list"),
    counter("moves_within_lru", "memcached_lru_crawler_moves_within_lru", "Used items moved within their list"),
    counter("direct_reclaims", "memcached_direct_reclaims", "Times that a store had to make room by itself"),
    counter("store_too_large", "memcached_item_too_large", "Stores refused because of -I"),
    counter("store_no_memory", "memcached_item_no_memory", "Stores refused because of -m"),
    # mcserver's own
    gauge("slab_global_page_pool", "mcserver_page_pool_pages", "Pages of no class"),
    counter("slabs_moved", "mcserver_pages_moved", "Pages that went from one class to another"),
    counter("expired_unfetched", "mcserver_items_expired_unfetched", "Items that expired without having been read"),
    counter("evicted_unfetched", "mcserver_items_evicted_unfetched", "Items evicted without having been read"),
    gauge("unfinished_bytes", "mcserver_unfinished_bytes", "Bytes of values on their way in"),
    gauge("unfinished_limit", "mcserver_unfinished_limit_bytes", "Their bound"),
    counter("unfinished_refused", "mcserver_unfinished_refused", "Values refused in the middle"),
    counter("slow_readers_dropped", "mcserver_slow_readers_dropped", "Clients closed because they kept memory by reading slowly"),
    gauge("ghost_bytes", "mcserver_ghost_bytes", "Memory for what is known of evicted items"),
    gauge("hash_bytes", "mcserver_index_bytes", "Memory of the index"),
    counter("read_buf_oom", "mcserver_read_buffers_refused", "Requests refused because too many were unfinished"),
    counter("log_worker_dropped", "mcserver_log_lines_dropped", "Lines of the log that were not written"),
    counter("log_watcher_skipped", "mcserver_watch_lines_skipped", "Lines that slow watchers lost"),
    gauge("log_watchers", "mcserver_watchers", "Clients that watch"),
    gauge("threads", "mcserver_threads", "Worker threads (-t)"),
    counter("lock_waits", "mcserver_lock_waits", "Times that a thread waited for the engine's lock"),
    counter("lock_wait_us", "mcserver_lock_wait_seconds", "How long threads waited for it, together", 1_000_000),
    counter("get_expired", "mcserver_gets_expired", "Misses of items that had expired"),
    counter("get_flushed", "mcserver_gets_flushed", "Misses of items that were flushed"),
    counter("auth_cmds", "mcserver_logins", "Logins (-Y, -S)"),
    counter("auth_errors", "mcserver_logins_failed", "Logins that failed"),
    counter("wrong_protocol", "mcserver_wrong_protocol", "Connections that spoke what is not spoken there"),
    counter("udp_requests", "mcserver_udp_requests", "Datagrams that came"),
    counter("udp_dropped", "mcserver_udp_dropped", "Datagrams that were not answered"),
)  # fmt: skip

TLS = (
    counter("ssl_new_sessions", "mcserver_tls_sessions", "New sessions of TLS"),
    counter("ssl_handshake_errors", "mcserver_tls_handshakes_failed", "Handshakes that failed"),
    counter("ssl_proto_errors", "mcserver_tls_broken", "Connections that broke TLS afterwards"),
    gauge("time_since_server_cert_refresh", "mcserver_tls_certificate_read_seconds", "Since the certificates were read"),
)  # fmt: skip
"""With -Z alone."""

SETTINGS = (
    gauge("lru_crawler", "memcached_lru_crawler_enabled", "1 if expired items are freed in the background"),
    gauge("lru_crawler_sleep", "memcached_lru_crawler_sleep", "Shown only: microseconds between items"),
    gauge(
        "lru_crawler_tocrawl", "memcached_lru_crawler_to_crawl", "Most items of a class that a pass looks at; 0: all"
    ),
    gauge("lru_maintainer_thread", "memcached_lru_crawler_maintainer_thread", "1 if the LRU is kept in the background"),
    gauge("hot_lru_pct", "memcached_lru_crawler_hot_percent", "-o hot_lru_pct"),
    gauge("warm_lru_pct", "memcached_lru_crawler_warm_percent", "-o warm_lru_pct"),
    gauge("hot_max_factor", "memcached_lru_crawler_hot_max_factor", "-o hot_max_factor"),
    gauge("warm_max_factor", "memcached_lru_crawler_warm_max_factor", "-o warm_max_factor"),
)

SLABS = (
    gauge("chunk_size", "memcached_slab_chunk_size_bytes", "Bytes of a chunk"),
    gauge("chunks_per_page", "memcached_slab_chunks_per_page", "Chunks in a page"),
    gauge("total_pages", "memcached_slab_current_pages", "Pages of the class"),
    gauge("total_chunks", "memcached_slab_current_chunks", "Chunks of the class"),
    gauge("used_chunks", "memcached_slab_chunks_used", "Chunks in use"),
    gauge("free_chunks", "memcached_slab_chunks_free", "Chunks not in use"),
    gauge("free_chunks_end", "memcached_slab_chunks_free_end", "Chunks never used"),
    counter("pages_given", "mcserver_slab_pages_given", "Pages that the class gave to others"),
    counter("pages_taken", "mcserver_slab_pages_taken", "Pages that the class took from others"),
)

ITEMS = (
    gauge("number", "memcached_slab_current_items", "Items"),
    gauge("age", "memcached_slab_items_age_seconds", "Seconds since the oldest item was used"),
    gauge("number_hot", "memcached_slab_hot_items", "Items of the hot list"),
    gauge("number_warm", "memcached_slab_warm_items", "Items of the warm list"),
    gauge("number_cold", "memcached_slab_cold_items", "Items of the cold list"),
    gauge("number_temp", "memcached_slab_temporary_items", "Items of the temporary list"),
    gauge("age_hot", "memcached_slab_hot_age_seconds", "Age of the hot list's oldest item"),
    gauge("age_warm", "memcached_slab_warm_age_seconds", "Age of the warm list's oldest item"),
    gauge("mem_requested", "memcached_slab_mem_requested_bytes", "Bytes of the items"),
    counter("evicted", "memcached_slab_items_evicted", "Items evicted"),
    counter("evicted_nonzero", "memcached_slab_items_evicted_nonzero", "Items evicted that had a time to live"),
    gauge(
        "evicted_time", "memcached_slab_items_evicted_time_seconds", "How long the last evicted item had not been used"
    ),
    counter("outofmemory", "memcached_slab_items_outofmemory", "Stores without room"),
    counter("tailrepairs", "memcached_slab_items_tailrepairs", "0: nothing gets stuck here"),
    counter("reclaimed", "memcached_slab_items_reclaimed", "Expired items whose room was used"),
    counter(
        "expired_unfetched", "memcached_slab_items_expired_unfetched", "Items that expired without having been read"
    ),
    counter("evicted_unfetched", "memcached_slab_items_evicted_unfetched", "Items evicted without having been read"),
    counter("crawler_reclaimed", "memcached_slab_items_crawler_reclaimed", "Dead items that the crawler freed"),
    gauge("moves_to_cold", "memcached_slab_items_moves_to_cold", "Items moved to the cold list"),
    gauge("moves_to_warm", "memcached_slab_items_moves_to_warm", "Items moved to the warm list"),
    gauge("moves_within_lru", "memcached_slab_items_moves_within_lru", "Used items moved within their list"),
    gauge("page_worth", "mcserver_slab_page_worth", "What a class's next page is worth, beside those of others"),
    gauge("hits_share", "mcserver_slab_hits_share", "Share of the hits, percent"),
)

COMMANDS = ("get", "delete", "incr", "decr", "cas", "touch")
"""Commands with hits and misses; slab classes know the hits alone."""
LISTS = ("hot", "warm", "cold", "temp")
CAS = ("cas_hits", "cas_misses", "cas_badval")

CLUSTER_COUNTERS = {
    "appends", "resent", "unconfirmed", "gaps", "holes", "overflows", "malformed", "flushes", "append_waits", "lock_waits",
    "locks_lost", "reconnects", "client_rebuilds", "acks_held_back",
}  # fmt: skip
"""Of `stats cluster`, besides writes_*; all other numbers there are gauges."""


def number(value: Any) -> float:
    """A figure as a number; yes and no are 1 and 0."""
    return float(value == "yes") if value in {"yes", "no"} else float(value)


def is_cluster_counter(key: str) -> bool:
    """Whether this figure of `stats cluster` only rises."""
    return key in CLUSTER_COUNTERS or key.startswith("writes_")


def cluster_name(key: str) -> tuple[str, int]:
    """How a figure of `stats cluster` is called here, and how many of its units are one of the metric's: ms become seconds."""
    words = key.split("_")
    if "ms" not in words:
        return f"mcserver_cluster_{key}", 1
    words.remove("ms")
    return f"mcserver_cluster_{'_'.join(words)}_seconds", 1000


class ServerCollector:
    """Asks for every figure anew at each scrape."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        context = self._context
        values = general_values(context)
        yield GaugeMetricFamily("memcached_up", "1: this server answers", value=1)
        yield _labelled(
            "memcached_version", "The version of memcached that is spoken", {"version": MEMCACHED_VERSION}, 1
        )
        own = {"version": __version__, "memcached_version": MEMCACHED_VERSION, "loop": context.loop}
        yield _labelled("mcserver_info", "Versions", own, 1)
        yield from _plain(GENERAL, values)
        if context.config.ssl_enabled:
            yield from _plain(TLS, values)
        yield from _plain(SETTINGS, context.settings.in_force(0, False))
        yield _commands(values)
        yield from self._classes()
        yield from self._curve()
        if context.cluster is not None:
            yield from self._fleet()

    def _classes(self) -> Iterator[Metric]:
        classes, _, malloced = self._context.engine.slab_stats()
        yield GaugeMetricFamily("memcached_malloced_bytes", "Bytes of all pages", value=malloced)
        yield from _by_class(SLABS, classes)
        lists = self._context.engine.item_stats()
        yield from _by_class(ITEMS, lists)
        commands = CounterMetricFamily(
            "memcached_slab_commands", "Commands by slab class", labels=["slab", "command", "status"]
        )
        for cls, figures in classes.items():
            for command in COMMANDS:
                commands.add_metric([str(cls), command, "hit"], figures[f"{command}_hits"])
            commands.add_metric([str(cls), "cas", "badval"], figures["cas_badval"])
            commands.add_metric(
                [str(cls), "set", "hit"], figures["cmd_set"] - figures["cas_hits"] - figures["cas_badval"]
            )
        yield commands
        hits = CounterMetricFamily("memcached_slab_lru_hits", "Hits by slab class and list", labels=["slab", "lru"])
        for cls, each in lists.items():
            for name in LISTS:
                if f"hits_to_{name}" in each:
                    hits.add_metric([str(cls), name], each[f"hits_to_{name}"])
        yield hits

    def _curve(self) -> Iterator[Metric]:
        ratios = GaugeMetricFamily(
            "mcserver_memory_curve_hit_ratio", "The hit ratio with so many times the memory", labels=["factor"]
        )
        for factor, (_, ratio) in self._context.engine.mrc_stats()["curve"].items():
            if ratio is not None:
                ratios.add_metric([f"{factor:g}"], ratio)
        yield ratios

    def _fleet(self) -> Iterator[Metric]:
        cluster = self._context.cluster
        assert cluster is not None
        for key, value in cluster.stats().items():
            if isinstance(value, str):
                continue
            name, parts = cluster_name(key)
            kind = CounterMetricFamily if is_cluster_counter(key) else GaugeMetricFamily
            yield kind(name, f"`{key}` of stats cluster", value=value / parts)
        members = GaugeMetricFamily(
            "mcserver_cluster_member", "1 for each live member", labels=["name", "address", "state"]
        )
        for member in cluster.members()[1]:
            members.add_metric([member.name, member.address, member.state], 1)
        yield members


def _labelled(name: str, meaning: str, labels: Mapping[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _plain(figures: tuple[Figure, ...], values: Mapping[str, Any]) -> Iterator[Metric]:
    for each in figures:
        if each.key in values:
            yield each.family(each.name, each.meaning, value=each.of(values))


def _by_class(figures: tuple[Figure, ...], classes: Mapping[int, Mapping[str, Any]]) -> Iterator[Metric]:
    for each in figures:
        family = each.family(each.name, each.meaning, labels=["slab"])
        for cls, values in classes.items():
            if each.key in values:
                family.add_metric([str(cls)], each.of(values))
        yield family


def _commands(values: Mapping[str, Any]) -> Metric:
    family = CounterMetricFamily("memcached_commands", "Commands", labels=["command", "status"])
    for command in COMMANDS:
        family.add_metric([command, "hit"], number(values[f"{command}_hits"]))
        family.add_metric([command, "miss"], number(values[f"{command}_misses"]))
    family.add_metric(["cas", "badval"], number(values["cas_badval"]))
    family.add_metric(["flush", "hit"], number(values["cmd_flush"]))
    # memcached counts a cas as a set, too; the exporter takes it out again
    family.add_metric(["set", "hit"], number(values["cmd_set"]) - sum(number(values[each]) for each in CAS))
    family.add_metric(["meta", "hit"], number(values["cmd_meta"]))
    return family


class _One:
    """A registry of one family, for the library's formatter."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


def pieces(context: Context) -> Iterator[bytes]:
    """Prometheus' text format, version 0.0.4, a family at a time: whoever takes it can let others have their turn between."""
    for family in ServerCollector(context).collect():
        yield generate_latest(_One(family))


def names() -> dict[str, str]:
    """Every name that can be scraped without a fleet, with its type; counters with their `_total`."""
    figures = (*GENERAL, *TLS, *SETTINGS, *SLABS, *ITEMS)
    known = {each.name + "_total" * each.is_counter: "counter" if each.is_counter else "gauge" for each in figures}
    for name in (
        "memcached_up",
        "memcached_version",
        "memcached_malloced_bytes",
        "mcserver_info",
        "mcserver_memory_curve_hit_ratio",
    ):
        known[name] = "gauge"
    for name in ("memcached_commands_total", "memcached_slab_commands_total", "memcached_slab_lru_hits_total"):
        known[name] = "counter"
    return known
