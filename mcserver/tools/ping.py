"""`mcserver ping`: does a server answer, and how fast."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from mcserver.keys import printable_text, said
from mcserver.tools.client import ADDRESS, Client, ToolError, Way, parser, positive, run


def main(arguments: Sequence[str]) -> int:
    """0 when every server answered."""
    return run(ping, known_arguments(), arguments)


def known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("ping", "Asks servers for their version, and says how long the answer took.")
    known.add_argument("server", nargs="*", default=[ADDRESS], metavar="HOST[:PORT]", help=f"servers ({ADDRESS})")
    known.add_argument("-c", "--count", type=int, default=3, metavar="N", help="questions to each server (3)")
    known.add_argument("-i", "--interval", type=positive, default=0.2, metavar="S", help="seconds between them (0.2)")
    return known


def ping(options: argparse.Namespace) -> int:
    """`mcserver ping`: 1 if one of the servers did not answer."""
    failed = 0
    for server in options.server:
        try:
            print(printable_text(answer(server, max(1, options.count), options.interval, options.way)), flush=True)
        except ToolError as error:
            print(said(str(error)), flush=True)
            failed += 1
    return 1 if failed else 0


def answer(server: str, count: int, interval: float, way: Way) -> str:
    """One line on this server. Raises ToolError."""
    times: list[float] = []
    with Client(server, way) as client:
        for number in range(count):
            if number:
                time.sleep(interval)
            began = time.perf_counter()
            version = client.command(b"version")
            times.append((time.perf_counter() - began) * 1e3)
            if not version.startswith(b"VERSION "):
                raise ToolError(f"{server}: this is no memcached: it answers {version[:60]!r}")
    text = version.decode("utf-8", "replace").removeprefix("VERSION ")
    return f"{server}: {text}; ms: least {min(times):.3f}, median {statistics.median(times):.3f}, most {max(times):.3f}"
