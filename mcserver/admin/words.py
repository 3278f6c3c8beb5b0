"""The words of a cold command: how they compare, how their numbers parse, and how a statistic is spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def stat_lines(stats: Iterable[tuple[str, object]], prefix: str = "") -> bytes:
    """`STAT key value` for each, and END. An empty value would break parsers, so it must not occur."""
    lines = [f"STAT {prefix}{key} {value}\r\n" for key, value in stats]
    return "".join(lines).encode() + b"END\r\n"
