"""How far threads scale: a model from times measured inside and outside of the engine's lock, checked at one and two threads.

Threads are customers of a closed network: each works `outside` alone (the kernel, mostly) and `inside` under the one lock, which
serves one at a time. Exact mean value analysis (Reiser and Lavenberg, 1980) gives what N threads serve on N cores, if the kernel
itself scales. Two threads' own figure is how long they were seen to wait for the lock (`lock_wait_us`), beside the model's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

from .contest import Contest, progress
from .cpu import KEYS, Column, Workload, cost
from .generator import load
from .programs import ROOT, BenchError, Server
from .report import Table
from .threads import one

THREADS = (1, 2, 4, 8, 16)
COLUMNS = (Column(50, 1), Column(50, 16), Column(50, 100))
WORKLOADS = {"get 32 B": Workload("get", "32"), "set 32 B": Workload("set", "32"), "get 1 KiB": Workload("get", "1024")}


def measure(contest: Contest) -> list[Table]:
    """One table: mcserver alone."""
    columns = ("µs", "of it inside", *(f"-t {n}" for n in THREADS[1:]), "most", "waits at -t 2, % (model)")
    table = Table("How many times as much N threads serve on N cores, by the model", ("workload", *columns))
    for name, workload in WORKLOADS.items():
        for column in COLUMNS:
            progress(f"scaling: {name}, {column.name}")
            table.rows.append((f"{name}, {column.name}", *row(contest, workload, column)))
    table.remarks.append(
        "Two cores are all that was measured on: above -t 2 it is the model's word, and the kernel's part is taken to scale."
    )
    return [table]


def row(contest: Contest, workload: Workload, column: Column) -> list[str]:
    """The cells behind a name."""
    inside = median(inside_of(workload, column.depth) for _ in range(3))
    with contest.subject.running(1024) as server:
        fill(server, workload)
        whole = median(cost(contest, server, workload, column) for _ in range(contest.pairs))
    outside = max(whole - inside, 0.0)
    served = {n: serves(n, inside * column.depth, outside * column.depth) for n in THREADS}
    waits = waiting(contest, workload, column)
    modelled = 100 * (2 / served[2] - (inside + outside) * column.depth) / (2 / served[2])
    return [
        f"{whole:.2f}", f"{inside:.2f}", *(f"{served[n] / served[1]:.1f}" for n in THREADS[1:]),
        f"{whole / inside:.0f}", f"{waits:.1f} ({modelled:.1f})",
    ]  # fmt: skip


def fill(server: Server, workload: Workload) -> None:
    load(server, "fill", keys=KEYS, value=workload.value, key=workload.key, depth=16)


def serves(threads: int, inside: float, outside: float) -> float:
    """Batches a microsecond of so many threads."""
    queue = 0.0
    rate = 0.0
    for n in range(1, threads + 1):
        at_lock = inside * (1 + queue)
        rate = n / (at_lock + outside)
        queue = rate * at_lock
    return rate


def inside_of(workload: Workload, depth: int) -> float:
    """Microseconds of a request without the kernel: a session driven by hand, which runs what a worker runs under the lock."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from mcserver.core import Engine, Session

    session = Session(Engine(memory_limit=64 << 20, requests_per_event=1000), None)  # type: ignore[arg-type]  # nothing asks for its owner
    value = b"v" * int(workload.value)
    for key in range(KEYS):
        session.feed(b"set key-%012d 0 0 %d noreply\r\n%b\r\n" % (key, len(value), value))
    keys = [(key * 7919) % KEYS for key in range(1000 * depth)]
    requests = {
        "get": [b"get key-%012d\r\n" % key for key in keys],
        "set": [b"set key-%012d 0 0 %d\r\n%b\r\n" % (key, len(value), value) for key in keys],
    }[workload.name]
    batches = [b"".join(requests[at : at + depth]) for at in range(0, len(requests), depth)]
    empty = timed(session.feed, [b"mn\r\n"] * len(batches)) - timed(session.feed, [b"mn\r\n" * 2] * len(batches)) / 2
    return max(timed(session.feed, batches) - 2 * empty, 0) / len(requests)


def timed(feed: Callable[[bytes], object], batches: list[bytes]) -> float:
    """Microseconds of CPU time for all."""
    began = time.thread_time_ns()
    for batch in batches:
        feed(batch)
    return (time.thread_time_ns() - began) / 1000


def waiting(contest: Contest, workload: Workload, column: Column) -> float:
    """Percent of its CPU and waiting time that two threads waited for the lock."""
    with contest.subject.running(1024, threads=2) as server:
        fill(server, workload)
        before = int(server.stats()["lock_wait_us"])
        operation, thousands = one(contest, server, workload, column)
        seconds = 0.4 if contest.quick else 1.8
        waited = int(server.stats()["lock_wait_us"]) - before
        worked = operation * thousands * 1000 * seconds
        if worked <= 0:
            raise BenchError("nothing was served")
        return 100 * waited / (worked + waited)
