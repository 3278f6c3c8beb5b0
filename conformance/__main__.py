"""The command: `python -m conformance`, installed as `mcconform`.

Owns the command line, the exit codes and the order of a run. See docs/conformance.md.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import __version__, coverage, expected, html, library, report
from .crew import INTERRUPTED as CUT_SHORT
from .crew import run
from .formats import Facts, unwritable, write_json, write_junit
from .look import Look, UnfitError, look
from .notation import LEVELS, SUITES, Case, no_datagram
from .profiles import PROFILES, profile, release
from .runner import Result, Settings
from .servers import Given, Servers, Spawned
from .wire import PORT, Address, UnreachableError, address, seconds

FORGETS = 1.1  # seconds for which some servers forget what is set after a flush_all
PASSED, FAILED, USAGE, UNREACHABLE, NOTHING_RAN, DIED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
LEAST_ITEM, MOST_ITEM = 1024, 1 << 30  # bytes, as memcached's -I
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # of what is printed and of reports
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a server that the suite started is left by neither
COMMANDS = {
    "report": ".matrix",
    "client": ".client.__main__",
    "compare": ".compare.__main__",
    "faults": ".faults.__main__",
}
EXIT_CODES = (
    "exit codes: 0 every case that ran passed, or failed as --expect says; 1 a case failed; 2 wrong options, or a full disk; "
    "3 the server cannot be reached, started or tested; 4 no case ran; 5 the server died or hung; 130 interrupted. "
    "Also: mcconform report FILE.json ... (a matrix), mcconform client (clients), mcconform compare A B, mcconform faults"
)
USAGE_LINES = """mcconform [options] HOST:PORT | unix:PATH
       mcconform [options] --spawn COMMAND
       mcconform report | client | compare | faults --help"""


def parser() -> argparse.ArgumentParser:
    """The options, in the order people need them."""
    options = argparse.ArgumentParser(
        prog="mcconform", usage=USAGE_LINES, description="Tests whether a server speaks memcached's protocols.",
        epilog=EXIT_CODES,
    )  # fmt: skip
    options.add_argument("--version", action="version", version=f"mcconform {__version__}")
    options.add_argument("target", nargs="?", metavar="HOST:PORT | unix:PATH", help="a server that runs already")
    options.add_argument(
        "--spawn", metavar="COMMAND", help="start servers with this command: {host}, {port}, {socket} and {memory} are "
        "filled in; without any of them memcached's options are added"
    )  # fmt: skip
    options.add_argument("--restart", metavar="COMMAND", default="", help="start the server at HOST:PORT again with it, "
                         "when it died: {host} and {port} are filled in")  # fmt: skip
    options.add_argument("--profile", type=profile, metavar="VERSION", help="the version to be like: "
                         f"{', '.join(PROFILES)}, or a release between the last two (default: what a look finds)")  # fmt: skip
    options.add_argument("--suite", action="append", default=[], choices=[*SUITES, "all"],
                         help="repeatable (default: what a look finds)")  # fmt: skip
    options.add_argument("--level", choices=LEVELS, default="version", help="must, or should too, or all (%(default)s)")
    options.add_argument(
        "--only", metavar="PATTERN", action="append", default=[], help="cases whose id fits; repeatable"
    )
    options.add_argument("--not", dest="without", metavar="PATTERN", action="append", default=[],
                         help="not these cases; repeatable")  # fmt: skip
    options.add_argument("--expect", type=Path, metavar="FILE", help="known failures, a line each: ID and the reason")
    options.add_argument("--destructive", action="store_true", help="also run cases that would harm a cache in use")
    options.add_argument("--max-item", type=int, default=0, metavar="BYTES", help="the server's item size limit")
    options.add_argument("--tls", metavar="CA", help="connect by TLS; the server's certificate is checked with this CA")
    options.add_argument("--tls-cert", metavar="FILE", help="a certificate to show to the server, and its key")
    options.add_argument("--tls-key", metavar="FILE", help="the certificate's key, when it is in a file of its own")
    options.add_argument("--user", default="", metavar="NAME:PASSWORD", help="log in: -Y's `set`, and SASL in binary")
    options.add_argument("--udp", action="store_true", help="send datagrams; cases that fit into them")
    options.add_argument("--split", action="store_true", help="send every byte on its own")
    options.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="S", help="seconds to wait for a reply (%(default)g)"
    )
    options.add_argument("--jobs", type=int, default=64, metavar="N", help="cases at a time (%(default)d)")
    options.add_argument("--stop", action="store_true", help="stop after the first failure")
    options.add_argument("--verbose", action="store_true", help="show every exchange, as telnet would")
    options.add_argument("--list", action="store_true", help="list the cases and end")
    options.add_argument(
        "--coverage", action="store_true", help="print which case covers which rule and fault, and end"
    )
    options.add_argument("--name", default="", help="how reports call the server")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    options.add_argument("--junit", type=Path, metavar="FILE", help="write the results for JUnit's readers")
    options.add_argument("--html", type=Path, metavar="DIR", help="write pages: one for the run, one for each case")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the suite, or one of the other commands; returns one of the exit codes above."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=html.NO_TEXT)  # a path or a name need be no text
    try:
        code = _command(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and error.errno not in NO_ROOM:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print goes nowhere
        if isinstance(error, BrokenPipeError):  # `| head` has seen enough
            return INTERRUPTED
        print(f"mcconform: cannot write: {error.strerror}", file=sys.stderr)
        return USAGE
    return code


def _command(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        command = importlib.import_module(COMMANDS[words[0]], __package__)
        return int(command.main(words[1:]))
    before = _on_signals(None)
    try:
        return _main(words)
    except KeyboardInterrupt:
        print("mcconform: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        for number, handler in zip(SIGNALS, before, strict=False):
            signal.signal(number, handler)


def _on_signals(interrupt: threading.Event | None) -> list[Any]:
    """Ctrl-C and SIGTERM set `interrupt` at first, and end the program when it is set or None; what was there before."""

    def end(number: int, frame: object) -> None:
        if interrupt is None or interrupt.is_set():
            raise KeyboardInterrupt
        interrupt.set()
        print("mcconform: waiting for the cases that run; once more ends at once", file=sys.stderr)

    main_thread = threading.current_thread() is threading.main_thread()
    return [signal.signal(number, end) for number in SIGNALS] if main_thread else []


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program when it cannot be followed."""
    options = parser().parse_args(argv)
    if options.jobs < 1:
        parser().error("--jobs must be at least 1")
    if options.max_item and not LEAST_ITEM <= options.max_item <= MOST_ITEM:
        parser().error(f"--max-item must be {LEAST_ITEM} to {MOST_ITEM} bytes")
    if options.udp and (options.tls or options.split):
        parser().error(f"--udp and --{'tls' if options.tls else 'split'} exclude each other")
    if options.html:
        try:
            html.prepare(options.html)
        except OSError as error:
            parser().error(f"cannot write pages to {options.html}: {error.strerror}")
    for path in filter(None, (options.json, options.junit)):
        if why := unwritable(path):
            parser().error(why)
    try:
        options.known = expected.read(options.expect) if options.expect else {}
    except OSError as error:
        parser().error(f"--expect: cannot read {options.expect}: {error.strerror}")
    except ValueError as error:
        parser().error(f"--expect: {error}")
    try:
        options.dial = dial(options)
        options.where = address(options.target) if options.target else None
    except ValueError as error:
        parser().error(str(error))
    return options


def dial(options: argparse.Namespace) -> Address:
    """How to be let in; ValueError says what is wrong with the options."""
    if options.user and not options.user.partition(":")[0] * options.user.count(":"):
        raise ValueError("--user: wanted NAME:PASSWORD")
    tls = None
    if options.tls:
        try:
            tls = ssl.create_default_context(cafile=options.tls)
        except OSError as error:
            raise ValueError(f"--tls: cannot use {options.tls}: {error.strerror or error}") from None
        tls.check_hostname = False  # a server under test seldom has the name of its certificate
        try:
            if options.tls_cert:
                tls.load_cert_chain(options.tls_cert, options.tls_key)
        except OSError as error:
            raise ValueError(f"--tls-cert: cannot use {options.tls_cert}: {error.strerror or error}") from None
    elif options.tls_cert:
        raise ValueError("--tls-cert needs --tls")
    return Address(tls=tls, user=options.user, udp=options.udp)


def _main(argv: Sequence[str] | None) -> int:
    options = _options(argv)
    suites = SUITES if not options.suite or "all" in options.suite else options.suite
    cases = library.choose(options.only, options.level, suites=suites, without=options.without)
    if options.coverage:
        print("\n".join(coverage.matrix(library.cases())))
        return PASSED
    if not cases:
        print("mcconform: no case fits what was asked for; --list shows them all", file=sys.stderr)
        return NOTHING_RAN
    if options.list:
        print("\n".join(report.listing(cases)))
        return PASSED
    if bool(options.target) == bool(options.spawn) or (options.spawn and options.restart):
        parser().error("give either a server's address (and maybe --restart) or --spawn COMMAND")
    dialled = options.dial
    where = (
        replace(dialled, host=options.where.host, port=options.where.port, path=options.where.path)
        if options.where
        else None
    )
    servers: Servers | None = None
    try:
        if where:
            servers = Given(where, destructive=options.destructive, command=options.restart)
        else:
            servers = Spawned(options.spawn, dialled)
        return _run(options, cases, servers, where)
    except (UnreachableError, UnfitError) as error:
        print(f"mcconform: {error}", file=sys.stderr)
        _write(options, [], Facts(options.profile or "", options.target or options.spawn, options.name,
                                  options=_told(options), ended=str(error)))  # fmt: skip
        return UNREACHABLE
    finally:
        if servers:
            servers.close()


def _look(options: argparse.Namespace, servers: Servers) -> Look:
    """Looks at the server before the cases; UnfitError and UnreachableError when it is no use."""
    with servers.lend(Case("look", "", "", "")) as lease:
        first = lease

    def revive() -> Address | None:
        nonlocal first
        if not servers.restartable or not servers.restart(first):
            return None
        with servers.lend(Case("look", "", "", "")) as lease:
            first = lease
        return first.address

    try:
        seen = look(
            first.address, harmful=options.destructive or bool(options.spawn), max_item=options.max_item, revive=revive
        )
        if servers.private:  # some forget what comes within a second of a flush_all: the cases get another
            servers.restart(first)
        elif options.destructive:
            time.sleep(FORGETS)
        return seen
    except UnfitError as error:
        raise UnfitError(f"{options.target or options.spawn} cannot be tested: {error}") from None


def _run(options: argparse.Namespace, cases: list[Case], servers: Servers, where: Address | None) -> int:
    seen = _look(options, servers)
    chosen = options.suite or seen.suites
    cases = [case for case in cases if "all" in chosen or case.suite in chosen]
    name = options.profile or seen.profile
    version = release(name)
    settings = Settings(
        version, options.timeout, options.split, options.jobs, options.stop, bool(options.verbose or options.html),
        seen.fence, seen.max_item, lambda case: unsupported(case, seen, udp=options.udp),
    )  # fmt: skip
    _on_signals(settings.interrupt)
    style = report.Style(colour=sys.stdout.isatty())
    print(style.bold(f"{options.target or options.spawn} {seen.sentence()}"))
    print(f"profile {name}; suites {', '.join(chosen)}; level {options.level}; each case ends with {seen.fence}")
    print("\n".join(report.left_out(seen.missing)), flush=True)
    progress = report.Progress(sys.stderr, len(cases), terminal=sys.stderr.isatty())
    begun = time.monotonic()
    puzzles: list[str] = []
    results = list(run(cases, servers, settings, progress.done, puzzles.append))
    took = time.monotonic() - begun
    shown = where or replace(options.dial, host="127.0.0.1", port=PORT)
    progress.clear()
    surprises = expected.apply(results, options.known)
    if options.verbose:
        for result in results:
            print("\n".join(_verbose(result, style)))
    print("\n".join(report.failures(results, shown, options.spawn or "", style)))
    print("\n".join([*report.table(results, style), *surprises, *map(style.bad, puzzles)]))
    print(f"mcconform {__version__}, profile {name}, {took:.1f} s: {style.bold(report.verdict(results))}")
    ended = next((result.reason for result in results if result.deadly), "; ".join(puzzles))
    facts = Facts(
        name, options.target or options.spawn, options.name, seen.says, seen.sentence(), _told(options), ended
    )
    _write(options, results, facts)
    if options.html:
        html.write(options.html, results, facts, shown, options.spawn or "")
    return DIED if puzzles else _code(results)


def _write(options: argparse.Namespace, results: Sequence[Result], facts: Facts) -> None:
    if options.json:
        write_json(options.json, results, facts)
    if options.junit:
        write_junit(options.junit, results, facts)


def unsupported(case: Case, seen: Look, *, udp: bool) -> str:
    """Why this server need not pass a case; empty when it must."""
    if udp and (why := no_datagram(case)):
        return why
    return seen.reason(case.features)


def _told(options: argparse.Namespace) -> tuple[str, ...]:
    """The options that were given; a password is not repeated."""
    given = {"level": options.level, "suite": options.suite, "only": options.only, "not": options.without}
    words = [
        f"--{name} {value}"
        for name, values in given.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    words += [
        f"--{name.replace('_', '-')}"
        for name in ("destructive", "split", "tls", "user", "udp", "expect")
        if getattr(options, name)
    ]
    return tuple(words)


def _code(results: Sequence[Result]) -> int:
    if any(result.reason == CUT_SHORT for result in results):
        return INTERRUPTED
    if any(result.deadly for result in results):
        return DIED
    if any(result.status == "failed" for result in results):
        return FAILED
    return PASSED if any(result.status in {"passed", "expected"} for result in results) else NOTHING_RAN


def _verbose(result: Result, style: report.Style) -> list[str]:
    """A case that passed or was skipped; failures are told in full after it."""
    mark = {"passed": style.good("passed "), "failed": style.bad("failed ")}.get(result.status, result.status + " ")
    lines = [mark + style.bold(result.case.id), f"  {result.case.requirement}"]
    if result.status not in {"passed", "failed"}:
        return [*lines, f"  {result.reason}"]
    return lines + [f"    {line}" for line in report.telnet(result.log)] if result.status == "passed" else lines


if __name__ == "__main__":
    sys.exit(main())
