"""What coordination costs a get: the latency of a server in a fleet beside that of one on its own, in turns of one run."""

from __future__ import annotations

from statistics import median

from benchmark.generator import load
from benchmark.programs import cores

from tests.cluster.servers import CacheServer

from .beside import Deletes
from .stage import Result, Stage, pin, table, target

KEYS, VALUE, CONNECTIONS = 10_000, 32, 50
RATE = 5_000  # requests a second, open loop
DELETES = 2_000  # a second, at another member
BATCH = 20  # of them in one write
BOUND = "1.2 times alone"


def measure(quick: bool) -> str:
    pairs, seconds = (5, 1.0) if quick else (15, 2.0)
    server_core, other_core = cores()
    results = []
    with Stage(fsync=False) as stage:
        member, other = stage.servers(2, "--ack", "async", "--max-stale", "600")
        pin_both(member, other, server_core, other_core)
        alone = stage.start(CacheServer(None, name="alone"), server_core)
        for server in (member, alone):
            load(target(server), "fill", keys=KEYS, value=VALUE, depth=100)
        results.append(compare("in a fleet, idle", member, alone, pairs, seconds))
        with Deletes(other, DELETES, BATCH):
            results.append(compare(f"in a fleet, {DELETES:,} deletes a second", member, alone, pairs, seconds))
        for zookeeper in stage.ensemble.servers:
            zookeeper.end()
        results.append(compare("in a fleet, ZooKeeper killed", member, alone, pairs, seconds))
    title = (
        f"Latency of a get, {RATE:,} requests a second (open loop, {CONNECTIONS} connections), medians of {pairs} pairs"
    )
    return table(title, results)


def pin_both(member: CacheServer, other: CacheServer, server_core: int, other_core: int) -> None:
    for server, core in ((member, server_core), (other, other_core)):
        assert server.process is not None
        pin(server.process.pid, core)


def compare(what: str, member: CacheServer, alone: CacheServer, pairs: int, seconds: float) -> Result:
    """p99 of both in turn; the ratio is the median of the pairs' ratios."""
    figures = []
    for turn in range(pairs):
        order = (member, alone) if turn % 2 else (alone, member)
        p99 = {server.name: run(server, seconds) for server in order}
        figures.append((p99[member.name], p99[alone.name]))
    mine, theirs = (median(pair[i] for pair in figures) for i in (0, 1))
    ratio = median(pair[0] / pair[1] for pair in figures)
    return Result(f"p99 {what}", f"{mine:.0f} µs, alone {theirs:.0f} µs: {ratio:.2f}", BOUND)


def run(server: CacheServer, seconds: float) -> float:
    """p99 in microseconds."""
    report = load(
        target(server), "open", rate=RATE, seconds=seconds, warm_up=0.2, value=VALUE, connections=CONNECTIONS, keys=KEYS
    )
    return report["p99_ns"] / 1000
