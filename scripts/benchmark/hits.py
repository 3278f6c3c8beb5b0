"""Hit ratio: the server as a cache in front of something slow (a miss is set), on traces that follow from a seed."""

from __future__ import annotations

from .contest import Contest, progress
from .generator import load
from .programs import Program
from .report import Cell, Table

TRACES = {"zipf": "Zipf 0.9", "scan": "Zipf 1.0 with a scan through it", "shift": "sizes that shift, Zipf 0.9"}


def measure(contest: Contest) -> list[Table]:
    """One table: percent of the working set's gets that hit, and the difference in points."""
    table = Table(f"Hit ratio at -m {memory(contest)}, percent", contest.head("trace", "points"))
    for trace, name in TRACES.items():
        progress(f"hit ratio: {name}")
        cell = Cell(contest.fresh(lambda program: play(contest, program, trace)))  # noqa: B023
        points = cell.subject - cell.peer
        table.rows.append((name, f"{cell.subject:.2f}", f"{cell.peer:.2f}", f"{points:+.2f}"))
        table.data[trace] = {"pairs": cell.pairs, "points": points}
    return [table]


def memory(contest: Contest) -> int:
    """MiB: a short trace fills less."""
    return 24 if contest.quick else 64


def play(contest: Contest, program: Program, trace: str) -> float:
    """Percent of hits."""
    with program.running(memory(contest)) as server:
        report = load(server, "trace", trace=trace, requests=400_000 if contest.quick else 5_000_000, seed=20)
    return 100 * report["hits"] / report["gets"]
