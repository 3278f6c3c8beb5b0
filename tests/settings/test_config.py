"""The settings: what is valid, which text and exit code answer what is not."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from os import EX_OSERR, EX_USAGE
from pathlib import Path
from typing import Any

import pytest

from mcserver import MEMCACHED_VERSION, core
from mcserver.core.engine import MEMORY_LIMIT_LEAST, MEMORY_LIMIT_MOST
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import MEMORY_LEAST, MEMORY_MOST, Config, Listener, Secure, parse_listeners
from mcserver.settings.rules import EX_FAILURE, ConfigError, Effect, rules

MEBIBYTE = 1 << 20


def test_the_limits_of_the_memory_are_the_cores() -> None:
    assert (MEMORY_LIMIT_LEAST, MEMORY_LIMIT_MOST) == (MEMORY_LEAST * MEBIBYTE, MEMORY_MOST * MEBIBYTE)


def test_an_engine_alone_has_the_same_defaults() -> None:
    """Its own stand in its stub, which scripts/lint compares with the core, but for those that are no literals there."""
    stub = ast.parse((Path(core.__file__).parent / "engine.pyi").read_text())
    made = next(
        each
        for kind in stub.body
        if isinstance(kind, ast.ClassDef) and kind.name == "Engine"
        for each in kind.body
        if isinstance(each, ast.FunctionDef) and each.name == "__new__"
    )
    given = Config().engine_arguments() | {"version": MEMCACHED_VERSION.encode()}
    for argument, default in zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True):
        if argument.arg in given and default is not None and ast.unparse(default) != "...":
            assert ast.literal_eval(default) == given[argument.arg], argument.arg


def test_the_defaults_are_memcacheds() -> None:
    config = Config()
    assert (config.tcpport, config.udpport, config.inter) == (11211, 0, None)
    assert (config.maxbytes, config.item_size_max) == (64 * MEBIBYTE, MEBIBYTE)
    assert (config.maxconns, config.tcp_backlog, config.num_threads, config.reqs_per_event) == (1024, 1024, 4, 20)
    assert (config.growth_factor, config.chunk_size, config.slab_chunk_max) == (1.25, 48, 512 << 10)
    assert (config.hot_lru_pct, config.warm_lru_pct, config.hot_max_factor, config.warm_max_factor) == (
        20,
        40,
        0.2,
        2.0,
    )
    assert (config.temp_lru, config.temporary_ttl, config.idle_timeout) == (False, 61, 0)
    assert (config.watcher_logbuf_size, config.worker_logbuf_size) == (262144, 65536)
    assert config.cluster is None


def test_the_fleets_defaults() -> None:
    cluster = ClusterConfig("zk1:2181")
    assert (cluster.path, cluster.on_stale, cluster.ack, cluster.join) == ("/cache", "miss", "committed", "wait")
    assert (cluster.session_timeout, cluster.max_stale, cluster.ack_timeout, cluster.hold_off) == (10.0, 10.0, 5.0, 0)
    assert cluster.node_name


@pytest.mark.parametrize("kind", [Config, ClusterConfig])
def test_every_setting_is_described_and_its_default_is_valid(kind: type) -> None:
    for name, (default, rule) in rules(kind).items():
        assert len(rule.meaning) > 5, name
        assert (rule.valid is None) == (not rule.error), f"{name}: a rule and its error go together"
        assert rule.status in (EX_FAILURE, EX_USAGE, EX_OSERR), name
        if rule.valid is not None and default not in (0, ""):
            assert rule.valid(default), name
        if rule.effect is Effect.ACCEPTED:
            assert rule.meaning, name


@pytest.mark.parametrize(
    ("settings", "status", "text"),
    [
        ({"maxconns": 0}, 1, "Maximum connections must be greater than 0"),
        ({"maxconns": -5}, 1, "Maximum connections must be greater than 0"),
        ({"reqs_per_event": 0}, 1, "Number of requests per event must be greater than 0"),
        ({"num_threads": 0}, 1, "Number of threads must be greater than 0"),
        ({"growth_factor": 1.0}, 1, "Factor must be greater than 1"),
        ({"chunk_size": 0}, 1, "Chunk size must be greater than 0"),
        ({"hashpower_init": 11}, 1, "hashpower of 11"),
        ({"hashpower_init": 33}, 1, "hashpower of 33"),
        ({"slab_automove": 3}, 1, "slab_automove must be between 0 and 2"),
        ({"stat_key_prefix": b""}, 1, "No delimiter specified"),
        ({"idle_timeout": -1}, 1, "idle_timeout"),
        ({"tcpport": 65536}, 64, "Invalid port number 65536"),
        ({"tcpport": -2}, 64, "Invalid port number -2"),
        ({"udpport": 65536}, 64, "Invalid port number 65536"),
        ({"item_size_max": 1023}, 64, "cannot be less than 1024 bytes"),
        ({"item_size_max": 32 * MEBIBYTE + 1}, 64, "higher than 1/2 of memory max"),
        ({"item_size_max": (1 << 30) + 1, "maxbytes": 1 << 32}, 64, "higher than a gigabyte"),
        ({"maxbytes": 1 * MEBIBYTE}, 64, "must be at least 2 megabytes: raise -m"),
        ({"maxbytes": 262144 * MEBIBYTE}, 64, "can be at most 262143 megabytes: lower -m"),
        ({"slab_chunk_max": 300 << 10}, 64, "must divide evenly into 1048576"),
        ({"slab_chunk_max": 0}, 1, "slab_chunk_max"),
        ({"slab_sizes": (40,)}, 64, "slab size 40 is out of valid range"),
        ({"slab_sizes": (100, 1 << 20)}, 64, "slab size 1048576 is out of valid range"),
        ({"slab_sizes": (200, 100)}, 64, "cannot be lower than or equal to a previous class size"),
        ({"slab_sizes": (100, 108)}, 64, "must be at least 8 bytes larger than previous class"),
        ({"hot_lru_pct": 80}, 1, "hot_lru_pct must be > 1 and < 80"),
        ({"warm_lru_pct": 0}, 1, "warm_lru_pct must be > 1 and < 80"),
        ({"hot_lru_pct": 41}, 64, "cannot be more than 80% combined"),
        ({"hot_max_factor": 0.0}, 1, "hot_max_factor must be > 0"),
        ({"temp_lru": True, "lru_maintainer_thread": False}, 64, "temporary_ttl requires lru_maintainer"),
        ({"num_napi_ids": 5}, 64, "Number of napi_ids(5) cannot be greater than number of threads(4)"),
        ({"inter": "127.0.0.1:x"}, 71, 'Invalid port number: "x"'),
        ({"loop": "gevent"}, 64, "--loop takes uvloop or asyncio"),
    ],
)
def test_what_cannot_be_is_refused_with_memcacheds_exit_code(
    settings: Mapping[str, Any], status: int, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert caught.value.status == status
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"item_size_max": 1024},
        {"item_size_max": 600 << 10},
        {"item_size_max": 32 * MEBIBYTE},
        {"item_size_max": 1 << 30, "maxbytes": 2 << 30},
        {"tcpport": -1},
        {"tcpport": 65535},
        {"hashpower_init": 12},
        {"hashpower_init": 32},
        {"slab_sizes": (100, 109, 524288)},
        {"hot_lru_pct": 1, "warm_lru_pct": 79},
        {"slab_chunk_max": MEBIBYTE},
    ],
)
def test_the_edges_of_the_ranges_are_valid(settings: Mapping[str, Any]) -> None:
    config = Config(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("inter", "listeners"),
    [
        ("127.0.0.1", [("127.0.0.1", None, "")]),
        ("127.0.0.1:11212", [("127.0.0.1", 11212, "")]),
        ("a,b:1;c", [("a", None, ""), ("b", 1, ""), ("c", None, "")]),
        ("*", [(None, None, "")]),
        ("*:0", [(None, 0, "")]),
        ("::1", [("::1", None, "")]),
        ("[::1]", [("::1", None, "")]),
        ("[::1]:11212", [("::1", 11212, "")]),
        ("fe80::1%lo", [("fe80::1%lo", None, "")]),
        ("proto[ascii]:localhost:1", [("localhost", 1, "", Secure.DEFAULT, "ascii")]),
        ("proto[binary]:h", [("h", None, "", Secure.DEFAULT, "binary")]),
        ("proto[negotiating]:tag[web]:[::]:1", [("::", 1, "web", Secure.DEFAULT, "auto-negotiate")]),
        ("tag[eightchr]:h", [("h", None, "eightchr")]),
        ("a,,b", [("a", None, ""), ("b", None, "")]),
    ],
)
def test_addresses_of_l_are_read_with_port_and_prefix(inter: str, listeners: list[tuple[Any, ...]]) -> None:
    assert parse_listeners(inter) == tuple(Listener(*each) for each in listeners)


def test_prefixes_say_what_an_address_asks_of_its_clients() -> None:
    inter = "notls:a:1,btls:proto[ascii]:tag[t]:b,mtls:[::1]:2,c"
    config = Config(ssl_enabled=True, ssl_chain_cert="/x", inter=inter)
    assert [(each.host, each.port, each.tag, each.secure.value) for each in config.listeners()] == [
        ("a", 1, "", "notls"), ("b", None, "t", "btls"), ("::1", 2, "", "mtls"), ("c", None, "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "inter",
    [
        "[::1", "[::1]x", "[::1]:x", "h:65536", "h:-1", "h:+1", "h:1x", "h:\u0661", "notls:h", "btls:h", "mtls:h",
        "proto[proxy]:h", "proto[ascii", "tag[]:h", "tag[ninechars]:h", "tag[x",
        ":1", ":", "h:", "[::1]:", "[]", "[]:1", "notls:", "notls::1", "proto[ascii]:", "tag[t]:",
    ],
)  # fmt: skip
def test_bad_listen_addresses_end_with_71_and_are_named(inter: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(inter=f"127.0.0.1,{inter}")
    assert caught.value.status == 71
    assert any(part in str(caught.value) for part in (inter, inter[:4], "65536", "ninechars", '""'))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"zookeeper": "zk1"}, "'zk1' is no HOST:PORT"),
        ({"zookeeper": "zk1:2181,"}, "'' is no HOST:PORT"),
        ({"zookeeper": "zk1:0"}, "'zk1:0' is no HOST:PORT"),
        ({"zookeeper": "zk1:x/chroot"}, "'zk1:x' is no HOST:PORT"),
        ({"path": "cache"}, "--cluster-path"),
        ({"path": "/"}, "--cluster-path"),
        ({"path": "/a//b"}, "--cluster-path"),
        ({"path": "/x/../y"}, "--cluster-path"),
        ({"path": "/x/."}, "--cluster-path"),
        ({"path": "/zookeeper/quota"}, "--cluster-path"),
        ({"path": "/a\tb"}, "--cluster-path"),
        ({"zookeeper": "zk1:2181/a/../b"}, "'/a/../b' is no path"),
        ({"zookeeper": "z k:2181"}, "'z k:2181' is no HOST:PORT"),
        ({"advertise": "h:0"}, "--advertise"),
        ({"advertise": "h:99999"}, "--advertise"),
        ({"advertise": "a b:11211"}, "--advertise"),
        ({"advertise": "a\r\n:11211"}, "--advertise"),
        ({"zk_writes": 0}, "--zk-writes"),
        ({"zk_acl": "creator"}, "--zk-acl creator needs --zk-auth-file"),
        ({"zk_acl": "world"}, "--zk-acl takes"),
        ({"credentials": "a:b\nc:d"}, "one line"),
        ({"node_name": "a b"}, "--node-name"),
        ({"node_name": "a/b"}, "--node-name"),
        ({"node_name": "x" * 65}, "--node-name"),
        ({"advertise": "host"}, "--advertise"),
        ({"session_timeout": 0.5}, "--zk-session-timeout"),
        ({"max_stale": 0.0}, "--max-stale"),
        ({"on_stale": "hit"}, "--on-stale"),
        ({"ack": "never"}, "--ack"),
        ({"ack_prefixes": ((b"user:", "never"),)}, "--ack"),
        ({"ack_timeout": 0.0}, "--ack-timeout"),
        ({"join": "now"}, "--join"),
        ({"hold_off": -1}, "--hold-off"),
        ({"tls_key": "key.pem"}, "--zk-key needs --zk-cert"),
        ({"refresh_every": 60.0}, "need each other"),
        ({"refresh_prefixes": (b"a:",)}, "need each other"),
        ({"refresh_prefixes": (b"a:",), "refresh_every": 0.5}, "--refresh-every must be 0, or from 1 to 86400"),
        ({"credentials": "no-colon"}, "user:password"),
    ],
)
def test_bad_settings_of_the_fleet_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClusterConfig(**({"zookeeper": "zk1:2181"} | settings))
    assert caught.value.status == EX_USAGE
    assert text in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(Config(cluster=ClusterConfig("zk1:2181", credentials="me:secret")))
