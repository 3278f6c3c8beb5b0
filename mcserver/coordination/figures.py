"""The figures that `stats cluster` shows: counters, and quantiles of the last few hundred appends. It decides nothing."""

from __future__ import annotations

from collections import deque

SPAN = 5_000_000_000  # ns


class Quantiles:
    """The last 512 samples; a quantile costs a sort, an added sample next to nothing."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=512)

    def add(self, sample: float) -> None:
        self._samples.append(sample)

    def at(self, share: float) -> float:
        """The sample below which that share of the samples lies; 0 without samples."""
        if not self._samples:
            return 0.0
        ordered = sorted(self._samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Rates:
    """How much counters rise a second, over the last few seconds."""

    def __init__(self, now: int, *counts: int) -> None:
        self._base = self._next = (now, counts)

    def at(self, now: int, *counts: int) -> tuple[float, ...]:
        """The rates of the counters, which are at `counts` now (ns)."""
        if now - self._next[0] >= SPAN:
            self._base, self._next = self._next, (now, counts)
        since, before = self._base
        span = max(now - since, SPAN)  # a start is no flow
        return tuple((mine - then) * 1e9 / span for mine, then in zip(counts, before, strict=True))


class Figures:
    """Counters since the start of this server. Times in milliseconds."""

    def __init__(self) -> None:
        self.append_ms = Quantiles()
        self.appends = 0  # entries committed
        self.resent = 0  # entries sent again because no answer came
        self.gaps = 0  # flushes because the log did not reach back
        self.holes = 0  # gaps because an entry in the middle was missing
        self.overflows = 0  # times that the queue became a flush
        self.flushes = 0  # flushes of the whole cache or of a prefix, for any reason
        self.lock_waits = 0  # locked writes that had to wait for another server
        self.round_trip_ms = 0.0  # of the last round's first answer
        self.unconfirmed = 0  # answers "not confirmed"
        self.malformed = 0  # entries and records in ZooKeeper that were not readable
