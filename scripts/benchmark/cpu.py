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


class Workload(NamedTuple):
    """What is asked for, bytes of a value, and how many requests go out in one write."""

    name: str
    value: int
    depths: tuple[int, ...] = DEPTHS


WORKLOADS = {
    "get 32 B": Workload("get", 32),
    "set 32 B": Workload("set", 32),
    "9:1 mix 32 B": Workload("mix", 32),
    "mg 32 B": Workload("meta", 32),
    "binary get 32 B": Workload("binary-get", 32),
    "binary set 32 B": Workload("binary-set", 32),
    "get of 100 keys, 32 B": Workload("multiget", 32, (1,)),
    "get 1 KiB": Workload("get", 1024),
    "set 1 KiB": Workload("set", 1024),
}
"""In this order the keys need new values only once."""


class Cost(NamedTuple):
    """`operation` in µs; `busy`, which part of the time the server was on its core."""

    operation: float
    busy: float


def measure(contest: Contest) -> list[Table]:
    """One table: the ratio, and microseconds an operation of both."""
    title = (
        f"Server CPU time an operation (user + system, {CONNECTIONS} connections, all hits): {contest.names()}, in µs"
    )
    table = Table(title, ("workload", *(column(depth) for depth in DEPTHS)))
    least_busy, filled = 1.0, 0
    with contest.both() as servers:
        for name, workload in WORKLOADS.items():
            if workload.value != filled:
                filled = workload.value
                for server in servers:
                    load(server, "fill", keys=KEYS, value=filled, depth=100)
            cells = {}
            for depth in workload.depths:
                progress(f"CPU time: {name}, {column(depth)}")
                pairs = interleave(contest.pairs, servers, lambda server: cost(contest, server, workload, depth))  # noqa: B023
                cells[column(depth)] = Cell([(ours.operation, theirs.operation) for ours, theirs in pairs])
                least_busy = min(least_busy, *(run.busy for pair in pairs for run in pair))
            table.add_ratios(name, cells, ".2f")
    table.add_means({column(depth): [name for name in table.data if name.endswith(column(depth))] for depth in DEPTHS})
    table.remarks.append(f"The measured server was on its core for at least {least_busy:.0%} of the time.")
    return [table]


def column(depth: int) -> str:
    """The head of a column."""
    return f"depth {depth}"


def cost(contest: Contest, server: Server, workload: Workload, depth: int) -> Cost:
    """One run against one server."""
    report = load(
        server,
        "closed",
        workload=workload.name,
        value=workload.value,
        depth=depth,
        connections=CONNECTIONS,
        keys=KEYS,
        seconds=0.15 if contest.quick else 1,
        warm_up=0.03 if contest.quick else 0.2,
    )
    return Cost(report["server_ns"] / report["requests"] / 1000, report["server_ns"] / report["elapsed_ns"])
