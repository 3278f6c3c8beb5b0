"""Random requests of the binary protocol, made to be nasty: few keys, boundary numbers, lengths that don't add up.

``Requests`` asks a ``random.Random`` and never looks at a server. A request is a function of a CAS unique, since two servers
number items each in its own way; ``Uniques`` knows which of theirs mean the same.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from struct import Struct
from typing import NamedTuple

HEADER = Struct("!BBHBBHIIQ")
ARITHMETIC = Struct("!QQI")
STORE = Struct("!II")

GET, SET, ADD, REPLACE, DELETE, INCREMENT, DECREMENT, QUIT, FLUSH, GETQ, NOOP, VERSION, GETK, GETKQ, APPEND, PREPEND = (
    range(16)
)
STAT, SETQ, ADDQ, REPLACEQ, DELETEQ, INCREMENTQ, DECREMENTQ, QUITQ, FLUSHQ, APPENDQ, PREPENDQ, VERBOSITY, TOUCH = range(
    16, 29
)
GAT, GATQ = 29, 30
SASL_LIST, SASL_AUTH, SASL_STEP, GATK, GATKQ = range(0x20, 0x25)

KEYS = (b"a", b"b", b"n", b"k" * 250, b"p:1", b"\x00\xff\r\n ", b"get")
VALUES = (
    *(
        b"",
        b"0",
        b"1",
        b"9",
        b"99",
        b" 7",
        b"7 ",
        b"-1",
        b"007",
        b"1x",
        b"abc",
        b"\0",
        b"\r\nx",
        b"18446744073709551615",
    ),
    *(b"18446744073709551616", b"x" * 100, b"y" * 2048, b"\x80" * 24, b"12 a"),
)
NUMBERS = (0, 1, 2, 9, 10, 99, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
LIFETIMES = (0, 0, 0, 100, 2592000, 1_000_000_000, 4_000_000_000, 0xFFFFFFFF)
END = 0x0FE0CE01
"""The opaque of the noop that is sent behind a request, to learn that its reply is complete."""


def request(
    opcode: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"", opaque: int = 0, cas: int = 0, **wrong: int
) -> bytes:
    """One packet; `wrong` puts another number in a field of its header: magic, keylen, extlen, bodylen."""
    return (
        HEADER.pack(
            wrong.get("magic", 0x80), opcode, wrong.get("keylen", len(key)), wrong.get("extlen", len(extras)), 0, 0,
            wrong.get("bodylen", len(extras) + len(key) + len(value)), opaque, cas,
        ) + extras + key + value
    )  # fmt: skip


class Reply(NamedTuple):
    """One packet from a server."""

    opcode: int
    status: int
    opaque: int
    cas: int
    extras: bytes
    key: bytes
    value: bytes


def replies(data: bytes) -> tuple[list[Reply], bytes]:
    """The whole packets in some bytes, and what is left. Raises AssertionError for what is none."""
    found = []
    while len(data) >= HEADER.size:
        magic, opcode, keylen, extlen, kind, status, bodylen, opaque, cas = HEADER.unpack_from(data)
        assert (magic, kind) == (0x81, 0), data[:24].hex()
        assert extlen + keylen <= bodylen, data[:24].hex()
        if len(data) < HEADER.size + bodylen:
            break
        body, data = data[HEADER.size : HEADER.size + bodylen], data[HEADER.size + bodylen :]
        extras, key, value = body[:extlen], body[extlen : extlen + keylen], body[extlen + keylen :]
        found.append(Reply(opcode, status, opaque, cas, extras, key, value))
    return found, data


class Sent(NamedTuple):
    """A request: its bytes for a CAS unique, the pair of uniques to choose from, and whether the connection may end with it."""

    packet: Callable[[int], bytes]
    cas: tuple[int, int]


class Requests:
    """Makes requests. `pairs` are CAS uniques that were seen: ours and the other server's, by key."""

    def __init__(self, random: Random, pairs: dict[bytes, list[tuple[int, int]]]) -> None:
        self.random = random
        self.pairs = pairs
        self.opaque = 0

    def choose(self, key: bytes) -> tuple[int, int]:
        """Mostly none; else one that the key had, or nonsense."""
        if self.random.random() < 0.7:
            return (0, 0)
        return self.random.choice([(2**62, 2**62), *self.pairs.get(key, [])[-4:], *self.pairs.get(key, [])[-1:] * 3])

    def any(self) -> Sent:
        """One request, well-formed or not."""
        pick = self.random.choice
        self.opaque += 1
        key, opaque, cas = pick(KEYS), self.opaque, self.choose(b"")
        if self.random.random() < 0.04:
            data = self.malformed(key)
            return Sent(lambda _cas: data, cas)
        cas = self.choose(key)
        opcode, extras, value = self.parts()
        if opcode in (NOOP, VERSION, FLUSH, FLUSHQ, SASL_LIST):
            key = b""
        return Sent(lambda unique: request(opcode, key, extras, value, opaque, unique), cas)

    def parts(self) -> tuple[int, bytes, bytes]:
        """Opcode, extras and value of a well-formed request."""
        pick, chance = self.random.choice, self.random.random()
        if chance < 0.3:
            flags = pick((0, 0, 1, 77, 2**32 - 1))
            opcode = pick((SET, SET, SET, ADD, REPLACE, SETQ, ADDQ, REPLACEQ))
            size = 1_048_577 if self.random.random() < 0.01 else 0
            return opcode, STORE.pack(flags, pick(LIFETIMES)), b"z" * size or pick(VALUES)
        if chance < 0.4:
            return pick((APPEND, PREPEND, APPENDQ, PREPENDQ)), b"", pick(VALUES)
        if chance < 0.6:
            return pick((GET, GETQ, GETK, GETKQ)), b"", b""
        if chance < 0.7:
            return pick((TOUCH, GAT, GATQ, GATK, GATKQ)), pick(LIFETIMES).to_bytes(4, "big"), b""
        if chance < 0.85:
            extras = ARITHMETIC.pack(pick(NUMBERS), pick(NUMBERS), pick((*LIFETIMES, 0xFFFFFFFF)))
            return pick((INCREMENT, DECREMENT, INCREMENTQ, DECREMENTQ)), extras, b""
        if chance < 0.95:
            return pick((DELETE, DELETEQ)), b"", b""
        if chance < 0.953:
            return pick((FLUSH, FLUSHQ)), pick((b"", b"\0\0\0\0")), b""
        return pick((NOOP, VERSION, SASL_LIST)), b"", b""

    def malformed(self, key: bytes) -> bytes:
        """Lengths that don't add up or don't fit the opcode, unknown opcodes, a wrong magic, huge bodies."""
        pick, opaque = self.random.choice, self.opaque
        opcode = pick((*range(0x25), 0x25, 0x7F, 0x80, 0xFF))
        what = self.random.randrange(8)
        if what == 0:
            return request(opcode, key, b"", b"", opaque, bodylen=len(key) - 1)
        if what == 1:
            return request(opcode, key, b"1234", b"", opaque, bodylen=len(key) + 3)
        if what == 2:
            return request(opcode, b"k" * pick((251, 300, 4000)), b"", b"", opaque)
        if opcode in (STAT, VERBOSITY, 0x1F) or opcode > GATKQ:  # figures are nobody else's; the others are below
            opcode = VERSION
        if what == 3:
            return request(opcode, pick((b"", key)), b"x" * pick((0, 4, 8, 20, 255)), b"", opaque)
        if what == 4:
            return request(
                pick((SET, APPEND)), key, b"x" * pick((0, 8)), b"", opaque, bodylen=pick((2**31 + 1000, 2**32 - 1))
            )
        if what == 5:
            wrong = request(opcode, key, b"", b"", opaque, magic=pick((0x81, 0x00, 0x67)))
            return request(NOOP, opaque=opaque) + wrong  # as a first byte it would say that the client speaks text
        if what == 6:  # as it takes extras and key, and then skips as much again as the whole body
            extras, value = pick((b"", b"1234")), pick((b"", b"value"))
            return request(pick((0x1B, 0x1F, 0x25, 0x7F, 0xFF)), key, extras, value + b"-" * len(extras + key), opaque,
                           bodylen=len(extras + key + value))  # fmt: skip
        return request(opcode, key, b"", b"value", opaque)


def any_header(random: Random, opaque: int) -> bytes:
    """A request whose header's numbers are drawn each for itself, with as many bytes behind it as it says.

    None flushes, prints figures, or is of an opcode that memcached doesn't know and has a body: of that it skips too much. No CAS
    unique is one that an item may have.
    """
    pick = random.choice
    opcode = pick((*range(0x26), random.randrange(256)))
    if opcode in (FLUSH, FLUSHQ, STAT, VERBOSITY, VERSION):
        opcode = pick((GET, SET, NOOP, APPEND, TOUCH, GAT))
    keylen = pick((0, 1, 1, 1, 1, 3, 250, 251, random.randrange(300)))
    extlen = pick((0, 0, 4, 4, 8, 8, 20, 20, random.randrange(40)))
    length = pick((0, 0, 1, 2, 5, 20, 100, random.randrange(2000)))
    if opcode > GATKQ or opcode == 0x1F:
        keylen = extlen = length = 0
    body = extlen + keylen + length + pick((0, 0, 0, 0, 1, 4, 8)) * (length > 0)
    header = HEADER.pack(
        0x80, opcode, keylen, extlen, pick((0, 0, 0, 1, 5, 255)), pick((0, 0, 0, 1, 65535)), body, opaque, pick((0, 0, 0, 2**63))
    )  # fmt: skip
    words = (0, 0, 0, 100_000, 0x01FF0001, 2**31 - 1, 2**32 - 1)  # none is a lifetime that ends while this runs
    extras = b"".join(pick(words).to_bytes(4, "big") for _ in range(11))[:extlen]
    key = (pick((b"a", b"b", b"n")) * keylen)[:keylen]
    return header + (extras + key + bytes(pick(b"0123456789 x\r\n\0") for _ in range(length + 8)))[:body]


class Uniques:
    """A bijection between the CAS uniques of two servers, and those that each key has had."""

    def __init__(self) -> None:
        self.pairs: dict[bytes, list[tuple[int, int]]] = {}
        self._ours: dict[int, int] = {0: 0}
        self._theirs: dict[int, int] = {0: 0}

    def bind(self, key: bytes, ours: int, theirs: int) -> bool:
        """False if one of them is known to mean another."""
        if self._ours.setdefault(ours, theirs) != theirs or self._theirs.setdefault(theirs, ours) != ours:
            return False
        if ours:
            self.pairs.setdefault(key, []).append((ours, theirs))
        return True


def plain(data: bytes, opcode: int = SASL_AUTH, mechanism: bytes = b"PLAIN") -> bytes:
    """A login by SASL: data is NUL name NUL password."""
    return request(opcode, mechanism, b"", data, opaque=3)
