"""`python -m conformance.faults --spawn COMMAND`: proves that the suite finds every planted fault.

Owns the command line and the proof: each fault's cases fail behind it, and pass behind a proxy without a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .. import library
from ..crew import run
from ..look import look
from ..notation import Case, version
from ..profiles import DEFAULT, profile, release
from ..runner import Result, Settings
from ..servers import Servers, Spawned
from ..wire import BrokenError, seconds
from . import Fault, Proxied, faults

UNREACHABLE = 3
TRIES = 3  # runs of a case behind its fault
JOBS = 8  # faults at a time


def named(ids: Sequence[str]) -> list[Case]:
    """The cases of these ids; KeyError when there is none of that name."""
    known = {case.id: case for case in library.cases()}
    return [known[name] for name in ids]


def possible(profile: tuple[int, ...], *, binary: bool = True) -> list[Fault]:
    """The faults that a server of this version can have; without `binary`, one that speaks no binary protocol."""
    return [
        fault
        for fault in faults()
        if (not fault.since or profile >= version(fault.since))
        and (binary or not any(case.suite == "binary" for case in named(fault.found_by)))
    ]


def speaks_binary(servers: Servers) -> bool:
    """What a look at the server says of it."""
    with servers.lend(Case("look", "", "", "")) as lease:
        return "binary" in look(lease.address).suites


def missed(fault: Fault, servers: Servers, settings: Settings) -> list[Result]:
    """The results of the fault's cases that did not fail behind it.

    What a case sends in two pieces may arrive in one where the machine is busy, so that nothing is wrong with it: a case
    that passed is run again.
    """
    cases, skipped = named(fault.found_by), list[Result]()
    for _ in range(TRIES):
        results = [result for result in run(cases, Proxied(servers, fault), settings) if result.status != "failed"]
        skipped += [result for result in results if result.status != "passed"]
        passed = [result for result in results if result.status == "passed"]
        cases = [result.case for result in passed]
        if not cases:
            break
    return skipped + passed


def prove(servers: Servers, settings: Settings, patience: float = 0.0) -> Iterator[tuple[Fault | None, list[Result]]]:
    """For no fault (None), the results that did not pass; then for each fault those that did not fail.

    `patience`: seconds that a reply may take where there is no fault; the settings' time-out if it is 0.
    """
    planted = possible(settings.profile, binary=speaks_binary(servers))
    wanted = {name for fault in planted for name in fault.found_by}
    right = run(named(sorted(wanted)), Proxied(servers, None), replace(settings, timeout=patience or settings.timeout))
    yield None, [result for result in right if result.status != "passed"]
    with ThreadPoolExecutor(JOBS) as pool:
        yield from pool.map(lambda fault: (fault, missed(fault, servers, settings)), planted)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the suite finds every fault and passes without one, 1 otherwise, 3 when there is no server to ask."""
    options = argparse.ArgumentParser(prog="python -m conformance.faults", description=__doc__)
    options.add_argument("--spawn", required=True, metavar="COMMAND", help="a right server, started with this command")
    options.add_argument("--profile", type=profile, default=DEFAULT)
    options.add_argument("--timeout", type=seconds, default=2.0, metavar="S")
    given = options.parse_args(argv)
    wrong = 0
    with contextlib.ExitStack() as stack:
        try:
            servers = Spawned(given.spawn)
            stack.callback(servers.close)
            for fault, results in prove(servers, Settings(release(given.profile), given.timeout)):
                found = [result for result in results if result.status != "skipped"]
                wrong += bool(found)
                name = f"{fault.id}: {fault.sentence}" if fault else "no fault"
                print(f"{'MISSED' if found else 'found ' if fault else 'passed'}  {name}")
                for result in results:
                    print(f"        {result.case.id} {result.status}: {result.reason}")
        except BrokenError as error:
            print(f"faults: {error.reason}", file=sys.stderr)
            return UNREACHABLE
    print(f"{len(possible(release(given.profile)))} faults, {wrong} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
