"""TLS: what an operation and a handshake cost the server, and what an idle connection keeps in memory."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from .contest import Contest, progress
from .cpu import Column, Workload, costs
from .generator import load
from .programs import BenchError, Server
from .report import Cell, Table, interleave

KEYS = 1_000
COLUMNS = (Column(1, 1), Column(50, 1), Column(50, 16))
WORKLOADS = {
    "get 32 B": Workload("get", "32"),
    "get 1 KiB": Workload("get", "1024"),
    "get 10 KiB": Workload("get", "10240"),
    "set 32 B": Workload("set", "32"),
}
ALGORITHMS = {"ECDSA P-256": ("EC", "ec_paramgen_curve:P-256"), "RSA 2048": ("RSA", "rsa_keygen_bits:2048")}
IDLE = 500
RUNS_A_PAIR = 5


def measure(contest: Contest) -> Iterator[Table]:
    """Three tables."""
    yield handshakes(contest)
    yield idle(contest)
    yield operations(contest)


def certified(folder: Path, algorithm: str) -> tuple[tuple[str, ...], ssl.SSLContext]:
    """A server's options with a new certificate of this algorithm, and how clients speak to it."""
    kind, option = ALGORITHMS[algorithm]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", kind, "-pkeyopt", option, "-nodes", "-days", "2", "-subj", "/CN=x",
         "-keyout", folder / "key", "-out", folder / "cert"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(folder / "cert"))
    context.check_hostname = False
    return ("-Z", "-o", f"ssl_chain_cert={folder}/cert,ssl_key={folder}/key,ssl_session_cache"), context


@contextmanager
def both(contest: Contest, algorithm: str) -> Iterator[tuple[Server, Server]]:
    """Both servers with -Z and a certificate of this algorithm."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        more, context = certified(folder, algorithm)
        ours, theirs = (
            stack.enter_context(each.running(128, more=more, tls=context)) for each in (contest.subject, contest.peer)
        )
        yield ours, theirs


def operations(contest: Contest) -> Table:
    """As `cpu` has them without TLS."""
    table = Table(
        f"Server CPU time an operation over TLS 1.3, AES-256-GCM (connections x requests in one write): {contest.names()}, in µs",
        ("workload", *(column.name for column in COLUMNS)),
    )
    with both(contest, "ECDSA P-256") as servers:
        for name, workload in WORKLOADS.items():
            for server in servers:
                load(server, "fill", keys=KEYS, value=workload.value, depth=1, tls="full")  # memcached hangs at more
            cells = {}
            for column in COLUMNS:
                progress(f"TLS: {name}, {column.name}")
                try:
                    pairs = costs(contest, servers, workload, column, KEYS, tls="full")
                except BenchError as error:  # memcached 1.6.18 does so over TLS
                    if f"port {servers[1].port} said nothing" not in str(error):
                        raise
                    table.remarks.append(f"{name}, {column.name}: {contest.peer.name} left requests unanswered.")
                    continue
                cells[column.name] = Cell(pairs)
            table.add_ratios(name, cells, ".2f")
    table.add_means({})
    return table


def handshakes(contest: Contest) -> Table:
    """Clients that connect, ask once and close."""
    table = Table(
        "Server CPU time of a connection that is made, asked once and closed, in µs", contest.head("handshake")
    )
    for algorithm in ALGORITHMS:
        with both(contest, algorithm) as servers:
            for how in ("full", "resumed"):
                progress(f"TLS: handshakes, {algorithm}, {how}")
                pairs = interleave(contest.pairs * RUNS_A_PAIR, servers, partial(handshake, contest, how=how))
                table.add(f"{algorithm}, {how}", Cell(pairs), ".0f")
    return table


def handshake(contest: Contest, server: Server, how: str) -> float:
    seconds, warm_up = (0.3, 0.05) if contest.quick else (0.5, 0.1)
    report = load(server, "visits", connections=1, seconds=seconds, warm_up=warm_up, tls=how)
    return report["server_ns"] / report["requests"] / 1000


def idle(contest: Contest) -> Table:
    """Resident memory."""
    progress("TLS: idle connections")
    table = Table(f"Memory of an idle connection of TLS 1.3, in KiB (of {IDLE})", contest.head("what"))
    with both(contest, "ECDSA P-256") as servers:
        table.add("resident growth", Cell([(growth(servers[0]), growth(servers[1]))]), ".1f")
    return table


def growth(server: Server) -> float:
    with ExitStack() as stack:
        assert server.tls is not None
        server.version()
        before = server.resident()
        for _ in range(IDLE):
            server.hold(stack)
        return (server.resident() - before) / IDLE / 1024
