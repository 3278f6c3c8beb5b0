"""`python -m conformance.clients HOST:PORT`: real clients against servers that are there or that a command starts.

Exit status: 0 all passed, 1 something failed, 2 a server can't be reached or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from .own_tests import run_suite, suites
from .runner import Report, clients, run_client, takes
from .servers import NoServerError, Target, reach, started, started_with_logins
from .table import line, markdown

PACKAGES = Path("build/clients")
ALL = [*clients(), *clients("discovery")]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance.clients",
        description="Run real memcached clients against servers and print a table. They flush: use no live cache.",
    )
    parser.add_argument("address", nargs="*", metavar="HOST:PORT", help="a server that is there")
    parser.add_argument(
        "--spawn",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a server to start; {port} is a free port, {tls} one for TLS",
    )
    parser.add_argument(
        "--logins",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another server of that name, which wants alice's login by SASL (secret)",
    )
    parser.add_argument("--client", action="append", choices=ALL, metavar="NAME", help="only this client")
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="only this scenario")
    parser.add_argument("--discovery", action="store_true", help="the clients that ask for a cluster's members instead")
    parser.add_argument("--list", action="store_true", help="print the clients' names and end")
    parser.add_argument("--no-own-tests", action="store_true", help="leave out the tests that packages carry")
    parser.add_argument(
        "--packages",
        type=Path,
        default=PACKAGES,
        metavar="FOLDER",
        help="node_modules, sources, tls/certificate.pem (default %(default)s)",
    )
    return parser.parse_args()


async def run_all(options: argparse.Namespace, target: Target) -> dict[str, Report]:
    """Every wanted client against one server, one after the other: they flush."""
    reports: dict[str, Report] = {}
    carried = {} if options.no_own_tests or options.scenario else suites()
    for name in options.client or clients("discovery" if options.discovery else "scenarios"):
        if not takes(name, target):
            continue
        report = await run_client(name, target, options.packages, options.scenario)
        if not report.scenarios and report.problem is None:
            report.problem = "no scenario of that name"
        if name in carried:
            report.own = await asyncio.to_thread(run_suite, carried[name], target, options.packages)
        reports[name] = report
        print(line(target, report), *(f"    {failure}" for failure in report.failures()), sep="\n", file=sys.stderr)
    return reports


async def main(options: argparse.Namespace) -> int:
    """Reach or start the servers, run the clients against all of them at once, print the table."""
    async with AsyncExitStack() as stack:
        targets = []
        for address in options.address:
            host, _, port = address.rpartition(":")
            if not port.isdigit():
                raise NoServerError(f"not HOST:PORT: {address}")
            targets.append(await reach(address, host or "127.0.0.1", int(port)))
        for spawn in options.spawn:
            name, _, command = spawn.partition("=")
            target = await stack.enter_async_context(started(name, command))
            for other, _, wants_logins in (logins.partition("=") for logins in options.logins):
                if other == name:
                    port = await stack.enter_async_context(started_with_logins(name, wants_logins))
                    target = replace(target, sasl=port)
            targets.append(target)
        if not targets:
            raise NoServerError("give HOST:PORT or --spawn NAME=COMMAND")
        found = await asyncio.gather(*(run_all(options, target) for target in targets))
    results = {target.name: reports for target, reports in zip(targets, found, strict=True)}
    print(markdown(targets, results))
    return int(any(report.failures() for reports in found for report in reports.values()))


if __name__ == "__main__":
    wanted = arguments()
    if wanted.list:
        print(*ALL, sep="\n")
        sys.exit(0)
    try:
        sys.exit(asyncio.run(main(wanted)))
    except NoServerError as problem:
        print(f"conformance.clients: {problem}", file=sys.stderr)
        sys.exit(2)
