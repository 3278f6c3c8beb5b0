"""A get undisturbed: its latency while others ask for what is long, dear or rare. See disturb.py for what they do.

What is timed is the server: from when a request left until the kernel had its answer, since those that disturb share the
generator's processor. The server's own is kept awake: a virtual one that nobody needs may take 0.3 ms to come back, which a
server hides that wakes up by itself now and then. The first row is without that.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from .contest import Contest, progress
from .disturb import DISTURBANCES, FLOODS, LOGIN
from .generator import load
from .programs import BenchError, Program, Server, cores
from .report import Cell, Table, interleave
from .tls import certified

KEYS, VALUE, CONNECTIONS, RATE = 100_000, 100, 10, 2000
MEMORY = 64
ASLEEP, QUIET, UNREAD = "quiet, a processor that may sleep", "quiet", "a log that nobody reads (-vv)"
COLLECTING = "gc.collect() all the time, of a million objects"
COLLECT = """
import gc, sys, threading, time
from mcserver.cli import main
def collect():
    objects = [[] for _ in range(1_000_000)]
    while objects:
        gc.collect()
        time.sleep(0.01)
threading.Thread(target=collect, daemon=True).start()
sys.argv[0] = "mcserver"
sys.exit(main())
"""
AWAKE = "import time\nwhile True: time.sleep(0.0002)"
RUNS_A_PAIR = 3
COUNTED = 2
"""s in which a flood's visitors are counted, before any is timed."""
SHARE = 0.5
"""Of the visitors that the slower server takes in a second: so many come to both in a row of its own."""
Run = dict[str, int]
Pair = tuple[Server, Server]


def measure(contest: Contest) -> list[Table]:
    """Two tables: microseconds at p50 and at p99."""
    p50, p99 = (
        Table(
            f"{name} of a get or set, µs, at {RATE:,} a second (9:1, {VALUE} B, {CONNECTIONS} connections) while others ask",
            (*contest.head("what is asked meanwhile"), "over quiet"),
        )
        for name in ("p50", "p99")
    )
    quiet: list[tuple[Run, Run]] = []
    with running(contest.subject) as subject, running(contest.peer) as peer:
        for name in (ASLEEP, QUIET, *DISTURBANCES):
            progress(f"undisturbed: {name}")
            pairs = interleave(
                contest.pairs * RUNS_A_PAIR,
                (subject, peer),
                partial(disturbed, contest, name=name),
            )
            if name in {ASLEEP, QUIET}:  # the first is over its own
                quiet = pairs
            add(p50, name, "p50_ns", pairs, quiet)
            add(p99, name, "p99_ns", pairs, quiet)

    def alone(name: str, server: Server) -> None:
        """A row without memcached."""
        progress(f"undisturbed: {name}")
        runs = [disturbed(contest, server, QUIET) for _ in range(contest.pairs * RUNS_A_PAIR)]
        for table, field in ((p50, "p50_ns"), (p99, "p99_ns")):
            ours, before = median(run[field] for run in runs) / 1000, median(run[field] for run, _ in quiet) / 1000
            table.rows.append((name, f"{ours:,.0f}", "", "", f"{ours / before:.2f}"))

    floods(contest, p50, p99)
    with unread_log() as log, running(contest.subject, log) as subject:
        alone(UNREAD, subject)
    if contest.subject.name == "mcserver":
        with running(Program("mcserver", (sys.executable, "-c", COLLECT))) as subject:
            alone(COLLECTING, subject)
    for table in (p50, p99):
        table.remarks.append(f"{UNREAD}: memcached waits for its log, so there is nothing beside.")
    return [p50, p99]


def floods(contest: Contest, p50: Table, p99: Table) -> None:
    """The rows of floods. Each has servers with the option that it needs, whose own quiet is measured first."""
    handshakes, logins, sasl, udp = FLOODS
    with TemporaryDirectory() as name:
        folder = Path(name)
        users = folder / "users"
        users.write_text(LOGIN.decode().replace(" ", ":") + "\n")
        library = sasl_library(folder)
        more, context = certified(folder, "ECDSA P-256")
        ways: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
            handshakes: (["-l", "notls:127.0.0.1", *more], {"tls": context}, {}),
            logins: (["-Y", str(users)], {"login": LOGIN}, {"login": LOGIN.decode()}),
            sasl: (["-S"], {"sasl": LOGIN, "environment": library}, {"sasl": LOGIN.decode()}),
            udp: (["-U", "-1"], {}, {}),
        }
        for flood, (options, how, asked) in ways.items():
            with ExitStack() as stack:
                servers = [
                    stack.enter_context(each.running(MEMORY, core=cores()[0], more=options, **how))
                    for each in (contest.subject, contest.peer)
                ]
                for server in servers:
                    load(plain(server), "fill", keys=KEYS, value=VALUE, depth=50, **asked)
                pair = (servers[0], servers[1])
                timed = partial(flooded, contest, pair, asked)
                quiet = timed(QUIET)
                most = [how_often(flood, server) for server in pair]
                pace = SHARE * min(most)
                runs = {
                    f"{flood}, all they can ({most[0]:,.0f}, {most[1]:,.0f} a second)": timed(flood),
                    f"{flood}, {pace:,.0f} a second": timed(flood, pace),
                }
                for row, pairs in runs.items():
                    add(p50, row, "p50_ns", pairs, quiet)
                    add(p99, row, "p99_ns", pairs, quiet)


def flooded(contest: Contest, pair: Pair, asked: dict[str, Any], flood: str, pace: float = 0) -> list[tuple[Run, Run]]:
    """Both, beside a flood (or QUIET), at a pace if it isn't 0."""
    progress(f"undisturbed: {flood}" + (f", {pace:,.0f} a second" if pace else ""))
    return interleave(contest.pairs * RUNS_A_PAIR, pair, partial(disturbed, contest, name=flood, pace=pace, **asked))


def how_often(flood: str, server: Server) -> float:
    """Visitors of the flood a second, if they come again at once and nobody else asks."""
    with disturbing(flood, server, str(COUNTED)) as others:
        assert others.stdout is not None
        return float(others.stdout.readline())


def sasl_library(folder: Path) -> dict[str, str]:
    """Where both servers find who may come in at -S: memcached in a SASL library's own data base, mcserver in the file of -Y."""
    name, password = LOGIN.split(b" ")
    program = shutil.which("saslpasswd2") or "/usr/sbin/saslpasswd2"
    make = [program, "-p", "-c", "-f", str(folder / "db"), "-u", socket.gethostname(), name.decode()]
    subprocess.run(make, input=password, check=True)
    lines = ["mech_list: plain", "pwcheck_method: auxprop", "auxprop_plugin: sasldb", f"sasldb_path: {folder}/db"]
    (folder / "memcached.conf").write_text("\n".join(lines) + "\n")
    return {"SASL_CONF_PATH": str(folder), "MEMCACHED_SASL_PWDB": str(folder / "users")}


def plain(server: Server) -> Server:
    """As it is asked by those that are timed: by its last listener, which is plain."""
    return replace(server, port=server.ports[-1])


def add(table: Table, name: str, field: str, pairs: list[tuple[Run, Run]], quiet: list[tuple[Run, Run]]) -> None:
    """One row; its last column is mcserver's figure over its own quiet one."""
    cell = Cell([(ours[field] / 1000, theirs[field] / 1000) for ours, theirs in pairs])
    before = Cell([(ours[field] / 1000, theirs[field] / 1000) for ours, theirs in quiet])
    table.rows.append(
        (name, f"{cell.subject:,.0f}", f"{cell.peer:,.0f}", f"{cell.ratio:.2f}", f"{cell.subject / before.subject:.2f}")
    )
    table.note(name, cell)


@contextmanager
def running(program: Program, stderr: int | None = None) -> Iterator[Server]:
    """With the keys in it, and -vv if its log goes to `stderr`."""
    with program.running(MEMORY, core=cores()[0], more=["-vv"] if stderr else [], stderr=stderr) as server:
        load(server, "fill", keys=KEYS, value=VALUE, depth=50)
        yield server


def disturbed(contest: Contest, server: Server, name: str, pace: float = 0, **how: Any) -> Run:
    """The generator's report while the others are at it."""
    seconds, warm_up = (0.5, 0.2) if contest.quick else (2, 0.5)
    others = nullcontext() if name in {ASLEEP, QUIET} else disturbing(name, server, *([f"@{pace}"] if pace else []))
    with nullcontext() if name == ASLEEP else awake(), others:
        options = {"value": VALUE, "connections": CONNECTIONS, "keys": KEYS, "may_miss": True, "stamped": True}
        return load(plain(server), "open", rate=RATE, seconds=seconds, warm_up=warm_up, **options, **how)


@contextmanager
def awake() -> Iterator[None]:
    """The servers' processor is woken often, for a moment."""
    with subprocess.Popen(["taskset", "-c", str(cores()[0]), sys.executable, "-c", AWAKE]) as ticker:
        try:
            yield
        finally:
            ticker.kill()


@contextmanager
def disturbing(name: str, server: Server, *how: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process of those that ask (disturb.py), which have begun."""
    port = str(server.udp or server.port)
    command = ["nice", "taskset", "-c", str(cores()[1]), sys.executable, "-m", "benchmark.disturb", name, port, *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as others:
        assert others.stdout is not None
        try:
            if not others.stdout.readline():  # else they have begun
                raise BenchError(f"{server.name}: nobody asks: {name}")
            yield others
        finally:
            others.kill()


@contextmanager
def unread_log() -> Iterator[int]:
    """The end of a full pipe."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield write
    finally:
        os.close(read)
        os.close(write)
