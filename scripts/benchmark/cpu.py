"""CPU time an operation costs the server: user and system time of all its threads, over the requests answered meanwhile."""

from __future__ import annotations

from typing import NamedTuple

from .contest import Contest, progress
from .generator import load
from .programs import Server
from .report import Cell, Table, interleave

CONNECTIONS = 50
KEYS = 10_000
DEPTHS = (1, 16, 100)
WORKLOADS = {
    "get 32 B": ("get", 32),
    "set 32 B": ("set", 32),
    "9:1 mix 32 B": ("mix", 32),
    "mg 32 B": ("meta", 32),
    "get 1 KiB": ("get", 1024),
    "set 1 KiB": ("set", 1024),
}


class Load(NamedTuple):
    """One cell: what is asked for, bytes of a value, requests in one write."""

    name: str
    workload: str
    value: int
    depth: int


GRID = sorted(
    [
        *(Load(f"{name}, depth {depth}", *load, depth) for name, load in WORKLOADS.items() for depth in DEPTHS),
        Load("get of 100 keys, 32 B", "multiget", 32, 1),
    ],
    key=lambda cell: cell.value,
)
"""In this order the keys need new values only once."""


class Cost(NamedTuple):
    """`operation` in µs; `busy`, which part of the time the server was on its core."""

    operation: float
    busy: float


def measure(contest: Contest) -> list[Table]:
    """One table: microseconds an operation, and the ratio."""
    title = f"Server CPU time an operation, µs (user + system, {CONNECTIONS} connections, all hits)"
    table = Table(title, contest.head("workload, requests in one write"))
    least_busy = 1.0
    with contest.both() as servers:
        filled = 0
        for cell in GRID:
            progress(f"CPU time: {cell.name}")
            if cell.value != filled:
                filled = cell.value
                for server in servers:
                    load(server, "fill", keys=KEYS, value=filled, depth=100)
            pairs = interleave(contest.pairs, servers, lambda server: cost(contest, server, cell))  # noqa: B023
            table.add(cell.name, Cell([(ours.operation, theirs.operation) for ours, theirs in pairs]), ".2f")
            least_busy = min(least_busy, *(run.busy for pair in pairs for run in pair))
    table.add_means({f"depth {depth}": [cell.name for cell in GRID if cell.depth == depth] for depth in DEPTHS})
    table.remarks.append(f"The measured server was on its core for at least {least_busy:.0%} of the time.")
    return [table]


def cost(contest: Contest, server: Server, cell: Load) -> Cost:
    """One run of one cell against one server."""
    report = load(
        server,
        "closed",
        workload=cell.workload,
        value=cell.value,
        depth=cell.depth,
        connections=CONNECTIONS,
        keys=KEYS,
        seconds=0.15 if contest.quick else 1,
        warm_up=0.03 if contest.quick else 0.2,
    )
    return Cost(report["server_ns"] / report["requests"] / 1000, report["server_ns"] / report["elapsed_ns"])
