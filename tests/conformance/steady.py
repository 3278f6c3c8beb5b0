"""`python -m tests.conformance.steady`: the suite many times in a row on one address, with busy loops beside it.

Owns the server, the loops and the comparison: every case must have the same verdict in every run. It judges no server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.servers import Process
from conformance.wire import Address

ROOT = Path(__file__).parent.parent.parent
STEADY, FLICKERS = 0, 1
BUSY = "while True: pass"
LIMIT = 1800.0  # seconds that one run may take
Verdicts = dict[str, tuple[str, str]]  # by id: the status, and why


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Loops that take what the machine has, for as long as this lasts."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def verdicts(where: Address, arguments: Sequence[str], folder: Path) -> Verdicts:
    """One run of the suite; RuntimeError when it ended without results."""
    report = folder / "run.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "conformance", str(where), "--json", str(report), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    try:
        cases = json.loads(report.read_text("utf-8"))["cases"]
    except (OSError, ValueError) as error:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-500:]}") from error
    return {case["id"]: (case["status"], case["reason"]) for case in cases}


def flickering(runs: Sequence[Verdicts]) -> list[str]:
    """The cases whose status is not the same in all runs, with each status, the first run that had it, and why."""
    lines = []
    for name in dict.fromkeys(name for run in runs for name in run):
        seen: dict[str, str] = {}
        for number, run in enumerate(runs, 1):
            status, reason = run.get(name, ("absent", ""))
            seen.setdefault(status, f"{status} in run {number}" + (f" ({reason})" if reason else ""))
        if len(seen) > 1:
            lines.append(f"{name}: {'; '.join(seen.values())}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all runs agree, 1 when one does not."""
    options = argparse.ArgumentParser(prog="scripts/steady", description=__doc__)
    options.add_argument("--runs", type=int, default=20, metavar="N", help="%(default)d")
    options.add_argument("--loops", type=int, default=3, metavar="N", help="busy loops (%(default)d)")
    options.add_argument("--command", default="memcached -u root", help="the server: %(default)s")
    options.add_argument("--harmless", action="store_true", help="without --destructive, as with a cache in use")
    given, others = options.parse_known_args(argv)
    arguments = [*others, *([] if given.harmless else ["--destructive"])]
    runs: list[Verdicts] = []
    with tempfile.TemporaryDirectory(prefix="steady-") as name:
        server = Process(shlex.split(given.command), [], Path(name), Address())
        try:
            with busy(given.loops):
                for number in range(1, given.runs + 1):
                    begun = time.monotonic()
                    runs.append(verdicts(server.address, arguments, Path(name)))
                    counts: dict[str, int] = {}
                    for status, _ in runs[-1].values():
                        counts[status] = counts.get(status, 0) + 1
                    told = ", ".join(f"{count} {status}" for status, count in counts.items())
                    print(f"run {number}: {told}; {time.monotonic() - begun:.0f} s")
                    failed = [f"  {name}: {why}" for name, (status, why) in runs[-1].items() if status == "failed"]
                    print("\n".join(failed), end="\n" * bool(failed), flush=True)
        finally:
            server.stop()
    lines = flickering(runs)
    print("\n".join([f"{len(lines)} cases differ between {len(runs)} runs", *lines]))
    return FLICKERS if lines else STEADY


if __name__ == "__main__":
    sys.exit(main())
