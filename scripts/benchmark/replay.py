"""Replays on real servers: a server and a load generator share a core, and every core has its replay."""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .generator import load
from .programs import BenchError, Program
from .requests import Requests
from .sizes import MEBIBYTE

PACED_TOGETHER = 8  # paced replays sleep most of the time
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """`hits` and `byte_hits` in percent; `pages`: what the slab pages take at the end, MiB; None: a model has none."""

    hits: float
    byte_hits: float
    pages: float | None = None


class Stage:
    """The cores. `rate`: requests a second; None: as fast as it goes."""

    def __init__(self, rate: float | None = None) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.rate = rate
        self.free: queue.Queue[int] = queue.Queue()
        for core in cores * (PACED_TOGETHER if rate else 1):
            self.free.put(core)
        self.most = self.free.qsize()

    def together(self, work: Iterable[Callable[[], T]]) -> list[T]:
        """The results of calls that replay, in order; they are made side by side. After one that fails no more are made."""
        with ThreadPoolExecutor(self.most) as pool:
            futures = [pool.submit(call) for call in work]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def replay(self, program: Program, requests: Requests, memory: int) -> Outcome:
        """On a server started for it with `-m` MEMORY (MiB)."""
        core = self.free.get()
        try:
            with program.running(memory, core=core) as server, tempfile.NamedTemporaryFile() as file:
                Path(file.name).write_bytes(requests.packed())
                pace = {"rate": self.rate} if self.rate else {}
                limit = 60 + 2 * len(requests) / self.rate if self.rate else None
                report = load(server, "replay", core, limit, file=file.name, **pace)
                pages = int(server.stats("slabs")["total_malloced"]) / MEBIBYTE
        finally:
            self.free.put(core)
        return outcome(report["gets"], report["hits"], report["bytes"], report["hit_bytes"], pages)


def outcome(gets: int, hits: int, size: int, hit_bytes: int, pages: float | None = None) -> Outcome:
    """Percentages of what was counted."""
    if not gets or not size:
        raise BenchError("a load without gets")
    return Outcome(100 * hits / gets, 100 * hit_bytes / size, pages)
