"""Latency at the same offered rate, half of what memcached can do (measured in the same run). The loop is open: a request counts
from the moment it was due, so that a stall costs every request that was due in it.
"""

from __future__ import annotations

from .contest import Contest, progress
from .generator import load
from .programs import Server
from .report import Cell, Table, interleave

CONNECTIONS = 50
KEYS = 10_000
VALUE = 32
PERCENTILES = {"p50": "p50_ns", "p99": "p99_ns", "p99.9": "p999_ns"}
RUNS_A_PAIR = 3
"""Short runs in turn, many of them: the tail hangs on what else the machine does."""


def measure(contest: Contest) -> list[Table]:
    """One table: microseconds at each percentile, and the ratio."""
    with contest.both() as servers:
        for server in servers:
            load(server, "fill", keys=KEYS, value=VALUE, depth=100)
        rate = round(capacity(servers[1], contest.quick) / 2, -2)
        progress(f"latency at {rate:.0f} requests a second")
        pairs = interleave(contest.pairs * RUNS_A_PAIR, servers, lambda server: run(contest, server, rate))
    title = f"Latency, µs, at {rate:,.0f} requests a second, half of memcached's capacity"
    table = Table(f"{title} (open loop, 9:1 mix of 32 B, {CONNECTIONS} connections)", contest.head("percentile"))
    for name, field in PERCENTILES.items():
        cell = Cell([(ours[field] / 1000, theirs[field] / 1000) for ours, theirs in pairs])
        table.add(name, cell, ".0f")
    table.remarks.append(contest.spread("p99.9 over the runs, µs", cell, ".0f"))
    late = max(report["latest_send_ns"] for pair in pairs for report in pair)
    table.remarks.append(f"The load generator itself was never more than {late / 1000:.0f} µs late.")
    return [table]


def capacity(server: Server, quick: bool) -> float:
    """Requests a second of the closed loop at depth 1."""
    seconds = 0.3 if quick else 2
    report = load(server, "closed", workload="mix", value=VALUE, connections=CONNECTIONS, keys=KEYS, seconds=seconds)
    return report["requests"] / report["elapsed_ns"] * 1e9


def run(contest: Contest, server: Server, rate: float) -> dict[str, int]:
    """The generator's report."""
    seconds, warm_up = (0.3, 0.1) if contest.quick else (3, 0.3)
    options = {"value": VALUE, "connections": CONNECTIONS, "keys": KEYS}
    return load(server, "open", rate=rate, seconds=seconds, warm_up=warm_up, **options)
