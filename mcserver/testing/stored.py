"""What is stored at a server in a test, as a mapping: keys are str or bytes, values bytes (str is encoded).

Owns how a test looks in and puts: through the engine itself, past faults, locks and what is remembered of clients. Looking in
changes nothing. It never meets a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from mcserver.core import Session
from mcserver.keys import KEY_MAX

if TYPE_CHECKING:
    import threading

    from mcserver.admin.commands import Admin
    from mcserver.admin.watchers import Watchers
    from mcserver.core import Engine
    from mcserver.testing.clock import Clock


RELATIVE_MOST = 30 * 86400
"""Seconds; the protocol takes a longer time to live for a date."""
UNFINISHED = ("conn_nread", "conn_swallow")
"""States of a session whose value has not come."""
BINARY = b"\x80"


class Stored(MutableMapping[str | bytes, bytes]):
    """The mapping, of whoever has an engine. What clients have sent takes effect before anything is looked at or changed."""

    engine: Engine
    admin: Admin
    watchers: Watchers
    clock: Clock
    lock: threading.RLock

    def settle(self) -> None:
        """What clients have sent has taken effect when it returns."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises RuntimeError when there is no engine any more."""
        raise NotImplementedError

    def ask(self, data: bytes) -> bytes:
        """What the engine answers to these bytes of the protocol: no fault is met, and nothing is remembered.

        As on a connection of its own, which ends with the answer. Raises ValueError for what is cut off: nobody answers that.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"what is asked is bytes of the protocol, such as b'get a\\r\\n', not {data!r}")
        return self._ask(lambda now: bytes(data))

    def _ask(self, spell: Callable[[int], bytes]) -> bytes:
        """spell: gives what is asked, by the server's Unix time."""
        self.settle()
        with self.lock:
            self.check()
            self.clock.catch_up()
            data = spell(int(self.engine.wall(self.engine.now())))
            session = Session(self.engine, Hands(self.admin, self.watchers), -1)
            reply = session.feed(data) + session.drain()
            cut_off = session.state in UNFINISHED or (not data.endswith(b"\n") and not data.startswith(BINARY))
            session.close()
        if cut_off and not reply:
            raise ValueError(f"{data[-60:]!r} is cut off: a line ends with \\r\\n, a value with its length and \\r\\n")
        return reply

    def _peek(self, key: bytes) -> bytes | None:
        """The value, and no trace of having looked: no hit, no use, no lease that is won."""
        self.settle()
        with self.lock:
            self.check()
            self.clock.catch_up()
            return self.engine.peek(key)

    def __getitem__(self, key: str | bytes) -> bytes:
        found = self._peek(_key(key))
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: str | bytes, value: bytes | str) -> None:
        self.put(key, value)

    def put(self, key: str | bytes, value: bytes | str, *, ttl: int = 0, flags: int = 0) -> None:
        """Stores a value for `ttl` seconds, however many (0: for ever), with client flags.

        Raises ValueError with the server's reason.
        """
        if not isinstance(value, str | bytes | bytearray | memoryview):
            raise TypeError(f"a value is bytes or str, as a client would send it, not {type(value).__name__}")
        if not isinstance(ttl, int):
            raise TypeError(f"ttl is whole seconds, not {ttl!r}")
        if ttl < 0:
            raise ValueError(f"ttl is 0 seconds or more, not {ttl}")
        if not isinstance(flags, int):
            raise TypeError(f"client flags are a number, not {flags!r}")
        if not 0 <= flags < 1 << 32:
            raise ValueError(f"client flags are a number from 0 to 4294967295, not {flags!r}")
        data = value.encode() if isinstance(value, str) else bytes(value)
        stored = _key(key)
        reply = self._ask(
            lambda now: (
                b"set %s %d %d %d\r\n%s\r\n"
                % (stored, flags, ttl if ttl <= RELATIVE_MOST else now + ttl, len(data), data)
            )
        )
        if reply != b"STORED\r\n":
            raise ValueError(reply.decode().strip())

    def __delitem__(self, key: str | bytes) -> None:
        if self.ask(b"delete %s\r\n" % _key(key)) != b"DELETED\r\n":
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str | bytes) and self._peek(_key(key)) is not None

    def __iter__(self) -> Iterator[str]:
        self.settle()
        with self.lock:
            self.check()
            self.clock.catch_up()
            now = int(self.engine.wall(self.engine.now()))
            items = [item for piece in self.engine.walk() for item in piece]
        for item in items:
            if item.exptime < 0 or item.exptime > now:
                yield item.key.decode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        """To a mapping by what is stored; another server is another one, though both are empty."""
        return self is other if isinstance(other, Stored) else super().__eq__(other)

    def __hash__(self) -> int:
        return id(self)

    def stats(self, *words: str) -> dict[str, str]:
        """The lines of `stats`, or of `stats WORDS`, as text by their names; empty for words that it doesn't know."""
        reply = self.ask(" ".join(["stats", *words]).encode() + b"\r\n").decode()
        return dict(line.split(" ", 2)[1:] for line in reply.split("\r\n") if line.startswith("STAT "))


class Hands:
    """The owner of the session through which a test looks in and puts: no fleet hears of it, and no lock is waited for."""

    def __init__(self, admin: Admin, watchers: Watchers) -> None:
        self._admin = admin
        self._watchers = watchers

    def command(self, session: Session, line: bytes) -> Any:
        reply = self._admin.command(session, line)
        return b"".join(reply) if isinstance(reply, Iterator) else reply

    def interest(self, session: Session, read: bool, write: bool) -> None:
        """Only of sessions with a socket."""

    def closed(self, session: Session, reason: str) -> None:
        self._watchers.remove(session)

    def later(self, session: Session) -> None:
        session.proceed()

    def events(self, session: Session, events: list[tuple[str, bytes, int, int]]) -> bool:
        return False

    def lock(self, session: Session, key: bytes) -> None:
        session.grant()

    def trace(self, session: Session | None, text: bytes) -> None:
        """Nobody looks."""


def _key(key: str | bytes) -> bytes:
    if not isinstance(key, str | bytes | bytearray):
        raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
    found = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else bytes(key)
    if not 0 < len(found) <= KEY_MAX or any(byte <= 32 or byte == 127 for byte in found):
        raise ValueError(f"{key!r} is no key: 1 to {KEY_MAX} bytes without spaces and control characters")
    return found
