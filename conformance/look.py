"""A look at the server before the cases: what it is, what it knows, and what will be left out.

Owns the probes and the sentence at the head of a report. It takes under two seconds with a server that answers, and
ends with one sentence within five for one that is no use: silent, greeting, stalling. It harms nothing: `flush_all` and
`verbosity` are asked only where that is allowed.
"""

from __future__ import annotations

import random
import re
import string
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from . import binary
from .profiles import nearest
from .text import MAX_ITEM
from .wire import MISADDRESSED, Address, BrokenError, UnreachableError, Wire

PATIENCE = 1.0  # seconds that the answer to a probe may take
AGAIN = 3  # times that, before a server counts as silent
GREETING = 0.2  # seconds that a server may use to speak first
LINE = rb"\n"
BINARY = rb"\x81\x0a"  # how the answer to a no-op begins
UNKNOWN = re.compile(  # the questions are well formed: who calls one a client's error does not know the command
    rb"ERROR|-ERR|-[A-Z]+ |CLIENT_ERROR|SERVER_ERROR[^\r\n]*(?:unknown|unsupported|not supported|not implemented)",
    re.IGNORECASE,
)


class UnfitError(Exception):
    """The server cannot be tested: one sentence says why."""


@dataclass(frozen=True)
class Probe:
    """One question: `ask` is sent, `known` is found in what comes when the server knows the command."""

    feature: str
    ask: bytes
    known: bytes
    harmful: bool = False


def _probes(key: bytes) -> list[Probe]:
    store = b" %s 0 0 1\r\nx\r\n" % key
    return [
        Probe("version", b"version\r\n", rb"VERSION[^\n]*\n"),
        Probe("gets", b"gets %s\r\n" % key, rb"END\r?\n"),
        Probe("cas", b"cas %s 0 0 1 1\r\nx\r\n" % key, rb"NOT_FOUND|NOT_STORED|EXISTS"),
        Probe("add", b"add" + store, rb"STORED"),
        Probe("replace", b"replace" + store, rb"STORED"),
        Probe("append", b"append" + store, rb"STORED"),
        Probe("prepend", b"prepend" + store, rb"STORED"),
        Probe("delete", b"delete %s\r\n" % key, rb"NOT_FOUND|DELETED"),
        Probe("incr", b"incr %s 1\r\n" % key, rb"\A(?:NOT_FOUND|\d)"),
        Probe("decr", b"decr %s 1\r\n" % key, rb"\A(?:NOT_FOUND|\d)"),
        Probe("touch", b"touch %s 10\r\n" % key, rb"NOT_FOUND|TOUCHED"),
        Probe("gat", b"gat 10 %s\r\n" % key, rb"END\r?\n"),
        Probe("gats", b"gats 10 %s\r\n" % key, rb"END\r?\n"),
        Probe("meta", b"mg %s v\r\nmn\r\n" % key, rb"EN\r?\n.*MN"),
        Probe("noreply", b"delete %s noreply\r\nget %s\r\n" % (key, key), rb"\AEND\r?\n"),
        Probe("stats", b"stats\r\n", rb"\ASTAT "),
        Probe("admin", b"slabs reassign 1 1\r\n", rb"\A(?:OK|SAME|BADCLASS|NOSPARE|BUSY|CLIENT_ERROR slab)"),
        Probe("quit", b"quit\r\n", rb"\A\Z"),
        Probe("binary", b"\x80\x0a" + bytes(10) + b"look" + bytes(8), BINARY),
        Probe("flush_all", b"flush_all\r\n", rb"OK", harmful=True),
        Probe("verbosity", b"verbosity 0\r\n", rb"OK", harmful=True),
    ]


@dataclass
class Look:
    """What a look has found. fence: the command that proves that nothing more comes."""

    fence: str = "version"
    says: str = ""
    missing: dict[str, str] = field(default_factory=dict)  # a feature, and how the server answered
    key_limit: int = 250
    max_item: int = MAX_ITEM

    @property
    def release(self) -> str:
        """The memcached that it says it is (1.6.18); empty when it says none."""
        found = re.match(r"1\.[456]\.\d+", self.says)
        return found[0] if found else ""

    @property
    def generation(self) -> str:
        """The line of memcached whose commands it knows: 1.6, 1.5, 1.4 or 1.2."""
        if self.fence == "binary":
            return self.release[:3] or "1.6"
        if "meta" not in self.missing:
            return "1.6"
        if "gat" not in self.missing:
            return "1.5"
        return "1.4" if {"cas", "gets", "touch"} - self.missing.keys() else "1.2"

    @property
    def profile(self) -> str:
        """The profile to judge it by: the newest that is not newer than it says, or than its commands are."""
        if self.generation in {"1.5", "1.4", "1.2"}:
            return "1.5" if self.generation == "1.5" else "1.4"
        return nearest(self.release)

    @property
    def suites(self) -> list[str]:
        """The suites that make sense."""
        if self.fence == "binary":
            return ["binary"]
        return ["classic", *(suite for suite in ("meta", "binary", "admin") if suite not in self.missing)]

    def reason(self, features: Iterable[str]) -> str:
        """Why a case that uses these features is unsupported; empty when it is not."""
        gone = sorted(set(features) & self.missing.keys())
        return f"the server has no {gone[0]} ({self.missing[gone[0]]})" if gone else ""

    def sentence(self) -> str:
        """`memcached 1.4 without gat; no meta, no binary`, and what it says of itself."""
        if self.fence == "binary":
            return f"speaks memcached's binary protocol alone (it says {self.says})"
        own = {"1.6": (), "1.5": (), "1.4": ("gat", "gats"), "1.2": ("gat", "gats", "touch", "cas", "gets")}
        big = ("meta", "binary", "admin")
        small = [
            name for name in self.missing if name not in {*big, "item-limit", "large-values", *own[self.generation]}
        ]
        text = f"looks like memcached {self.generation}"
        if small:
            text += " without " + ", ".join(small)
        if lacking := [f"no {name}" for name in big if name in self.missing]:
            text += "; " + ", ".join(lacking)
        return text + (f" (it says {self.says})" if self.says else " (it tells no version)")


def look(
    where: Address,
    *,
    harmful: bool = False,
    max_item: int = 0,
    revive: Callable[[], Address | None] = lambda: None,
    patience: float = PATIENCE,
) -> Look:
    """Asks; UnfitError when the server is no use.

    revive: starts a server again that a question has ended, and tells where it is; None where that cannot be done.
    """
    key = b"look." + "".join(random.choices(string.ascii_lowercase, k=10)).encode()
    if seen := _opening(where, key, patience):
        return seen
    unique = _unique(where, key, patience)  # before a flush_all, which may take what comes within the same second
    probes = [probe for probe in _probes(key) if harmful or not probe.harmful]
    answers = _asked(where, probes, key, patience)
    if not _up(where):
        again = revive()
        if not again:
            raise UnfitError("it ended while the suite looked at what it knows: it does not survive an unknown command")
        where, answers = _asked_alone(again, probes, key, patience, revive)
    seen = Look()
    for probe, answer in zip(probes, answers, strict=True):
        if probe.feature == "version" and (found := re.match(rb"VERSION ([^\r\n]*)", answer)):
            seen.says = _printable(found[1][:60])
        if not re.search(probe.known, answer, re.DOTALL) and (UNKNOWN.match(answer) or _none(probe, answer)):
            seen.missing[probe.feature] = _told(answer)
    seen.fence = next(
        (name for name, feature in (("version", "version"), ("mn", "meta")) if feature not in seen.missing), "get"
    )
    if "cas" not in seen.missing and unique == b"0":
        seen.missing["cas"] = "each item has the unique 0"
    _limits(where, key, seen, max_item, patience)
    return seen


def _opening(where: Address, key: bytes, patience: float) -> Look | None:
    """None when it speaks text; what there is to say when it speaks binary alone; UnfitError when it does neither.

    A server that is slow to answer in text is asked in binary meanwhile: waiting for one after the other takes too long.
    """
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(_first, where, key, patience)
        wait([text], 1.5 * patience)
        if text.done() and not text.exception():
            return None
        seen = _binary_alone(where, patience)
        if not (unfit := text.exception()):
            return None
    if seen:
        return seen
    raise unfit


def _binary_alone(where: Address, patience: float) -> Look | None:
    """What there is to say of a server that speaks binary and no text, as memcached with SASL; None when it does not."""
    try:
        with Wire(where, patience, binary=True) as wire:
            binary.fence(wire)
            wire.send(binary.HEADER.pack(0x80, binary.OPCODES["version"], 0, 0, 0, 0, 0, 0, 0))
            _, body = binary.take(wire)
    except BrokenError:
        return None
    return Look("binary", _printable(body[:60]), {"classic": "it speaks binary alone"})


def _none(probe: Probe, answer: bytes) -> bool:
    """Whether what came is no answer: nothing, an end, or a line of text that does not end."""
    return not answer or answer[:1] == b"<" or (b"\n" not in answer and probe.feature not in {"binary", "quit"})


def _printable(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def _told(answer: bytes) -> str:
    line = _printable(answer.split(b"\n")[0].strip()[:60])
    endless = "" if b"\n" in answer else ", without an end of line"
    return (
        f"it answers {line}{endless}"
        if line and line[0] != "<"
        else "it closes the connection"
        if line == "<closed>"
        else "it ends"
        if line == "<ended>"
        else "it answers nothing"
    )


def _first(where: Address, key: bytes, patience: float) -> None:
    """Whether it is silent at first, answers a set and a get, and does so on two connections at once.

    A machine may be busy: each answer has AGAIN times the patience, and all of them together a little more than one alone.
    """
    deadline = time.monotonic() + (AGAIN + 1) * patience

    def left() -> float:
        return max(patience, min(AGAIN * patience, deadline - time.monotonic()))

    try:
        with Wire(where, patience) as one, Wire(where, patience) as two:
            _no_greeting(one)
            answer = _exchange(one, b"get %s\r\n" % key, patience * AGAIN)
            if not answer:
                raise UnfitError(f"it answered nothing to `get` for {patience * AGAIN:g} s")
            if answer.startswith(b"<closed>"):
                raise UnfitError("it closed the connection when asked `get`")
            if not re.match(rb"END\r?\n", answer):
                rest = "" if b"\n" in answer else ", without an end of line,"
                raise UnfitError(f"it answers `get` of a missing key with {_shown(answer)}{rest} and not with END")
            if not _exchange(two, b"get %s\r\n" % key, left()).startswith(b"END"):
                raise UnfitError("it answers on one connection alone: a second one, at the same time, gets nothing")
            answer = _exchange(one, b"set %s 0 10 1\r\nx\r\n" % key, left())
            if answer == b"<closed>":
                raise UnfitError("it closed the connection when asked `set`")
            if not answer.startswith(b"STORED"):
                raise UnfitError(f"it answers `set` with {_shown(answer)}, and not with STORED")
    except UnreachableError:
        raise
    except BrokenError as error:
        raise UnfitError(f"it cannot be talked to: {error.reason}") from None


def _no_greeting(wire: Wire) -> None:
    try:
        wire.more(time.monotonic() + GREETING)
    except BrokenError:
        if wire.ended:
            raise UnfitError("it closes a new connection at once") from None
        return
    raise UnfitError(f"it speaks first, with {_shown(wire.buffer)}: that is no memcached")


def _shown(answer: bytes) -> str:
    return _printable(answer[:40]) or "nothing"


def _exchange(wire: Wire, ask: bytes, patience: float, known: bytes = LINE) -> bytes:
    """What comes within `patience`, until `known` is in it or a whole line refuses; `<closed>` when the connection ends.

    UnfitError when a line is still coming in drops: each question would take so long.
    """
    wire.buffer = b""
    deadline = time.monotonic() + patience
    pieces = 0
    try:
        wire.send(ask)
        while len(wire.buffer) < 1 << 16:
            wire.more(deadline)
            pieces += 1
            if re.search(known, wire.buffer, re.DOTALL) or (UNKNOWN.match(wire.buffer) and b"\n" in wire.buffer):
                break
    except BrokenError as error:
        if error.reason.startswith(MISADDRESSED) and known == LINE:  # nothing at all can be asked then
            raise UnfitError(f"it answers with a {error.reason}") from None
        if pieces > 1 and not wire.ended and b"\n" not in wire.buffer and known != BINARY:
            verb = ask.split(maxsplit=1)[0].decode()
            raise UnfitError(
                f"it answers in drops: {patience:g} s after `{verb}` it had sent {_shown(wire.buffer)}"
            ) from None
        return wire.buffer or (b"<closed>" if wire.ended else b"")
    return wire.buffer


def _answer(where: Address, probe: Probe, key: bytes, patience: float) -> bytes:
    try:
        with Wire(where, patience, binary=probe.feature == "binary") as wire:
            if probe.feature == "quit":
                answer = _exchange(wire, probe.ask, patience)
                return b"QUIT" if answer == b"<closed>" else answer
            return _exchange(wire, probe.ask.replace(key, key + b"." + probe.feature.encode()), patience, probe.known)
    except BrokenError:
        return b"<closed>"


def _asked(where: Address, probes: list[Probe], key: bytes, patience: float) -> list[bytes]:
    """The answers to all probes, asked at once; what nothing came to is asked again with more patience: a machine may be busy."""
    with ThreadPoolExecutor(len(probes)) as pool:
        answers = list(pool.map(lambda probe: _answer(where, probe, key, patience), probes))
        silent = [at for at, answer in enumerate(answers) if not answer]
        for at, answer in zip(
            silent, pool.map(lambda at: _answer(where, probes[at], key, AGAIN * patience), silent), strict=True
        ):
            answers[at] = answer
    return answers


def _asked_alone(
    where: Address, probes: list[Probe], key: bytes, patience: float, revive: Callable[[], Address | None]
) -> tuple[Address, list[bytes]]:
    """The answers to probes asked one after the other, and where the server is after the last time that it was started."""
    answers = []
    for probe in probes:
        answers.append(_answer(where, probe, key, patience))
        if not _up(where):
            answers[-1] = b"<ended>"
            where = revive() or where
    return where, answers


def _up(where: Address) -> bool:
    """Whether it still answers: a connection alone may have been made by a process that is ending."""
    try:
        with Wire(where, AGAIN * PATIENCE) as wire:
            wire.send(b"get mcconform.look\r\n")
            wire.line()
    except BrokenError:
        return False
    return True


def _limits(where: Address, key: bytes, seen: Look, max_item: int, patience: float) -> None:
    """How long keys may be, and whether values end at `max_item` (1 MiB unless told)."""
    seen.max_item = max_item or MAX_ITEM
    if where.udp:
        seen.missing["item-limit"] = "a datagram is smaller"
        return
    long_key = key + b"k" * (251 - len(key))
    if _stored(where, long_key, 1, patience):
        seen.key_limit = 251
    if seen.max_item < MAX_ITEM:
        seen.missing["large-values"] = f"no values over {seen.max_item} bytes"
    if not max_item:
        under = _stored(where, key, MAX_ITEM - 1024, 2 * patience)
        if not under or _stored(where, key, MAX_ITEM + 1, 2 * patience):
            seen.missing["item-limit"] = f"{'no values of 1 MiB' if not under else 'values over 1 MiB'}: say --max-item"
        if not under:
            seen.missing["large-values"] = seen.missing["item-limit"]


def _unique(where: Address, key: bytes, patience: float) -> bytes:
    """The unique of an item; empty when there is none to be had."""
    try:
        with Wire(where, patience) as wire:
            _exchange(wire, b"set %s 0 10 1\r\nx\r\n" % key, patience)
            found = re.match(rb"VALUE \S+ 0 1 (\d+)\r\n", _exchange(wire, b"gets %s\r\n" % key, patience, rb"END\r?\n"))
    except BrokenError:
        return b""
    return found[1] if found else b""


def _stored(where: Address, key: bytes, size: int, patience: float) -> bool:
    try:
        with Wire(where, patience) as wire:
            answer = _exchange(wire, b"set %s 0 10 %d\r\n%s\r\n" % (key, size, b"x" * size), patience)
            if answer.startswith(b"STORED"):
                _exchange(wire, b"delete %s\r\n" % key, patience)
    except BrokenError:
        return False
    return answer.startswith(b"STORED")
