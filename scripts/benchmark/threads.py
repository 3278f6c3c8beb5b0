"""Two threads on two cores, and two load generators beside them: CPU time an operation and what both serve together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .contest import Contest, progress
from .cpu import KEYS, Column, Workload, closed
from .generator import load
from .programs import Server, cores
from .report import Cell, Table, interleave

THREADS = 2
WORKLOADS = {
    "get 32 B": Workload("get", "32"),
    "set 32 B": Workload("set", "32"),
    "9:1 mix 32 B": Workload("mix", "32"),
    "mg 32 B": Workload("meta", "32"),
    "get, 50 % misses": Workload("get", "32", misses=50),
    "get 1 KiB": Workload("get", "1024"),
    "set 1 KiB": Workload("set", "1024"),
    "all verbs, keys of 10 to 200 B": Workload("all", "20-2000", key="10-200"),
}
COLUMNS = (Column(50, 1), Column(50, 16), Column(50, 100))  # of each generator
RUNS_A_PAIR = 4
"""Short runs in turn, many of them: four processes share two cores, and how they do varies."""
Figures = tuple[float, float]


def measure(contest: Contest) -> list[Table]:
    """Two tables: microseconds an operation, and operations a second."""
    head = ("workload", *(column.name for column in COLUMNS))
    what = f"-t {THREADS}, two generators (connections x requests in one write, of each): {contest.names()}"
    cpu = Table(f"Server CPU time an operation with {what}, in µs", head)
    speed = Table(f"Thousands of operations a second with {what}", head)
    with contest.both(threads=THREADS) as servers:
        for name, workload in WORKLOADS.items():
            for server in servers:
                load(server, "fill", keys=KEYS, value=workload.value, key=workload.key, depth=16)
            pairs = {column.name: run(contest, servers, name, workload, column) for column in COLUMNS}
            for table, field in ((cpu, 0), (speed, 1)):
                cells = {key: Cell([(a[field], b[field]) for a, b in found]) for key, found in pairs.items()}
                table.add_ratios(name, cells, ".2f" if table is cpu else ".0f")
    for table in (cpu, speed):
        table.add_means(
            {column.name: [key for key in table.data if key.endswith(f", {column.name}")] for column in COLUMNS},
            worst=max if table is cpu else min,
        )
    return [cpu, speed]


def run(
    contest: Contest, servers: tuple[Server, Server], name: str, workload: Workload, column: Column
) -> list[tuple[Figures, Figures]]:
    """The pairs of one cell."""
    progress(f"two threads: {name}, {column.name}")
    return interleave(contest.pairs * RUNS_A_PAIR, servers, lambda server: one(contest, server, workload, column))


def one(contest: Contest, server: Server, workload: Workload, column: Column) -> Figures:
    """Microseconds an operation, thousands of operations a second."""
    seconds, warm_up = (0.1, 0.05) if contest.quick else (0.6, 0.15)

    def run(at: int) -> dict[str, int]:
        return closed(
            server, workload, column, core=cores()[at], keys=KEYS, seed=at + 1, seconds=seconds, warm_up=warm_up
        )

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(run, range(2)))
    rate = sum(report["requests"] / report["elapsed_ns"] for report in reports)
    busy = sum(report["server_ns"] / report["elapsed_ns"] for report in reports) / len(reports)
    return busy / rate / 1000, rate * 1e6
