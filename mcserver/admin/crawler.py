"""`lru_crawler ...`: reclaiming expired items by hand, and the two dumps of all keys. The engine walks; this spells."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.words import CLASS_MOST, is_word, unsigned
from mcserver.core import BAD_FORMAT, END, ERROR, OK, strtoul32
from mcserver.keys import escaped, plain

if TYPE_CHECKING:
    from mcserver.core import ItemInfo, Session

CLASSES_MOST = 511
"""Bytes of a list of classes; memcached leaves out what follows."""

ITEMS_A_PIECE = 64
"""With keys of 250 bytes, all escaped, a piece of a dump stays under 64 KiB."""

_DISABLED = b"CLIENT_ERROR lru crawler disabled\r\n"


def lru_crawler(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`lru_crawler ...`: a pass, the background's switches, and dumps of keys."""
    if len(words) == 3:
        for word, command in _WITH_ARGUMENT.items():
            if is_word(words[1], word):
                return command(context, session, words[2])
    elif len(words) == 2:
        if is_word(words[1], b"enable"):
            return _enable(context)
        if is_word(words[1], b"disable"):
            context.engine.crawler_enabled = False
            context.settings["lru_crawler"] = "no"
            return OK
    return ERROR


def _enable(context: Context) -> Reply:
    if context.engine.crawler_enabled:
        return b"ERROR failed to start lru crawler thread\r\n"
    context.engine.crawler_enabled = True
    context.settings["lru_crawler"] = "yes"
    return OK


def _crawl(context: Context, session: Session, word: bytes) -> Reply:
    if not context.engine.crawler_enabled:
        return _DISABLED
    if c_string(word) == b"hash":
        return b"ERROR an unknown error happened\r\n"
    classes = parse_classes(word)
    if isinstance(classes, bytes):
        return classes
    limit = context.settings["lru_crawler_tocrawl"]
    assert isinstance(limit, int)
    return OK if context.engine.crawl(classes, limit) else b"BUSY currently processing crawler request\r\n"


def _tocrawl(context: Context, session: Session, word: bytes) -> Reply:
    limit = unsigned(word)
    if limit is None:
        return BAD_FORMAT
    context.settings["lru_crawler_tocrawl"] = limit
    return OK


def _sleep(context: Context, session: Session, word: bytes) -> Reply:
    """Kept and shown, without effect: the crawler works in slices on the event loop and never sleeps between items."""
    microseconds = unsigned(word)
    if microseconds is None:
        return BAD_FORMAT
    if microseconds > 1_000_000:
        return b"CLIENT_ERROR sleep must be one second or less\r\n"
    context.settings["lru_crawler_sleep"] = microseconds
    return OK


def _metadump(context: Context, session: Session, word: bytes) -> Reply:
    return _dump(context, session, word, b"metadump", b"ERROR metadump not allowed\r\n", metadump_line, END)


def _mgdump(context: Context, session: Session, word: bytes) -> Reply:
    return _dump(context, session, word, b"mgdump", b"ERROR key dump not allowed\r\n", mgdump_line, b"EN\r\n")


_WITH_ARGUMENT: dict[bytes, Callable[[Context, Session, bytes], Reply]] = {
    b"crawl": _crawl,
    b"metadump": _metadump,
    b"mgdump": _mgdump,
    b"tocrawl": _tocrawl,
    b"sleep": _sleep,
}


def _dump(
    context: Context,
    session: Session,
    word: bytes,
    name: bytes,
    forbidden: bytes,
    spell: Callable[[ItemInfo], bytes],
    end: bytes,
) -> Reply:
    if not context.engine.crawler_enabled:
        return _DISABLED
    if not context.config.dump_enabled:
        return forbidden
    if session.unsent:
        return b"ERROR cannot pipeline other commands before " + name + b"\r\n"
    classes = None if c_string(word) == b"hash" else parse_classes(word)
    if isinstance(classes, bytes):
        return classes
    return _pieces(context.engine.walk(classes, ITEMS_A_PIECE), spell, end)


def _pieces(slices: Iterator[list[ItemInfo]], spell: Callable[[ItemInfo], bytes], end: bytes) -> Iterator[bytes]:
    yield OK
    for items in slices:
        yield b"".join(map(spell, items))
    yield end


def c_string(word: bytes) -> bytes:
    """What memcached sees of it."""
    return word[:CLASSES_MOST].partition(b"\0")[0]


def parse_classes(word: bytes) -> set[int] | bytes | None:
    """None for `all`, the slab classes of `1,2,5`, each as C's strtoul takes it, or the reply to what is neither."""
    word = c_string(word)
    if word == b"all":
        return None
    classes = set()
    for part in word.split(b","):
        if part:
            number = strtoul32(part)
            if number is None or not 1 <= number <= CLASS_MOST:
                return b"BADCLASS invalid class id\r\n"
            classes.add(number)
    return classes or b"NOTSTARTED no items to crawl\r\n"


def metadump_line(item: ItemInfo) -> bytes:
    """The line of a metadump: escaped key, a space before the line feed, no carriage return."""
    return (
        f"key={escaped(item.key)} exp={item.exptime} la={item.last_access} cas={item.cas} "
        f"fetch={'yes' if item.fetched else 'no'} cls={item.cls} size={item.size} flags={item.flags} \n"
    ).encode()


def mgdump_line(item: ItemInfo) -> bytes:
    """A meta get that can be sent back as it is."""
    if item.binary or plain(item.key) is None:
        return b"mg " + b64encode(item.key) + b" b\r\n"
    return b"mg " + item.key + b"\r\n"
