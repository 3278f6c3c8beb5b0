"""Random streams of commands, made to be nasty.

Owns what is sent: `stream(random)` yields a list of writes, each a list of commands in the notation of cases, so that
keys and uniques are names. It knows a little of what the commands do, to reach states that pure chance would not:
few keys, leases and stale items, numbers around a change of their width, uniques read just before. It does no I/O.
"""

from __future__ import annotations

import re
from random import Random

from ..text import Scope, parse

KEYS = ("a", "b", "c", "d")
ODD_KEYS = ("{e:250}", "{f}\\xff\\x01", "{f}\\t")
TTLS = ("0", "0", "0", "100", "50000", "2592000", "2592001", "-1", "{NOW+5000}", "{NOW-5000}")
BAD_NUMBERS = ("abc", "1x", "1.5", "", "--1", "99999999999999999999999")
FLAGS = ("0", "0", "1", "77", "65536", "4294967295")
NUMBERS = (
    "0", "1", "5", "9", "10", "99", "100", "999", "1000", "4294967295", "4294967296", "9999999999", "10000000000",
    "18446744073709551614", "18446744073709551615", "007", "00000000000000000000000000000001",
)  # fmt: skip
DELTAS = ("0", "1", "1", "2", "9", "10", "90", "991", "4294967296", "18446744073709551615", "18446744073709551614")
# No minus sign among them: memcached searches what lies behind a stored number of over 2^63 for one, old items included.
WORDS = ("x", "hi", "hello", "", "12 abc", "abc", "1.5", "x\\r\\ny", "END", "\\0\\xff", "18446744073709551616")
RUNS = ("{y*30}", "{y*100}", "{y*250}", "{y*1023}", "{y*2048}", "{y*5000}", "{y*16383}", "{y*70000}")
HUGE = ("{y*400000}", "{y*1048000}", "{y*1048600}", "{y*1100000}")
UNIQUES = ("0", "1000000000007", "18446744073709551615")
OPAQUES = ("O1", "Oabc", "O{o*31}", "O{o*32}", "O")
ENDS = ("\\r\\n",) * 12 + ("\\n", " \\r\\n", "  \\r\\n")
GAPS = (" ",) * 12 + ("  ", "   ")

READS = {"get", "gets", "gat", "gats", "mg", "me"}
COUNTS = {"incr", "decr", "ma"}
NAMED = re.compile(r"\{(?:b64:\{)?([a-z])[:}]")

NOBODY = Scope("", lambda: 0)  # for texts without keys and variables

Write = list[str]


class Maker:
    """Makes one stream; `seen` are the keys whose uniques it has read."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.seen: set[str] = set()

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def key(self) -> str:
        """A key: few of them, so that commands meet; seldom one at the limit of length or with odd bytes."""
        roll = self.random.random()
        if roll < 0.93:
            return "{" + self.random.choice(KEYS) + "}"
        return self.pick("{e:251}", *ODD_KEYS, *ODD_KEYS)

    def unique(self, key: str) -> str:
        """A unique for a key: the one last read, an older one, one far off, or none that exists."""
        name = key.strip("{}").upper()
        if name in self.seen and self.random.random() < 0.85:
            return "{" + self.pick("C", "C", "C", "O") + name + "}"
        return self.random.choice(UNIQUES)

    def value(self) -> str:
        """Data: numbers, words, runs around the sizes that matter; seldom large."""
        roll = self.random.random()
        if roll < 0.45:
            return self.random.choice(NUMBERS)
        if roll < 0.85:
            return self.random.choice(WORDS)
        return self.random.choice(RUNS) if roll < 0.995 else self.random.choice(HUGE)

    def fitting(self, key: str) -> str:
        """A value for a key; a short one for a key that is refused, as older servers take the data for a line."""
        return "hello" if "251" in key else self.value()

    def line(self, *words: str) -> str:
        """A command line, with the odd run of spaces and bare LF."""
        text = words[0]
        for word in words[1:]:
            if word:
                text += self.random.choice(GAPS) + word
        return text + self.random.choice(ENDS)

    def data(self, value: str) -> str:
        """A data block; now and then its end is not CR LF, or it is too long."""
        roll = self.random.random()
        if roll < 0.97:
            return value + "\\r\\n"
        return value + self.pick("\\n\\r", "xbogus\\r\\n", "bogus\\r\\n", "\\r\\nbogus\\r\\n")

    def noreply(self) -> str:
        return self.pick("", "", "", "", "noreply")

    # the classic commands

    def store(self) -> str:
        verb = self.pick("set", "set", "set", "add", "replace", "append", "prepend", "cas")
        key = self.key()
        value = self.fitting(key)
        unique = self.unique(key) if verb == "cas" else ""
        flags, ttl = self.random.choice(FLAGS), self.random.choice(TTLS)
        size = str(length(value))
        if self.random.random() < 0.02:
            return self.line(verb, key, flags, ttl, self.pick("-1", "abc", "1x", "4294967296x"), unique, self.noreply())
        return self.line(verb, key, flags, ttl, size, unique, self.noreply()) + self.data(value)

    def retrieve(self) -> str:
        verb = self.pick("get", "get", "gets", "gat", "gats")
        # memcached 1.6.18 forgets replies not yet sent when a key is too long: cases look at that, streams do not
        keys = [self.key().replace("{e:251}", "{e:250}") for _ in range(self.random.choice((1, 1, 1, 2, 3, 8)))]
        return self.line(verb, *([self.random.choice(TTLS)] if verb.startswith("gat") else []), *keys)

    def count(self) -> str:
        delta = self.random.choice(DELTAS) if self.random.random() < 0.97 else self.random.choice(BAD_NUMBERS)
        return self.line(self.pick("incr", "decr"), self.key(), delta or "x", self.noreply())

    def remove(self) -> str:
        return self.line("delete", self.key(), self.pick("", "", "", "0"), self.noreply())

    def touch(self) -> str:
        ttl = self.random.choice(TTLS) if self.random.random() < 0.95 else self.pick("abc", "1x")
        return self.line("touch", self.key(), ttl, self.noreply())

    # the meta commands

    def flags(self, *choices: str) -> list[str]:
        """Some of the flags, in any order; seldom one twice, or one that does not exist."""
        count = self.random.randrange(0, min(6, len(choices)) + 1)
        picked = self.random.sample(choices, count)
        if self.random.random() < 0.02:
            picked.append(self.pick("z", "Z", *(picked or ["s"])))
        return picked

    def common(self) -> tuple[str, ...]:
        return ("k", "q", self.random.choice(OPAQUES))

    def ttl(self, letter: str) -> str:
        return letter + (self.random.choice(TTLS) if self.random.random() < 0.97 else self.pick("", "abc", "1x"))

    def keyed(self, verb: str, *words: str) -> str:
        """A meta line; sometimes its key is in base64."""
        key = self.key()
        if self.random.random() < 0.1:
            return self.line(verb, "{b64:" + key + "}", *words, "b")
        return self.line(verb, key, *words)

    def meta_get(self) -> str:
        flags = ("v", "v", "s", "t", "f", "c", "l", "h", "u", self.ttl("T"), "N" + self.pick("0", "100", "60"))
        return self.keyed("mg", *unrepeated(self.flags(*flags, "R" + self.pick("30", "200", "0"), *self.common())))

    def meta_set(self) -> str:
        key = self.key()
        value = self.fitting(key)
        flags = [self.ttl("T"), "F" + self.random.choice(FLAGS), "M" + self.pick("S", "E", "A", "P", "R"), "c",
                 *self.common()]  # fmt: skip
        if self.random.random() < 0.4:
            flags += ["C" + self.unique(key)] * 2 + ["I"]
        size = str(length(value))
        return self.line("ms", key, size, *unrepeated(self.flags(*flags))) + self.data(value)

    def meta_delete(self) -> str:
        key = self.key()
        flags = ["I", "I", self.ttl("T"), *self.common()]
        if self.random.random() < 0.3:
            flags.append("C" + self.unique(key))
        return self.line("md", key, *unrepeated(self.flags(*flags)))

    def meta_count(self) -> str:
        key = self.key()
        flags = ["v", "v", "t", "c", "D" + self.random.choice(DELTAS), "M" + self.pick("I", "D", "+", "-"), "N100", "N0",
                 "J" + self.random.choice(NUMBERS[:9]), self.ttl("T"), *self.common()]  # fmt: skip
        if self.random.random() < 0.2:
            flags.append("C" + self.unique(key))
        return self.line("ma", key, *unrepeated(self.flags(*flags)))

    def oddity(self) -> str:
        """Whatever else may stand in a stream."""
        return self.pick(
            "bogus\\r\\n", "mn\\r\\n", "version  \\r\\n", "GET {a}\\r\\n", "get\\t{a}\\r\\n", "verbosity 0\\r\\n",
            "flush_all\\r\\n", "flush_all 0 noreply\\r\\n", "flush_all -1\\r\\n", "flush_all abc\\r\\n", "stats noreply\\r\\n",
            "mn x y\\r\\n", "touch {a} 0 norepl\\r\\n", "mg {a} +\\r\\n", "stats foo\\r\\n", "cache_memlimit abc\\r\\n",
            "mg {a} s s\\r\\n", "me {a}\\r\\n", "me {b}\\r\\n", "lru foo\\r\\n", "slabs x\\r\\n", "mg\\r\\n", "incr {a}\\r\\n",
            "bogus noreply\\r\\n", "quit\\r\\n", "POST / HTTP/1.0\\r\\n",
        )  # fmt: skip

    # sequences that reach deeper

    def learn(self, writes: list[Write], name: str) -> None:
        """Reads a key's unique, in a write of its own."""
        writes.append([f"mg {{{name}}} c\\r\\n"])
        self.seen.add(name.upper())

    def lease(self, name: str) -> list[str]:
        """What happens around a lease or a stale item, in any order."""
        key = "{" + name + "}"
        unique = self.unique(key)
        return [
            self.pick(
                f"mg {key} N100 v t\\r\\n", f"mg {key} N100 v s k\\r\\n", f"mg {key} R200 v t\\r\\n",
                f"mg {key} v f\\r\\n", f"mg {key} h t v\\r\\n", f"gat 100 {key}\\r\\n", f"touch {key} 100\\r\\n",
                f"md {key} I\\r\\n", f"md {key} I T100\\r\\n", f"md {key} I q\\r\\n", f"delete {key}\\r\\n",
                f"ms {key} 2 C{unique}\\r\\nhi\\r\\n", f"ms {key} 3 C{unique} I T50000\\r\\nnew\\r\\n",
                f"ms {key} 1 T100\\r\\n5\\r\\n", f"ms {key} 2 C{unique} MR c\\r\\nhi\\r\\n", f"incr {key} 1\\r\\n",
                f"append {key} 0 0 1\\r\\n1\\r\\n", f"cas {key} 0 0 1 {unique}\\r\\n7\\r\\n", f"ma {key} N100 J5 v\\r\\n",
            )
            for _ in range(self.random.randrange(1, 4))
        ]  # fmt: skip

    def width(self, name: str) -> list[str]:
        """Numbers that change their width, in place or not."""
        key = "{" + name + "}"
        number = self.random.choice(NUMBERS)
        return [
            f"set {key} {self.random.choice(FLAGS)} {self.pick('0', '100')} {len(number)}\\r\\n{number}\\r\\n",
            *(self.pick(f"incr {key} {self.random.choice(DELTAS)}\\r\\n", f"decr {key} {self.random.choice(DELTAS)}\\r\\n",
                        f"ma {key} v MD D{self.random.choice(DELTAS)}\\r\\n", f"gets {key}\\r\\n", f"mg {key} v t f c\\r\\n",
                        f"append {key} 0 0 1\\r\\n0\\r\\n") for _ in range(self.random.randrange(1, 5))),
        ]  # fmt: skip

    def command(self) -> list[str]:
        """One command, or a few that belong together."""
        roll = self.random.random()
        if roll < 0.12:
            return self.lease(self.random.choice(KEYS))
        if roll < 0.2:
            return self.width(self.random.choice(KEYS))
        if roll < 0.215:
            return [self.oddity()]
        makers = (self.store, self.store, self.retrieve, self.count, self.remove, self.touch, self.meta_get, self.meta_get,
                  self.meta_set, self.meta_set, self.meta_delete, self.meta_count)  # fmt: skip
        return [self.random.choice(makers)()]


def unrepeated(flags: list[str]) -> list[str]:
    """Flags without those whose letter came before, except that the last may repeat (a fault on purpose)."""
    kept: list[str] = []
    for flag in flags:
        if all(flag[0] != other[0] for other in kept):
            kept.append(flag)
    return kept


def length(value: str) -> int:
    """The bytes of a value in the notation of cases (literals and runs only)."""
    return len(parse(value).render(NOBODY))


def stream(random: Random) -> list[Write]:
    """One stream: writes of one or more commands."""
    maker = Maker(random)
    writes: list[Write] = []
    for _ in range(random.randrange(3, 25)):
        if random.random() < 0.25:
            maker.learn(writes, random.choice(KEYS))
            continue
        commands: list[str] = []
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            commands += maker.command()
        writes += parted(commands)
    return writes


def parted(commands: list[str]) -> list[Write]:
    """Commands in as few writes as can be, with a break before a count on a key that was read in the same write.

    memcached counts in place only while no reply still holds the item, which depends on what was read and sent when.
    """
    writes: list[Write] = [[]]
    read: set[str] = set()
    for command in commands:
        keys = set(NAMED.findall(command))
        verb = command.split(" ")[0]
        if (verb in COUNTS and keys & read) or verb == "POST":  # nor is it sure what is still sent before a close
            writes.append([])
            read.clear()
        if verb in READS:
            read |= keys
        writes[-1].append(command)
    return writes
