"""The command: `python -m conformance`, installed as `mcconform`.

Owns the command line, the exit codes and the order of a run. See docs/conformance.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import coverage, formats, library, report
from .notation import LEVELS, Case, version
from .profiles import DEFAULT, PROFILES
from .runner import Result, Settings, run
from .servers import Given, Servers, Spawned
from .wire import Address, UnreachableError, address

PASSED, FAILED, USAGE, UNREACHABLE, NOTHING_RAN, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXIT_CODES = (
    "exit codes: 0 every case that ran passed; 1 a case failed; 2 wrong options; "
    "3 the server cannot be reached or started; 4 no case ran; 130 interrupted"
)


def parser() -> argparse.ArgumentParser:
    """The options, in the order people need them."""
    options = argparse.ArgumentParser(
        prog="mcconform", description="Tests whether a server speaks memcached's text protocol.", epilog=EXIT_CODES
    )
    options.add_argument("target", nargs="?", metavar="HOST:PORT | unix:PATH", help="a server that runs already")
    options.add_argument(
        "--spawn", metavar="COMMAND", help="start servers with this command, to which memcached's options are added"
    )
    options.add_argument("--profile", choices=PROFILES, default=DEFAULT, help="the version to be like (%(default)s)")
    options.add_argument(
        "--only", metavar="PATTERN", action="append", default=[], help="cases whose id fits; repeatable"
    )
    options.add_argument("--level", choices=LEVELS, default="version", help="must, or should too, or all (%(default)s)")
    options.add_argument("--destructive", action="store_true", help="also run cases that would harm a cache in use")
    options.add_argument("--split", action="store_true", help="send every byte on its own")
    options.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="seconds to wait for a reply (%(default)g)"
    )
    options.add_argument("--jobs", type=int, default=64, metavar="N", help="cases at a time (%(default)d)")
    options.add_argument("--stop", action="store_true", help="stop after the first failure")
    options.add_argument("--verbose", action="store_true", help="show every exchange, as telnet would")
    options.add_argument("--list", action="store_true", help="list the cases and end")
    options.add_argument(
        "--coverage", action="store_true", help="print which case covers which rule and fault, and end"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    options.add_argument("--junit", type=Path, metavar="FILE", help="write the results for JUnit's readers")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the suite; returns one of the exit codes above."""
    try:
        return _main(argv)
    except BrokenPipeError:  # `| head` has seen enough; what is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program when it cannot be followed."""
    options = parser().parse_args(argv)
    if options.timeout <= 0 or options.jobs < 1:
        parser().error("--timeout and --jobs must be more than 0")
    for path in filter(None, (options.json, options.junit)):
        try:
            path.touch()  # to say it now, and not at the end of the run
        except OSError as error:
            parser().error(f"cannot write {path}: {error.strerror}")
    return options


def _main(argv: Sequence[str] | None) -> int:
    options = _options(argv)
    cases = library.choose(options.only, options.level)
    if options.coverage:
        print("\n".join(coverage.matrix(library.cases())))
        return PASSED
    if options.list:
        print("\n".join(report.listing(cases)))
        return PASSED if cases else NOTHING_RAN
    if bool(options.target) == bool(options.spawn):
        parser().error("give either a server's address or --spawn COMMAND")
    try:
        where = address(options.target) if options.target else None
    except ValueError as error:
        parser().error(str(error))
    try:
        servers = Given(where, destructive=options.destructive) if where else _spawned(options.spawn)
    except UnreachableError as error:
        print(f"mcconform: {error.reason}", file=sys.stderr)
        return UNREACHABLE
    try:
        return _run(options, cases, servers, where)
    except KeyboardInterrupt:
        print("mcconform: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        servers.close()


def _spawned(command: str) -> Servers:
    """Servers from a command, which is tried once at the start."""
    servers = Spawned(command)
    try:
        servers.start(Case("start", "", "", "")).stop()
    except UnreachableError:
        servers.close()
        raise
    return servers


def _run(options: argparse.Namespace, cases: list[Case], servers: Servers, where: Address | None) -> int:
    profile = version(options.profile)
    settings = Settings(profile, options.timeout, options.split, options.jobs, options.stop)
    style = report.Style(colour=sys.stdout.isatty())
    progress = report.Progress(sys.stderr, len(cases), terminal=sys.stderr.isatty())
    begun = time.monotonic()
    results = list(run(cases, servers, settings, progress.done))
    seconds = time.monotonic() - begun
    progress.clear()
    for result in results:
        if options.verbose:
            print("\n".join(_verbose(result, style)))
        if result.status == "failed":
            print("\n".join([*report.failure(result, where, options.spawn or "", profile, style), ""]))
    print("\n".join(report.table(results, style)))
    print(f"profile {options.profile}, {seconds:.1f} s")
    if options.json:
        formats.write_json(options.json, results, profile=options.profile, target=options.target or options.spawn)
    if options.junit:
        formats.write_junit(options.junit, results)
    if any(result.status == "failed" for result in results):
        return FAILED
    return PASSED if any(result.status == "passed" for result in results) else NOTHING_RAN


def _verbose(result: Result, style: report.Style) -> list[str]:
    """A case that passed or was skipped; failures are told in full after it."""
    mark = {"passed": style.good("passed "), "failed": style.bad("failed "), "skipped": style.dim("skipped ")}
    lines = [mark[result.status] + style.bold(result.case.id), f"  {result.case.requirement}"]
    if result.status == "skipped":
        return [*lines, f"  {result.reason}"]
    return lines + [f"    {line}" for line in report.telnet(result.log)] if result.status == "passed" else lines


if __name__ == "__main__":
    sys.exit(main())
