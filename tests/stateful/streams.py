"""Random commands, made to be nasty: boundary numbers, odd spaces, all verbs on few keys.

``Commands`` asks a ``random.Random`` (hypothesis can stand in for one) and never looks at a server. CAS uniques to
compare with are handed in, so that a caller may translate them.
"""

import base64
import functools
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (0, 1, 2, 9, 10, 99, 100, 255, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
VALUES = (
    *(b"", b"0", b"1", b"9", b"10", b"99", b" 7", b"7 ", b"+7", b"-1", b"007", b"1x", b"abc", b"\0", b"\r\n", b"5 x"),
    *(b"18446744073709551615", b"18446744073709551616", b"99999999999999999999999", b"x" * 100, b"y" * 2048, b"3\0z"),
    *(b"VALUE a 0 1\r\nx\r\nEND\r\n", b"get a\r\n", b"\x80\xff", b"1\t", b"\n2", b"-18446744073709551615"),
)
CLASSIC_KEYS = (b"a", b"b", b"n", b"k" * 250, b"p:1", b"p:2", b"\xc3\xa9\x01", b"get")
STORAGE = (b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas")
# Keys that are sent in base64 only.
BINARY_KEYS = (b"bin key", b"\x00\xff", b"bb")
Cas = Callable[[bytes], int]


class Commands:
    """Makes commands. ``old`` keeps to what memcached 1.6.18 does as 1.6.45 does it."""

    def __init__(self, random: Random, cas: Cas, *, old: bool = False, lifetimes: Sequence[int] = (0, 100, -1)) -> None:
        self.random = random
        self.cas = cas
        self.old = old
        self.lifetimes = lifetimes
        # The old server reads on behind a value of blanks.
        self.values = [value for value in VALUES if value.strip() or not value] if old else list(VALUES)
        self.whole = 1.0 if old else 0.98  # how many values end as they must
        self.explicit_cas = 10**15

    # choices

    def chance(self, part: float) -> bool:
        return self.random.random() < part

    def key(self) -> bytes:
        return self.random.choice(CLASSIC_KEYS)

    def value(self) -> bytes:
        return self.random.choice(self.values)

    def number(self) -> bytes:
        return b"%d" % self.random.choice(NUMBERS)

    def lifetime(self) -> bytes:
        return b"%d" % self.random.choice(self.lifetimes)

    def flags(self) -> bytes:
        return b"%d" % self.random.choice((0, 0, 1, 77, 65535, 2**32 - 1))

    def line(self, *words: bytes) -> bytes:
        """Joins words, sometimes with too many spaces."""
        gap = b" " if self.chance(0.9) else b"   "
        end = b" " if self.chance(0.05) else b""
        return gap.join(word for word in words if word) + end + (b"\r\n" if self.chance(0.95) else b"\n")

    def quiet(self) -> bytes:
        return b"noreply" if self.chance(0.1) else b""

    # classic

    def storage(self, verb: bytes) -> bytes:
        key, value = self.key(), self.value()
        unique = b"%d" % self.cas(key) if verb == b"cas" else b""
        line = self.line(verb, key, self.flags(), self.lifetime(), b"%d" % len(value), unique, self.quiet())
        return line + value + (b"\r\n" if self.chance(self.whole) else b"!!")

    def refused(self) -> bytes:
        """A value that is too large, or whose line is wrong after the length."""
        verb = self.random.choice((b"set", b"add", b"append", b"replace", b"prepend"))
        if self.old or self.chance(0.5):
            size = 1048576
            return b"%b %b 0 0 %d\r\n%b\r\n" % (verb, self.key(), size, b"z" * size)
        return b"%b %b 1x 0 4\r\nget \r\n" % (verb, self.key())

    def retrieve(self, verb: bytes) -> bytes:
        keys = [self.key() for _ in range(self.random.choice((1, 1, 1, 2, 3, 30)))]
        lifetime = self.lifetime() if verb in {b"gat", b"gats"} else b""
        return self.line(verb, lifetime, *keys)

    def touch(self) -> bytes:
        return self.line(b"touch", self.key(), self.lifetime(), self.quiet())

    def delete(self) -> bytes:
        return self.line(b"delete", self.key(), self.random.choice((b"", b"", b"0")), self.quiet())

    def arithmetic(self, verb: bytes) -> bytes:
        return self.line(verb, self.key(), self.number(), self.quiet())

    def wrong(self) -> bytes:
        """A line that is an error, in both versions the same."""
        long = b"k" * 251
        lines: tuple[bytes, ...] = (
            b"bogus\r\n", b"GET a\r\n", b"touch a 1x\r\n", b"incr a -1\r\n", b"incr a x\r\n", b"flush_all z\r\n",
            b"mg a z\r\n", b"mg a s s\r\n", b"mg a Tx\r\n", b"ms a 2 Tx\r\nhi\r\n", b"md a ?\r\n", b"mg ! b\r\n",
            b"decr a 18446744073709551616\r\n", b"gat x a\r\n", b"delete %b\r\n" % long,
        )  # fmt: skip
        new = (
            b"mg a [\r\n", b"get\r\n", b"\n", b"incr a\r\n", b"ma a z\r\n", b"ma a Dx\r\n", b"set a 0 0 1x\r\n",
            b"ms a x\r\n", b"get %b a\r\n" % long, b"ms a 2 MZ\r\nhi\r\n", b"set a 0 0\r\n",
        )  # fmt: skip
        if self.old:
            lines = tuple(line for line in lines if b"?" not in line and b"18446744073709551616" not in line)
            return self.random.choice(lines)
        return self.random.choice(lines + new)

    # meta

    def meta_key(self) -> tuple[bytes, bytes, list[bytes]]:
        """A key, how it is written, and the flags that this takes."""
        if self.chance(0.25):
            key = self.random.choice(BINARY_KEYS)
            return key, base64.b64encode(key), [b"b"]
        key = self.key()
        return key, key, []

    def some(self, flags: Sequence[bytes], part: float = 0.25) -> list[bytes]:
        return [flag for flag in flags if self.chance(part)]

    def shuffled(self, flags: list[bytes]) -> list[bytes]:
        self.random.shuffle(flags)
        return flags

    def explicit(self) -> bytes:
        self.explicit_cas += 1
        return b"E%d" % self.explicit_cas

    def mg(self) -> bytes:
        key, written, flags = self.meta_key()
        flags += self.some((b"v", b"s", b"f", b"c", b"t", b"l", b"h", b"k", b"u", b"q", b"Oabc", b"P", b"L"), 0.3)
        flags += self.some((b"N30", b"N0"), 0.15)[:1]
        flags += self.some((b"R0", b"R50", b"R1000"), 0.15)[:1]
        touch = b"T" + self.lifetime()
        if self.chance(0.15) and not (b"t" in flags and touch == b"T-1"):
            flags.append(touch)
        if not self.old:
            flags += self.some((b"C%d" % self.cas(key), self.explicit()), 0.1)
        return self.line(b"mg", written, *self.shuffled(flags))

    def ms(self) -> bytes:
        key, written, flags = self.meta_key()
        flags += self.some((b"k", b"Oq1", b"q", b"T" + self.lifetime(), b"F" + self.flags(), b"I"), 0.2)
        mode = self.random.choice((b"", b"", b"ME", b"MA", b"MP", b"MR", b"MS"))
        flags += self.some((b"C%d" % self.cas(key),), 0.3)
        if not self.old:
            flags += self.some((b"c", self.explicit()), 0.15)
            flags += self.some((b"N30",), 0.3) if mode in {b"MA", b"MP"} else []
            if mode in {b"", b"MS"} and not any(flag[:1] == b"C" for flag in flags):
                flags += self.some((b"s",), 0.3)
        if self.old and mode in {b"MA", b"MP"} and b"b" in flags:
            mode = b""
        value = self.value()
        flags = self.shuffled([flag for flag in (*flags, mode) if flag])
        return self.line(b"ms", written, b"%d" % len(value), *flags) + value + b"\r\n"

    def md(self) -> bytes:
        key, written, flags = self.meta_key()
        flags += self.some((b"k", b"Oq2", b"q", b"I", b"T" + self.lifetime()), 0.25)
        flags += self.some((b"C%d" % self.cas(key),), 0.3)
        if not self.old:
            flags += self.some((b"x", self.explicit(), b"F" + self.flags()), 0.15)
        return self.line(b"md", written, *self.shuffled(flags))

    def ma(self) -> bytes:
        key, written, flags = self.meta_key()
        flags += self.some((b"v", b"c", b"k", b"Oq3", b"D" + self.number(), b"J" + self.number()), 0.3)
        flags += [self.random.choice((b"MI", b"MD", b"M+", b"M-"))] if self.chance(0.5) else []
        flags += self.some((b"N30", b"N0"), 0.2)[:1] or self.some((b"q",), 0.2)
        flags += self.some((b"C%d" % self.cas(key),), 0.2)
        if self.old:  # its T is lost when the number grows
            flags += self.some((b"t",), 0.2)
        else:
            flags += self.some((b"T100", b"T0"), 0.15)[:1] or self.some((b"t",), 0.2)
        return self.line(b"ma", written, *self.shuffled(flags))

    def any(self) -> bytes:
        """One command of any kind."""
        makers: list[Callable[[], bytes]] = [
            *(functools.partial(self.storage, verb) for verb in STORAGE),
            *(functools.partial(self.retrieve, verb) for verb in (b"get", b"gets", b"gat", b"gats")),
            *(functools.partial(self.arithmetic, verb) for verb in (b"incr", b"decr")),
            self.touch, self.delete, self.wrong,
            self.mg, self.mg, self.mg, self.ms, self.ms, self.md, self.ma, self.ma,
        ]  # fmt: skip
        if self.chance(0.01):
            return self.refused()
        if self.chance(0.01):
            return b"flush_all\r\n"
        return self.random.choice(makers)()
