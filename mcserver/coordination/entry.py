"""The text of an entry in the invalidation log. Pure: bytes to changes and back; it knows neither queue nor ZooKeeper.

    MI1 <name> <flags>        the writer's member name; flag 1: the writer waits until every peer has applied the entry
    d KEY    b BASE64KEY      delete
    s TTL KEY                 mark stale for TTL seconds      t TTL BASE64KEY
    F [DELAY]                 flush all, now or DELAY seconds after the entry is applied
    P PREFIX                  flush a prefix
    R TTL [PREFIX]            mark a prefix stale (without a prefix: everything)

A reader that meets another format or another line flushes everything: that is always safe, and lets the format grow.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

from .ports import Change

FORMAT = b"MI1"
NEED_ACK = 1
FLUSH = b"F"
_UNSAFE = re.compile(rb"[\x00-\x20\x7f]")


class Entry(NamedTuple):
    """What one entry says; `changes` in the order of the text."""

    name: str
    need_ack: bool
    changes: list[Change]


def line(change: Change) -> bytes:
    """One change as a line. ValueError for an unknown kind, or for a prefix with blanks or control characters."""
    kind, key, ttl = change
    unsafe = _UNSAFE.search(key)
    if kind == "delete":
        return b"b " + base64.b64encode(key) if unsafe or not key else b"d " + key
    if kind == "stale":
        return b"t %d %s" % (ttl, base64.b64encode(key)) if unsafe or not key else b"s %d %s" % (ttl, key)
    if kind == "flush":
        return b"F %d" % ttl if ttl > 0 else FLUSH
    if unsafe:
        raise ValueError(f"not a prefix of keys: {key!r}")
    if kind == "prefix":
        return b"P " + key if key else FLUSH
    if kind == "refresh":
        return (b"R %d %s" % (ttl, key)).rstrip()
    raise ValueError(f"unknown kind of change: {kind}")


def encode(name: str, need_ack: bool, lines: Iterable[bytes]) -> bytes:
    """A whole entry from lines made by `line`."""
    return b"\n".join((b"%s %s %d" % (FORMAT, name.encode(), NEED_ACK if need_ack else 0), *lines))


def decode(data: bytes) -> Entry | None:
    """The entry, or None when any of it is unknown: then the reader has to flush."""
    head, *lines = data.split(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != FORMAT:
        return None
    try:
        return Entry(words[1].decode(), bool(int(words[2]) & NEED_ACK), [_change(text) for text in lines])
    except (ValueError, binascii.Error):
        return None


def _change(text: bytes) -> Change:
    if text[:2] == b"d ":
        return Change("delete", text[2:])
    verb, _, rest = text.partition(b" ")
    if verb == b"F":
        return Change("flush", b"", int(rest) if rest else 0)
    if verb == b"b":
        return Change("delete", base64.b64decode(rest, validate=True))
    if verb == b"P" and rest:
        return Change("prefix", rest)
    ttl, _, key = rest.partition(b" ")
    if verb == b"s" and key:
        return Change("stale", key, int(ttl))
    if verb == b"t":
        return Change("stale", base64.b64decode(key, validate=True), int(ttl))
    if verb == b"R":
        return Change("refresh", key, int(ttl))
    raise ValueError(text)
