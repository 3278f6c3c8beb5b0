"""A get while somebody uses the port of --metrics well or badly: its latency beside that of a server whose port nobody uses.

memcached has no such port, so there is nothing beside. The scrapers are a process of their own, until it is killed:

python -m benchmark.scraped NAME PORT
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from statistics import median

from .contest import Contest, progress
from .generator import load
from .programs import Server, cores
from .report import Table

KEYS, VALUE, CONNECTIONS, RATE = 100_000, 100, 10, 2000
RUNS_A_PAIR = 3
QUIET = "nobody asks"
HOST = "127.0.0.1"


def measure(contest: Contest) -> list[Table]:
    """One table: microseconds at p50 and at p99, and p99 over the quiet one of the same turn."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (QUIET, *SCRAPERS)}
    with contest.subject.running(core=cores()[0], more=["--metrics", f"{HOST}:{port}"]) as server:
        load(server, "fill", keys=KEYS, value=VALUE, depth=50)
        for turn in range(contest.pairs * RUNS_A_PAIR):
            progress(f"scraped: turn {turn + 1} of {contest.pairs * RUNS_A_PAIR}")
            for name, figures in found.items():
                figures.append(scraped(contest, server, name, port))
    table = Table(
        f"A get or set while --metrics is asked, µs, at {RATE:,} a second (9:1, {VALUE} B, {CONNECTIONS} connections)",
        ("who asks", "p50", "p99", "p99 over quiet"),
    )
    for name, figures in found.items():
        p50, p99 = (median(each) for each in zip(*figures, strict=True))
        ratio = median(mine[1] / quiet[1] for mine, quiet in zip(figures, found[QUIET], strict=True))
        table.rows.append((name, f"{p50:,.0f}", f"{p99:,.0f}", f"{ratio:.2f}"))
        table.data[name] = {"µs": figures, "ratio": ratio}
    return [table]


def scraped(contest: Contest, server: Server, name: str, port: int) -> tuple[float, float]:
    """p50 and p99 in µs while they are at it; on the load generator's core, and giving way to it."""
    others = None
    if name != QUIET:
        command = ["nice", "taskset", "-c", str(cores()[1]), sys.executable, "-m", "benchmark.scraped", name, str(port)]
        others = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert others.stdout is not None
        others.stdout.readline()  # they have begun
    seconds, warm_up = (0.5, 0.2) if contest.quick else (2, 0.5)
    try:
        run = load(
            server, "open", rate=RATE, seconds=seconds, warm_up=warm_up, value=VALUE, connections=CONNECTIONS, keys=KEYS
        )
    finally:
        if others is not None:
            others.kill()
            others.communicate()
    return run["p50_ns"] / 1000, run["p99_ns"] / 1000


# Those who ask --------------------------------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), 10)


def asking(path: str, pause: float) -> Callable[[int], None]:
    """Asks, reads all of the answer, rests for so many seconds, and asks again."""

    def work(port: int) -> None:
        while True:
            with connect(port) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                while connection.recv(1 << 18):
                    pass
            time.sleep(pause)

    return work


def dribbling(port: int) -> None:
    """A request that never ends, a byte at a time; a new one when it is cut off."""
    while True:
        with connect(port) as connection:
            for byte in b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 5000:
                connection.sendall(bytes([byte]))
                time.sleep(0.01)


def deaf(port: int) -> None:
    """Requests whose answers are not read, with a window that holds little of them."""
    while True:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.connect((HOST, port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(2)


def flooding(port: int) -> None:
    """As many connections as can be, each with what is no request."""
    while True:
        with connect(port) as connection:
            connection.sendall(b"\x80" * 9000)


SCRAPERS: dict[str, tuple[int, Callable[[int], None]]] = {
    "Prometheus, once a second": (1, asking("/metrics", 1)),
    "the page, five times": (5, asking("/figures.json", 1)),
    "4 loops of /metrics": (4, asking("/metrics", 0)),
    "40 whose request never ends": (40, dribbling),
    "40 that don't read the page": (40, deaf),
    "4 loops of what is no request": (4, flooding),
}


def again(work: Callable[[int], None], port: int) -> None:
    while True:
        try:
            work(port)
        except OSError:
            time.sleep(0.01)  # refused or cut off, as it should be


def main(name: str, port: str) -> None:
    """Begins, says so, and goes on until it is killed."""
    count, work = SCRAPERS[name]
    for _ in range(count):
        threading.Thread(target=again, args=(work, int(port)), daemon=True).start()
    time.sleep(0.1)
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
