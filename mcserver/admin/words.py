"""The words of a cold command: how they compare, how their numbers parse, and how a statistic is spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

UINT32_MAX = (1 << 32) - 1
INT32_MAX = (1 << 31) - 1

_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_word(given: bytes, word: bytes) -> bool:
    """Whether the word was meant: any beginning of it will do (`lru m flat`), as memcached's strncmp has it."""
    return word.startswith(given)


def unsigned(token: bytes) -> int | None:
    """Digits only, at most 11 of them, up to 2^32 - 1; else None."""
    if not token.isdigit() or len(token) > 11:
        return None
    number = int(token)
    return number if number <= UINT32_MAX else None


def signed(token: bytes) -> int | None:
    """Digits with an optional minus, at most 11 characters, a 32-bit integer; else None."""
    digits = token.removeprefix(b"-")
    if not digits.isdigit() or len(token) > 11:
        return None
    number = int(token)
    return number if -INT32_MAX - 1 <= number <= INT32_MAX else None


def decimal(token: bytes) -> float | None:
    """A decimal number with an optional fraction and exponent; else None."""
    return float(token) if _DECIMAL.fullmatch(token) else None


LINES_A_PIECE = 200
"""Of a reply that can be long: other clients get their turn in between. With the longest lines it stays under 64 KiB."""

WRITE_MOST = 32 << 10
"""Bytes of such a reply that go out in one write, as memcached's do: there are clients that read once and expect END."""


def pieces(lines: Iterable[bytes]) -> bytes | Iterator[bytes]:
    """The lines, and END: as one reply where they are few, else piece by piece. An empty piece is a turn given up."""
    iterator = iter(lines)
    first = b"".join(islice(iterator, LINES_A_PIECE))
    following = list(islice(iterator, 1))
    if not following:
        return first + b"END\r\n"
    return _rest(first, chain(following, iterator))


def _rest(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    gathered = first
    while piece := list(islice(lines, LINES_A_PIECE)):
        yield b""
        text = b"".join(piece)
        if len(gathered) + len(text) > WRITE_MOST:
            yield gathered
            gathered = b""
        gathered += text
    yield gathered + b"END\r\n"


def stat_pieces(stats: Iterable[tuple[str, object]]) -> bytes | Iterator[bytes]:
    """`STAT key value` for each, and END, in pieces."""
    return pieces(f"STAT {key} {value}\r\n".encode() for key, value in stats)


def stat_lines(stats: Iterable[tuple[str, object]], prefix: str = "") -> bytes:
    """`STAT key value` for each, and END. An empty value would break parsers, so it must not occur."""
    lines = [f"STAT {prefix}{key} {value}\r\n" for key, value in stats]
    return "".join(lines).encode() + b"END\r\n"
