"""Compares a model's replies with another server's: CAS uniques translated, times and sizes of time left loose.

The model and the other number CAS uniques each in its own way; a bijection between them is kept.
"""

import re
from random import Random

from tests.stateful.model import Model
from tests.transcripts.replay import Numbers, same


class Comparison:
    """Knows which CAS uniques both sides have shown, by key."""

    def __init__(self, model: Model, random: Random) -> None:
        self.model = model
        self.random = random
        # Not in order: a refresh of a prefix may give an item its new number only when the item is met.
        self.numbers = Numbers(ordered=False)
        self._seen: dict[bytes, list[int]] = {}

    def note(self) -> None:
        """Remembers the items' present CAS uniques; call it after each command."""
        for key, item in self.model.items.items():
            seen = self._seen.setdefault(key, [])
            if item.cas not in seen:
                seen.append(item.cas)
                del seen[:-4]

    def choose(self, key: bytes) -> int:
        """A CAS unique (the model's) to compare with: often the key's present one, or an older one, or nonsense."""
        shown = [cas for cas in self._seen.get(key, []) if cas in self.numbers.bound]
        return self.random.choice([0, 2**62, *shown, *shown[-1:], *shown[-1:]])

    def translate(self, command: bytes) -> bytes:
        """The command with the other side's CAS uniques."""
        return self.numbers.translate(command)

    def same(self, expected: bytes, actual: bytes) -> bool:
        """Whether the other side's reply says what the model's says."""
        return same(self.numbers, loosened(expected), loosened(actual))


def loosened(reply: bytes) -> bytes:
    """A reply without what may differ: the age of the last access (memcached keeps it coarsely) and the slab class."""
    return re.sub(rb"\bcls=\d+", b"cls=?", re.sub(rb"\bla=\d+", b"la=?", re.sub(rb" l\d+", b" l?", reply)))
