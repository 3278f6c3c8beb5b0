"""`lru tune|mode|temp_ttl`: the segmented LRU's shape, while the server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.words import decimal, is_word, signed, two_places, unsigned
from mcserver.core import ERROR, OK

if TYPE_CHECKING:
    from mcserver.core import Session


def lru(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`mode` and `temp_ttl` need the LRU maintainer, as in memcached."""
    if len(words) >= 6 and is_word(words[1], b"tune"):
        return _tune(context, words[2:6])
    if len(words) >= 3 and context.config.lru_maintainer_thread:
        if is_word(words[1], b"mode"):
            return _mode(context, words[2])
        if is_word(words[1], b"temp_ttl"):
            return _temporary_ttl(context, words[2])
    return ERROR


def _tune(context: Context, words: list[bytes]) -> Reply:
    hot, warm = unsigned(words[0]), unsigned(words[1])
    hot_factor, warm_factor = decimal(words[2]), decimal(words[3])
    if hot is None or warm is None or hot_factor is None or warm_factor is None:
        return ERROR
    if hot + warm > 80:
        return b"ERROR hot and warm pcts must not exceed 80\r\n"
    if hot_factor <= 0 or warm_factor <= 0:
        return b"ERROR hot/warm age factors must be greater than 0\r\n"
    context.engine.tune_lru(hot, warm, hot_factor, warm_factor)
    context.settings.update(
        hot_lru_pct=hot,
        warm_lru_pct=warm,
        hot_max_factor=two_places(hot_factor),
        warm_max_factor=two_places(warm_factor),
    )
    return OK


def _mode(context: Context, mode: bytes) -> Reply:
    if is_word(mode, b"flat"):
        segmented = False
    elif is_word(mode, b"segmented"):
        segmented = True
    else:
        return ERROR
    context.engine.set_segmented(segmented)
    context.settings["lru_segmented"] = "yes" if segmented else "no"
    return OK


def _temporary_ttl(context: Context, word: bytes) -> Reply:
    ttl = signed(word)
    if ttl is None:
        return ERROR
    context.engine.set_temporary_ttl(ttl)
    context.settings["temp_lru"] = "no" if ttl < 0 else "yes"
    if ttl >= 0:
        context.settings["temporary_ttl"] = ttl
    return OK
