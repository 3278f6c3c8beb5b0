"""Sends one stream to two servers and says where their replies differ.

Owns the two connections and what counts as the same: uniques are compared by the order of their first sight, times
within three seconds, everything else byte for byte. It makes no streams and prints nothing.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..text import Scope, parse
from ..wire import KEPT, Address, BrokenError, Wire
from .streams import KEYS, ODD_KEYS

UNIQUE = re.compile(
    rb"^(VALUE [^ ]+ \d+ \d+ )(\d+)(?=\r\n)|^((?:HD|VA|NS|EX|NF)(?: [^ \r\n]+)*? c)(\d+)(?=[ \r])|^(ME .* cas=)(\d+)",
    re.MULTILINE,
)
TIMES = re.compile(rb"(?<= [tl])\d+(?=[ \r])|(?<= exp=)(?:\d+|-\d\d+)|(?<= la=)\d+")  # exp=-1: never
PAST = re.compile(rb"(?<= t)(?:4\d{9}|-\d+)(?=[ \r])")  # the time left of what is past: memcached wraps it
CLASS = re.compile(rb"(?<= cls=)\d+")  # how a server sizes its slabs is its own affair
VERSION = re.compile(rb"^VERSION \S+", re.MULTILINE)
MOST = 16 << 20  # bytes that the replies to one write may have
DRIFT = 3  # seconds: each server counts its own, from a start that a busy machine may stretch
EVERY_KEY = (*(f"{{{key}}}" for key in KEYS), *ODD_KEYS)
UNREAD = b"1000000000013"  # stands for the unique of a key that was not there


@dataclass(frozen=True)
class Difference:
    """The write after which replies differ, and both replies."""

    write: int
    first: bytes
    second: bytes


@dataclass
class Side:
    """One of the two servers, for the length of a stream."""

    where: Address
    timeout: float
    prefix: str
    now: int
    wire: Wire | None = None
    scope: Scope = field(init=False)
    uniques: dict[bytes, int] = field(default_factory=dict)
    closed: bool = False

    def __post_init__(self) -> None:
        self.scope = Scope(self.prefix, lambda: self.now)

    def send(self, commands: Sequence[str], fence: bytes, cuts: random.Random) -> bytes | None:
        """Renders and sends one write and the fences behind it, cut into pieces; None when a name is not bound."""
        try:
            data = b"".join(parse(command).render(self.scope) for command in commands)
        except KeyError:
            return None
        if self.wire is None:
            self.wire = Wire(self.where, self.timeout)
        data += fence
        places = sorted(cuts.randrange(1, len(data)) for _ in range(cuts.choice((0, 0, 0, 1, 3))))
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            self.wire.send(data[start:end])
        return data

    def answer(self, last: bytes) -> bytes:
        """Everything that came up to the last fence's reply, or the end of the connection."""
        assert self.wire
        deadline = time.monotonic() + self.timeout
        try:
            while not self.wire.buffer.endswith(last):
                self.wire.more(deadline)
                if len(self.wire.buffer) > MOST:
                    raise BrokenError(f"flooded: over {MOST >> 20} MiB")
        except BrokenError as error:
            told = b"<closed>" if self.wire.ended else b"<" + error.reason.encode() + b">"
            reply = (self.wire.buffer if len(self.wire.buffer) <= MOST else self.wire.buffer[:KEPT]) + told
            self.wire.close()
            self.wire = None
            return reply
        reply, self.wire.buffer = self.wire.buffer, b""
        self.wire.log.clear()
        return reply

    def tidy(self) -> None:
        """Deletes the stream's keys: two servers that are full may evict, and refuse, differently."""
        if self.wire:
            keys = [parse(key).render(self.scope) for key in EVERY_KEY]
            self.wire.send(b"".join(b"delete " + key + b" noreply\r\n" for key in keys))

    def plain(self, reply: bytes) -> bytes:
        """The reply with uniques as numbers in the order of their first sight."""

        def number(found: re.Match[bytes]) -> bytes:
            before, unique = next((found[i], found[i + 1]) for i in (1, 3, 5) if found[i] is not None)
            return before + b"#%d" % self.uniques.setdefault(unique, len(self.uniques))

        return CLASS.sub(b"", PAST.sub(b"-1", VERSION.sub(b"VERSION", UNIQUE.sub(number, reply))))

    def learn(self, commands: Sequence[str], reply: bytes) -> None:
        """After `mg KEY c` or `gets KEY`, alone, binds CKEY to the unique, and OKEY to the one known before."""
        found = (
            re.fullmatch(r"(?:mg \{(?=\w\} c)|gets \{(?=\w\}\\))(\w)\}(?: c)?\\r\\n", commands[0])
            if len(commands) == 1
            else None
        )
        if found:
            name = found[1].upper()
            self.scope.variables["O" + name] = self.scope.variables.get("C" + name, UNREAD)
            unique = re.match(rb"HD c(\d+)|VALUE \S+ \d+ \d+ (\d+)", reply)
            self.scope.variables["C" + name] = (unique[1] or unique[2]) if unique else UNREAD


def same(first: bytes, second: bytes) -> bool:
    """Whether two plain replies are the same, times within DRIFT seconds."""
    if first == second:
        return True
    if TIMES.sub(b"0", first) != TIMES.sub(b"0", second):
        return False
    times = zip(TIMES.findall(first), TIMES.findall(second), strict=True)
    return all(abs(int(one) - int(other)) <= DRIFT for one, other in times)


class Pair:
    """Two servers that should answer alike."""

    def __init__(self, first: Address, second: Address, timeout: float = 5.0, *, meta: bool = True) -> None:
        self.meta = meta  # whether both know meta commands
        self.first = first
        self.second = second
        self.timeout = timeout
        self.number = 0
        self.run = "".join(random.choices("bcdfghjklmnpqrstvwxz", k=5))
        self.wires: list[Wire | None] = [None, None]

    def play(self, writes: Sequence[Sequence[str]], seed: int = 0) -> Difference | None:
        """Sends a stream to both, with keys of its own; the first difference, or None.

        A stream that uses a name before it is bound (as shrinking makes them) has no difference.
        """
        self.number += 1
        now = int(time.time())
        prefix = f"{self.run}{self.number}."
        sides = [Side(where, self.timeout, prefix, now) for where in (self.first, self.second)]
        for side, wire in zip(sides, self.wires, strict=True):
            side.wire = wire
        try:
            return self._play(writes, sides, prefix, seed)
        finally:
            for side in sides:
                side.tidy()
            self.wires = [side.wire for side in sides]

    def _play(self, writes: Sequence[Sequence[str]], sides: list[Side], prefix: str, seed: int) -> Difference | None:
        for at, commands in enumerate(writes):
            fences, last = self._fences(prefix.encode(), at)
            for side in sides:
                if side.send(commands, b"".join(fences), random.Random(seed * 1000 + at)) is None:
                    return None
            replies = [side.answer(last) for side in sides]
            plain = [side.plain(reply) for side, reply in zip(sides, replies, strict=True)]
            if not same(*plain):
                for side in sides:
                    if side.wire:
                        side.wire.close()
                        side.wire = None
                return Difference(at, *plain)
            for side, reply in zip(sides, replies, strict=True):
                side.learn(commands, reply)
        return None

    def _fences(self, prefix: bytes, at: int) -> tuple[list[bytes], bytes]:
        """What is sent behind a write, and the reply to the last of it: three, for an error may swallow some.

        Without meta commands a value that is nowhere else is stored and read.
        """
        if self.meta:
            fences = [b"mg %sfence k O%d.%d\r\n" % (prefix, at, i) for i in range(3)]
            return fences, b"EN k%sfence O%d.2\r\n" % (prefix, at)
        key = b"%sfence" % prefix
        marks = [b"%d.%d.%s" % (at, i, prefix) for i in range(3)]
        fences = [b"set %s 0 10 %d\r\n%s\r\nget %s\r\n" % (key, len(mark), mark, key) for mark in marks]
        return fences, b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(marks[2]), marks[2])

    def close(self) -> None:
        for wire in self.wires:
            if wire:
                wire.close()
