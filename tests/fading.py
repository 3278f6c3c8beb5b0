"""What core/fading.pxd knows, in plain Python: for the model of the cache's policy, and for that of its miniatures.

It must never know an item, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FADES, NEW_WORTH, WANTED, NEW_LEAST, DOUBT, LEARNT = 0.875, 0.3, 0.05, 0.01, 32, 8192
MARGIN, YOUNGEST, SAMPLE, LOOKED = 1.25, 0.95, 16, 64
EXPECTED_DOUBT, EXPECTED_MOST, EXPECTED_EACH, RATIO_MOST = 8192, 1 << 16, 16, 4
GRAIN = 16  # requests while the clock of traffic moves once


def aged(age: float) -> float:
    """Its power of FADES, to the last bit as it is compiled."""
    half = math.sqrt(age)
    quarter = math.sqrt(half)
    return half * quarter * math.sqrt(quarter)


def above_the_oldest(share: float) -> float:
    """What that share of a list is worth on average beside its oldest item, for ages fall evenly."""
    return (1 - (1 - share) / aged(1 - share)) / (share * (1 - FADES))


def mean_worth(unused: list[float], used: list[float], want: float, has: int) -> float:
    """Of the ``want`` items of a list of ``has`` that leave first, by those seen at its end: unused ones, or all were used."""
    looked = unused or used
    if not looked:
        return 0.0
    worth = sum(looked) / len(looked)
    sampled = (len(unused) + len(used)) / has
    share = min(want / len(looked) * sampled, YOUNGEST)
    if want > len(looked) and share > sampled:
        worth = worth * above_the_oldest(share) / above_the_oldest(sampled)
    return worth


def worth_of_new(came: float, wanted: float) -> float:
    """What an item that was not used counts: by how many of the list's were used while they were new, or came back."""
    shown = (wanted + DOUBT * WANTED) / (came + DOUBT) / WANTED
    return NEW_WORTH * min(max(shown, NEW_LEAST), 1)


def expected_uses(octave: int) -> int:
    """How often an item should have been used up to an age of so many binary digits, in ticks: as in the middle of these."""
    ticks = 0.0 if octave == 0 else math.pow(2, octave - 0.5)
    return round(16 * (math.pow(GRAIN * (ticks + 0.5) + 1, 1 - FADES) - 1) / (1 - FADES))


@dataclass
class Uses:
    """Uses of a list, or of all, and how many there should have been by the items' ages. ``whole``: halves are rounded down."""

    whole: bool
    seen: float = 0
    expected: float = 0
    grown: int = (
        0  # the octave of ages from which they count, a quarter of the last victim's or so; 0: nothing has left yet
    )

    def count(self, seen: int, ticks: int, items: int, everything: Uses) -> None:
        """Since its last use, so many ticks ago, one of the list's items was used again (1), or leaves unused (0)."""
        octave, grown = ticks.bit_length(), self.grown or everything.grown
        if not seen:
            self.grown = everything.grown = max(octave - 1, 1)
        if 0 < grown <= octave:
            expected = expected_uses(octave) - expected_uses(grown - 1)
            self._learn(seen, expected, max(EXPECTED_MOST, EXPECTED_EACH * items))
            everything._learn(seen, expected, 8 * EXPECTED_MOST)

    def _learn(self, seen: int, expected: int, most: int) -> None:
        self.seen += seen
        self.expected += expected
        if self.expected > most:
            self.seen = self.seen // 2 if self.whole else self.seen / 2
            self.expected = self.expected // 2 if self.whole else self.expected / 2

    def ratio(self, everything: Uses) -> float:
        """How many times as often as their ages say the list's items are used, all together being 1."""
        if not everything.seen:
            return 1.0
        as_all = self.seen * everything.expected / everything.seen
        return min(max((as_all + EXPECTED_DOUBT) / (self.expected + EXPECTED_DOUBT), 1 / RATIO_MOST), RATIO_MOST)
