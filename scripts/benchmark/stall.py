"""The longest stall: what a client that asks every millisecond sees while others insert millions of items and the index grows."""

from __future__ import annotations

from .contest import Contest, progress
from .generator import load
from .programs import Program
from .report import Cell, Table

MEMORY = 2048


def measure(contest: Contest) -> list[Table]:
    """One table: milliseconds."""
    keys = 1_000_000 if contest.quick else 5_000_000
    progress(f"the longest stall in {keys:,} inserts")
    cell = Cell(contest.fresh(lambda program: longest(program, keys) / 1e6))
    table = Table(f"Longest stall seen while {keys:,} items of 32 bytes are inserted, ms", contest.head("what"))
    table.add("longest stall", cell, ".2f")
    table.remarks.append(contest.spread("Over the runs, ms", cell, ".2f"))
    return [table]


def longest(program: Program, keys: int) -> int:
    """Nanoseconds."""
    with program.running(MEMORY) as server:
        return load(server, "fill", keys=keys, value=32, depth=50, connections=4, probe=True)["longest_stall_ns"]
