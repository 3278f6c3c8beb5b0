"""A get undisturbed by its fleet: its latency at a member while a peer deletes, and while ZooKeeper is gone.

Peer, ensemble and generator share the member's two cores, so a server outside of the fleet is timed in turn with it: what both
feel is the machine's, what the member feels beyond that is its fleet's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from statistics import median

from benchmark.generator import load
from benchmark.programs import Server, cores, subject

from tests.cluster.servers import until

from .beside import Deletes
from .stage import Result, Stage, table, target

KEYS, VALUE, CONNECTIONS, RATE = 100_000, 100, 10, 2000
DELETES = 2000  # a second, of keys that the measured member doesn't hold
BATCH = 20  # of them in one write
BOUND = "1.1 times the server outside"


def measure(quick: bool) -> str:
    runs = 5 if quick else 15
    with Stage() as stage:
        measured, peer = stage.servers(2, "--ack", "async", "--on-stale", "serve")
        outside = stage.enter_context(subject().running(threads=4))
        pair = (target(measured), outside)
        for server in pair:
            load(server, "fill", keys=KEYS, value=VALUE, depth=50)
        found = {"nothing": timed(pair, runs, nullcontext())}
        found[f"a peer, {DELETES:,} deletes a second"] = timed(pair, runs, Deletes(peer, DELETES, BATCH))
        found["nothing again"] = timed(pair, runs, nullcontext())
        for zookeeper in stage.ensemble.servers:
            zookeeper.end()
        until(lambda: measured.stats()["stale"] == "1", 60)
        found["ZooKeeper is gone"] = timed(pair, runs, nullcontext())
    results = []
    for name, latencies in found.items():
        figures = [
            f"{which} {ours:,.0f} µs, outside {theirs:,.0f} ({ours / theirs:.2f})"
            for which, (ours, theirs) in zip(("p50", "p99"), latencies, strict=True)
        ]
        results.append(Result(name, "; ".join(figures), "" if name.startswith("nothing") else BOUND))
    return table(f"A get or set at a member, {RATE:,} a second, while others do: medians of {runs} runs", results)


def timed(pair: tuple[Server, Server], runs: int, others: AbstractContextManager[object]) -> list[tuple[float, float]]:
    """Microseconds at p50 and at p99 of both servers, in turn: medians of the runs."""
    options = {"value": VALUE, "connections": CONNECTIONS, "keys": KEYS, "rate": RATE, "may_miss": True}
    reports: tuple[list[dict[str, int]], list[dict[str, int]]] = ([], [])
    with others:
        for _ in range(runs):
            for server, own in zip(pair, reports, strict=True):
                own.append(load(server, "open", core=cores()[1], seconds=1, warm_up=0.3, **options))
    ours, theirs = ([median(each[field] for each in own) / 1000 for field in ("p50_ns", "p99_ns")] for own in reports)
    return list(zip(ours, theirs, strict=True))
