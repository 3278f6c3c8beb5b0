"""Hits of real servers as caches in front of something slow (a miss is stored), beside what byte-LRU and GDSF would hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import geometric_mean, mean

from . import models, stress
from .contest import Contest, progress
from .curve import WIDEST, memory_for
from .plot import draw
from .programs import BenchError, Program
from .replay import Outcome, Stage, outcome
from .report import Table
from .requests import Requests
from .sizes import MODELS, sized
from .traces import gather

SHARES = (0.05, 0.2)
LOAD = ("load", "sizes", "share")
MEMORY = 128  # MiB
SMALL_MEMORY = 16
STRESS_MEMORY = 32
MOST = 200_000  # requests of a load
CURVE = (16, 32, 64, 128, 256, 512)  # MiB
CURVE_SHARE = 0.1  # at the third from the end


@dataclass(frozen=True)
class Choice:
    """What is replayed. `memory`: MiB. `rate`: requests a second; None: as fast as it goes. `bare`: two servers, no more."""

    traces: Path | None = None
    names: Sequence[str] = ()
    models: Sequence[str] = tuple(MODELS)
    shares: Sequence[float] = SHARES
    memory: Sequence[int] = (MEMORY,)
    most: int = MOST
    rate: float | None = None
    bare: bool = False
    plot: Path | None = None

    def quick(self) -> Choice:
        """Shorter loads, one share, half of the default memory: what a replay takes grows with the bytes that pass through it."""
        memory = (MEMORY // 2,) if self.memory == (MEMORY,) else self.memory
        return replace(self, most=min(self.most, 40_000), shares=self.shares[-1:], memory=memory)


@dataclass
class Cell:
    """A load of one size model and what became of it. `outcomes`: by contestant."""

    name: tuple[str, ...]
    requests: Callable[[], Requests]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def gain(self, subject: str, peer: str, of: str) -> float:
        """Points, of `hits` or `byte_hits`."""
        return float(getattr(self.outcomes[subject], of) - getattr(self.outcomes[peer], of))


class Hits:
    """One run of this measurement."""

    def __init__(self, contest: Contest, choice: Choice) -> None:
        self.choice = choice = choice.quick() if contest.quick else choice
        self.contest, self.stage = contest, Stage(choice.rate)
        subjects = (contest.subject,) if choice.bare else policies(contest.subject)
        self.subject, self.peer = subjects[0], contest.peer
        self.servers = (self.subject, self.peer)
        self.programs = (*subjects, contest.peer)
        self.models = {} if choice.bare else models.MODELS
        self.names = [*(program.name for program in self.programs), *self.models]
        loads = gather(choice.traces, choice.most)
        if unknown := set(choice.names) - set(loads):
            raise BenchError(f"no trace {', '.join(sorted(unknown))}; there are {', '.join(loads)}")
        self.loads = {name: keys for name, keys in loads.items() if not choice.names or name in choice.names}

    def cells(self, memory: int, only: Sequence[str] = ()) -> list[Cell]:
        """Every load, size model (or the `only` ones) and share."""
        return [
            Cell((name, model, f"{share}"), partial(sized, keys, model, share, memory))
            for name, keys in self.loads.items()
            for model in only or self.choice.models
            for share in self.choice.shares
        ]

    def play(self, cells: list[Cell], memory: int) -> list[Cell]:
        """Fills in the outcomes. The servers of a cell go one after the other, then the models; two cells go side by side."""
        done = 0

        def play_one(cell: Cell) -> None:
            nonlocal done
            requests = cell.requests()
            for program in self.programs:
                cell.outcomes[program.name] = self.stage.replay(program, requests, memory)
            for name, model in self.models.items():
                tally = model(requests, memory)
                cell.outcomes[name] = outcome(tally.gets, tally.hits, tally.bytes, tally.hit_bytes)
            done += 1
            said = ", ".join(f"{name} {result.hits:.2f}" for name, result in cell.outcomes.items())
            progress(f"-m {memory}, {done} of {len(cells)}: {' '.join(cell.name)}: {said}")

        self.stage.together([partial(play_one, cell) for cell in cells])
        return cells

    def table(self, title: str, cells: list[Cell], of: str = "hits") -> Table:
        """A row a cell: of every contestant the `hits` or `byte_hits` in percent, the difference in points, the pages."""
        head = LOAD[: len(cells[0].name)]
        ours, theirs = self.subject.name, self.peer.name
        table = Table(title, (*head, *self.names, "points", f"pages, MiB: {ours}", theirs))
        for cell in cells:
            gain = cell.gain(ours, theirs, of)
            figures = [f"{getattr(cell.outcomes[name], of):.2f}" for name in self.names]
            pages = [f"{cell.outcomes[name].pages:.1f}" for name in (ours, theirs)]
            table.rows.append((*cell.name, *figures, f"{gain:+.2f}", *pages))
            table.data[" ".join(cell.name)] = {name: vars(result) for name, result in cell.outcomes.items()}
        for program in self.programs[:-1]:
            table.remarks.append(summary(cells, program.name, theirs, of))
        for name in self.names:
            table.data.setdefault("mean", {})[name] = mean(getattr(cell.outcomes[name], of) for cell in cells)
        means = ", ".join(f"{name} {value:.2f}" for name, value in table.data["mean"].items())
        table.remarks.append(f"Means: {means}.")
        return table

    def needed(self, cells: list[Cell], memory: int) -> Table:
        """The memory that the peer needs for the subject's hits."""
        ours, theirs = self.subject.name, self.peer.name
        title = f"Memory that {theirs} needs for {ours}'s hits at -m {memory}, MiB"
        table = Table(title, (*LOAD, f"hits of {ours}", f"-m of {theirs}", "ratio"))

        def search(cell: Cell) -> float | None:
            requests, hits = cell.requests(), {name: result.hits for name, result in cell.outcomes.items()}
            found = memory_for(
                hits[ours], memory, lambda size: self.stage.replay(self.peer, requests, size).hits, hits[theirs]
            )
            progress(f"{' '.join(cell.name)}: {theirs} needs {said(found)} MiB for {hits[ours]:.2f} percent")
            return found

        found = self.stage.together([partial(search, cell) for cell in cells])
        for cell, size in zip(cells, found, strict=True):
            ratio = "" if size is None else f"{size / memory:.2f}"
            table.rows.append((*cell.name, f"{cell.outcomes[ours].hits:.2f}", said(size), ratio))
            table.data[" ".join(cell.name)] = size
        ratios = [size / memory for size in found if size is not None]
        if ratios:
            table.data["mean ratio"], table.data["geometric mean"] = mean(ratios), geometric_mean(ratios)
            table.remarks.append(f"Mean ratio {mean(ratios):.2f}, geometric mean {geometric_mean(ratios):.2f}.")
        if len(ratios) < len(found):
            table.remarks.append(
                f"{len(found) - len(ratios)} loads are left out of the means: they need more than {WIDEST} times as much or "
                f"less than a {WIDEST}th."
            )
        return table

    def plot(self, path: Path) -> Table:
        """Draws the hits of values spread in size over the memory; returns what is drawn as a table."""
        memory = CURVE[:4] if self.contest.quick else CURVE
        loads = {name: sized(keys, "spread", CURVE_SHARE, memory[-3]) for name, keys in self.loads.items()}
        points = [(name, size) for name in loads for size in memory]

        def play(name: str, size: int) -> dict[str, float]:
            found = {program.name: self.stage.replay(program, loads[name], size).hits for program in self.servers}
            for model, compute in models.MODELS.items():
                tally = compute(loads[name], size)
                found[model] = 100 * tally.hits / tally.gets
            progress(f"plot, {name}, -m {size}: {', '.join(f'{who} {hits:.2f}' for who, hits in found.items())}")
            return found

        results = dict(zip(points, self.stage.together([partial(play, *point) for point in points]), strict=True))
        names = list(results[points[0]])
        panels = {load: {who: [results[load, size][who] for size in memory] for who in names} for load in loads}
        draw(path, memory, panels, [program.name for program in self.servers], "values spread in size")
        table = Table(f"Hits over memory, percent ({path.name})", ("load", "", *(f"-m {size}" for size in memory)))
        for load, curves in panels.items():
            table.rows += [(load, who, *(f"{hits:.2f}" for hits in curve)) for who, curve in curves.items()]
        table.data.update(panels)
        return table


def said(size: float | None) -> str:
    """A number of MiB."""
    return "out of range" if size is None else f"{size:.0f}"


def measure(contest: Contest, choice: Choice) -> list[Table]:
    """Tables of hits and of hits by bytes at each memory; unless bare, the memory needed, small memory, stress, the plot."""
    hits, tables = Hits(contest, choice), []
    about = f"{hits.choice.most:,} requests a load" + (f", {choice.rate:,.0f} a second" if choice.rate else "")
    for memory in choice.memory:
        cells = hits.play(hits.cells(memory), memory)
        tables.append(hits.table(f"Hits at -m {memory}, percent ({about})", cells))
        tables.append(hits.table(f"Hits by bytes at -m {memory}, percent", cells, "byte_hits"))
        if not (choice.bare or contest.quick):
            tables.append(hits.needed(cells, memory))
    if choice.bare:
        return tables
    small = hits.play(hits.cells(SMALL_MEMORY, ("spread",)), SMALL_MEMORY)
    tables.append(hits.table(f"Hits at -m {SMALL_MEMORY}, percent, beside what the pages really take", small))
    tables.append(hits.table(f"Hits by bytes at -m {SMALL_MEMORY}, percent", small, "byte_hits"))
    memory = STRESS_MEMORY // 4 if contest.quick else STRESS_MEMORY
    loads = stress.loads(memory, hits.choice.most)
    hard = hits.play([Cell((name,), partial(loads.__getitem__, name)) for name in loads], memory)
    tables.append(hits.table(f"Hits at -m {memory} under loads nobody tuned for, percent", hard))
    if choice.plot:
        tables.append(hits.plot(choice.plot))
    return tables


def policies(subject: Program) -> tuple[Program, ...]:
    """One contestant for each value of `room_for`, the default first; the server as it is where it doesn't know that option."""
    variants = tuple(
        Program(f"{subject.name}{name}", (*subject.command, "-o", f"room_for={what}"))
        for what, name in (("requests", ""), ("bytes", " for bytes"))
    )
    try:
        with variants[0].running():
            return variants
    except BenchError:
        return (subject,)


def summary(cells: list[Cell], subject: str, peer: str, of: str) -> str:
    """Mean and worst difference, and the means of the size models."""
    gains = {cell.name: cell.gain(subject, peer, of) for cell in cells}
    worst = min(gains, key=lambda name: gains[name])
    by_model: dict[str, list[float]] = {}
    for name, gain in gains.items():
        by_model.setdefault(name[1] if len(name) == 3 else "", []).append(gain)
    parts = ", ".join(f"{model} {mean(values):+.2f}" for model, values in by_model.items() if model)
    return (
        f"{subject} over {peer}: mean {mean(gains.values()):+.2f} points{f' ({parts})' if parts else ''}, "
        f"worst {gains[worst]:+.2f} ({' '.join(worst)})."
    )
