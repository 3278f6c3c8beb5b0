"""The text of an entry in the invalidation log. Pure: bytes to changes and back; it knows neither queue nor ZooKeeper.

    MI1 <name> <flags>        the writer's member name; flag 1: the writer waits until every peer has applied the entry
    MI2 <name> <flags>        the same; flag 2: what follows the first line is compressed (zlib)
    d KEY    b BASE64KEY      delete
    s TTL KEY                 mark stale for TTL seconds      t TTL BASE64KEY
    F [DELAY]                 flush all, now or DELAY seconds after the entry is applied
    P PREFIX                  flush a prefix
    R TTL [PREFIX]            mark a prefix stale (without a prefix: everything)

A reader that meets another format, another line, or a field out of its range (a key of 1 to 250 bytes, raw only without
blanks and control bytes; seconds of 32 bits) flushes everything, once: that is always safe, and lets the format grow.
Which format is written the log's meta record says (layout.py): the highest that every member reads.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from .ports import Change

NEWEST = 2  # the highest format that this release reads and writes
NEED_ACK = 1
COMPRESSED = 2
WORTH = 200  # bytes of lines from which on compressing is worth its while
TEXT_MAX = 1 << 18  # bytes of lines; ours have 64 KiB at most
FLUSH = b"F"
KEY_MAX = 250  # that of mcserver.keys: the machines know nothing of the server around them
TTL_MAX = (1 << 31) - 1
_UNSAFE = re.compile(rb"[\x00-\x20\x7f]")
_NUMBER = re.compile(rb"-?[0-9]{1,10}")
_HEAD = re.compile(rb"MI([12]) ([A-Za-z0-9._-]{1,200}) ([0-9]{1,3})")


class Entry(NamedTuple):
    """What one entry says; `changes` in the order of the text."""

    name: str
    need_ack: bool
    changes: list[Change]


def line(change: Change) -> bytes:
    """One change as a line. ValueError for what no reader would take: a kind, a key or prefix, or seconds out of range."""
    kind, key, ttl = change
    unsafe = _UNSAFE.search(key)
    if len(key) > KEY_MAX or (kind in ("stale", "flush", "refresh") and not -1 <= ttl <= TTL_MAX):
        raise ValueError(f"not a key or prefix, or not seconds, of memcached's: {key[:300]!r} {ttl}")
    if kind in ("delete", "stale") and not key:
        raise ValueError("a key must not be empty: it is no prefix")
    if kind == "delete":
        return b"b " + base64.b64encode(key) if unsafe else b"d " + key
    if kind == "stale":
        return b"t %d %s" % (ttl, base64.b64encode(key)) if unsafe else b"s %d %s" % (ttl, key)
    if kind == "flush":
        return b"F %d" % ttl if ttl > 0 else FLUSH
    if unsafe:
        raise ValueError(f"not a prefix of keys: {key!r}")
    if kind == "prefix":
        return b"P " + key if key else FLUSH
    if kind == "refresh":
        return (b"R %d %s" % (max(ttl, 0), key)).rstrip()
    raise ValueError(f"unknown kind of change: {kind}")


def encode(name: str, need_ack: bool, lines: Iterable[bytes], form: int = 1) -> bytes:
    """A whole entry from lines made by `line`, in format `form`."""
    text, flags = b"\n".join(lines), NEED_ACK if need_ack else 0
    if form >= 2 and len(text) >= WORTH:
        packed = zlib.compress(text, 1)
        if len(packed) < len(text):
            text, flags = packed, flags | COMPRESSED
    head = b"MI%d %s %d" % (min(form, NEWEST), name.encode(), flags)
    return head + b"\n" + text if text else head


def decode(data: bytes) -> Entry | None:
    """The entry, or None when any of it is not what `encode` writes: then the reader has to flush. Never raises."""
    head, more, text = data.partition(b"\n")
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    flags = int(found[3])
    try:
        if found[1] == b"2" and flags & COMPRESSED:
            text = _unpacked(text)
        lines = text.split(b"\n") if more else []
        return Entry(found[2].decode(), bool(flags & NEED_ACK), [_change(each) for each in lines])
    except (ValueError, binascii.Error, zlib.error):
        return None


def _unpacked(packed: bytes) -> bytes:
    """ValueError for what is too large, or cut short, or followed by something."""
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(packed, TEXT_MAX)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("not one compressed text")
    return text


def _change(text: bytes) -> Change:
    """ValueError for a line that `line` does not write."""
    verb, _, rest = text.partition(b" ")
    if verb == b"d":
        return Change("delete", _key(rest))
    if verb == b"b":
        return Change("delete", _coded(rest))
    if verb == b"F":
        return Change("flush", b"", _seconds(rest, 1) if rest else 0)
    if verb == b"P":
        return Change("prefix", _key(rest))
    ttl, _, key = rest.partition(b" ")
    if verb == b"s":
        return Change("stale", _key(key), _seconds(ttl, -1))
    if verb == b"t":
        return Change("stale", _coded(key), _seconds(ttl, -1))
    if verb == b"R":
        return Change("refresh", _key(key) if key else b"", _seconds(ttl, 0))
    raise ValueError(text)


def _key(text: bytes) -> bytes:
    if not 0 < len(text) <= KEY_MAX or _UNSAFE.search(text):
        raise ValueError(text)
    return text


def _coded(text: bytes) -> bytes:
    key = base64.b64decode(text, validate=True)
    if not 0 < len(key) <= KEY_MAX:
        raise ValueError(text)
    return key


def _seconds(text: bytes, least: int) -> int:
    """Decimal digits with an optional minus: int() alone would take blanks, underscores and any length."""
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= TTL_MAX:
        raise ValueError(text)
    return int(text)
