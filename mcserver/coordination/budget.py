"""What the fleet may write to ZooKeeper, and how much of it this server takes. Pure: it is told what happens and when.

Nobody asks anybody: every server reads the whole log, and so sees who appends, and how often. While the fleet's writes are
below the budget an append goes at once, whatever the number of members. Above it the servers that have appended lately share
what is left, evenly; what arrives meanwhile at each is its next, larger batch.

The writes of the others are reckoned from what the log shows: an append for each entry, an acknowledgement of every other
member for each entry that asks for it; and four certificates in `max_stale` for each member. Certificates and
acknowledgements are never held back; at least a quarter of the budget is left to appends.
"""

from __future__ import annotations

from collections import deque

SECOND = 1_000_000_000  # ns
WINDOW = 5  # s; who has appended within one or two of these shares the budget
FREE = 0.9  # of the budget: below it nobody waits
LEAST = 0.25  # of the budget stays for appends, whatever the rest takes
KINDS = ("appends", "certificates", "acknowledgements", "locks", "membership", "leader")


class Budget:
    """Counts this server's writes by kind, and gives out its share of the appends. Times in ns."""

    def __init__(self, rate: float, max_stale: float, now: int) -> None:
        """`rate`: writes a second of the whole fleet."""
        self.rate, self._certificates = rate, 4 / max_stale
        self.counts = dict.fromkeys(KINDS, 0)
        self.waits = 0  # appends that had to wait for their share
        self._seen: deque[tuple[int, int]] = deque()  # of the last second: when, and how many writes
        self._sum = 0
        self._mine: deque[int] = deque()  # writes of ours in the last second that the log does not show
        self._writers: set[str] = set()
        self._earlier: set[str] = set()
        self._turned = now
        self._tokens = 1.0
        self._refilled = now

    def wrote(self, kind: str, now: int) -> None:
        """This server has asked for a write of a kind."""
        self.counts[kind] += 1
        if kind in ("locks", "membership", "leader"):
            self._mine.append(now)

    def saw(self, writer: str, need_ack: bool, members: int, now: int) -> None:
        """The log shows an entry, by this server or another."""
        writes = 1 + (max(0, members - 1) if need_ack else 0)
        self._seen.append((now, writes))
        self._sum += writes
        self._turn(now)
        self._writers.add(writer)

    def _turn(self, now: int) -> None:
        if now - self._turned >= WINDOW * SECOND:
            self._earlier = self._writers if now - self._turned < 2 * WINDOW * SECOND else set()
            self._writers, self._turned = set(), now

    @property
    def writers(self) -> int:
        """How many servers have appended lately."""
        return len(self._writers | self._earlier)

    def used(self, members: int, now: int) -> float:
        """Writes that the whole fleet asked for in the last second, as far as this server can know."""
        while self._seen and self._seen[0][0] <= now - SECOND:
            self._sum -= self._seen.popleft()[1]
        while self._mine and self._mine[0] <= now - SECOND:
            self._mine.popleft()
        return self._sum + len(self._mine) + members * self._certificates

    def wait(self, name: str, members: int, now: int) -> float:
        """Seconds until this server may append; 0: now, and it is taken as done."""
        used = self.used(members, now)
        appends = len(self._seen)
        left = max(self.rate - (used - appends), LEAST * self.rate)  # for the appends of all
        self._turn(now)
        share = left / max(1, self.writers + (name not in self._writers | self._earlier))
        self._tokens = min(max(1.0, share / 4), self._tokens + (now - self._refilled) / SECOND * share)
        self._refilled = now
        if appends < FREE * left:
            self._tokens = max(0.0, self._tokens - 1)
            return 0.0
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / share
