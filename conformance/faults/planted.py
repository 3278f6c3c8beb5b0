"""The kinds of faults, and the list of all of them.

Owns `Fault` and the small functions that faults are made of. A fault changes what passes a proxy: requests on their way
to the server, replies on their way back. The lists by subject are in classic.py, meta.py, service.py and binary.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


class Talk:
    """One connection as a fault sees it: what was asked last, notes, and ways to speak to either side."""

    def __init__(
        self, notes: dict[bytes, bytes], tell: Callable[[bytes], object], say: Callable[[bytes], object]
    ) -> None:
        self.notes = notes
        self.tell = tell  # sends to the server, on this connection
        self.say = say  # sends to the client
        self.request = b""  # the last piece that the client sent
        self.closing = False

    def asked(self, data: bytes) -> None:
        """Notes what was passed on to the server."""
        self.request = data


Change = Callable[[bytes, Talk], bytes]


@dataclass(frozen=True)
class Fault:
    """One thing wrong.

    group: the rule group it breaks. found_by: the cases that must fail. since: the first release whose behaviour it
    breaks. hangup: sent to the server when the client closes.
    """

    id: str
    sentence: str
    group: str
    found_by: tuple[str, ...]
    request: Change | None = None
    reply: Change | None = None
    since: str = ""
    hangup: bytes = b""


def swap(pattern: bytes, by: bytes | Callable[[re.Match[bytes]], bytes]) -> Change:
    """Every match of `pattern` becomes `by`."""
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda data, talk: compiled.sub(by, data)


def after(asked: bytes, pattern: bytes, by: bytes | Callable[[re.Match[bytes]], bytes]) -> Change:
    """As `swap`, in replies to requests that `asked` finds."""
    request, compiled = re.compile(asked, re.MULTILINE), re.compile(pattern, re.MULTILINE)
    return lambda data, talk: compiled.sub(by, data) if request.search(talk.request) else data


def follow(asked: bytes, order: bytes) -> Change:
    """Behind a reply to what `asked` finds, the server is sent `order` (a template for the match), unseen."""
    request = re.compile(asked, re.MULTILINE)

    def change(data: bytes, talk: Talk) -> bytes:
        if found := request.search(talk.request):
            talk.tell(found.expand(order))
        return data

    return change


def drop(pattern: bytes) -> Change:
    """Every match disappears."""
    return swap(pattern, b"")


def without(flag: bytes, verb: bytes) -> Change:
    """Commands of `verb` lose the flag that `flag` finds."""
    line = re.compile(rb"^(?:" + verb + rb") .*$", re.MULTILINE)
    word = re.compile(rb" " + flag + rb"(?=[ \r])")
    return lambda data, talk: line.sub(lambda found: word.sub(b"", found[0]), data)


def number(change: Callable[[int], int]) -> Callable[[re.Match[bytes]], bytes]:
    """For `swap`: group 2 of the match is a number, changed; groups 1 and 3 stay."""
    return lambda found: found[1] + b"%d" % change(int(found[2])) + (found[3] if found.re.groups > 2 else b"")
