"""A cache as simple as it can be said: what memcached's data commands do to a dictionary.

It is the yardstick of the engine's tests, so it must never share code with the engine, nor be clever. It never evicts.
Bytes on the wire are wire.py's business.
"""

import re
from dataclasses import dataclass
from typing import Literal

Mode = Literal["set", "add", "replace", "append", "prepend", "cas"]
Status = Literal["STORED", "NOT_STORED", "EXISTS", "NOT_FOUND"]

MONTH = 30 * 24 * 3600  # an exptime above it is a date
DEAD = 1  # an expiry that has always passed: clocks start at 2
WRAP = 2**64


@dataclass
class Item:
    """A stored value. ``exptime`` is the second of expiry, or 0 for never."""

    value: bytes
    flags: int
    exptime: int
    cas: int
    stored: int
    accessed: int
    fetched: bool = False
    stale: bool = False
    token: bool = False  # somebody was told that he won the right to refresh it
    binary: bool = False  # ms stored it under a base64 key, and nothing has replaced it since


class NonNumericError(ValueError):
    """The value is no number that incr and decr can work on."""


class TooLargeError(ValueError):
    """The item would be greater than the largest item allowed."""


def stored_number(value: bytes) -> int:
    """What C's strtoull makes of a value, by the rules of incr and decr; raises NonNumericError."""
    match = re.match(rb"[ \t\n\v\f\r]*([+-]?)(\d+)(?:[ \t\n\v\f\r]|\0|\Z)", value)
    if not value or not match or int(match[2]) >= WRAP:
        raise NonNumericError
    number = int(match[2])
    if match[1] == b"-":
        number = -number % WRAP
        if number >= WRAP // 2:
            raise NonNumericError
    return number


class Model:
    """The cache. ``now`` is its clock in whole seconds; ``epoch`` the unix time at which that clock stood at 0."""

    def __init__(self, *, use_cas: bool = True, item_size_max: int = 1 << 20, epoch: int = 0) -> None:
        self.items: dict[bytes, Item] = {}
        self.now = 2
        self.epoch = epoch
        self.use_cas = use_cas
        self.item_size_max = item_size_max
        self.gated = False  # it answers as an empty cache that stores nothing
        self._cas = 1
        self._flush_at = 0

    # time

    def expiry(self, exptime: int) -> int:
        """A command's exptime as the second of expiry."""
        if exptime < 0:
            return DEAD
        if 0 < exptime <= MONTH:
            return self.now + exptime
        if exptime > MONTH:
            return max(DEAD, exptime - self.epoch)
        return 0

    def advance(self, seconds: int) -> None:
        """Moves the clock; a delayed flush takes what was stored before it."""
        self.now += seconds
        if self._flush_at and self.now >= self._flush_at:
            self.items.clear()
            self._flush_at = 0

    @property
    def flush_at(self) -> int:
        """When a delayed flush is due, or 0."""
        return self._flush_at

    def flush_all(self, delay: int = 0) -> None:
        """At once (``delay`` <= 0, or a date that has passed) or later; takes the place of a flush that is due."""
        self._flush_at = self.expiry(delay) if delay > 0 else 0
        if self._flush_at <= self.now:
            self.items.clear()
            self._flush_at = 0

    # the parts of every command

    def next_cas(self, given: int = 0) -> int:
        """The CAS unique of a change: the one that a client chose, else a new one."""
        if not self.use_cas:
            return 0
        if given:
            return given
        self._cas += 1
        return self._cas

    def find(self, key: bytes) -> Item | None:
        """The item, if it lives."""
        item = self.items.get(key)
        if item and item.exptime and item.exptime <= self.now:
            del self.items[key]
            item = None
        return None if self.gated else item

    def hit(self, key: bytes) -> Item | None:
        """The item, marked as used."""
        item = self.find(key)
        if item:
            item.fetched = True
            item.accessed = self.now
        return item

    def size(self, key: bytes, value_length: int, flags: int) -> int:
        """What memcached counts for an item, in bytes."""
        return 48 + len(key) + 1 + (4 if flags else 0) + value_length + 2 + (8 if self.use_cas else 0)

    def fits(self, key: bytes, value_length: int, flags: int) -> bool:
        """Whether an item may be that large."""
        return self.size(key, value_length, flags) <= self.item_size_max

    def _new(self, key: bytes, value: bytes, flags: int, exptime: int, cas: int, binary: bool = False) -> Item:
        item = Item(value, flags, exptime, self.next_cas(cas), self.now, self.now, binary=binary)
        self.items[key] = item
        return item

    # commands

    def store(
        self,
        mode: Mode,
        key: bytes,
        value: bytes,
        flags: int = 0,
        expires: int = 0,
        *,
        compare: int = 0,
        new_cas: int = 0,
        vivify: bool = False,
        allow_stale: bool = False,
        binary: bool = False,
    ) -> tuple[Status, Item | None]:
        """The set family. ``expires`` is the second of expiry, 0 for never; ``compare`` 0 compares nothing."""
        if self.gated:
            return ("NOT_FOUND" if mode == "cas" else "NOT_STORED"), None
        old = self.find(key)
        compare = compare if self.use_cas else 0
        if not old:
            if mode == "cas":
                return "NOT_FOUND", None
            if mode == "replace" or (mode in {"append", "prepend"} and not vivify):
                return "NOT_STORED", None
            return "STORED", self._new(key, value, flags, expires, new_cas, binary)
        if mode == "add":
            return "NOT_STORED", None
        if mode in {"append", "prepend"}:
            if compare not in {0, old.cas}:
                return "EXISTS", None
            joined = old.value + value if mode == "append" else value + old.value
            if not self.fits(key, len(joined), old.flags):
                return "NOT_STORED", None
            return "STORED", self._new(key, joined, old.flags, old.exptime, new_cas)
        if mode == "cas" and (compare == 0 or compare != old.cas):
            if not (allow_stale and 0 < compare < old.cas):
                return "EXISTS", None
            item = self._new(key, value, flags, old.exptime, new_cas, binary)
            item.stale, item.token = True, old.token
            return "STORED", item
        return "STORED", self._new(key, value, flags, expires, new_cas, binary)

    def drop_refused(self, mode: Mode, key: bytes, meta: bool) -> None:
        """A value was too large, or there was no memory for it: no older one may stay where it was to be replaced."""
        if mode == "set" or meta:
            self.items.pop(key, None)

    def touch(self, key: bytes, exptime: int) -> Item | None:
        """Gives a living item a new exptime; that is a use."""
        item = self.hit(key)
        if item:
            item.exptime = self.expiry(exptime)
        return item

    def delete(self, key: bytes) -> bool:
        """Whether there was something to delete."""
        found = self.find(key) is not None
        self.items.pop(key, None)
        return found

    def arithmetic(
        self, key: bytes, delta: int, incr: bool, *, compare: int = 0, new_cas: int = 0
    ) -> tuple[int, Item] | Literal["NOT_FOUND", "EXISTS"]:
        """Incr and decr: the new number and its item; raises NonNumericError."""
        item = self.find(key)
        if not item:
            return "NOT_FOUND"
        if not item.value:
            raise NonNumericError
        if compare not in {0, item.cas}:
            return "EXISTS"
        number = stored_number(item.value)
        number = (number + delta) % WRAP if incr else max(0, number - delta)
        text = b"%d" % number
        if len(text) <= len(item.value):
            item.value = text.ljust(len(item.value))
            item.cas = self.next_cas(new_cas)
        else:
            item = self._new(key, text, item.flags, item.exptime, new_cas)
        return number, item

    def vivify(self, key: bytes, value: bytes, new_cas: int = 0) -> Item | None:
        """An item made by a miss; its exptime is set by the command's flags, in their order."""
        return None if self.gated else self._new(key, value, 0, 0, new_cas)

    def mark_stale(self, key: bytes, ttl: int | None, new_cas: int = 0) -> bool:
        """The next reader wins the right to refresh it; the others see that it is stale."""
        item = self.find(key)
        if not item:
            return False
        if ttl is not None:
            item.exptime = self.expiry(ttl)
        item.stale, item.token = True, False
        item.cas = self.next_cas(new_cas)
        return True

    def empty(self, key: bytes, flags: int, exptime: int, new_cas: int = 0) -> None:
        """Puts an empty value in the place of an item's; keeps its CAS unique unless one is given."""
        old = self.items[key]
        self._new(key, b"", flags, self.expiry(exptime), new_cas or old.cas)

    # what coordination does

    def flush(self) -> None:
        """Forgets everything; a delayed flush stays due."""
        self.items.clear()

    def flush_prefix(self, prefix: bytes) -> None:
        """Deletes all keys that begin so."""
        for key in [key for key in self.items if key.startswith(prefix)]:
            del self.items[key]

    def coordinated_stale(self, key: bytes, ttl: int) -> bool:
        """Marks a key stale for a peer; a lease (an empty value) dies instead."""
        item = self.find(key)
        if item and not item.value:
            return self.delete(key)
        return self.mark_stale(key, ttl)

    def refresh_prefix(self, prefix: bytes, ttl: int) -> None:
        """Marks all keys stale that begin so."""
        for key in [key for key in self.items if key.startswith(prefix)]:
            self.coordinated_stale(key, ttl)
