"""An engine with sessions that have no socket, and an owner that records what it is told.

It stands in for the server: tests of the core must not need one.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mcserver.core import Engine, Session

MIB = 1 << 20
Event = tuple[str, bytes, int, int]  # kind, key, place of its reply in the batch, lifetime


class RecordingOwner:
    """What a session calls; remembers it, and knows no command but those that a test gives it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.closes: list[tuple[Any, str]] = []
        self.waiting: list[Any] = []
        self.interests: list[tuple[bool, bool]] = []
        self.batches: list[list[Event]] = []
        self.locks: list[bytes] = []
        self.traces: list[bytes] = []
        self.hold = False  # what events() answers
        self.commands: dict[bytes, Callable[[Any, bytes], bytes | Iterator[bytes] | None]] = {}

    def command(self, session: Any, line: bytes) -> bytes | Iterator[bytes] | None:
        verb = line.split(b" ", 1)[0]
        return self.commands[verb](session, line) if verb in self.commands else None

    def interest(self, _session: Any, read: bool, write: bool) -> None:
        self.interests.append((read, write))

    def closed(self, session: Any, reason: str) -> None:
        self.closes.append((session, reason))

    def later(self, session: Any) -> None:
        self.waiting.append(session)

    def events(self, _session: Any, events: list[Event]) -> bool:
        self.batches.append(list(events))
        return self.hold

    def lock(self, _session: Any, key: bytes) -> None:
        self.locks.append(bytes(key))

    def trace(self, _session: Any, text: bytes) -> None:
        self.traces.append(bytes(text))


class Client:
    """One connection to an engine: ``send`` returns all that the engine answers, and lets it go on when it yields."""

    def __init__(self, engine: Engine, owner: RecordingOwner | None = None) -> None:
        self.engine = engine
        self.owner = owner or RecordingOwner(engine)
        self.session = Session(engine, self.owner)

    @property
    def close_reason(self) -> str | None:
        """Why the session closed; None while it is open."""
        return next((reason for session, reason in self.owner.closes if session is self.session), None)

    @property
    def is_closed(self) -> bool:
        return self.close_reason is not None

    def send(self, data: bytes) -> bytes:
        """Feeds the bytes at once."""
        if self.is_closed:
            return b""
        return self.session.feed(data) + self.settle()

    def settle(self) -> bytes:
        """Lets the session go on until it no longer asks to; returns what it sent."""
        out = []
        while self.session in self.owner.waiting:
            self.owner.waiting.remove(self.session)
            self.session.proceed()
            out.append(self.session.drain())
        return b"".join(out)

    def dribble(self, data: bytes) -> bytes:
        """Feeds the bytes one by one."""
        return b"".join(self.send(data[i : i + 1]) for i in range(len(data)))

    def set(self, key: bytes, value: bytes, flags: int = 0, exptime: int = 0) -> bytes:
        return self.send(b"set %b %d %d %d\r\n%b\r\n" % (key, flags, exptime, len(value), value))

    def get(self, key: bytes) -> bytes | None:
        """The value, or None for a miss."""
        reply = self.send(b"get %b\r\n" % key)
        if reply == b"END\r\n":
            return None
        head, _, rest = reply.partition(b"\r\n")
        size = int(head.split()[3])
        assert rest[size:] == b"\r\nEND\r\n", reply[:200]
        return rest[:size]


HASH_SEED = bytes(range(16))
"""Nothing is left to chance: each run sees the same order of buckets, and the same sample."""


def fresh(**options: Any) -> Client:
    """A connection to a new engine with a clock that only ``engine.advance`` moves."""
    return Client(Engine(**{"manual_clock": True, "hash_seed": HASH_SEED, **options}))


def crawl(engine: Engine, slices: int = 100_000) -> None:
    """Runs a whole reclaiming pass, and the background work that it waits for."""
    engine.crawl(None)
    for _ in range(slices):
        if not engine.crawler_running:
            return
        engine.maintain()
    raise AssertionError("the crawler does not end")


def settle(engine: Engine, slices: int = 20_000) -> None:
    """Runs background work until it no longer wants to go on at once."""
    for _ in range(slices):
        if engine.maintain() > 0.01:
            return
    raise AssertionError("background work does not end")


def fill(client: Client, prefix: bytes, size: int, count: int) -> None:
    """Stores count values of that size, in batches, without replies."""
    value = b"v" * size
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        lines = b"".join(b"set %b%d 0 0 %d noreply\r\n%b\r\n" % (prefix, i, size, value) for i in numbers)
        assert client.send(lines + b"mn\r\n") == b"MN\r\n"
        if start % 20_000 == 0:
            client.engine.advance(0.1)


def held(client: Client, prefix: bytes, count: int) -> int:
    """How many of the keys prefix0, prefix1, ... are there, without using them."""
    found = 0
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        found += client.send(b"".join(b"mg %b%d u\r\n" % (prefix, i) for i in numbers)).count(b"HD")
    return found
