"""Who leaves next: a small, slow, plain model of the policy that mcserver/core keeps in compiled form.

It knows lists, uses, ghosts, dead items and the worth of a class's next page. It knows no bytes of values, no pages that
move and no clients. docs/memory.md says why the policy is what it is; here stands only what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fading import FADES, GRAIN, LEARNT, LOOKED, NEW_WORTH, SAMPLE, Uses, mean_worth, worth_of_new

HOT, WARM, COLD, TEMP = "hot", "warm", "cold", "temp"
USES_MOST = 3
TRIES = 256  # items that are passed over before another must leave: the newest, if it was not used


@dataclass(eq=False)
class Item:
    """What the policy knows of a stored item. ``size`` is memcached's count of its bytes."""

    key: bytes
    nbytes: int
    size: int
    expires: int  # second; 0 never
    segment: str = HOT
    uses: int = 0
    used: int = 0  # on the clock of traffic
    fetched: bool = False
    flushed: bool = False
    pinned: bool = False


@dataclass
class Ready:
    """What a class's next page was worth when it was last looked at."""

    value: float
    age: float
    at: int
    gone: int


@dataclass
class SlabClass:
    """One class. The lists have their heads, where new items come in, at the end. WARM items stand among the COLD."""

    chunk: int
    page: int
    lists: dict[str, list[Item]] = field(default_factory=lambda: {HOT: [], COLD: [], TEMP: []})
    ghosts: dict[bytes, int] = field(default_factory=dict)  # key: evictions when it left
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys((HOT, COLD, TEMP), 0))
    evicted: int = 0
    gone: int = 0  # items that left, for whatever reason
    came: int = 0  # keys that were not there when they were stored
    wanted: int = 0  # of them: used while new, or stored again soon after they had left
    uses: Uses = field(default_factory=lambda: Uses(whole=True))
    ready: Ready | None = None

    def items(self) -> Iterator[Item]:
        for items in self.lists.values():
            yield from items

    def count(self, *segments: str) -> int:
        return sum(item.segment in segments for item in self.items())

    def push(self, item: Item, segment: str) -> None:
        item.segment = segment
        name = COLD if segment == WARM else segment
        self.lists[name].append(item)
        self.bytes[name] += item.size

    def remove(self, item: Item) -> None:
        name = COLD if item.segment == WARM else item.segment
        self.lists[name].remove(item)
        self.bytes[name] -= item.size

    def move(self, item: Item, segment: str) -> None:
        self.remove(item)
        self.push(item, segment)


class Policy:
    """The cache as the policy sees it: ``capacity`` chunks in all (None: more than are needed), by classes of ``chunks`` bytes.

    With a capacity there must be one class, and pages must not move by themselves. ``departed`` are the keys of the live items
    that were evicted, in order.
    """

    def __init__(
        self,
        chunks: list[int],
        page: int,
        capacity: int | None = None,
        *,
        segmented: bool = True,
        evictions: bool = True,
        maintained: bool = True,
        hot_pct: int = 20,
        temporary_ttl: int = -1,
    ) -> None:
        self.classes = [SlabClass(chunk, page) for chunk in chunks]
        self.index: dict[bytes, tuple[SlabClass, Item]] = {}
        self.capacity, self.used = capacity, 0
        self.segmented, self.evictions, self.maintained = segmented, evictions, maintained
        self.hot_pct, self.temporary_ttl = hot_pct, temporary_ttl
        self.second, self.requests = 2, 0
        self.uses = Uses(whole=True)
        self.departed: list[bytes] = []
        self.counts = dict.fromkeys(
            [
                "evictions",
                "evicted_unfetched",
                "evicted_active",
                "reclaimed",
                "expired_unfetched",
                "crawler_reclaimed",
                "direct_reclaims",
                "moves_to_cold",
                "moves_to_warm",
                "moves_within_lru",
            ],
            0,
        )

    # What is there

    def class_of(self, key: bytes, nbytes: int) -> SlabClass:
        return next(c for c in self.classes if 48 + len(key) + nbytes <= c.chunk)

    def find(self, key: bytes) -> tuple[SlabClass, Item] | None:
        """A look-up: one request; what is dead is gone by it."""
        self.requests += 1
        found = self.index.get(key)
        if found and self.dead(found[1]):
            self.unlink(*found)
            return None
        return found

    def dead(self, item: Item) -> bool:
        return item.flushed or 0 < item.expires <= self.second

    def expiry(self, exptime: int) -> int:
        return 0 if exptime == 0 else 1 if exptime < 0 else self.second + exptime

    def count_uses(self, c: SlabClass, item: Item, seen: int) -> None:
        """Since its last use the item was used again (1), or it leaves unused (0)."""
        c.uses.count(seen, self.requests // GRAIN - item.used, sum(1 for _ in c.items()), self.uses)

    def touched(self, item: Item) -> None:
        item.used = self.requests // GRAIN

    def unlink(self, c: SlabClass, item: Item) -> None:
        del self.index[item.key]
        c.remove(item)
        c.gone += 1
        self.used -= 1

    # Uses

    def bump(self, c: SlabClass, item: Item) -> None:
        """A use: counted up to three; no item moves (but in a flat LRU, where it goes to the head)."""
        item.fetched = True
        self.count_uses(c, item, 1)
        self.touched(item)
        if not self.segmented:
            c.move(item, item.segment)
        elif item.uses < USES_MOST:
            item.uses += 1
            c.wanted += item.segment == HOT and item.uses == 1
            if item.segment == COLD:
                item.segment = WARM
                self.counts["moves_to_warm"] += 1

    def get(self, key: bytes) -> bool:
        if found := self.find(key):
            self.bump(*found)
        return found is not None

    def peek(self, key: bytes) -> bool:
        """A read that is no use."""
        return self.find(key) is not None

    def touch(self, key: bytes, exptime: int) -> bool:
        if found := self.find(key):
            found[1].expires = self.expiry(exptime)
            self.bump(*found)
        return found is not None

    def delete(self, key: bytes) -> bool:
        if found := self.find(key):
            self.unlink(*found)
        return found is not None

    # Stores

    def set(self, key: bytes, nbytes: int, exptime: int = 0) -> bool:
        expires = self.expiry(exptime)
        if not self.obtain():
            self.delete(key)  # an old value must not stay where a new one was to be
            return False
        self.replace(key, self.find(key), nbytes, expires)
        return True

    def add(self, key: bytes, nbytes: int, exptime: int = 0) -> bool | None:
        """None: there was no memory."""
        expires = self.expiry(exptime)
        if not self.obtain():
            return None
        if found := self.find(key):
            c, item = found
            self.touched(item)
            if not self.segmented:
                c.move(item, item.segment)
            self.used -= 1
            return False
        self.replace(key, None, nbytes, expires)
        return True

    def append(self, key: bytes, nbytes: int) -> bool | None:
        """None: there was no memory for what is appended."""
        if not self.obtain():
            return None
        found = self.find(key)
        stored = False
        if found:
            item = found[1]
            item.pinned = True
            stored = self.obtain()
            item.pinned = False
            if stored:
                self.replace(key, found, item.nbytes + nbytes, item.expires)
        self.used -= 1
        return stored

    def replace(self, key: bytes, found: tuple[SlabClass, Item] | None, nbytes: int, expires: int) -> None:
        """Links a new item: as used as the old one was, or straight into the ring if it left not long ago."""
        c = self.class_of(key, nbytes)
        item = Item(key, nbytes, 48 + len(key) + 1 + nbytes + 2 + 8, expires)
        segment = HOT
        if found:
            was, old = found
            item.uses = old.uses
            if old.segment in {WARM, COLD}:
                segment = WARM if old.uses else COLD
            self.unlink(was, old)
        elif self.segmented:
            left = c.ghosts.pop(key, None)
            if left is not None and c.evicted - left < sum(1 for _ in c.items()):
                segment = COLD
            c.came += 1
            c.wanted += segment == COLD
            c.uses.seen += segment == COLD
            self.uses.seen += segment == COLD
            if c.came > LEARNT and c.came > sum(1 for _ in c.items()):
                c.came //= 2
                c.wanted //= 2
        if not self.segmented:
            segment, item.uses = COLD, 0
        elif self.temporary_ttl >= 0 and expires and expires - self.second <= self.temporary_ttl:
            segment = TEMP
        self.touched(item)
        self.index[key] = c, item
        c.push(item, segment)

    # Who leaves

    def obtain(self) -> bool:
        """Takes a chunk, evicting if it must. False: nobody could leave."""
        if self.capacity is None:
            self.used += 1
            return True
        (c,) = self.classes
        while self.used == self.capacity:
            if not self.evict_one(c):
                return False
        self.used += 1
        if not self.maintained:
            self.free_dead_ends(c, 2)
        return True

    def hot_is_next(self, c: SlabClass) -> bool:
        if not c.lists[HOT] or not c.lists[COLD]:
            return bool(c.lists[HOT])
        return c.bytes[HOT] * 200 > (c.bytes[HOT] + c.bytes[COLD]) * self.hot_pct

    def victim(self, c: SlabClass) -> Item | None:
        """Passes over what was used: out of HOT into the ring, in the ring once more round for each use."""
        for tries in range(TRIES - 1, -TRIES - 1, -1):
            name = HOT if self.hot_is_next(c) else COLD if c.lists[COLD] else TEMP
            if not c.lists[name]:
                return None
            item = c.lists[name][0]
            if item.pinned:
                c.move(item, item.segment)
            elif item.uses == 0 or name == TEMP:
                return item
            elif tries <= 0:
                newest = c.lists[HOT][-1] if c.lists[HOT] else item
                return item if newest.pinned or newest.uses else newest
            elif name == HOT:
                item.uses = 0
                c.move(item, COLD)
                self.counts["moves_to_cold"] += 1
            else:
                item.uses -= 1
                c.move(item, WARM if item.uses else COLD)
                self.counts["moves_within_lru"] += 1
        return next((item for name in (HOT, COLD, TEMP) for item in c.lists[name] if not item.pinned), None)

    def evict_one(self, c: SlabClass) -> bool:
        item = self.victim(c)
        if item is None or (not self.evictions and not self.dead(item)):
            return False
        self.counts["direct_reclaims"] += 1
        if self.dead(item):
            self.free_dead(c, item)
            return True
        self.counts["evictions"] += 1
        self.counts["evicted_unfetched"] += not item.fetched
        self.counts["evicted_active"] += item.uses > 0
        self.departed.append(item.key)
        self.count_uses(c, item, 0)
        c.evicted += 1
        if self.segmented:
            c.ghosts[item.key] = c.evicted
        self.unlink(c, item)
        return True

    def free_dead(self, c: SlabClass, item: Item) -> None:
        self.counts["reclaimed"] += 1
        self.counts["expired_unfetched"] += not item.fetched
        self.unlink(c, item)

    def free_dead_ends(self, c: SlabClass, most: int) -> None:
        for name in (HOT, COLD, TEMP):
            while most and c.lists[name] and not c.lists[name][0].pinned and self.dead(c.lists[name][0]):
                self.free_dead(c, c.lists[name][0])
                most -= 1

    # Background, and time

    def flush(self) -> None:
        for c in self.classes:
            for item in c.items():
                item.flushed = True

    def maintain(self) -> None:
        if self.maintained:
            for c in self.classes:
                self.free_dead_ends(c, 1 << 30)

    def crawl(self) -> None:
        self.maintain()
        for c in self.classes:
            for item in [item for item in c.items() if self.dead(item)]:
                self.counts["crawler_reclaimed"] += 1
                self.counts["expired_unfetched"] += not item.fetched and not item.flushed
                self.unlink(c, item)

    # What a page is worth

    def worth_of(self, item: Item) -> float:
        return float(((self.requests // GRAIN - item.used + 0.5) * GRAIN + 1) ** -FADES)

    def age_for(self, worth: float) -> float:
        return float(worth ** (-1 / FADES))

    def worth_at_end(self, items: list[Item], want: float) -> tuple[float, bool]:
        """The mean worth of the ``want`` items that leave first: the unused ones; or (True) of used ones."""
        unused, used = list[float](), list[float]()
        for item in items[:LOOKED]:
            if len(unused) == SAMPLE or len(unused) >= want:
                break
            (used if item.uses else unused).append(self.worth_of(item))
        return mean_worth(unused, used, want, len(items)), not unused

    def readiness_now(self, c: SlabClass) -> tuple[float, float]:
        """The inverse of what a byte of the class's next page is worth, and how old that page's items are, in requests."""
        hot, ring = c.lists[HOT], c.lists[COLD]
        items = len(hot) + len(ring)
        if not items:
            worth, _ = self.worth_at_end(c.lists[TEMP], len(c.lists[TEMP]))
            return (c.chunk / worth, self.age_for(worth)) if worth else (0.0, 0.0)
        page = min(max(c.page / c.chunk, 1), items)
        from_hot = min(max(len(hot) - (items - page) * (self.hot_pct / 200), page - len(ring), 0), page, len(hot))
        worth, all_used = self.worth_at_end(hot, from_hot)
        used, new = (from_hot * worth, 0.0) if all_used else (0.0, from_hot * worth)
        if page == items and hot:  # its last page: the youngest leave, too
            looked = hot if len(hot) <= 2 * SAMPLE else hot[:SAMPLE] + hot[-SAMPLE:]
            used = sum(self.worth_of(item) for item in looked if item.uses) * len(hot) / len(looked)
            new = sum(self.worth_of(item) for item in looked if not item.uses) * len(hot) / len(looked)
        used += (page - from_hot) * self.worth_at_end(ring, page - from_hot)[0]
        if used + new <= 0:
            return 0.0, 0.0
        worth = used + new * worth_of_new(c.came, c.wanted)
        return page * c.chunk / worth, self.age_for((used + NEW_WORTH * new) / page)

    def readiness(self, c: SlabClass) -> float:
        """The same; not computed again before an eighth of a page has left, or its items are an eighth older."""
        now = self.requests // GRAIN
        if c.ready and c.gone - c.ready.gone <= c.page // c.chunk // 8:
            age = now - c.ready.at
            if age == 0 or age * 8 * GRAIN < c.ready.age:
                return c.ready.value
        value, old = self.readiness_now(c)
        c.ready = Ready(value / c.uses.ratio(self.uses), old, now, c.gone)
        return c.ready.value

    def page_worth(self, c: SlabClass) -> float:
        ready = self.readiness(c)
        return c.page / ready if ready else 0.0


def giver(worths: dict[int, float], pages: dict[int, int], taker: int, margin: float) -> int | None:
    """The class that gives ``taker`` a page: the one whose page is worth least, if that is less than its own by the margin."""
    others = {cls: worth for cls, worth in worths.items() if cls != taker and pages.get(cls) and worth > 0}
    if not others:
        return None
    least = min(others, key=lambda cls: others[cls])
    own = worths.get(taker, 0.0)
    return least if own == 0 or others[least] * margin < own else None
