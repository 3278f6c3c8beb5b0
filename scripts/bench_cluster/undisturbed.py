"""A get undisturbed by its fleet: its latency at a member while a peer deletes, and while ZooKeeper is gone, beside quiet."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from statistics import median

from benchmark.generator import load
from benchmark.programs import cores

from tests.cluster.servers import CacheServer, until

from .beside import Deletes
from .stage import Result, Stage, table, target

KEYS, VALUE, CONNECTIONS, RATE = 100_000, 100, 10, 2000
DELETES = 2000  # a second, of keys that the measured member doesn't hold
BATCH = 20  # of them in one write
BOUND = "1.1 times quiet"


def measure(quick: bool) -> str:
    runs = 5 if quick else 15
    with Stage() as stage:
        measured, peer = stage.servers(2, "--ack", "async", "--on-stale", "serve")
        load(target(measured), "fill", keys=KEYS, value=VALUE, depth=50)
        found = {"nothing": timed(measured, runs, nullcontext())}
        found[f"a peer, {DELETES:,} deletes a second"] = timed(measured, runs, Deletes(peer, DELETES, BATCH))
        found["nothing again"] = timed(measured, runs, nullcontext())
        for zookeeper in stage.ensemble.servers:
            zookeeper.end()
        until(lambda: measured.stats()["stale"] == "1", 60)
        found["ZooKeeper is gone"] = timed(measured, runs, nullcontext())
    results = []
    before = found["nothing"]
    for name, (p50, p99) in found.items():
        figure = f"p50 {p50:,.0f} µs ({p50 / before[0]:.2f} of quiet), p99 {p99:,.0f} µs ({p99 / before[1]:.2f})"
        results.append(Result(name, figure, "" if name.startswith("nothing") else BOUND))
    return table(f"A get or set at a member, {RATE:,} a second, while others do: medians of {runs} runs", results)


def timed(server: CacheServer, runs: int, others: AbstractContextManager[object]) -> tuple[float, float]:
    """Microseconds at p50 and p99: medians of the runs."""
    options = {"value": VALUE, "connections": CONNECTIONS, "keys": KEYS, "rate": RATE, "may_miss": True}
    with others:
        reports = [
            load(target(server), "open", core=cores()[1], seconds=1, warm_up=0.3, **options) for _ in range(runs)
        ]
    return median(each["p50_ns"] for each in reports) / 1000, median(each["p99_ns"] for each in reports) / 1000
