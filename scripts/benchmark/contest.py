"""What every measurement gets: the two programs, how many pairs, and how long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from .programs import Program, Server
from .report import Cell, interleave

T = TypeVar("T")


@dataclass(frozen=True)
class Contest:
    """`subject` is mcserver (or its stand-in), `peer` memcached. `quick`: shorter, and one pair where figures hardly vary."""

    subject: Program
    peer: Program
    pairs: int = 3
    quick: bool = False

    @contextmanager
    def both(self, memory: int = 1024, threads: int = 1, more: Sequence[str] = ()) -> Iterator[tuple[Server, Server]]:
        """Both servers at once, with `more` options; the one that is not measured is idle."""
        with (
            self.subject.running(memory, threads=threads, more=more) as subject,
            self.peer.running(memory, threads=threads, more=more) as peer,
        ):
            yield subject, peer

    def fresh(self, measure: Callable[[Program], T]) -> list[tuple[T, T]]:
        """Pairs of a measurement that starts its own server: what the memory holds, which hardly varies."""
        return interleave(1 if self.quick else self.pairs, (self.subject, self.peer), measure)

    def head(self, what: str, ratio: str = "ratio") -> tuple[str, str, str, str]:
        """A table's head."""
        return what, self.subject.name, self.peer.name, ratio

    def names(self) -> str:
        """What stands in brackets behind a ratio."""
        return f"ratio ({self.subject.name} / {self.peer.name})"

    def spread(self, what: str, cell: Cell, form: str) -> str:
        """A remark: the least and the most of both."""
        ours, theirs = ([format(edge(values), form) for edge in (min, max)] for values in zip(*cell.pairs, strict=True))
        return (
            f"{what}: {ours[0]} to {ours[1]} for {self.subject.name}, {theirs[0]} to {theirs[1]} for {self.peer.name}."
        )


def progress(text: str) -> None:
    """Says on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)
