"""`mcserver bench`: a quick check of one's own server over its network. It measures with one Python client, and says so.

One question at a time gives latency; batches of a hundred give a rate that is Python's more than the server's. Its keys begin
with `mcserver-bench:` and a random number, live for a minute, and are deleted at the end.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

from mcserver.tools.client import ADDRESS, Client, ToolError, parser, positive, run
from mcserver.tools.progress import Progress

KEYS = 1000
DEPTH = 100
"""Requests on their way at once in a pipeline; it divides KEYS."""
LIFETIME = 60
"""Seconds that the keys live, should they not be deleted."""


def main(arguments: Sequence[str]) -> int:
    """0, or 1 when the server can't be used."""
    return run(bench, known_arguments(), arguments)


def known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("bench", "A quick check of a server: latency and rate, as one Python client sees them.")
    known.add_argument("server", nargs="?", default=ADDRESS, metavar="HOST[:PORT]", help=f"the server ({ADDRESS})")
    known.add_argument(
        "--seconds", type=positive, default=2.0, metavar="S", help="for each of the four measurements (2)"
    )
    known.add_argument("--size", type=int, default=100, metavar="BYTES", help="of the values (100)")
    return known


def bench(options: argparse.Namespace) -> int:
    """`mcserver bench`: the exit code. Raises ToolError."""
    if not 0 <= options.size <= 1 << 20:
        raise ToolError("--size takes 0 to 1048576 bytes")
    prefix = b"mcserver-bench:%s:" % os.urandom(4).hex().encode()
    keys = [prefix + b"%d" % number for number in range(KEYS)]
    value = b"x" * options.size
    with Client(options.server, options.way) as client:
        client.command(b"version")  # whoever can't be asked says so here, and takes no set for a login
        sets = [b"set %s 0 %d %d\r\n%s\r\n" % (key, LIFETIME, len(value), value) for key in keys]
        gets = [b"get %s\r\n" % key for key in keys]
        try:
            print(f"{options.server}: values of {options.size} bytes, {KEYS} keys, one connection from Python")
            row("set, one at a time", alone(client, sets, stored, options.seconds))
            row("get, one at a time", alone(client, gets, got, options.seconds))
            rate("set", piped(client, sets, stored, options.seconds))
            rate("get", piped(client, gets, got, options.seconds))
        except KeyboardInterrupt:
            tidy(client, keys)
            raise
        tidy(client, keys)  # after an error they go by themselves, LIFETIME seconds later
    return 0


def tidy(client: Client, keys: Sequence[bytes]) -> None:
    """Takes the keys out again."""
    client.send(b"".join(b"delete %s noreply\r\n" % key for key in keys) + b"version\r\n")
    while not client.line().startswith(b"VERSION"):
        pass


def stored(client: Client) -> None:
    """Takes one answer to a set. Raises ToolError for another than STORED."""
    if (answer := client.line()) != b"STORED":
        raise ToolError(f"{client.name}: a set is answered with {answer[:80].decode('utf-8', 'replace')}")


def got(client: Client) -> None:
    """A hit or a miss: the server may be evicting."""
    header = client.line()
    if header == b"END":
        return
    words = header.split(b" ")
    if words[0] != b"VALUE" or len(words) < 4:
        raise ToolError(f"{client.name}: a get is answered with {header[:80].decode('utf-8', 'replace')}")
    client.data(int(words[3]))
    client.line()


def alone(client: Client, requests: Sequence[bytes], read: Callable[[Client], None], seconds: float) -> list[float]:
    """How long each took, in seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    number = 0
    while (began := time.perf_counter()) < end or not times:
        client.send(requests[number % KEYS])
        read(client)
        times.append(time.perf_counter() - began)
        number += 1
    return times


def piped(client: Client, requests: Sequence[bytes], read: Callable[[Client], None], seconds: float) -> float:
    """Requests a second, a hundred on their way at once."""
    began, done, batches = time.perf_counter(), 0, [b"".join(requests[at : at + DEPTH]) for at in range(0, KEYS, DEPTH)]
    with Progress("bench", None, "requests") as progress:
        while time.perf_counter() - began < seconds or not done:
            client.send(batches[done // DEPTH % len(batches)])
            for _ in range(DEPTH):
                read(client)
            done += DEPTH
            progress.advance(DEPTH)
    return done / (time.perf_counter() - began)


def row(name: str, times: list[float]) -> None:
    """One line of the table; times in seconds."""
    ordered = sorted(times)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e6 for share in (0.5, 0.99, 0.999)]
    print(
        f"{name:<20} {len(times) / sum(times):>10,.0f} a second; µs: p50 {at[0]:,.0f}, p99 {at[1]:,.0f}, p99.9 {at[2]:,.0f}, "
        f"longest {ordered[-1] * 1e6:,.0f}",
        flush=True,
    )


def rate(name: str, found: float) -> None:
    """One line: operations a second of a pipeline."""
    print(f"{name + f', {DEPTH} at once':<20} {found:>10,.0f} a second", flush=True)
