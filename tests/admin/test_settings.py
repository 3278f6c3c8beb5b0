"""`stats settings`: every key in memcached's order, and what commands change."""

from __future__ import annotations

from mcserver import __version__
from tests.admin.harness import Wire

KEYS = """
    maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask shutdown_command growth_factor
    chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled reqs_per_event cas_enabled tcp_backlog
    binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max maxconns_fast hashpower_init slab_reassign
    slab_automove slab_automove_ratio slab_automove_window slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl
    tail_repair_time flush_enabled dump_enabled hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct
    hot_max_factor warm_max_factor temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size
    read_buf_mem_limit track_sizes inline_ascii_response ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode ssl_keyformat
ssl_ciphers ssl_ca_cert ssl_wbuf_size ssl_session_cache ssl_kernel_tls ssl_min_version num_napi_ids memory_file client_flags_size
mcserver_version
"""

DEFAULTS = {
    "maxbytes": "67108864",
    "maxconns": "1024",
    "tcpport": "11211",
    "inter": "NULL",
    "evictions": "on",
    "domain_socket": "NULL",
    "umask": "700",
    "growth_factor": "1.25",
    "chunk_size": "48",
    "num_threads": "4",
    "stat_key_prefix": ":",
    "reqs_per_event": "20",
    "cas_enabled": "yes",
    "tcp_backlog": "1024",
    "binding_protocol": "auto-negotiate",
    "item_size_max": "1048576",
    "maxconns_fast": "yes",
    "slab_automove_ratio": "0.80",
    "slab_automove_window": "10",
    "slab_chunk_max": "524288",
    "lru_crawler": "yes",
    "hash_algorithm": "murmur3",
    "hot_max_factor": "0.20",
    "warm_max_factor": "2.00",
    "temp_lru": "no",
    "temporary_ttl": "61",
    "watcher_logbuf_size": "262144",
    "memory_file": "(null)",
    "client_flags_size": "4",
    "mcserver_version": __version__,
}


def test_keys_and_their_order() -> None:
    assert list(Wire().stats(b"settings")) == KEYS.split()


def test_defaults_are_those_of_memcached() -> None:
    settings = Wire().stats(b"settings")
    assert {key: settings[key] for key in DEFAULTS} == DEFAULTS


def test_a_beginning_of_the_word_will_do() -> None:
    wire = Wire()
    assert wire.stats(b"set") == wire.stats(b"settings")


def test_what_commands_change_is_shown() -> None:
    wire = Wire()
    changes = {
        b"lru tune 10 30 0.5 1.5": {
            "hot_lru_pct": "10",
            "warm_lru_pct": "30",
            "hot_max_factor": "0.50",
            "warm_max_factor": "1.50",
        },
        b"lru mode flat": {"lru_segmented": "no"},
        b"lru temp_ttl 30": {"temp_lru": "yes", "temporary_ttl": "30"},
        b"lru temp_ttl -1": {"temp_lru": "no"},
        b"lru_crawler tocrawl 7": {"lru_crawler_tocrawl": "7"},
        b"lru_crawler sleep 9": {"lru_crawler_sleep": "9"},
        b"lru_crawler disable": {"lru_crawler": "no"},
        b"lru_crawler enable": {"lru_crawler": "yes"},
        b"slabs automove 2": {"slab_automove": "2"},
        b"slabs automove ratio 0.25": {"slab_automove_ratio": "0.25"},
        b"slabs automove window 30": {"slab_automove_window": "30"},
        b"stats detail on": {"detail_enabled": "yes"},
    }
    for line, expected in changes.items():
        assert wire.ask(line) == b"OK\r\n"
        settings = wire.stats(b"settings")
        assert {key: settings[key] for key in expected} == expected, line
