"""How long a start takes, from exec until a client is answered, and what the pages of -h and -V take."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from .contest import Contest, progress
from .programs import Program
from .report import Cell, Table

STARTS = 15


def measure(contest: Contest) -> list[Table]:
    """One table: milliseconds."""
    starts = 5 if contest.quick else STARTS
    progress(f"{starts} starts of each, {contest.pairs} times")
    table = Table("From exec until it is ready, and its pages, ms", contest.head("what"))
    table.add("ready", Cell(contest.fresh(lambda program: median(ready(program) for _ in range(starts)))), ".1f")
    for page in ("-h", "-V"):
        cell = Cell(contest.fresh(lambda program, page=page: median(shown(program, page) for _ in range(starts))))  # type: ignore[misc]
        table.add(f"`{page}`", cell, ".1f")
    bare = median(took([sys.executable, "-c", "pass"]) for _ in range(starts))
    loops = median(took([sys.executable, "-c", "import asyncio, uvloop"]) for _ in range(starts))
    table.remarks.append(f"Python alone takes {bare:.1f} ms, with asyncio and uvloop loaded {loops:.1f} ms.")
    return [table]


def ready(program: Program) -> float:
    """Milliseconds until a connection is answered; the process is pinned as in every measurement."""
    began = time.perf_counter()
    with program.running():
        return (time.perf_counter() - began) * 1e3


def shown(program: Program, page: str) -> float:
    return took([*program.command, page])


def took(command: Sequence[str]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3
