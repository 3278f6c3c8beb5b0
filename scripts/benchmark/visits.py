"""Visits: clients that connect, ask once and close. How many a second, and what each costs."""

from __future__ import annotations

from .contest import Contest, progress
from .generator import load
from .programs import Server
from .report import Cell, Table, interleave

AT_ONCE = 8


def measure(contest: Contest) -> list[Table]:
    """One table."""
    progress("visits")
    table = Table(f"Connections that are made, asked once and closed, {AT_ONCE} at once", contest.head("what"))
    with contest.both() as servers:
        pairs = interleave(contest.pairs, servers, lambda server: visits(contest, server))
    table.add("a second", Cell([(ours[0], theirs[0]) for ours, theirs in pairs]), ",.0f")
    table.add("server CPU time of each, µs", Cell([(ours[1], theirs[1]) for ours, theirs in pairs]), ".1f")
    return [table]


def visits(contest: Contest, server: Server) -> tuple[float, float]:
    """Visits a second, and microseconds of the server's CPU time for one."""
    seconds, warm_up = (0.3, 0.1) if contest.quick else (2, 0.2)
    report = load(server, "visits", connections=AT_ONCE, seconds=seconds, warm_up=warm_up)
    return report["requests"] / report["elapsed_ns"] * 1e9, report["server_ns"] / report["requests"] / 1000
