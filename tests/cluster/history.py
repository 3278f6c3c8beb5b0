"""What clients did and saw, and whether it keeps the promises. All on one machine and one clock, so every check is exact.

Times are CLOCK_BOOTTIME in nanoseconds. An item in a cache is named by its fill: the store that made it. A fill counts from
`stored`, the latest moment at which it may have been stored (with a lease: at which the lease may have been granted). A
delete that is invoked after that must remove it, and the promises say by when:

P1   a read that begins max_stale or more after a delete was confirmed (committed or applied) never returns such a fill;
P2   nor does a read that begins after a delete was confirmed at level applied, at any server;
P3   nor does any server, once everything has healed, whatever the level confirmed;
P10  a read never returns a fill of another server, or of an earlier life of this one.
"""

from __future__ import annotations

import bisect
import itertools
import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FOREVER = 1 << 62


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Fill:
    """One store. `stored` stays FOREVER until it is known to have been made."""

    key: bytes
    server: str
    boot: int
    version: int  # of the database, that the value holds
    stored: int = FOREVER


class Invalidation(NamedTuple):
    """A delete, or a flush of everything that begins with `key`. `level` is what was confirmed: "" for nothing."""

    key: bytes
    prefix: bool
    server: str
    level: str
    invoked: int
    answered: int
    answer: str


class Read(NamedTuple):
    """A hit. `final`: made after everything had healed."""

    key: bytes
    server: str
    boot: int
    fill: int
    invoked: int
    answered: int
    final: bool


class Anomaly(NamedTuple):
    """A broken promise."""

    promise: str
    read: Read
    text: str


@dataclass
class History:
    """Written by many threads; checked when they have ended, or in between."""

    max_stale: float
    fills: dict[int, Fill] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    invalidations: list[Invalidation] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    misses: int = 0
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new_fill(self, fill: Fill) -> int:
        with self._lock:
            number = next(self._numbers)
            self.fills[number] = fill
        return number

    def event(self, text: str) -> None:
        """Something that the test did: faults and their ends."""
        self.events.append((now(), text))

    # Checking --------------------------------------------------------------------------------------------------------

    def anomalies(self) -> list[Anomaly]:
        by_key: dict[bytes, list[Invalidation]] = defaultdict(list)
        invalidations = list(self.invalidations)
        flushes = [each for each in invalidations if each.prefix]
        for each in invalidations:
            if not each.prefix:
                by_key[each.key].append(each)
        reads: dict[bytes, list[Read]] = defaultdict(list)
        for read in list(self.reads):
            reads[read.key].append(read)
        found: list[Anomaly] = []
        for key, seen in reads.items():
            told = by_key[key] + [flush for flush in flushes if key.startswith(flush.key)]
            found += self._check_key(seen, told)
        return sorted(found, key=lambda anomaly: anomaly.read.invoked)

    def _check_key(self, reads: list[Read], told: list[Invalidation]) -> list[Anomaly]:
        confirmed = [each for each in told if each.level in {"committed", "applied"}]
        bound = _Latest(confirmed, int(self.max_stale * 1e9))
        applied = _Latest([each for each in told if each.level == "applied"], 0)
        healed = _Latest(confirmed, 0)
        found = []
        for read in reads:
            fill = self.fills[read.fill]
            if (fill.server, fill.boot) != (read.server, read.boot):
                found.append(Anomaly("P10", read, f"stored at {fill.server}, life {fill.boot}"))
            for promise, latest in (("P1", bound), ("P2", applied), ("P3", healed)):
                if promise == "P3" and not read.final:
                    continue
                invalidation = latest.before(read.invoked)
                if invalidation is not None and fill.stored < invalidation.invoked:
                    found.append(Anomaly(promise, read, self._tell(fill, invalidation, read)))
        return found

    def _tell(self, fill: Fill, invalidation: Invalidation, read: Read) -> str:
        start = min(fill.stored, invalidation.invoked)

        def at(moment: int) -> str:
            return f"{(moment - start) / 1e6:.1f} ms"

        return (
            f"{read.key!r} stored at {read.server} by {at(fill.stored)}, {invalidation.level} delete at"
            f" {invalidation.server} from {at(invalidation.invoked)} to {at(invalidation.answered)},"
            f" read again at {at(read.invoked)}"
        )

    def report(self) -> str:
        levels: dict[str, int] = defaultdict(int)
        for each in self.invalidations:
            levels[each.level or "unconfirmed"] += 1
        told = ", ".join(f"{count} {level}" for level, count in sorted(levels.items()))
        lost = ", ".join(f"{count} {what}" for what, count in sorted(self.failures.items())) or "none"
        return (
            f"{len(self.reads)} hits, {self.misses} misses, {len(self.fills)} fills, deletes: {told}; failures: {lost}"
        )

    def dump(self, path: Path) -> None:
        """As JSON lines, in the order of time."""
        lines: list[tuple[int, dict[str, object]]] = [(at, {"event": text}) for at, text in self.events]
        lines += [(each.invoked, {"delete": _plain(each._asdict())}) for each in self.invalidations]
        lines += [(each.invoked, {"read": _plain(each._asdict())}) for each in self.reads]
        for number, fill in self.fills.items():
            entry = {"key": fill.key.decode(), "server": fill.server, "boot": fill.boot, "version": fill.version}
            lines.append((fill.stored, {"fill": {"number": number, **entry}}))
        with path.open("w") as file:
            for at, line in sorted(lines, key=lambda pair: pair[0]):
                file.write(json.dumps({"at": at, **line}) + "\n")


class _Latest:
    """Of the deletes answered before a moment (less a grace, ns), the one that was invoked last."""

    def __init__(self, invalidations: list[Invalidation], grace: int) -> None:
        self._grace = grace
        self._answered: list[int] = []
        self._latest: list[Invalidation] = []
        for each in sorted(invalidations, key=lambda each: each.answered):
            if not self._latest or each.invoked > self._latest[-1].invoked:
                self._answered.append(each.answered)
                self._latest.append(each)

    def before(self, moment: int) -> Invalidation | None:
        at = bisect.bisect_left(self._answered, moment - self._grace)
        return self._latest[at - 1] if at else None


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
