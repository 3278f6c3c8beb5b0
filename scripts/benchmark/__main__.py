"""Measures mcserver beside memcached, in pairs of runs in turn, and prints tables in Markdown."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from . import cpu, hits, latency, memory, restart, scaling, scraped, stall, start, threads, tls, undisturbed, visits
from .contest import Contest
from .generator import build
from .programs import BenchError, peer, subject
from .report import Table

MEASUREMENTS: dict[str, Callable[..., Iterable[Table]]] = {
    "cpu": cpu.measure,
    "threads": threads.measure,
    "scaling": scaling.measure,
    "visits": visits.measure,
    "tls": tls.measure,
    "latency": latency.measure,
    "undisturbed": undisturbed.measure,
    "scraped": scraped.measure,
    "memory": memory.measure,
    "hits": hits.measure,
    "stall": stall.measure,
    "start": start.measure,
    "restart": restart.measure,
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog="scripts/bench --cluster ... measures a fleet; it has its own --help",
    )
    names = ", ".join(MEASUREMENTS)
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=MEASUREMENTS, help=f"{names}; may be given again"
    )
    parser.add_argument(
        "--quick", action="store_true", help="about a minute: shorter runs, one pair for what memory holds"
    )
    parser.add_argument(
        "--pairs", metavar="N", type=int, default=3, help="pairs of runs a cell, at least 1 (3); hits: always one"
    )
    parser.add_argument("--peer", metavar="PATH", default="memcached", help="the memcached to compare with")
    parser.add_argument(
        "--subject", metavar="PATH", help="a server in mcserver's place; memcached itself shows the noise"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="writes every pair there too")
    add_choice(parser.add_argument_group("hits"))
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    if options.plot and (options.bare or options.plot.suffix not in {".svg", ".png"}):
        parser.error("--plot must end in .svg or .png, and --bare draws none")
    return options


def add_choice(group: argparse._ArgumentGroup) -> None:
    """What is replayed for the hits."""
    plain = hits.Choice()
    group.add_argument(
        "--traces", metavar="DIR", type=Path, help="NAME.u32.gz (../shared/traces, else loads that are made)"
    )
    group.add_argument("--trace", metavar="NAME", action="append", default=[], help="only this one; may be given again")
    group.add_argument("--sizes", action="append", choices=plain.models, help="only this one; may be given again")
    group.add_argument("--share", metavar="X", action="append", type=share, help="of the keys that fit (0.05, 0.2)")
    group.add_argument(
        "-m",
        metavar="MIB",
        action="append",
        type=count,
        help=f"memory; may be given again ({hits.MEMORY}; --quick: half)",
    )
    group.add_argument("--requests", metavar="N", type=count, default=plain.most, help=f"of each load ({plain.most})")
    group.add_argument("--rate", metavar="N", type=count, help="requests a second (as fast as it goes)")
    group.add_argument("--bare", action="store_true", help="the two servers on these loads, and nothing else")
    group.add_argument("--plot", metavar="FILE", type=Path, help="draws hits over memory there (.svg or .png)")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def share(text: str) -> float:
    """Above 0, at most 1."""
    if not 0 < (number := float(text)) <= 1:
        raise ValueError
    return number


def choice(options: argparse.Namespace) -> hits.Choice:
    """The options of the hits."""
    plain = hits.Choice()
    return hits.Choice(
        traces=options.traces,
        names=options.trace,
        models=options.sizes or plain.models,
        shares=options.share or plain.shares,
        memory=options.m or plain.memory,
        most=options.requests,
        rate=options.rate,
        bare=options.bare,
        plot=options.plot,
    )


def machine(peer_path: str) -> str:
    """What the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    version = subprocess.run([peer_path, "-V"], check=True, capture_output=True, text=True).stdout.split()[-1]
    processor = f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{processor}, {system}; memcached {version} with -t 1."


def raise_file_limit() -> None:
    """Thousands of connections want as many descriptors, here and in the servers."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """The exit status: 1 when a measurement could not be made or a reply was wrong."""
    options = arguments()
    measurements = dict(MEASUREMENTS)
    measurements["hits"] = partial(hits.measure, choice=choice(options))
    contest = Contest(subject(options.subject), peer(options.peer), options.pairs, options.quick)
    raise_file_limit()
    tables: list[Table] = []
    try:
        build()
        about = machine(options.peer)
        print(about, end="\n\n", flush=True)
        for name in options.only or MEASUREMENTS:
            for table in measurements[name](contest):
                print(table.markdown(), flush=True)
                tables.append(table)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        report = {"machine": about, "tables": {table.title: table.data for table in tables}}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
