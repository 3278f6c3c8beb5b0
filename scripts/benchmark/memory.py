"""Memory: how many items are held, what they and connections cost, and whether a change of sizes strands memory."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial

from .contest import Contest, progress
from .generator import load
from .programs import BenchError, Program, Server, receive_until
from .report import Cell, Table

MEBIBYTE = 1 << 20
MEMORY = 64
SETS = 1_000_000
SIZES = {"32 B": "32", "100 B": "100", "20 to 1,000 B": "20-1000"}
SAMPLE = 10
BUSY_CONNECTIONS = 1000
IDLE_CONNECTIONS = 10_000
OVERHEAD = 40 * 1000 * 1000
"""What a server may take besides `-m` and the index, in bytes."""


def measure(contest: Contest) -> list[Table]:
    """Three tables: items held, resident memory, items after a change of sizes."""
    return [items(contest), resident(contest), shift(contest)]


def items(contest: Contest) -> Table:
    """Items held after a million sets at -m 64, and how resident memory grew."""
    table = Table(f"Held at -m {MEMORY} after {SETS:,} sets, keys of 16 bytes", contest.head("values"))
    for name, value in SIZES.items():
        progress(f"items held: {name}")
        pairs = contest.fresh(partial(held, value=value))
        table.add(f"{name}: items", column(pairs, 0), ",.0f")
        table.add(f"{name}: growth of resident memory, MB", column(pairs, 1, 1e6), ".1f")
    return table


def column(pairs: list[tuple[tuple[int, ...], tuple[int, ...]]], field: int, unit: float = 1) -> Cell:
    """One field of what was measured, in `unit`."""
    return Cell([(ours[field] / unit, theirs[field] / unit) for ours, theirs in pairs])


def held(program: Program, value: str) -> tuple[int, ...]:
    """Items, as the server counts them and a sample of gets confirms; bytes of growth."""
    with program.running(MEMORY) as server:
        before = server.resident()
        load(server, "fill", keys=SETS, value=value, depth=100, connections=4)
        count = int(server.stats()["curr_items"])
        growth = server.resident() - before
        hits = load(server, "count", keys=SETS, value=value, stride=SAMPLE)["hits"] * SAMPLE
        if abs(hits - count) > count * 0.05 + SAMPLE:
            raise BenchError(f"{server.name} counts {count} items, but gets find about {hits}")
        return count, growth


def resident(contest: Contest) -> Table:
    """Resident memory at start, at its peak with a full cache and a thousand clients that read late, and for idle connections."""
    table = Table(f"Resident memory at -m {MEMORY}", contest.head("what"))
    progress(f"resident memory with {BUSY_CONNECTIONS} connections")
    peaks = contest.fresh(peak)
    progress(f"memory of {IDLE_CONNECTIONS} idle connections")
    idle = contest.fresh(idle_connection)
    table.add("at start, MB", column(peaks, 0, 1e6), ".1f")
    table.add(f"peak, full, {BUSY_CONNECTIONS:,} connections, MB", column(peaks, 1, 1e6), ".1f")
    table.add(f"an idle connection of {IDLE_CONNECTIONS:,}, bytes", Cell(idle), ",.0f")
    limit = max(ours[2] for ours, _ in peaks)
    highest = max(ours[1] for ours, _ in peaks)
    verdict = "within" if highest <= limit else "ABOVE"
    table.remarks.append(
        f"{contest.subject.name}'s peak is {verdict} -m, index and 40 MB, together {limit / 1e6:.1f} MB."
    )
    table.data["limit"] = limit
    return table


def peak(program: Program) -> tuple[int, ...]:
    """Bytes at start, at the peak, and the most that may be."""
    value = SIZES["20 to 1,000 B"]
    with program.running(MEMORY) as server, ExitStack() as stack:
        start = server.resident()
        load(server, "fill", keys=SETS, value=value, depth=100, connections=4)
        first = SETS - 100
        keys = b" ".join(b"key-0000%08x" % key for key in range(first, SETS))
        clients = connect(server, BUSY_CONNECTIONS, stack)
        for client in clients:
            client.sendall(b"get " + keys + b"\r\n")
        for client in clients:
            receive_until(client, b"\r\nEND\r\n")
        index = int(server.stats()["hash_bytes"])
        return start, server.peak_resident(), MEMORY * MEBIBYTE + index + OVERHEAD


def idle_connection(program: Program) -> float:
    """Bytes that a connection costs which has been used and waits."""
    with program.running(MEMORY, IDLE_CONNECTIONS + 100) as server, ExitStack() as stack:
        before = server.resident()
        for client in connect(server, IDLE_CONNECTIONS, stack):
            client.sendall(b"get nothing\r\n")
            receive_until(client, b"END\r\n")
        return (server.resident() - before) / IDLE_CONNECTIONS


def connect(server: Server, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that `stack` closes."""
    return [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10)) for _ in range(count)]


OLD = {"keys": 700_000, "value": 100}
NEW = {"first": 1_000_000, "keys": 2 * MEMORY * MEBIBYTE // 5000, "value": 5000}


def shift(contest: Contest) -> Table:
    """5,000-byte values held after the memory was full of 100-byte values, in percent of what a fresh server holds."""
    progress("a change of sizes")
    table = Table(
        "5,000-byte values held after a fill of 100-byte values and twice the memory of new ones", contest.head("what")
    )
    pairs = contest.fresh(
        lambda program: 100 * large_held(program, after_small=True) / large_held(program, after_small=False)
    )
    table.add("percent of a fresh server's", Cell(pairs), ".1f")
    return table


def large_held(program: Program, after_small: bool) -> int:
    """How many of the 5,000-byte values can be got."""
    with program.running(MEMORY) as server:
        if after_small:
            load(server, "fill", depth=100, connections=4, **OLD)
        load(server, "fill", depth=16, connections=4, **NEW)
        return load(server, "count", **NEW)["hits"]
