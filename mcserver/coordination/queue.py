"""What waits to be told to the peers: lines without repeats, bounded. Pure: no calls, no clock.

A mark says how far into the queue something is. `add` returns the mark of what it added; `take` returns the mark up to which
everything is out of the queue once the lines it returned are in the log. Marks only rise.

The bound: over `max_keys` lines or `max_bytes`, the queue becomes one flush, or one flush for each of `prefixes` when those
cover all that waits. A flush in the queue covers all that waits and all that comes before it is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .entry import FLUSH, line
from .layout import LATER_MAX
from .ports import Change


class Covered:
    """Prefixes whose flush waits; b"" is everything. A key costs a look-up for each length that there is."""

    def __init__(self, prefixes: Iterable[bytes] = ()) -> None:
        self._prefixes = set(prefixes)
        self._lengths = Counter(map(len, self._prefixes))

    def __contains__(self, key: bytes) -> bool:
        return any(key[:length] in self._prefixes for length in self._lengths)

    def add(self, prefix: bytes) -> None:
        if prefix not in self._prefixes:
            self._prefixes.add(prefix)
            self._lengths[len(prefix)] += 1

    def remove(self, prefix: bytes) -> None:
        if prefix in self._prefixes:
            self._prefixes.remove(prefix)
            self._lengths[len(prefix)] -= 1
            self._lengths += Counter()  # without those of which there is none


class Queue:
    """Changes in, batches of lines out, in order."""

    def __init__(self, max_keys: int, max_bytes: int, prefixes: Sequence[bytes] = ()) -> None:
        self.max_keys = max_keys
        self.max_bytes = max_bytes
        self.prefixes = tuple(prefixes)
        self.bytes = 0
        self._lines: dict[bytes, None] = {}
        self._added = 0
        self._barrier = 0  # marks below it belong to lines that a flush replaced
        self._outside = False  # a line waits that the prefixes do not cover
        self._flushed = Covered()

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, change: Change) -> tuple[int, bool]:
        """Its mark, and whether the queue has just overflowed. ValueError for a change that cannot be written."""
        text = line(change)
        later = change.kind == "flush" and change.ttl > 0
        if text in self._lines or (not later and change.key in self._flushed):
            return self._added, False
        if text == FLUSH:
            self._become([FLUSH], (b"",))
            return self._added, False
        self._lines[text] = None
        self._added += 1
        self.bytes += len(text) + 1
        if later or not change.key.startswith(self.prefixes):
            self._outside = True
        if change.kind == "prefix":
            self._flushed.add(change.key)
        if len(self._lines) <= self.max_keys and self.bytes <= self.max_bytes:
            return self._added, False
        self.overflow()
        return self._added, True

    def overflow(self) -> None:
        """Puts flushes in the place of all that waits."""
        if self.prefixes and not self._outside:
            self._become([line(Change("prefix", prefix)) for prefix in self.prefixes], self.prefixes)
        else:
            self._become([FLUSH], (b"",))

    def _become(self, flushes: list[bytes], covered: tuple[bytes, ...]) -> None:
        delayed = [text for text in self._lines if text[:2] == b"F "]
        lines = flushes + delayed[-LATER_MAX:]
        self._lines = dict.fromkeys(lines)
        self.bytes = sum(len(text) + 1 for text in lines)
        self._added += len(lines)
        self._barrier = self._added
        self._flushed = Covered(covered)
        self._outside = covered == (b"",) or bool(delayed)

    def take(self, keys: int, size: int) -> tuple[list[bytes], int]:
        """The next lines, at least one and at most `keys` or `size` bytes of them, and the mark that they complete."""
        taken: list[bytes] = []
        for text in self._lines:
            size -= len(text) + 1
            if taken and (len(taken) >= keys or size < 0):
                break
            taken.append(text)
        for text in taken:
            del self._lines[text]
            self.bytes -= len(text) + 1
            if text == FLUSH or text.startswith(b"P "):
                self._flushed.remove(text[2:])
        if not self._lines:
            self._outside = False
        mark = self._added - len(self._lines)
        return taken, mark if mark >= self._barrier else 0

    def put_back(self, lines: Sequence[bytes]) -> None:
        """Returns lines that were taken and not sent to the front. A flush that waits covers them already, but for delayed ones.

        What was added again meanwhile moves to the front, so no mark is known until all that waits now is taken.
        """
        if FLUSH in self._lines:
            lines = [text for text in lines if text[:2] == b"F "]
        self._lines = dict.fromkeys(lines) | self._lines
        self.bytes = sum(len(text) + 1 for text in self._lines)
        self._outside = True
        self._barrier = self._added
