"""Warm restart: how long a server with -e takes to end with a full memory, and to serve it again."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from .contest import Contest, progress
from .generator import load
from .programs import BenchError, Program, Server
from .report import Cell, Table

MEMORY, VALUE = 1500, 1024  # MiB, bytes
PAUSE = 2.5  # s; memcached takes a record of the same second for one of the future
TMPFS = Path("/dev/shm")


def measure(contest: Contest) -> list[Table]:
    """One table: seconds."""
    gibibytes = 0.25 if contest.quick else 1.0
    progress(f"restart with {gibibytes} GiB of items")
    pairs = contest.fresh(lambda program: restarted(program, int(gibibytes * (1 << 30) / VALUE)))
    table = Table(f"Warm restart (-e) with {gibibytes} GiB in values of {VALUE:,} B, s", contest.head("what"))
    for at, name in enumerate(("SIGUSR1 until it has ended", "exec until a get is answered")):
        table.add(name, Cell([(ours[at], theirs[at]) for ours, theirs in pairs]), ".2f")
    return [table]


def restarted(program: Program, keys: int) -> tuple[float, float]:
    """Seconds to end, and to serve all keys again. BenchError when items are lost."""
    with tempfile.TemporaryDirectory(dir=TMPFS) as folder:
        more = ["-e", f"{folder}/items"]
        with program.running(MEMORY, more=more) as server:
            load(server, "fill", keys=keys, value=VALUE, depth=50, connections=4)
            began = time.monotonic()
            os.kill(server.pid, signal.SIGUSR1)
            ended(server)
            ending = time.monotonic() - began
        time.sleep(PAUSE)
        began = time.monotonic()
        with program.running(MEMORY, more=more) as server:
            starting = time.monotonic() - began
            found = load(server, "count", keys=keys, value=VALUE, stride=100)
            if found["hits"] < found["gets"]:
                raise BenchError(f"{server.name} kept {found['hits']} of {found['gets']} items")
        return ending, starting


def ended(server: Server) -> None:
    """Waits for the process, which its starter reaps later, to be over."""
    stat = Path(f"/proc/{server.pid}/stat")
    deadline = time.monotonic() + 60
    while stat.read_text("ascii").rpartition(") ")[2][0] != "Z":
        if time.monotonic() > deadline:
            raise BenchError(f"{server.name} did not end")
        time.sleep(0.002)
