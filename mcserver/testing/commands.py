"""What clients sent, command by command: finding where one ends, and remembering it. It answers nothing and changes nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import overload

LINE_BYTES = 1 << 20
"""A line that is longer than this without an end is handed on as it comes, and not remembered."""
VALUE_BYTES = 1 << 30
REMEMBERED = 10_000
"""Commands that are kept; the oldest are forgotten."""
WITH_VALUE = {"set": 4, "add": 4, "replace": 4, "append": 4, "prepend": 4, "cas": 4, "ms": 2}
"""Verbs that a value follows, and the word that holds its length."""
MANY_KEYS = {"get": 1, "gets": 1, "gat": 2, "gats": 2}
"""Verbs with many keys, and the word at which they begin."""
ONE_KEY = ("delete", "incr", "decr", "touch", "mg", "md", "ma", "me", *WITH_VALUE)
BINARY = 0x80
BINARY_HEADER = 24
OPCODES = (
    "get", "set", "add", "replace", "delete", "incr", "decr", "quit", "flush_all", "getq", "noop", "version", "getk", "getkq",
    "append", "prepend", "stats", "setq", "addq", "replaceq", "deleteq", "incrq", "decrq", "quitq", "flush_allq", "appendq",
    "prependq", "verbosity", "touch", "gat", "gatq", "", "sasl_list_mechs", "sasl_auth", "sasl_step",
)  # fmt: skip
"""Names of the binary protocol's commands, by their numbers."""
VERBS = frozenset((
    *MANY_KEYS, *ONE_KEY, *filter(None, OPCODES), "mn", "cache_memlimit", "cluster", "config", "debugtime", "extstore",
    "lru", "lru_crawler", "refresh_certs", "shutdown", "slabs", "watch",
))  # fmt: skip
"""All that a command can be named, in the text protocol or the binary one."""


@dataclass(frozen=True)
class Command:
    """One command as it was received.

    verb: as it was written, or the binary protocol's name for it (`getq`); "" for an empty line. keys: none, one or many, each
    byte that is no UTF-8 as a surrogate (`surrogateescape`). line: all of it but the value, without its end. value: None where
    none came. noreply: whether that was its last word.
    """

    verb: str
    keys: tuple[str, ...]
    line: bytes
    value: bytes | None = None
    noreply: bool = False

    def __str__(self) -> str:
        return self.line.decode("utf-8", "surrogateescape")

    def matches(self, verb: str | None, key: str | None) -> bool:
        """Whether it has this verb (None: any) and a key that fits the pattern (`user:*`; None: any, or none)."""
        return (verb is None or verb == self.verb) and (
            key is None or any(fnmatchcase(each, key) for each in self.keys)
        )


class Commands(Sequence[Command]):
    """What was received since the last reset, the oldest first; the last 10,000."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        """before: called before anybody looks: it lets what was sent arrive."""
        self._before = before
        self._commands: deque[Command] = deque(maxlen=REMEMBERED)

    def add(self, command: Command) -> None:
        self._commands.append(command)

    def clear(self) -> None:
        """Forgets all that was sent until now."""
        self._before()
        self.forget()

    def forget(self) -> None:
        """Forgets them all."""
        self._commands.clear()

    def _all(self) -> list[Command]:
        self._before()
        return list(self._commands)

    def of(self, verb: str | None = None, key: str | None = None) -> list[Command]:
        """Those with this verb (None: any) and a key that fits this pattern (`user:*`; None: any, or none), the oldest first.

        Raises ValueError for a verb that nobody has.
        """
        known = self._all()
        if verb is not None and verb not in VERBS and all(each.verb != verb for each in known):
            raise ValueError(f"no command is named {verb!r}: a verb is one of {', '.join(sorted(VERBS))}, or None")
        return [each for each in known if each.matches(verb, key)]

    @overload
    def __getitem__(self, index: int) -> Command: ...
    @overload
    def __getitem__(self, index: slice) -> list[Command]: ...
    def __getitem__(self, index: int | slice) -> Command | list[Command]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Command]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == (list(other) if isinstance(other, Sequence) else other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return f"<Commands {[str(each) for each in self]}>"


class Framing:
    """Cuts a stream of bytes into commands. Whatever comes, all bytes are handed on, in order and unchanged."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._binary: bool | None = None

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def head(self) -> tuple[Command, int, int] | None:
        """Of a command whose value has not come yet: what is known of it, and how many bytes its line and its value take."""
        end = self._buffer.find(b"\n")
        if self._binary is not False or end < 0:
            return None
        command, rest = self._parse(end)
        return command, end + 1, rest

    def take(self, count: int) -> bytes:
        """So many bytes, or those that are there, out of the order of commands."""
        return self._take(min(count, len(self._buffer)))

    def _parse(self, end: int) -> tuple[Command, int]:
        """The command of the line that ends there, without its value, and how long that is with its line end; 0: it has none."""
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        words = line.split()
        verb = words[0].decode("latin-1") if words else ""
        length = _value_length(verb, words)
        command = Command(verb, _keys(verb, words), line, None, bool(words) and words[-1] == b"noreply")
        return command, 0 if length is None else length + 2

    def next(self) -> tuple[bytes, Command | None] | None:
        """The next whole command with its bytes; None as the command: bytes that can't be told apart; None: nothing whole yet."""
        if not self._buffer:
            return None
        if self._binary is None:
            self._binary = self._buffer[0] == BINARY
        if self._binary:
            return self._next_binary()
        end = self._buffer.find(b"\n")
        if end < 0:
            return (self._take(len(self._buffer)), None) if len(self._buffer) > LINE_BYTES else None
        command, rest = self._parse(end)
        if len(self._buffer) < end + 1 + rest:
            return None
        data = self._take(end + 1 + rest)
        return data, replace(command, value=data[end + 1 : -2]) if rest else command

    def _next_binary(self) -> tuple[bytes, Command | None] | None:
        if len(self._buffer) < BINARY_HEADER:
            return None
        nkey, extras = int.from_bytes(self._buffer[2:4], "big"), self._buffer[4]
        total = BINARY_HEADER + int.from_bytes(self._buffer[8:12], "big")
        if self._buffer[0] != BINARY or total > VALUE_BYTES:
            return self._take(len(self._buffer)), None
        if len(self._buffer) < total:
            return None
        data = self._take(total)
        verb = OPCODES[data[1]] if data[1] < len(OPCODES) else f"0x{data[1]:02x}"
        at = BINARY_HEADER + extras
        key = data[at : at + nkey]
        keys = (key.decode("utf-8", "surrogateescape"),) if key else ()
        return data, Command(verb, keys, verb.encode() + (b" " + key if key else b""), data[at + nkey :] or None)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def _value_length(verb: str, words: list[bytes]) -> int | None:
    """How many bytes of value follow this line, their line end aside; None: no value."""
    at = WITH_VALUE.get(verb)
    if at is None or at >= len(words) or not words[at].isdigit() or len(words[at]) > 10:
        return None
    length = int(words[at])
    return length if length <= VALUE_BYTES else None


def _keys(verb: str, words: list[bytes]) -> tuple[str, ...]:
    if verb in MANY_KEYS:
        found = words[MANY_KEYS[verb] :]
    else:
        found = words[1:2] if verb in ONE_KEY else []
    return tuple(key.decode("utf-8", "surrogateescape") for key in found)
