"""The words of a cold command: how they compare, how their numbers parse, and how a statistic is spelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import copysign, isnan

from mcserver.core import strtod

UINT32_MAX = (1 << 32) - 1
INT32_MAX = (1 << 31) - 1
CLASS_MOST = 63
"""The greatest number of a slab class that can be named."""

DECIMAL_MOST = 31
"""Characters of a decimal number that memcached has room for."""


def is_word(given: bytes, word: bytes) -> bool:
    """Whether the word was meant: any beginning (`lru m flat`), or all of it and a NUL, as memcached's strncmp has it."""
    return word.startswith(given) or given.startswith(word + b"\0")


def unsigned(token: bytes) -> int | None:
    """Digits only, at most 11 of them, up to 2^32 - 1; else None."""
    if not token.isdigit() or len(token) > 11:
        return None
    number = int(token)
    return number if number <= UINT32_MAX else None


def signed(token: bytes) -> int | None:
    """Digits with an optional minus, at most 11 characters, a 32-bit integer; else None. A minus alone is 0, as in memcached."""
    digits = token.removeprefix(b"-")
    if token == b"-":
        return 0
    if not digits.isdigit() or len(token) > 11:
        return None
    number = int(token)
    return number if -INT32_MAX - 1 <= number <= INT32_MAX else None


def decimal(token: bytes) -> float | None:
    """What C takes for a double: a fraction, an exponent, hexadecimal digits, infinity and nan, too; else None."""
    return strtod(token) if len(token) <= DECIMAL_MOST else None


def two_places(number: float) -> str:
    """As C's `%.2f`, which shows the sign of what is no number."""
    return "-nan" if isnan(number) and copysign(1, number) < 0 else f"{number:.2f}"


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
