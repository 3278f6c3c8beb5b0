"""What Prometheus reads: every figure under the exporter's name where it has one; dashboard and alerts use names that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # mkdocs brings it
from prometheus_client.parser import text_string_to_metric_families

from mcserver.observe import metrics
from mcserver.testing import Fleet, Server
from tests.testing.clients import Plain

ROOT = Path(__file__).parent.parent.parent
CHANGING = {"uptime", "time", "rusage_user", "rusage_system", "bytes_read", "bytes_written"}
"""What asking changes; what the crawler does meanwhile begins with its name."""
_EXPORTER = """
    memcached_up memcached_uptime_seconds memcached_time_seconds memcached_version
    memcached_process_user_cpu_seconds_total memcached_process_system_cpu_seconds_total memcached_read_bytes_total
    memcached_written_bytes_total memcached_current_connections memcached_max_connections memcached_connections_total
    memcached_connections_rejected_total memcached_connections_yielded_total memcached_connections_listener_disabled_total
    memcached_accepting_connections memcached_current_bytes memcached_limit_bytes memcached_commands_total
    memcached_items_total memcached_current_items memcached_items_evicted_total memcached_items_reclaimed_total
    memcached_item_too_large_total memcached_item_no_memory_total memcached_direct_reclaims_total
    memcached_malloced_bytes memcached_lru_crawler_enabled memcached_lru_crawler_sleep memcached_lru_crawler_to_crawl
    memcached_lru_crawler_maintainer_thread memcached_lru_crawler_hot_percent memcached_lru_crawler_warm_percent
    memcached_lru_crawler_hot_max_factor memcached_lru_crawler_warm_max_factor memcached_lru_crawler_starts_total
    memcached_lru_crawler_reclaimed_total memcached_lru_crawler_items_checked_total
    memcached_lru_crawler_moves_to_cold_total memcached_lru_crawler_moves_to_warm_total
    memcached_lru_crawler_moves_within_lru_total memcached_slab_current_items memcached_slab_items_age_seconds
    memcached_slab_lru_hits_total memcached_slab_items_crawler_reclaimed_total memcached_slab_items_evicted_total
    memcached_slab_items_evicted_nonzero_total memcached_slab_items_evicted_time_seconds
    memcached_slab_items_evicted_unfetched_total memcached_slab_items_expired_unfetched_total
    memcached_slab_items_outofmemory_total memcached_slab_items_reclaimed_total memcached_slab_items_tailrepairs_total
    memcached_slab_items_moves_to_cold memcached_slab_items_moves_to_warm memcached_slab_items_moves_within_lru
    memcached_slab_hot_items memcached_slab_warm_items memcached_slab_cold_items memcached_slab_temporary_items
    memcached_slab_hot_age_seconds memcached_slab_warm_age_seconds memcached_slab_chunk_size_bytes
    memcached_slab_chunks_per_page memcached_slab_current_pages memcached_slab_current_chunks memcached_slab_chunks_used
    memcached_slab_chunks_free memcached_slab_chunks_free_end memcached_slab_mem_requested_bytes
    memcached_slab_commands_total
"""
EXPORTER = _EXPORTER.split()
"""Names of the exporter that apply to a server without external storage; as read in its source, not asked of it as it runs."""


def scraped(server: Server) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    text = b"".join(metrics.pieces(server.admin.context)).decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.fixture
def used(memcached_factory: Any) -> Server:
    """A server that has done a little of everything."""
    server: Server = memcached_factory("-m", "2", "-I", "8k", "-o", "temporary_ttl=60")
    for number in range(2000):
        server[f"key:{number}"] = "x" * (number % 3000)
    server.ask(
        b"get key:1999\r\nget none\r\nincr key:1999 1\r\ndelete none\r\ntouch key:1999 9\r\ncas key:1999 0 0 1 1\r\n1\r\n"
        b"flush_all 99\r\nmg key:1999 v\r\n"
    )
    return server


def test_every_name_of_the_exporter_is_there(used: Server) -> None:
    found = scraped(used)
    missing = [name for name in EXPORTER if name not in found]
    assert missing == []


def test_the_figures_are_those_of_stats(used: Server) -> None:
    found, stats, slabs = scraped(used), used.stats(), used.stats("slabs")
    for figure in metrics.GENERAL:
        if figure.key in stats and figure.key not in CHANGING and "crawler" not in figure.key:
            name = figure.name + "_total" * figure.is_counter
            assert found[name][()] == float(stats[figure.key]) / figure.parts, figure.key
    commands = {tuple(value for _, value in labels): each for labels, each in found["memcached_commands_total"].items()}
    assert commands["get", "hit"] == float(stats["get_hits"]) >= 1
    assert commands["set", "hit"] == int(stats["cmd_set"]) - sum(int(stats[each]) for each in metrics.CAS)
    assert commands["cas", "badval"] == 1
    assert sum(found["memcached_slab_current_pages"].values()) == sum(
        int(value) for key, value in slabs.items() if key.endswith(":total_pages")
    )
    assert found["memcached_items_evicted_total"][()] > 0


def test_the_list_of_names_is_what_is_scraped(used: Server) -> None:
    found = {name for name in scraped(used) if not name.endswith("_created")}
    known = set(metrics.names())
    assert found - known == set()
    tls = {each.name + "_total" * each.is_counter for each in metrics.TLS}
    assert known - found == tls | {"mcserver_memory_curve_hit_ratio"}  # too little traffic


def test_what_a_server_does_beside_its_items_is_shown(used: Server) -> None:
    """Waits for the engine's lock in seconds, datagrams, logins, wrong doors; with -Z what TLS does."""
    context = used.admin.context
    figures = context.network.figures
    figures.wrong_protocol, figures.ssl_handshake_errors = 3, 2
    found = scraped(used)
    assert found["mcserver_wrong_protocol_total"][()] == 3
    assert found["mcserver_lock_wait_seconds_total"][()] == float(used.stats()["lock_wait_us"]) / 1e6
    assert "mcserver_tls_handshakes_failed_total" not in found
    context.config = context.config.but(ssl_enabled=True, ssl_chain_cert="cert.pem", ssl_key="key.pem")
    assert scraped(used)["mcserver_tls_handshakes_failed_total"][()] == 2


def test_a_fleets_figures(memcached_fleet: Any) -> None:
    fleet: Fleet = memcached_fleet(2)
    assert Plain(fleet[0].address).command(b"delete a") == b"NOT_FOUND\r\n"
    found = scraped(fleet[0])
    assert len(found["mcserver_cluster_member"]) == 2
    assert found["mcserver_cluster_stale"][()] == 0
    assert found["mcserver_cluster_appends_total"][()] == 1
    numbers = [key for key, value in fleet.stats(0).items() if not isinstance(value, str)]
    for key in numbers:
        assert metrics.cluster_name(key)[0] + "_total" * metrics.is_cluster_counter(key) in found
    assert 0 <= found["mcserver_cluster_fresh_age_seconds"][()] < 1, "seconds"
    assert "mcserver_cluster_append_p99_seconds" in found


ABBREVIATED = re.compile(r"_(ms|us|ns|milliseconds|microseconds|kb|mb|kib|mib)(_|$)")


def test_names_are_as_promtool_wants_them(memcached_fleet: Any) -> None:
    """Of what is ours; the exporter's names are its own."""
    fleet: Fleet = memcached_fleet(2)
    families = list(metrics.ServerCollector(fleet[0].admin.context).collect())
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.documentation
        assert family.type in {"counter", "gauge"}
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        if family.name.startswith("mcserver_"):
            assert not ABBREVIATED.search(family.name), family.name


def expressions() -> list[tuple[str, str]]:
    """Each expression of the dashboard and the alerts, and where it is from."""
    board = json.loads((ROOT / "packaging/grafana/mcserver.json").read_text())
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())] + [
        ("variable", each["query"]["query"])
        for each in board["templating"]["list"]
        if isinstance(each.get("query"), dict)
    ]
    text = (ROOT / "packaging/prometheus/alerts.yml").read_text()
    found += [("alert", each) for each in re.findall(r"^ +expr: (.*)$", text, re.MULTILINE)]
    return found


def test_the_dashboard_and_the_alerts_use_names_that_exist(memcached_fleet: Any) -> None:
    fleet: Fleet = memcached_fleet(2)
    known = set(metrics.names()) | set(scraped(fleet[0])) | {"up"}
    used = [
        (where, name) for where, text in expressions() for name in re.findall(r"\b(?:memcached|mcserver)_\w+", text)
    ]
    assert len(expressions()) > 20
    assert [each for each in used if each[1] not in known] == []
    assert {"memcached_commands_total", "mcserver_cluster_stale", "mcserver_pages_moved_total"} <= {
        name for _, name in used
    }


def test_counters_are_shown_as_rates() -> None:
    """A counter outside of rate() or increase() is a line that only goes up."""
    for where, text in expressions():
        for name in re.findall(r"\b(?:memcached|mcserver)_\w+_total", text):
            assert re.search(rf"(rate|increase)\(\s*{name}\b", text), (where, text)


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads((ROOT / "packaging/grafana/mcserver.json").read_text())
    assert board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_the_alerts_are_well_formed() -> None:
    rules = yaml.safe_load((ROOT / "packaging/prometheus/alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert set(rule["annotations"]) == {"summary", "description"}
