"""How keys and other bytes of clients are written where a line, or a terminal, reads them. Nobody else writes them there.

A key that came base64-encoded may hold any byte. In a reply that is made of lines it must neither end a line nor begin
another field; in a log it must not command a terminal.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

_BREAKS = re.compile(rb"[\x00\n\r ]")


def plain(key: bytes) -> bytes | None:
    """The key as it is, where it can stand in a line; else None. Text keys may hold tabs and other odd bytes: they stay."""
    return None if _BREAKS.search(key) else key


def escaped(key: bytes) -> str:
    """As in a URI, `a%0Ab`: all but letters, digits and `_.-~` becomes `%XX`."""
    return quote_from_bytes(key, safe="")


def plain_or_escaped(key: bytes) -> bytes:
    """As it is where that is safe, else escaped."""
    return escaped(key).encode() if plain(key) is None else key


def printable(text: bytes) -> str:
    """For a log: UTF-8 as it is, and whatever can't be printed as Python escapes it."""
    line = text.decode("utf-8", "backslashreplace")
    if line.isprintable():
        return line
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in line])
