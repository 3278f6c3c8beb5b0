"""Tools that read a server's statistics: Debian's memcached-tool, the Prometheus exporter's rules, memcached's own keys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mcserver.admin.stats import OWN
from tests.server.releases import GONE, NEW, NEW_SETTINGS, OLD, STORAGE
from tests.serving import Client, Server

TOOL = "/usr/share/memcached/scripts/memcached-tool"

# What prometheus/memcached_exporter asks of `stats`; a key that is missing, or no number, makes memcached_up 0.
EXPORTED = """
    uptime time get_hits get_misses delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits
    cas_misses touch_hits touch_misses cas_badval cmd_set cmd_flush rusage_user rusage_system bytes limit_maxbytes
    curr_items total_items bytes_read bytes_written curr_connections total_connections rejected_connections conn_yields
    listen_disabled_num evictions reclaimed store_too_large store_no_memory lru_crawler_starts direct_reclaims
    crawler_items_checked crawler_reclaimed moves_to_cold moves_to_warm moves_within_lru accepting_conns
"""
EXPORTED_ITEMS = "number age hits_to_hot hits_to_warm hits_to_cold hits_to_temp"
EXPORTED_SLABS = """
    chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end get_hits delete_hits
    incr_hits decr_hits cas_hits touch_hits cas_badval cmd_set
"""
EXPORTED_SETTINGS = """
    maxconns lru_crawler_sleep lru_crawler_tocrawl hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor
"""


@pytest.fixture
def filled(client: Client) -> Client:
    for number in range(200):
        size = 10 * number
        assert client.command(b"set key:%d 0 0 %d\r\n%b" % (number, size, b"x" * size)) == b"STORED\r\n"
    client.command(b"get key:1", b"END\r\n")
    return client


def tool(server: Server, command: str) -> str:
    run = subprocess.run(
        [TOOL, f"127.0.0.1:{server.port}", command],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return run.stdout


def test_memcached_tool_display(server: Server, filled: Client) -> None:
    lines = tool(server, "display").splitlines()
    assert lines[0].split() == ["#", "Item_Size", "Max_age", "Pages", "Count", "Full?", "Evicted", "Evict_Time", "OOM"]
    counts = [int(line.split()[4]) for line in lines[1:]]
    assert sum(counts) == 200


@pytest.mark.slow
def test_memcached_tool_stats_and_settings(server: Server, filled: Client) -> None:
    stats = dict(line.split() for line in tool(server, "stats").splitlines()[1:])
    assert stats["curr_items"] == "200"
    assert stats["version"] == "1.6.45"
    settings = dict(line.split() for line in tool(server, "settings").splitlines()[1:])
    assert settings["tcpport"] == str(server.port)


def test_memcached_tool_keys_and_dump(server: Server, filled: Client) -> None:
    keys = tool(server, "keys").splitlines()
    assert {line.split()[0] for line in keys} == {f"key=key%3A{number}" for number in range(200)}
    dump = tool(server, "dump")
    assert dump.count("add key:") == 200


@pytest.mark.slow
def test_memcached_tool_sizes(server: Server, filled: Client) -> None:
    assert "sizes_status" in tool(server, "sizes")


def test_prometheus_exporter(filled: Client) -> None:
    stats, settings = filled.stats(), filled.stats("settings")
    for key in EXPORTED.split():
        float(stats[key])
    for key in EXPORTED_SETTINGS.split():
        float(settings[key])
    assert settings["lru_crawler"] == settings["lru_maintainer_thread"] == "yes"
    assert not [key for key in (*stats, *settings) if ":" in key]
    slabs, items = filled.stats("slabs"), filled.stats("items")
    int(slabs["total_malloced"])
    for number in {int(key.partition(":")[0]) for key in slabs if ":" in key}:
        for key in EXPORTED_SLABS.split():
            int(slabs[f"{number}:{key}"])
    for number in {int(key.split(":")[1]) for key in items}:
        for key in EXPORTED_ITEMS.split():
            int(items[f"items:{number}:{key}"])


def test_general_keys_are_memcacheds(client: Client, peer: Callable[..., Client]) -> None:
    theirs = [key for key in peer().stats() if key not in GONE]
    ours = [key for key in client.stats() if key not in NEW]
    assert ours == [*theirs, *OWN], "its own stand behind"


def test_setting_keys_are_memcacheds(client: Client, peer: Callable[..., Client]) -> None:
    theirs = peer().stats("settings")
    assert [key for key in client.stats("settings") if key not in NEW_SETTINGS] == [
        key for key in theirs if not key.startswith(STORAGE)
    ]


@pytest.mark.slow
def test_settings_are_memcacheds(client: Client, peer: Callable[..., Client]) -> None:
    ours, theirs = client.stats("settings"), peer().stats("settings")
    changed_since = {"slab_automove_window", "num_napi_ids"} if OLD else set()  # 30 and (null) then, 10 and 0 now
    started_apart = {"tcpport", "num_threads", "num_threads_per_udp"}
    for key in set(ours) & set(theirs) - changed_since - started_apart:
        assert ours[key] == theirs[key], key


@pytest.mark.slow
@pytest.mark.parametrize("sub", ["items", "slabs"])
def test_class_keys_are_memcacheds(client: Client, peer: Callable[..., Client], sub: str) -> None:
    other = peer()
    keys = []
    for each in (client, other):
        assert each.command(b"set a 0 0 1\r\nx") == b"STORED\r\n"
        each.command(b"get a", b"END\r\n")
        keys.append(list(each.stats(sub)))
    own = (":page_worth", ":hits_share", ":new_worth", ":use_ratio", ":pages_given", ":pages_taken")
    assert [key for key in keys[0] if not key.endswith(own)] == keys[1]


def test_tool_is_the_one_of_the_package() -> None:
    assert Path(TOOL).exists()
