"""`watch`: makes the asking connection a watcher. What it is then sent, and when, is watchers.py's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.watchers import FETCHERS, KINDS
from mcserver.admin.words import is_word
from mcserver.core import ERROR, OK

if TYPE_CHECKING:
    from mcserver.core import Session


def watch(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`watch [WHAT ...]`: fetchers, when nothing is named. Any line before it on the connection must have been answered."""
    if not context.config.watch_enabled:
        return b"CLIENT_ERROR watch commands not allowed\r\n"
    if session.unsent:
        return b"ERROR cannot pipeline other commands before watch\r\n"
    mask = 0 if len(words) > 1 else FETCHERS
    for word in words[1:]:
        kind = next((bits for name, bits in KINDS.items() if is_word(word, name)), None)
        if kind is None:
            return ERROR
        mask |= kind
    if not context.watchers.add(session, mask):
        return b"WATCHER_TOO_MANY log watcher limit reached\r\n"
    session.watch()
    return OK
