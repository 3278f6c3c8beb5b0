"""The memory curve's miniatures in plain Python, for a cache all of whose keys are sampled: small and slow.

The compiled ones (mrc.pxd) must count the same hits, step by step.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from math import log2, sqrt

from tests.fading import GRAIN, LEARNT, Uses, worth_of_new

LOOKED_AT = 8
PAGED, WASTE_MOST = 36, 3  # bands of less than 16 KiB; what stands empty in their pages at most, one part in so many
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
        self.page = min(max(1 << int(log2(capacity)) - 8, 64 << 10), 1 << 20) if capacity < 64 << 20 else 1 << 20
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

    def readiness(self, band: Band) -> float:
        fresh = band.fresh_is_next()
        names = list(islice(band.fresh if fresh else band.ring, LOOKED_AT))
        name = next((name for name in names if not self.uses[name]), names[0])
        victim = self.curve.keys[name]
        half = sqrt(self.curve.now - victim.used + 1.0)
        quarter = sqrt(half)
        aged = half * quarter * sqrt(quarter)  # age ^ 7/8, to the last bit as it is compiled
        aged /= band.learnt.ratio(self.learnt)
        return aged / (worth_of_new(band.came, band.wanted) if fresh and not self.uses[name] else 1) * victim.size

    def room(self) -> float:
        """Half a page of each band that is filled stands empty."""
        filled = sum(bool(band.fresh or band.ring) for number, band in self.bands.items() if number < PAGED)
        return self.capacity - min(filled * self.page / 2, self.capacity / WASTE_MOST)

    def make_room(self, size: int = 0) -> None:
        while self.uses and self.taken + size > self.room():
            self.evict(max((band for band in self.bands.values() if band.fresh or band.ring), key=self.readiness))

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
