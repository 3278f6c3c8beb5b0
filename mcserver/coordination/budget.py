"""What the fleet may write to ZooKeeper, and how much of it this server takes. Pure: it is told what happens and when.

Nobody asks anybody: every server reads the whole log, and so sees who appends, and how often. While the fleet's writes are
below the budget an append goes at once, whatever the number of members. Above it the servers that have appended lately share
what is left, evenly; what arrives meanwhile at each is its next, larger batch. When many begin at once, each with the token of
somebody at rest, those wait who have seen that it is too much: so no more than what nobody had seen yet goes above the budget.

What the others write is reckoned from what the log shows: an append for each entry, the acknowledgements that it asks for,
four certificates in `max_stale` for each member; and what the log does not show (locks, memberships, sheets, the leader's
work) from the sum that the leader notes in the log's record. Certificates are never held back. Acknowledgements are, above
the budget, until this server's share of half of what the certificates leave. A quarter of the budget is always left to
appends: with many members certificates alone may exceed it.
"""

from __future__ import annotations

from collections import deque

from .ports import SECOND

WINDOW = 5  # s; who has appended within one or two of these shares the budget
FREE = 0.9  # of the budget: below it nobody waits
BURST = 1.25  # of what is left for appends: above it, in the last second, a token is no longer enough
LEAST = 0.25  # of the budget stays for appends, whatever the rest takes
SHORTEST = 0.001  # s; a wait that moves the clock
ACKS = 0.5  # of what certificates leave is for acknowledgements above the budget
KINDS = ("appends", "certificates", "acknowledgements", "locks", "membership", "leader", "sheets")
UNLOGGED = ("locks", "membership", "leader", "sheets")


class Budget:
    """Counts this server's writes by kind, and gives out its share of the appends. Times in ns."""

    def __init__(self, rate: float, max_stale: float, now: int) -> None:
        """`rate`: writes a second of the whole fleet."""
        self.rate, self._certificates = rate, 4 / max_stale
        self.counts = dict.fromkeys(KINDS, 0)
        self.waits = 0  # appends that had to wait for their share
        self.held_back = 0  # acknowledgements that had to
        self.unlogged = 0.0  # writes a second of the fleet that the log does not show: the leader's sum
        self._seen: deque[tuple[int, int]] = deque()  # of the last second: when, and how many acknowledgements
        self._acks = 0
        self._own: deque[int] = deque()  # versions of our appends that we have not seen yet
        self._read = 0  # the last one that we have seen
        self._mine: deque[int] = deque()  # writes of ours in the last second that the log does not show
        self._writers: set[str] = set()
        self._earlier: set[str] = set()
        self._turned = now
        self._tokens = _Tokens(now)
        self._ack_tokens = _Tokens(now)

    def wrote(self, kind: str, now: int) -> None:
        """This server has asked for a write of a kind."""
        self.counts[kind] += 1
        if kind in UNLOGGED:
            self._mine.append(now)

    @property
    def unlogged_count(self) -> int:
        """Writes of this server that the log does not show, since it started."""
        return sum(self.counts[kind] for kind in UNLOGGED)

    def appended(self, version: int) -> None:
        """This server's append got a version: what lies between that and what we have seen was appended, too."""
        if version > self._read:
            self._own.append(version)

    def saw(self, writer: str, acknowledgements: int, now: int, version: int = 0) -> None:
        """The log shows an entry, by this server or another, and so many will acknowledge it at once."""
        if version < self._read:  # the log went back: what we appended to it before will never be seen
            self._own.clear()
        self._read = version
        while self._own and self._own[0] <= version:
            self._own.popleft()
        self._seen.append((now, acknowledgements))
        self._acks += acknowledgements
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

    @property
    def _unseen(self) -> int:
        """Entries that were appended for certain, though we have not read them yet."""
        unseen = self._own[-1] - self._read if self._own else 0
        return unseen if unseen < 1 << 31 else 0  # more than that is another log's

    def _sharers(self, name: str) -> int:
        """How many share the budget with us, and we; of those that we have not seen yet we know how much they appended."""
        seen = self.writers + (name not in self._writers | self._earlier)
        return max(seen, self._unseen // len(self._own) if self._own else 0)

    def _parts(self, members: int, now: int) -> tuple[int, float, float]:
        """Of the last second: appends, acknowledgements, and all the rest."""
        while self._seen and self._seen[0][0] <= now - SECOND:
            self._acks -= self._seen.popleft()[1]
        while self._mine and self._mine[0] <= now - SECOND:
            self._mine.popleft()
        appends = len(self._seen) + self._unseen
        rest = max(self.unlogged, len(self._mine)) + members * self._certificates
        most = max(FREE * self.rate - rest - appends, ACKS * (self.rate - rest), 0.0)  # beyond it they are held back
        return appends, min(self._acks, most), rest

    def used(self, members: int, now: int) -> float:
        """Writes that the whole fleet asked for in the last second, as far as this server can know."""
        return sum(self._parts(members, now))

    def wait(self, name: str, members: int, now: int) -> float:
        """Seconds until this server may append; 0: now, and it is taken as done."""
        appends, acks, rest = self._parts(members, now)
        left = max(self.rate - acks - rest, LEAST * self.rate)  # for the appends of all
        self._turn(now)
        share = left / self._sharers(name)
        # Many have begun at once, each with the token of somebody at rest. Only what was seen counts, so that whoever reads
        # late, or not at all, goes on by its tokens.
        if len(self._seen) > BURST * left:
            return max(self._tokens.lacks(share, now), min(appends / left - 1, 1 / share))
        return self._tokens.take(share, now, appends < FREE * left)

    def wait_to_acknowledge(self, members: int, now: int) -> float:
        """The same for an acknowledgement."""
        appends, acks, rest = self._parts(members, now)
        share = max(ACKS * (self.rate - rest), 0.01 * self.rate) / max(1, members)
        return self._ack_tokens.take(share, now, appends + acks + rest < FREE * self.rate)


class _Tokens:
    """One for each write; they come at the rate of a share, a quarter of a second's at most are kept."""

    def __init__(self, now: int) -> None:
        self._tokens, self._refilled = 1.0, now

    def lacks(self, share: float, now: int) -> float:
        """Seconds until there is a token; 0: there is one."""
        self._tokens = min(max(1.0, share / 4), self._tokens + (now - self._refilled) / SECOND * share)
        self._refilled = now
        return 0.0 if self._tokens >= 1 else max((1 - self._tokens) / share, SHORTEST)

    def take(self, share: float, now: int, free: bool) -> float:
        """Seconds until a write may go; 0: now, and its token is taken. `free`: it may go without one."""
        seconds = self.lacks(share, now)
        if seconds and not free:
            return seconds
        self._tokens = max(0.0, self._tokens - 1)
        return 0.0
