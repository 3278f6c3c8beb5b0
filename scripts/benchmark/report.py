"""Pairs, cells and tables: how figures are gathered in turn and how they are shown. It measures nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import Any, TypeVar

C = TypeVar("C")
T = TypeVar("T")


def interleave(pairs: int, contestants: tuple[C, C], measure: Callable[[C], T]) -> list[tuple[T, T]]:
    """Measures both contestants `pairs` times in turn; who goes first changes, so that neither always has the warmer machine."""
    results = []
    for turn in range(pairs):
        if turn % 2:
            second, first = measure(contestants[1]), measure(contestants[0])
        else:
            first, second = measure(contestants[0]), measure(contestants[1])
        results.append((first, second))
    return results


@dataclass(frozen=True)
class Cell:
    """One figure of both servers, measured in pairs."""

    pairs: Sequence[tuple[float, float]]

    @property
    def subject(self) -> float:
        return median(pair[0] for pair in self.pairs)

    @property
    def peer(self) -> float:
        return median(pair[1] for pair in self.pairs)

    @property
    def ratio(self) -> float:
        """The median of the ratios of the pairs: what disturbs the machine for longer than a pair disturbs both alike."""
        return median(pair[0] / pair[1] for pair in self.pairs if pair[1])


@dataclass
class Table:
    """A title, a head, rows of text, remarks beneath; `data` is the same for machines, with every pair."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, cell: Cell, form: str) -> None:
        """A row of both medians, in format `form`, and the ratio."""
        self.rows.append((name, format(cell.subject, form), format(cell.peer, form), f"{cell.ratio:.2f}"))
        self.note(name, cell)

    def add_ratios(self, name: str, cells: dict[str, Cell], form: str) -> None:
        """A row of many cells, named by the heads of their columns: the ratio and, in brackets, both medians."""
        shown = {
            column: f"{cell.ratio:.2f} ({cell.subject:{form}} / {cell.peer:{form}})" for column, cell in cells.items()
        }
        self.rows.append((name, *(shown.get(column, "") for column in self.head[1:])))
        for column, cell in cells.items():
            self.note(f"{name}, {column}", cell)

    def note(self, name: str, cell: Cell) -> None:
        """For machines only."""
        self.data[name] = {"pairs": cell.pairs, "ratio": cell.ratio}

    def add_means(self, groups: dict[str, list[str]], worst: Callable[..., str] = max) -> None:
        """Remarks: the geometric mean of all ratios and of named groups of rows, and the worst row (`min`: the least is)."""
        ratios = {name: figures["ratio"] for name, figures in self.data.items()}
        means = {group: geometric_mean([ratios[name] for name in names]) for group, names in groups.items()}
        mean, bad = geometric_mean(list(ratios.values())), worst(ratios, key=lambda name: ratios[name])
        parts = "; ".join(f"{group} {value:.2f}" for group, value in means.items())
        self.remarks.append(
            f"Geometric mean of the ratios: {mean:.2f} ({parts}). Worst cell: {bad}, {ratios[bad]:.2f}."
        )
        self.data["geometric mean"] = {"all": mean, **means}

    def markdown(self) -> str:
        """The table as the README shows it."""
        widths = [max(len(row[i]) for row in [self.head, *self.rows]) for i in range(len(self.head))]
        lines = [f"**{self.title}**", "", _line(self.head, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(row, widths) for row in self.rows]
        for remark in self.remarks:
            lines += ["", remark]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
