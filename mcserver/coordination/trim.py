"""How much of the log to keep. Pure: it remembers when which version was current, and computes a floor."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .settings import Settings


class Sample(NamedTuple):
    """At `time` (ns) the log had come to `version`, after `size` bytes of entries since this server began to read."""

    time: int
    version: int
    size: int


class History:
    """Samples of the log's growth, one a round; every server keeps them, so that a new leader can trim at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._samples: deque[Sample] = deque()

    def add(self, now: int, version: int, size: int) -> None:
        """Notes where the log is. Samples older than needed go, but the newest of those stays.

        When versions fall the log is another one: what is known of the last one says nothing of it.
        """
        if self._samples and version < self._samples[-1].version:
            self._samples.clear()
        self._samples.append(Sample(now, version, size))
        old = now - int(self._settings.keep_seconds * 1e9)
        while len(self._samples) > 1 and self._samples[1].time <= old:
            self._samples.popleft()

    def floor(self, now: int, gen: int, head: int, lowest: int | None) -> tuple[int, bool]:
        """The lowest sequence to keep in log `gen`, and whether a hard cap forced it.

        `lowest` is the version that every live member has applied (None: no member knows any). Kept are the last
        `keep_seconds`, the last `keep_entries`, and what a live member still needs: that version, too, by which it knows
        the log again; but never more than the caps.
        """
        settings = self._settings
        wanted = min(head + 1 - settings.keep_entries, self._old(now, gen))
        if lowest is not None:
            wanted = min(wanted, self._behind(lowest - 1, gen))
        cap = max(head + 1 - settings.cap_entries, self._over_size(gen))
        return max(wanted, cap, 0), cap > max(wanted, 0)

    def _old(self, now: int, gen: int) -> int:
        """The first sequence that may be younger than `keep_seconds`."""
        old = now - int(self._settings.keep_seconds * 1e9)
        for sample in reversed(self._samples):
            if sample.time <= old:
                return self._behind(sample.version, gen)
        return 0

    def _over_size(self, gen: int) -> int:
        """The sequence from which on the entries fit into `cap_bytes`, as far as the samples tell."""
        newest = self._samples[-1] if self._samples else None
        over = 0
        for sample in self._samples:
            if newest is not None and newest.size - sample.size > self._settings.cap_bytes:
                over = self._behind(sample.version, gen)
        return over

    @staticmethod
    def _behind(version: int, gen: int) -> int:
        """The sequence in log `gen` behind a version; 0 for a version of an earlier log."""
        return max(version + 1 - (gen << 32), 0)
