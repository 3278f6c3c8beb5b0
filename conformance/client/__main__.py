"""`mcconform client [NAME ...]`: what clients do when a server misbehaves.

Owns the command line, the processes of the clients and the report. A client that crashes, hangs or fills the memory
costs its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..formats import unwritable
from . import drivers
from .cases import CASES, PATIENCE, ClientCase, judge
from .doors import Doors
from .misbehaving import Server, plain

GOOD, FAULTY, USAGE = 0, 1, 2
NODE = {"npm memcached": "memcached", "memjs": "memjs"}
PROTOCOL = {"meta-memcache": "meta", "memjs": "binary"}  # the others speak text
PROTOCOLS = ("text", "meta", "binary")
ERROR = re.compile("error|exception|panic", re.IGNORECASE)


@dataclass(frozen=True)
class Client:
    """A client under test. words: what starts its process; port, operations and maybe an authority's file follow."""

    name: str
    words: tuple[str, ...]
    protocol: str
    tls: bool  # whether it can

    def asked(self, case: ClientCase, *, tls: bool) -> bool:
        """Whether the case has something to ask of it."""
        return self.protocol in case.only and (tls or not case.door)


@dataclass(frozen=True)
class Surroundings:
    """What all clients of a run have in common. doors: with TLS alone; authority: the file that goes with them, or ""."""

    modules: Path | None
    doors: Doors | None
    authority: str


def known(modules: Path | None) -> dict[str, Client]:
    """The clients that are installed: Python's, and node's below `modules`."""
    python = [
        Client(
            name,
            (sys.executable, "-m", f"{__package__}.drivers", name),
            PROTOCOL.get(name, "text"),
            name not in drivers.WITHOUT_TLS,
        )
        for name in drivers.installed()
    ]
    driver = str(Path(__file__).with_name("driver.js"))
    node = [
        Client(name, ("node", driver, package), PROTOCOL.get(name, "text"), tls=False)
        for name, package in NODE.items()
        if modules and (modules / package).is_dir() and shutil.which("node")
    ]
    return {client.name: client for client in (*python, *node)}


def play(client: Client, case: ClientCase, around: Surroundings) -> list[str]:
    """The faults of one client in one case."""
    seconds = (PATIENCE + 1) * len(case.operations) + 5
    environment = {**os.environ, "NODE_PATH": str(around.modules or "")}

    door = around.doors.by_name[case.door or "right"] if around.doors else plain
    server = Server(case.script, case.values, door)
    with server.running() as port:
        words = [*client.words, str(port), json.dumps(case.operations)]
        try:
            process = subprocess.Popen(
                [*words, *filter(None, [around.authority])],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
            )
        except OSError as error:
            return [f"cannot start {client.words[0]}: {error.strerror}"]
        ended = True
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            ended = False
            process.kill()
            out, err = process.communicate()
    faults = judge(case, answers(out), server.asked)
    if faults and len(answers(out)) < len(case.operations):
        why = f"the process had ended, status {process.returncode}" if ended else ""
        if said := telling(err):
            why += f"{': ' * bool(why)}{said}"
        faults[-1] += f" ({why})" * bool(why)
    return faults


def telling(err: str) -> str:
    """The line that says most of why a process ended: the last with the name of an error in it, or the last; "" for none."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if ERROR.search(line)), lines[-1] if lines else "")[:120]


def answers(out: str) -> list[dict[str, Any]]:
    """What a client's process told; its other lines are its own business."""
    told = []
    for line in out.splitlines():
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict) and isinstance(answer.get("seconds", 0), int | float):
                told.append(answer)
    return told


def report(client: Client, case: ClientCase, faults: Sequence[str], repeat: str) -> list[str]:
    """A case that a client did not do well in."""
    lines = [f"FAULT  {client.name}: {case.id}", f"  {case.sentence}", f"  a good client: {case.good}"]
    return [*lines, *(f"  {fault}" for fault in faults), f"  repeat: {repeat} --only {case.id}", ""]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="mcconform client", description=__doc__)
    options.add_argument("clients", nargs="*", metavar="NAME", help="default: all that are installed")
    options.add_argument("--only", action="append", default=[], metavar="CASE")
    options.add_argument("--tls", action="store_true", help="the server speaks TLS alone, with an authority of its own")
    options.add_argument(
        "--driver", metavar="COMMAND", default="", help="a client of your own: COMMAND PORT OPERATIONS [CA], which "
        "answers as docs/conformance.md says"
    )  # fmt: skip
    options.add_argument("--protocol", choices=PROTOCOLS, help="what the client of --driver speaks (text)")
    options.add_argument("--node-modules", type=Path, metavar="DIR", help="where npm's packages are")
    options.add_argument("--list", action="store_true", help="list the cases and the clients, and end")
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--jobs", type=int, default=4, metavar="N")
    return options


def _wrong(given: argparse.Namespace) -> str:
    """What is wrong with the options; empty when nothing is."""
    if given.jobs < 1:
        return "--jobs must be at least 1"
    if given.node_modules and not given.node_modules.is_dir():
        return f"--node-modules: {given.node_modules} is no directory"
    if unknown := sorted(set(given.only) - {case.id for case in CASES}):
        return f"no such case: {', '.join(unknown)}; --list shows them all"
    if given.only and not given.tls and all(case.door for case in CASES if case.id in given.only):
        return f"{', '.join(given.only)}: with --tls alone"
    if given.driver and given.clients:
        return "give names of clients or --driver"
    if given.protocol and not given.driver:
        return "--protocol is for --driver"
    return unwritable(given.json) if given.json else ""


def _chosen(given: argparse.Namespace) -> list[Client]:
    """The clients to be asked; ValueError says why there is none."""
    if given.driver:
        try:
            words = shlex.split(given.driver)
        except ValueError as error:
            raise ValueError(f"--driver: {str(error).lower()}") from None
        if not words or not shutil.which(words[0]):
            raise ValueError(f"--driver: cannot start {words[0] if words else 'a command without words'}")
        return [Client(given.driver, tuple(words), given.protocol or "text", tls=True)]
    there = known(given.node_modules)
    if missing := sorted(set(given.clients) - set(there)):
        raise ValueError(f"not installed: {', '.join(missing)}; here are {', '.join(there) or 'none'}")
    if given.tls and (mute := [name for name in given.clients if not there[name].tls]):
        raise ValueError(f"{', '.join(mute)}: no TLS")
    clients = [there[name] for name in given.clients] or [each for each in there.values() if each.tls or not given.tls]
    if not clients:
        raise ValueError("no client is installed that it knows" + (" and that speaks TLS" if given.tls else ""))
    return clients


def listing(given: argparse.Namespace) -> list[str]:
    cases = [f"{case.id}  {case.sentence} A good client: {case.good}" for case in CASES]
    there = known(given.node_modules)
    return [
        *cases,
        "",
        f"clients here: {', '.join(there)}",
        f"by TLS: {', '.join(n for n, c in there.items() if c.tls)}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every client did well, 1 when one did not, 2 when one is not installed or the options are wrong."""
    given = parser().parse_args(argv)
    wrong = _wrong(given)
    if given.list and not wrong:
        print("\n".join(listing(given)))
        return GOOD
    try:
        if wrong:
            raise ValueError(wrong)
        clients = _chosen(given)
    except ValueError as error:
        print(f"mcconform client: {error}", file=sys.stderr)
        return USAGE
    with tempfile.TemporaryDirectory(prefix="mcconform-") as folder:
        doors, authority = (Doors(), str(Path(folder, "ca.pem"))) if given.tls else (None, "")
        if doors:
            Path(authority).write_text(doors.certificate)
        around = Surroundings(given.node_modules, doors, authority)
        return _run(clients, given, around)


def _run(clients: Sequence[Client], given: argparse.Namespace, around: Surroundings) -> int:
    pairs = [
        (client, case)
        for client in clients
        for case in CASES
        if client.asked(case, tls=given.tls) and (not given.only or case.id in given.only)
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        faults = list(pool.map(lambda pair: play(pair[0], pair[1], around), pairs))
    results = list(zip(pairs, faults, strict=True))
    for (client, case), found in results:
        if found:
            print("\n".join(report(client, case, found, _repeat(client, given))))
    for client in clients:
        mine = [found for (other, _), found in results if other == client]
        print(f"{client.name}: {sum(not found for found in mine)} of {len(mine)} well{', by TLS' if given.tls else ''}")
    if given.json:
        rows = [{"client": client.name, "case": case.id, "faults": found} for (client, case), found in results]
        told = {"suite_version": __version__, "tls": given.tls, "results": rows}
        given.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return FAULTY if any(faults) else GOOD


def _repeat(client: Client, given: argparse.Namespace) -> str:
    """The command that asks one client, without the case."""
    words = ["mcconform", "client"]
    words += ["--driver", client.name] if given.driver else [client.name]
    words += ["--protocol", given.protocol] if given.protocol else []
    words += ["--node-modules", str(given.node_modules)] if given.node_modules else []
    words += ["--tls"] if given.tls else []
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
