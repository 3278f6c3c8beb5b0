"""`mcconform client [NAME ...]`: what clients do when a server misbehaves.

Owns the command line, the processes of the clients and the report. A client that crashes, hangs or fills the memory
costs its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import __version__
from ..formats import unwritable
from . import drivers
from .cases import CASES, PATIENCE, ClientCase, judge
from .misbehaving import Server

GOOD, FAULTY, USAGE = 0, 1, 2
NODE = {"npm memcached": "memcached", "memjs": "memjs"}
PROTOCOL = {"meta-memcache": "meta", "memjs": "binary"}  # the others speak text


def known(modules: Path | None) -> list[str]:
    """The clients that are installed: Python's, and node's below `modules`."""
    node = [name for name, package in NODE.items() if modules and (modules / package).is_dir() and shutil.which("node")]
    return [*drivers.installed(), *node]


def command(name: str, port: int, case: ClientCase) -> list[str]:
    """What starts a client's process."""
    words = [str(port), json.dumps(case.operations)]
    if name in NODE:
        return ["node", str(Path(__file__).with_name("driver.js")), NODE[name], *words]
    return [
        sys.executable,
        "-m",
        f"{__package__}.drivers",
        name,
        *words,
    ]


def play(name: str, case: ClientCase, modules: Path | None) -> list[str]:
    """The faults of one client in one case."""
    seconds = (PATIENCE + 1) * len(case.operations) + 5
    environment = {**os.environ, "NODE_PATH": str(modules or "")}

    server = Server(case.script, case.values)
    with server.running() as port:
        process = subprocess.Popen(
            command(name, port, case),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
    told: list[dict[str, Any]] = []
    for line in out.splitlines():
        with contextlib.suppress(ValueError):
            told.append(json.loads(line))
    faults = judge(case, told, server.asked)
    if faults and len(told) < len(case.operations) and err.strip():
        faults[-1] += f" ({err.strip().splitlines()[-1][:120]})"
    return faults


def report(name: str, case: ClientCase, faults: Sequence[str]) -> list[str]:
    """A case that a client did not do well in."""
    lines = [f"FAULT  {name}: {case.id}", f"  {case.sentence}", f"  a good client: {case.good}"]
    return [*lines, *(f"  {fault}" for fault in faults), f"  repeat: mcconform client '{name}' --only {case.id}", ""]


def _wrong(given: argparse.Namespace) -> str:
    """What is wrong with the options; empty when nothing is."""
    if given.jobs < 1:
        return "--jobs must be at least 1"
    if given.node_modules and not given.node_modules.is_dir():
        return f"--node-modules: {given.node_modules} is no directory"
    if unknown := sorted(set(given.only) - {case.id for case in CASES}):
        return f"no such case: {', '.join(unknown)}; --list shows them all"
    return unwritable(given.json) if given.json else ""


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every client did well, 1 when one did not, 2 when one is not installed or the options are wrong."""
    options = argparse.ArgumentParser(prog="mcconform client", description=__doc__)
    options.add_argument("clients", nargs="*", metavar="NAME", help="default: all that are installed")
    options.add_argument("--only", action="append", default=[], metavar="CASE")
    options.add_argument("--node-modules", type=Path, metavar="DIR", help="where npm's packages are")
    options.add_argument("--list", action="store_true", help="list the cases and the clients, and end")
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--jobs", type=int, default=4, metavar="N")
    given = options.parse_args(argv)
    if wrong := _wrong(given):
        print(f"mcconform client: {wrong}", file=sys.stderr)
        return USAGE
    there = known(given.node_modules)
    if given.list:
        print(
            "\n".join(
                [
                    *(f"{case.id}  {case.sentence} A good client: {case.good}" for case in CASES),
                    "",
                    f"clients here: {', '.join(there)}",
                ]
            )
        )
        return GOOD
    if missing := set(given.clients) - set(there):
        print(
            f"mcconform client: not installed: {', '.join(sorted(missing))}; here are {', '.join(there) or 'none'}",
            file=sys.stderr,
        )
        return USAGE
    names = given.clients or there
    if not names:
        print("mcconform client: no client is installed that it knows", file=sys.stderr)
        return USAGE
    pairs = [
        (name, case)
        for name in names
        for case in CASES
        if PROTOCOL.get(name, "text") in case.only and (not given.only or case.id in given.only)
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        faults = list(pool.map(lambda pair: play(pair[0], pair[1], given.node_modules), pairs))
    for (name, case), found in zip(pairs, faults, strict=True):
        if found:
            print("\n".join(report(name, case, found)))
    for name in names:
        mine = [found for (other, _), found in zip(pairs, faults, strict=True) if other == name]
        print(f"{name}: {sum(not found for found in mine)} of {len(mine)} well")
    if given.json:
        rows = [
            {"client": name, "case": case.id, "faults": found}
            for (name, case), found in zip(pairs, faults, strict=True)
        ]
        given.json.write_text(json.dumps({"suite_version": __version__, "results": rows}, indent=1) + "\n", "utf-8")
    return FAULTY if any(faults) else GOOD


if __name__ == "__main__":
    sys.exit(main())
