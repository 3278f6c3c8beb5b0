"""The settings in force, as `stats settings` prints them: the configuration, and what commands changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver import __version__

if TYPE_CHECKING:
    from mcserver.settings.config import Config

CLIENT_FLAGS_BYTES = 4
VERIFY_BITS = (0, 1, 3, 7)
"""ssl_verify_mode as memcached shows it: in OpenSSL's bits."""


class Settings(dict[str, object]):
    """Name to value, in memcached's order. Commands write what they change; a value has no space and is never empty."""

    def __init__(self, config: Config, tcpport: int) -> None:
        """The tcpport is the one that was opened, which matters when any free one was asked for."""
        super().__init__(_listening(config, tcpport) | _memory(config) | _background(config) | _rest(config))

    def in_force(self, verbosity: int, detail: bool) -> dict[str, object]:
        """Now: with what the engine itself keeps."""
        return self | {"verbosity": verbosity, "detail_enabled": yes(detail)}


def yes(flag: bool) -> str:
    """As `stats settings` shows a flag."""
    return "yes" if flag else "no"


def _listening(config: Config, tcpport: int) -> dict[str, object]:
    return {
        "maxbytes": config.maxbytes,
        "maxconns": config.maxconns,
        "tcpport": tcpport,
        "udpport": config.udpport,
        "inter": config.inter or "NULL",
        "verbosity": config.verbosity,
        "oldest": 0,
        "evictions": "on" if config.evictions else "off",
        "domain_socket": config.domain_socket or "NULL",
        "umask": f"{config.umask:o}",
        "shutdown_command": yes(config.shutdown_command),
        "growth_factor": f"{config.growth_factor:.2f}",
        "chunk_size": config.chunk_size,
        "num_threads": config.num_threads,
        "num_threads_per_udp": config.num_threads,
        "stat_key_prefix": config.stat_key_prefix.decode("latin-1"),
        "detail_enabled": yes(config.detail_enabled),
        "reqs_per_event": config.reqs_per_event,
        "cas_enabled": yes(config.cas_enabled),
        "tcp_backlog": config.tcp_backlog,
        "binding_protocol": config.binding_protocol,
        "auth_enabled_sasl": yes(config.sasl),
        "auth_enabled_ascii": config.auth_file or "no",
    }


def _memory(config: Config) -> dict[str, object]:
    return {
        "item_size_max": config.item_size_max,
        "maxconns_fast": yes(config.maxconns_fast),
        "hashpower_init": config.hashpower_init,
        "slab_reassign": yes(config.slab_reassign),
        "slab_automove": config.slab_automove,
        "slab_automove_ratio": f"{config.slab_automove_ratio:.2f}",
        "slab_automove_window": config.slab_automove_window,
        "slab_chunk_max": config.slab_chunk_max,
    }


def _background(config: Config) -> dict[str, object]:
    return {
        "lru_crawler": yes(config.lru_crawler),
        "lru_crawler_sleep": config.lru_crawler_sleep,
        "lru_crawler_tocrawl": config.lru_crawler_tocrawl,
        "tail_repair_time": config.tail_repair_time,
        "flush_enabled": yes(config.flush_enabled),
        "dump_enabled": yes(config.dump_enabled),
        "hash_algorithm": config.hash_algorithm,
        "lru_maintainer_thread": yes(config.lru_maintainer_thread),
        "lru_segmented": yes(config.lru_segmented),
        "hot_lru_pct": config.hot_lru_pct,
        "warm_lru_pct": config.warm_lru_pct,
        "hot_max_factor": f"{config.hot_max_factor:.2f}",
        "warm_max_factor": f"{config.warm_max_factor:.2f}",
        "temp_lru": yes(config.temp_lru),
        "temporary_ttl": config.temporary_ttl,
    }


def _tls(config: Config) -> dict[str, object]:
    return {
        "ssl_enabled": yes(config.ssl_enabled),
        "ssl_chain_cert": config.ssl_chain_cert or "(null)",
        "ssl_key": config.ssl_key or "(null)",
        "ssl_verify_mode": VERIFY_BITS[config.ssl_verify_mode],
        "ssl_keyformat": config.ssl_keyformat,
        "ssl_ciphers": config.ssl_ciphers or "NULL",
        "ssl_ca_cert": config.ssl_ca_cert or "NULL",
        "ssl_wbuf_size": config.ssl_wbuf_size,
        "ssl_session_cache": yes(config.ssl_session_cache),
        "ssl_kernel_tls": yes(config.ssl_kernel_tls),
        "ssl_min_version": f"tlsv1.{config.ssl_min_version}",
    }


def _rest(config: Config) -> dict[str, object]:
    return {
        "idle_timeout": config.idle_timeout,
        "watcher_logbuf_size": config.watcher_logbuf_size,
        "worker_logbuf_size": config.worker_logbuf_size,
        "read_buf_mem_limit": config.read_buf_mem_limit,
        "track_sizes": yes(config.track_sizes),
        "inline_ascii_response": "no",
        **_tls(config),
        "num_napi_ids": config.num_napi_ids,
        "memory_file": config.memory_file or "(null)",
        "client_flags_size": CLIENT_FLAGS_BYTES,
        "mcserver_version": __version__,
    }
