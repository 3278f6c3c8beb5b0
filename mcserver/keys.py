"""How long a key may be, and how keys and other bytes of clients are written where a line, or a terminal, reads them.

Nobody else writes them there.

A key that came base64-encoded may hold any byte. In a reply that is made of lines it must neither end a line nor begin
another field; in a log it must not command a terminal, and a value that somebody gave an option must not fill it.
"""

from __future__ import annotations

import re

KEY_MAX = 250
"""Bytes of a key, as in memcached."""

_BREAKS = re.compile(rb"[\x00\n\r ]")
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"
_ESCAPED = [
    chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in range(256)
]  # urllib's quote; it takes long to load


def plain(key: bytes) -> bytes | None:
    """The key as it is, where it can stand in a line; else None. Text keys may hold tabs and other odd bytes: they stay."""
    return None if _BREAKS.search(key) else key


def escaped(key: bytes) -> str:
    """As in a URI, `a%0Ab`: all but letters, digits and `_.-~` becomes `%XX`."""
    return "".join([_ESCAPED[byte] for byte in key])


def plain_or_escaped(key: bytes) -> bytes:
    """As it is where that is safe, else escaped."""
    return escaped(key).encode() if plain(key) is None else key


def printable(text: bytes) -> str:
    """For a log: UTF-8 as it is, and whatever can't be printed as Python escapes it."""
    return printable_text(text.decode("utf-8", "backslashreplace"))


def printable_text(line: str) -> str:
    """The same for what is text already."""
    if line.isprintable():
        return line
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in line])


SAID_MOST = 2000
"""Characters of a sentence to a person. Longer is only one that repeats what it was given."""


def bounded(sentence: str) -> str:
    """A sentence as it is; of one that is too long the middle is left out."""
    if len(sentence) <= SAID_MOST:
        return sentence
    return f"{sentence[: SAID_MOST // 2]} [...] {sentence[-SAID_MOST // 2 :]}"


def said(sentence: str) -> str:
    """For a log or a terminal: printable, in one line, and bounded."""
    return bounded(printable_text(bounded(sentence)))
