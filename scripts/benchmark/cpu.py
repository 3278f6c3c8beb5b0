"""CPU time an operation costs the server: user and system time of all its threads, over the requests answered meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .contest import Contest, progress
from .generator import load, turns
from .programs import Server
from .report import Cell, Table

KEYS = 10_000
KEY = "16"
TURNS = 10


class Column(NamedTuple):
    """How many ask at once, and how many requests each sends in one write."""

    connections: int
    depth: int

    @property
    def name(self) -> str:
        return f"{self.connections} x {self.depth}"


class Workload(NamedTuple):
    """What is asked for, bytes of a value and of a key (`N` or `N-M`), percent of the gets that miss."""

    name: str
    value: str
    misses: int = 0
    key: str = KEY


ONE_BY_ONE = (Column(1, 1), Column(8, 1), Column(50, 1))
COLUMNS = (*ONE_BY_ONE, Column(50, 16), Column(50, 100))
SMALL = {
    "get 32 B": Workload("get", "32"),
    "set 32 B": Workload("set", "32"),
    "9:1 mix 32 B": Workload("mix", "32"),
    "get, 1 % misses": Workload("get", "32", misses=1),
    "get, 50 % misses": Workload("get", "32", misses=50),
    "get, only misses": Workload("get", "32", misses=100),
    "mg 32 B": Workload("meta", "32"),
    "touch": Workload("touch", "32"),
    "incr": Workload("incr", "32"),
    "set and delete": Workload("delete", "32"),
    "binary get 32 B": Workload("binary-get", "32"),
    "binary set 32 B": Workload("binary-set", "32"),
    "get 200 B": Workload("get", "200"),
    "set 200 B": Workload("set", "200"),
    "get 1 KiB": Workload("get", "1024"),
    "set 1 KiB": Workload("set", "1024"),
    "all verbs, keys of 10 to 200 B": Workload("all", "20-2000", key="10-200"),
}
"""Those that delete leave gaps, so values are stored anew before each."""
MANY = {"get of 100 keys, 32 B": Workload("multiget", "32")}
UDP_COLUMNS = (*ONE_BY_ONE, Column(8, 16))
"""As many requests at once as a socket's buffer holds: a datagram that finds no room is lost."""
UDP = {
    "get 32 B": Workload("get", "32"),
    "get, only misses": Workload("get", "32", misses=100),
    "mg 32 B": Workload("meta", "32"),
    "binary get 32 B": Workload("binary-get", "32"),
    "get 1 KiB": Workload("get", "1024"),
}
LARGE_COLUMNS = (Column(1, 1), Column(8, 1), Column(8, 4))
LARGE = {f"{verb} {size} KiB": Workload(verb, str(size * 1024)) for size in (4, 10, 32, 100) for verb in ("get", "set")}
LARGE_KEYS = 1_000


def measure(contest: Contest) -> list[Table]:
    """Four tables: the ratio, and microseconds an operation of both."""
    where = f"{contest.names()}, in µs"
    small = table(
        contest, f"Server CPU time an operation (connections x requests in one write): {where}", SMALL, COLUMNS
    )
    many = table(contest, f"... of a get of many keys: {where}", MANY, (Column(50, 1),))
    large = table(contest, f"... of large values: {where}", LARGE, LARGE_COLUMNS, LARGE_KEYS)
    datagrams = table(
        contest,
        f"... by UDP (sockets x datagrams in one write): {where}",
        UDP,
        UDP_COLUMNS,
        more=("-U", "-1"),
        udp=True,
    )
    return [small, many, large, datagrams]


def table(
    contest: Contest,
    title: str,
    workloads: dict[str, Workload],
    columns: Sequence[Column],
    keys: int = KEYS,
    more: Sequence[str] = (),
    **how: str | bool,
) -> Table:
    """One row a workload. `more`: options of the servers, `how`: of the generator."""
    result = Table(title, ("workload", *(column.name for column in columns)))
    with contest.both(more=more) as servers:
        for name, workload in workloads.items():
            for server in servers:
                load(server, "fill", keys=keys, value=workload.value, key=workload.key, depth=16)
            cells = {}
            for column in columns:
                progress(f"CPU time: {name}, {column.name}")
                cells[column.name] = Cell(costs(contest, servers, workload, column, keys, **how))
            result.add_ratios(name, cells, ".2f")
    result.add_means(
        {column.name: [name for name in result.data if name.endswith(f", {column.name}")] for column in columns}
    )
    return result


def costs(
    contest: Contest, servers: tuple[Server, Server], workload: Workload, column: Column, keys: int, **more: str | bool
) -> list[tuple[float, float]]:
    """Microseconds an operation of both, TURNS pairs for each that the contest wants: a machine that others use, too, changes
    faster than runs of seconds follow each other. `more`: options of the generator.
    """
    seconds, warm_up = (0.02, 0.03) if contest.quick else (0.05, 0.2)
    what = options(workload, column)
    pairs = turns(servers, turns=contest.pairs * TURNS, keys=keys, seconds=seconds, warm_up=warm_up, **what, **more)
    return [(ours / 1000, theirs / 1000) for ours, theirs in pairs]


def cost(contest: Contest, server: Server, workload: Workload, column: Column, keys: int = KEYS, **more: str) -> float:
    """Microseconds an operation, of one run against one server; `more`: options of the generator."""
    seconds, warm_up = (0.15, 0.03) if contest.quick else (1, 0.2)
    report = closed(server, workload, column, keys=keys, seconds=seconds, warm_up=warm_up, **more)
    return report["server_ns"] / report["requests"] / 1000


def closed(server: Server, workload: Workload, column: Column, **more: Any) -> dict[str, int]:
    """The generator's report of one run of the closed loop; `more`: its other options."""
    return load(server, "closed", **options(workload, column), **more)


def options(workload: Workload, column: Column) -> dict[str, Any]:
    """As the generator takes them."""
    what = workload._asdict()
    return {"workload": what.pop("name"), **what, **column._asdict()}
