"""Requests in the form that is replayed: keys, lengths of their values, and what a request does. No server, no model here."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

# What a request does, in bits; loadgen/replay.c reads them.
COUNTED = 1  # among gets and hits
STORED_AFTER_A_MISS = 2
STORED_UNASKED = 4
CACHED = COUNTED | STORED_AFTER_A_MISS  # what a cache is for
READ = COUNTED  # a miss stays a miss
SCANNED = STORED_AFTER_A_MISS  # its misses are nobody's fault


def numbers() -> array[int]:
    """Room for numbers of 32 bits."""
    return array("I")


@dataclass
class Requests:
    """In order. `lengths`: of each request's value, in bytes."""

    keys: array[int] = field(default_factory=numbers)
    lengths: array[int] = field(default_factory=numbers)
    kinds: array[int] = field(default_factory=numbers)

    def add(self, key: int, length: int, kind: int = CACHED) -> None:
        """One more."""
        self.keys.append(key)
        self.lengths.append(length)
        self.kinds.append(kind)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.keys, self.lengths, self.kinds, strict=True)

    def __len__(self) -> int:
        return len(self.keys)

    def packed(self) -> bytes:
        """As loadgen reads them."""
        flat = array("I", bytes(12 * len(self)))
        flat[0::3], flat[1::3], flat[2::3] = self.keys, self.lengths, self.kinds
        return flat.tobytes()
