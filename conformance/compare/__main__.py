"""`python -m conformance.compare A B --seconds N --seed S`: the command line of compare.

Owns options, exit codes and what is printed. A and B are addresses, or commands that start a server.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from math import inf
from random import Random

from ..look import UnfitError, look
from ..notation import Case, version
from ..servers import Spawned
from ..wire import Address, UnreachableError, address, seconds
from .pair import Difference, Pair
from .shrink import as_case, shrink
from .streams import Write, stream

SAME, DIFFERENT, USAGE, UNREACHABLE = 0, 1, 2, 3


REPEATS = 3  # times that a stream is played again, to tell a difference from a machine that stood still for a second
META = re.compile(r"m[gsdane](?: |\\r)")
Unwanted = list[tuple[re.Pattern[str], str]]


@dataclass
class Tally:
    """What a run has done."""

    streams: int = 0
    commands: int = 0
    differences: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    unrepeated: list[int] = field(default_factory=list)


@functools.cache
def known_differences() -> tuple[tuple[str, re.Pattern[str], str], ...]:
    """differences.txt: release, pattern, reason."""
    text = (resources.files(__package__) / "differences.txt").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line[:1].isdigit()]
    return tuple((release, re.compile(pattern), reason) for release, pattern, reason in rows)


@functools.cache
def excuses() -> tuple[tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], str], ...]:
    """differences.txt: what a stream holds, what one reply's line is, what the other's, and why that may differ."""
    text = (resources.files(__package__) / "differences.txt").read_text("utf-8")
    rows = [line.split("\t")[1:] for line in text.splitlines() if line.startswith("reply\t")]
    return tuple((re.compile(has), re.compile(one), re.compile(other), why) for has, one, other, why in rows)


def excused(writes: list[Write], difference: Difference) -> str:
    """Why the first lines that differ may do so; empty when there is no excuse."""
    sent = "".join(command for commands in writes[: difference.write + 1] for command in commands)
    lines = zip(
        difference.first.decode("latin-1").splitlines(), difference.second.decode("latin-1").splitlines(), strict=False
    )
    first, second = next(((one, other) for one, other in lines if one != other), ("", ""))
    for has, one, other, why in excuses():
        if has.search(sent) and any(one.match(x) and other.match(y) for x, y in ((first, second), (second, first))):
            return why
    return ""


def filters(first: str, second: str) -> Unwanted:
    """The patterns that tell these two versions apart."""
    ends = sorted((version(first), version(second)))
    return [(pattern, why) for release, pattern, why in known_differences() if ends[0] < version(release) <= ends[1]]


def sift(writes: list[Write], unwanted: Unwanted, tally: Tally) -> list[Write]:
    """The stream without what the versions are known to do differently."""
    kept: list[Write] = []
    for commands in writes:
        good = []
        for command in commands:
            why = next((why for pattern, why in unwanted if pattern.search(command)), None)
            if why:
                tally.left_out[why] += 1
            else:
                good.append(command)
        if good:
            kept.append(good)
    return kept


def looked(where: Address) -> tuple[str, bool]:
    """The release that a server says it is (0 when that is none), and whether it knows meta commands; UnfitError."""
    try:
        seen = look(where)
    except UnfitError as error:
        raise UnfitError(f"{where} cannot be compared: {error}") from None
    if seen.fence == "binary":
        raise UnfitError(f"{where} cannot be compared: it speaks binary alone")
    found = re.match(r"\d{1,4}(?:\.\d{1,4}){0,3}", seen.says)
    return found[0] if found else "0", "meta" not in seen.missing


def classic(writes: list[Write]) -> list[Write]:
    """The stream without meta commands; what read a unique with one reads it with gets."""
    kept = [[re.sub(r"^mg (\{\w\}) c(?=\\r)", r"gets \1", command) for command in commands] for commands in writes]
    kept = [[command for command in commands if not META.match(command)] for commands in kept]
    return [commands for commands in kept if commands]


def compare(pair: Pair, unwanted: Unwanted, seconds: float, seed: int, limit: int, streams: float = inf) -> Tally:
    """Plays streams for so long, or so many, and prints each difference; `limit` is how many of them end the run."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):  # what was done until then counts
        while time.monotonic() < deadline and tally.streams < streams and tally.differences < limit:
            number = seed + tally.streams
            writes = stream(Random(number)) if pair.meta else classic(stream(Random(number)))
            writes = sift(writes, unwanted, tally)
            tally.streams += 1
            tally.commands += sum(len(commands) for commands in writes)
            difference = pair.play(writes, number)
            if difference and (why := excused(writes, difference)):
                tally.excused[why] += 1
            elif difference and not any(pair.play(writes, number) for _ in range(REPEATS)):
                tally.unrepeated.append(number)
            elif difference:
                tally.differences += 1
                print("\n".join([*tell(pair, writes, difference, number, unwanted), ""]), flush=True)
    return tally


def tell(pair: Pair, writes: list[Write], difference: Difference, number: int, unwanted: Unwanted) -> list[str]:
    """A difference, shrunk and as a case; shrinking must not stray into differences that are known."""

    def differs(candidate: list[Write]) -> bool:
        if sift(candidate, unwanted, Tally()) != candidate:
            return False
        found = pair.play(candidate, number)
        return found is not None and not excused(candidate, found)

    short = shrink(writes, differs)
    last = pair.play(short, number)
    if last is None:  # it came once and does not come again: show it as it was
        short, last = writes[: difference.write + 1], difference
    return as_case(f"compare/stream-{number}", short, last.first, last.second)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the two never differed, 1 when they did, 2 for wrong options, 3 when one cannot be reached, or compared."""
    options = argparse.ArgumentParser(prog="python -m conformance.compare", description=__doc__)
    options.add_argument("servers", nargs=2, metavar="HOST:PORT | unix:PATH | COMMAND")
    options.add_argument(
        "--seconds",
        type=seconds,
        metavar="N",
        help="how long streams are played (10; without end if --streams is given)",
    )
    options.add_argument("--streams", type=int, metavar="N", help="how many are played, the same on any machine")
    options.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the number of the first stream (%(default)d)"
    )
    options.add_argument(
        "--limit", type=int, default=5, metavar="N", help="end after so many differences (%(default)d)"
    )
    options.add_argument("--timeout", type=seconds, default=5.0, metavar="S", help="seconds for a reply (%(default)g)")
    given = options.parse_args(argv)
    if given.limit < 1:
        options.error("--limit must be at least 1")
    if given.streams is not None and given.streams < 1:
        options.error("--streams must be at least 1")
    if given.seconds is None:
        given.seconds = 10.0 if given.streams is None else inf
    with ExitStack() as stack:
        try:
            first, second = (_server(text, stack) for text in given.servers)
            (one, meta), (other, too) = looked(first), looked(second)
        except (UnreachableError, UnfitError) as error:
            print(f"compare: {error}", file=sys.stderr)
            return UNREACHABLE
        begun = time.monotonic()
        pair = Pair(first, second, given.timeout, meta=meta and too)
        stack.callback(pair.close)
        tally = compare(pair, filters(one, other), given.seconds, given.seed, given.limit, given.streams or inf)
        took = time.monotonic() - begun
    for why, count in tally.left_out.most_common():
        print(f"left out {count} commands: {why}")
    if tally.unrepeated:
        print(f"differed once and not again, as a stall between two seconds makes it: {tally.unrepeated}")
    for why, count in tally.excused.most_common():
        print(f"excused {count} streams: {why}")
    print(f"{one} and {other}: {tally.streams} streams, {tally.commands} commands, {took:.0f} s, "
          f"{tally.differences} differences")  # fmt: skip
    return DIFFERENT if tally.differences else SAME


def _server(text: str, stack: ExitStack) -> Address:
    """An address as it stands, or a server started from a command: a word without a port is one, too."""
    try:
        if ":" not in text or " " in text:
            raise ValueError(text)
        return address(text)
    except ValueError:
        servers = Spawned(text)
        stack.callback(servers.close)
        process = servers.start(Case("compare", "", "", ""))
        stack.callback(process.stop)
        return process.address


if __name__ == "__main__":
    sys.exit(main())
