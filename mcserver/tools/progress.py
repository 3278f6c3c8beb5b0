"""Progress of what takes more than a few seconds: a bar on a terminal, a line now and then elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

LINE_SECONDS = 5.0


class Progress:
    """`with Progress("dumping", total) as progress: progress.advance(n)`. total None: not known."""

    def __init__(self, what: str, total: int | None, unit: str = "items") -> None:
        self._what, self._total, self._unit = what, total, unit
        self.done = 0
        self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            print(f"{self._what}: {self.done:,}{of} {self._unit}", file=sys.stderr, flush=True)
