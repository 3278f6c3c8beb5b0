"""The memory curve's miniatures in plain Python, for a cache all of whose keys are sampled: small and slow.

The compiled ones (mrc.pxd) must count the same hits, step by step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from math import log2

from tests.fading import GRAIN, LEARNT, LOOKED, MARGIN, SAMPLE, Uses, aged, mean_worth, worth_of_new

OLDER = 8  # what was found of a list's victims holds until they are an eighth older
WASTE_MOST = 3  # what stands empty in pages at most, one part in so many
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
MOST_USES = 3


@dataclass
class Key:
    """What is the same in all miniatures."""

    size: int = 0
    used: int = 0
    dies: int = 0
    missed: bool = False


@dataclass
class Band:
    """The items of one size: new ones and the ring, the next victim first."""

    fresh: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    ring: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    evictions: int = 0
    came: float = 0
    wanted: float = 0
    learnt: Uses = field(default_factory=lambda: Uses(whole=False))
    ready: float = 0  # what was found of its next victims,
    at: int = 0  # at this sample,
    lasts: int = 0  # for so many,
    left: int = 0  # and while its evictions are so many

    def of(self, key: bytes) -> OrderedDict[bytes, None]:
        return self.fresh if key in self.fresh else self.ring

    def fresh_is_next(self) -> bool:
        return bool(self.fresh) and (len(self.fresh) * 10 >= len(self.fresh) + len(self.ring) or not self.ring)


def band_of(size: int) -> int:
    """Four bands for each doubling, from 32 bytes on; the last has all that is larger."""
    top = int(log2(max(size, 32)))
    return min(4 * (top - 5) + int(4 * size / 2**top) % 4, 63)


class Miniature:
    def __init__(self, curve: Curve, capacity: float) -> None:
        self.curve, self.capacity = curve, capacity
        self.page = min(max(1 << int(log2(capacity)) - 8, 64 << 10), 1 << 20)
        self.paged = band_of(min(self.page // 8, 16 << 10))  # the first band whose items lie in pieces
        self.bands = {number: Band() for number in range(64)}
        self.uses: dict[bytes, int] = {}
        self.ghosts: dict[bytes, int] = {}
        self.learnt = Uses(whole=False)
        self.hits = 0
        self.taken = 0

    def band(self, key: bytes) -> Band:
        return self.bands[band_of(self.curve.keys[key].size)]

    def leave(self, key: bytes, *, ghost: bool = False) -> None:
        band = self.band(key)
        del band.of(key)[key]
        del self.uses[key]
        self.taken -= self.curve.keys[key].size
        if ghost:
            band.evictions += 1
            self.ghosts[key] = band.evictions

    def count_uses(self, band: Band, key: bytes, seen: int) -> None:
        """Since its last use it was used again, or it leaves."""
        samples = self.curve.now - self.curve.keys[key].used
        band.learnt.count(seen, samples // GRAIN, len(band.fresh) + len(band.ring), self.learnt)

    def evict(self, band: Band) -> None:
        while True:
            fresh = band.fresh_is_next()
            key = next(iter(band.fresh if fresh else band.ring))
            if not self.uses[key]:
                self.count_uses(band, key, 0)
                self.leave(key, ghost=True)
                return
            (band.fresh if fresh else band.ring).popitem(last=False)
            self.uses[key] = 0 if fresh else self.uses[key] - 1
            band.ring[key] = None

    def worth_at_end(self, names: Iterable[bytes], want: float, has: int) -> tuple[float, bool]:
        """The mean worth of the ``want`` items that leave first: the unused ones; or (True) of used ones."""
        unused, used = list[float](), list[float]()
        for name in islice(names, LOOKED):
            if len(unused) == SAMPLE or len(unused) >= want:
                break
            worth = 1 / aged(self.curve.now - self.curve.keys[name].used + 1.0)
            (used if self.uses[name] else unused).append(worth)
        return mean_worth(unused, used, want, has), not unused

    def worth(self, band: Band, page: float) -> float:
        """Of the items of a page, on average, without their size."""
        fresh, ring = len(band.fresh), len(band.ring)
        from_fresh = min(max(fresh - (fresh + ring - page) * 0.1, page - ring, 0), page, fresh)
        worth = 0.0
        if from_fresh:
            mean, all_used = self.worth_at_end(band.fresh, from_fresh, fresh)
            worth = from_fresh * mean * (1 if all_used else worth_of_new(band.came, band.wanted))
        if page > from_fresh:
            worth += (page - from_fresh) * self.worth_at_end(band.ring, page - from_fresh, ring)[0]
        return worth / page

    def readiness(self, band: Band) -> float:
        """The inverse of what a byte of the next page of victims is worth."""
        if self.curve.now - band.at < band.lasts and band.evictions == band.left:
            return band.ready
        oldest = self.curve.keys[next(iter(band.fresh if band.fresh_is_next() else band.ring))]
        page = min(max(self.page / oldest.size, 1), len(band.fresh) + len(band.ring))
        band.ready = 1 / (self.worth(band, page) * band.learnt.ratio(self.learnt)) * oldest.size
        band.at, band.left = self.curve.now, band.evictions
        band.lasts = (self.curve.now - oldest.used) // OLDER + 1
        return band.ready

    def filled(self) -> dict[int, Band]:
        return {number: band for number, band in self.bands.items() if band.fresh or band.ring}

    def room(self) -> float:
        """Half a page of each band that is filled stands empty."""
        paged = sum(number < self.paged for number in self.filled())
        return self.capacity - min(paged * self.page / 2, self.capacity / WASTE_MOST)

    def giver(self, taker: int | None) -> Band:
        """The band that has least to lose; that of a new item, or those that lie in pieces as it does, by the margin."""
        ready = {number: self.readiness(band) for number, band in self.filled().items()}
        best = max(ready, key=ready.__getitem__)
        if taker is None:
            return self.bands[best]
        own = [number for number in ready if number == taker or min(number, taker) >= self.paged]
        best_own = max(own, key=ready.__getitem__, default=None)
        return self.bands[best if best_own is None or ready[best] > MARGIN * ready[best_own] else best_own]

    def make_room(self, size: int = 0) -> None:
        taker = band_of(size) if size else None
        while self.uses and self.taken + size > self.room():
            self.evict(self.giver(taker))

    def insert(self, key: bytes) -> None:
        size = self.curve.keys[key].size
        if size > self.capacity:
            return
        self.make_room(size)
        band = self.band(key)
        stamp = self.ghosts.pop(key, None)
        back = stamp is not None and band.evictions - stamp < len(band.fresh) + len(band.ring)
        band.came += 1
        band.wanted += back
        band.learnt.seen += back
        self.learnt.seen += back
        if band.came > LEARNT and band.came > len(band.fresh) + len(band.ring):
            band.came /= 2
            band.wanted /= 2
        (band.ring if back else band.fresh)[key] = None
        self.uses[key] = 0
        self.taken += size

    def use(self, key: bytes) -> None:
        band = self.band(key)
        self.count_uses(band, key, 1)
        band.wanted += key in band.fresh and not self.uses[key]
        self.uses[key] = min(MOST_USES, self.uses[key] + 1)


class Curve:
    """The five of them, and the keys they share."""

    def __init__(self, memory: int) -> None:
        self.now = 0
        self.keys: dict[bytes, Key] = {}
        self.minis = [Miniature(self, memory * factor) for factor in FACTORS]
        self.hand = 0
        self.names: list[bytes] = []  # in the order in which they came

    def entry(self, key: bytes) -> Key:
        if key not in self.keys:
            self.keys[key] = Key(used=self.now)
            self.names.append(key)
        return self.keys[key]

    def out(self, key: bytes) -> bool:
        return not any(key in mini.uses for mini in self.minis)

    def leave_all(self, key: bytes) -> None:
        for mini in self.minis:
            if key in mini.uses:
                mini.leave(key)
            mini.ghosts.pop(key, None)
        self.keys[key].missed = False

    def bury(self, second: int) -> None:
        self.hand = self.hand + 1 if self.hand < len(self.keys) else 1
        if self.hand > len(self.keys):
            return
        name = self.names[self.hand - 1]
        if 0 < self.keys[name].dies <= second and not self.out(name):
            self.leave_all(name)

    def resize(self, key: bytes, size: int) -> None:
        entry = self.keys[key]
        if entry.size == size:
            return
        moves = not entry.size or band_of(entry.size) != band_of(size)
        places: list[tuple[Miniature, bool]] = []
        for mini in self.minis:
            if moves and key in mini.uses:
                band = mini.band(key)
                places.append((mini, key in band.fresh))
                del band.of(key)[key]
            elif moves:
                mini.ghosts.pop(key, None)
        for mini in self.minis:
            if key in mini.uses:
                mini.taken += size - entry.size
        entry.size = size
        for mini, fresh in places:
            band = mini.band(key)
            (band.fresh if fresh else band.ring)[key] = None
        for mini in self.minis:
            mini.make_room()

    def get(self, key: bytes, *, found: bool, second: int, size: int = 0, dies: int = 0, use: bool = True) -> None:
        self.now += 1
        self.bury(second)
        if key not in self.keys and not found:
            return
        entry = self.entry(key)
        if found:
            self.resize(key, size)
            entry.dies = dies
        elif 0 < entry.dies <= second and not self.out(key):
            self.leave_all(key)
        for mini in self.minis:
            if key in mini.uses:
                mini.hits += 1
                if use:
                    mini.use(key)
            elif found:
                mini.insert(key)
        if use:
            entry.used = self.now
        entry.missed = not found

    def store(self, key: bytes, size: int, second: int, dies: int = 0) -> None:
        entry = self.entry(key)
        if not entry.missed:
            self.now += 1
            self.bury(second)
        self.resize(key, size)
        entry.dies, entry.used = dies, self.now
        for mini in self.minis:
            if key not in mini.uses:
                mini.insert(key)
            elif not entry.missed:
                mini.band(key).of(key).move_to_end(key)
        entry.missed = False

    def delete(self, key: bytes) -> None:
        if key in self.keys:
            self.leave_all(key)

    def flush(self) -> None:
        for key in self.keys:
            self.leave_all(key)
