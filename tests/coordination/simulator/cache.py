"""A small model of the cache: items, leases, the gate. Every item remembers when what it shows was still true.

`since` of an item: the stamp of its store, or of the granting of the lease that it was stored with. A delete that came later
must take it out.
"""

from __future__ import annotations

from typing import NamedTuple

from .scheduler import Process


class Item(NamedTuple):
    since: int  # a stamp
    time: int  # true time of that
    lease: int  # the stamp at which the lease was granted, 0 for a plain store
    boot: str
    stale: bool = False


class ModelCache:
    """Implements ports.Cache, and what clients do."""

    def __init__(self, process: Process) -> None:
        self.world = process.world
        self.process = process
        self.boot = process.name
        self.items: dict[bytes, Item] = {}
        self.leases: dict[bytes, tuple[int, int]] = {}  # key: stamp and time of the granting
        self.killed: dict[bytes, int] = {}  # key: stamp of the last invalidation here
        self.killed_all = 0
        self.killed_prefixes: dict[bytes, int] = {}
        self.policy: str | None = "miss"
        self.fresh_until = 0
        self.flush_count = 0

    # What coordination does ----------------------------------------------------------------------------------------------

    def delete(self, key: bytes) -> bool:
        self.killed[key] = self.world.stamp()
        self.leases.pop(key, None)
        return self.items.pop(key, None) is not None

    def mark_stale(self, key: bytes, ttl: int) -> bool:
        self.killed[key] = self.world.stamp()
        self.leases.pop(key, None)
        item = self.items.get(key)
        if item is not None:
            self.items[key] = item._replace(stale=True)
        return item is not None

    def flush(self) -> None:
        self.flush_count += 1
        self.killed_all = self.world.stamp()
        self.items.clear()
        self.leases.clear()

    def flush_prefix(self, prefix: bytes) -> None:
        self.killed_prefixes[prefix] = self.world.stamp()
        for held in (self.items, self.leases):
            for key in [key for key in held if key.startswith(prefix)]:
                del held[key]

    def refresh_prefix(self, prefix: bytes, ttl: int) -> None:
        for key in [key for key in self.items if key.startswith(prefix)]:
            self.mark_stale(key, ttl)
        self.killed_prefixes[prefix] = self.world.stamp()
        for key in [key for key in self.leases if key.startswith(prefix)]:
            del self.leases[key]

    def set_gate(self, policy: str | None, fresh_until: int = 0) -> None:
        self.policy, self.fresh_until = policy, fresh_until

    # What clients do -----------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self.policy in ("miss", "error") and self.process.now() > self.fresh_until

    def last_kill(self, key: bytes) -> int:
        """The stamp of the last invalidation that concerned a key."""
        prefixes = [stamp for prefix, stamp in self.killed_prefixes.items() if key.startswith(prefix)]
        return max(self.killed.get(key, 0), self.killed_all, *prefixes, 0)

    def get(self, key: bytes) -> Item | None:
        return None if self.is_closed else self.items.get(key)

    def lease(self, key: bytes) -> tuple[int, int] | None:
        """What `mg N` grants on a miss: a token, or nothing when somebody has one or the gate is closed."""
        if self.is_closed or key in self.leases:
            return None
        self.leases[key] = (self.world.stamp(), self.world.now)
        return self.leases[key]

    def fill(self, key: bytes, lease: tuple[int, int]) -> None:
        """`ms C`: stored only under a lease that still stands."""
        if not self.is_closed and self.leases.get(key) == lease:
            del self.leases[key]
            self.items[key] = Item(lease[0], lease[1], lease[0], self.boot)

    def put(self, key: bytes) -> None:
        """A plain set."""
        if not self.is_closed:
            self.leases.pop(key, None)
            self.items[key] = Item(self.world.stamp(), self.world.now, 0, self.boot)
