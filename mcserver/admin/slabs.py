"""`slabs reassign|automove`: memory pages that move from one slab class to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.words import decimal, is_word, signed, two_places, unsigned
from mcserver.core import BAD_FORMAT, ERROR, OK

if TYPE_CHECKING:
    from mcserver.core import Session

_REASSIGN_REPLIES = {
    "OK": OK,
    "BUSY": b"BUSY currently processing reassign request\r\n",
    "BADCLASS": b"BADCLASS invalid src or dst class id\r\n",
    "NOSPARE": b"NOSPARE source class has no spare pages\r\n",
    "SAME": b"SAME src and dst class are identical\r\n",
}


def slabs(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`slabs reassign SOURCE TAKER` and `slabs automove ...`."""
    if len(words) == 4 and is_word(words[1], b"reassign"):
        return _reassign(context, words[2], words[3])
    if len(words) >= 3 and is_word(words[1], b"automove"):
        return _automove(context, words[2:])
    return ERROR


def _reassign(context: Context, source: bytes, destination: bytes) -> Reply:
    if not context.config.slab_reassign:
        return b"CLIENT_ERROR slab reassignment disabled\r\n"
    src, dst = signed(source), signed(destination)
    if src is None or dst is None:
        return BAD_FORMAT
    return _REASSIGN_REPLIES[context.engine.reassign_page(src, dst)]


def _automove(context: Context, words: list[bytes]) -> Reply:
    for name in ("ratio", "freeratio"):
        if is_word(words[0], name.encode()):
            ratio = decimal(words[1]) if len(words) > 1 else None
            if ratio is None:
                return ERROR
            if name == "ratio":  # `stats settings` shows the other one only with external storage
                context.settings["slab_automove_ratio"] = two_places(ratio)
            return OK
    if is_word(words[0], b"window"):
        window = unsigned(words[1]) if len(words) > 1 else None
        if window is None:
            return BAD_FORMAT
        if not 3 <= window <= 1800:
            return b"CLIENT_ERROR automove window too low or too high\r\n"
        context.settings["slab_automove_window"] = window
        return OK
    level = unsigned(words[0])
    if level is None:
        return BAD_FORMAT
    if level > 2:
        return ERROR
    context.engine.automove = level
    context.settings["slab_automove"] = level
    return OK
