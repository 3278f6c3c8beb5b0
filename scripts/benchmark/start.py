"""How long a start takes, from exec until a client is answered, and what the pages of -h and -V take."""

from __future__ import annotations

import resource
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
    table.add("ready", Cell(contest.fresh(lambda program: median(ready(program)[0] for _ in range(starts)))), ".1f")
    least = contest.fresh(lambda program: min(ready(program)[0] for _ in range(starts)))
    table.add("ready, the quickest start", Cell(least), ".1f")  # what it takes where others use the machine, too
    spent = Cell(contest.fresh(lambda program: median(ready(program)[1] for _ in range(starts))))
    table.add("CPU time until then", spent, ".1f")
    whole = Cell(contest.fresh(lambda program: median(ready(program, whole=True)[0] for _ in range(starts))))
    table.add("`stats` is answered, too", whole, ".1f")
    for page in ("-h", "-V"):
        cell = Cell(contest.fresh(lambda program, page=page: median(shown(program, page) for _ in range(starts))))  # type: ignore[misc]  # a default, for the loop
        table.add(f"`{page}`", cell, ".1f")
    bare, loops = ([python(code) for _ in range(starts)] for code in ("pass", "import asyncio, uvloop"))
    table.remarks.append(
        f"Python alone takes {spread(bare, 0)} ms (CPU time {spread(bare, 1)}), with asyncio and uvloop loaded "
        f"{spread(loops, 0)} ms ({spread(loops, 1)})."
    )
    return [table]


def ready(program: Program, *, whole: bool = False) -> tuple[float, float]:
    """Milliseconds until a connection is answered, and of CPU time till then; the process is pinned as in every measurement.

    whole: until everything is answered, what the event loop has to do with included.
    """
    began = time.perf_counter()
    with program.running(whole=whole) as server:
        return (time.perf_counter() - began) * 1e3, server.cpu_time()


def python(code: str) -> tuple[float, float]:
    """Milliseconds that a Python takes for this from exec to its end, and of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = took([sys.executable, "-c", code])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def spread(measured: Sequence[tuple[float, float]], which: int) -> str:
    """The median, and the least."""
    values = [each[which] for each in measured]
    return f"{median(values):.1f}, at least {min(values):.1f}"


def shown(program: Program, page: str) -> float:
    return took([*program.command, page])


def took(command: Sequence[str]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1e3
