"""Replays recorded exchanges with memcached: the cases, how a reply is compared, and the two ways to play one.

A reply must equal the recorded one byte by byte, but for two kinds of number: a CAS unique is a variable, bound when it
is first seen, and the bound numbers must rise as the recorded ones do; a remaining time may differ by one second.
This module knows bytes and sockets only, never the server's insides.
"""

import functools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

RECORDING = Path(__file__).with_name("memcached.jsonl")
Step = tuple[Literal["send", "recv", "sleep", "closed"], bytes | float | bool]

# Where this server answers otherwise than the recording, and why.
DEVIATIONS = {
    "framing/line/28": "who begins with HTTP is told in HTTP that this is another protocol, then closed",
}


@dataclass(frozen=True)
class Case:
    """One recorded exchange: on a fresh server with ``args``, on one connection."""

    id: str
    args: tuple[str, ...]
    exchange: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """How long the case sleeps."""
        return sum(float(value) for kind, value in self.exchange if kind == "sleep")

    @property
    def verbs(self) -> set[bytes]:
        """The first word of each thing that is sent."""
        sent = [value for kind, value in self.exchange if kind == "send" and isinstance(value, bytes)]
        return {value.split(maxsplit=1)[0] for value in sent if value.split()}


def _expand(text: str) -> bytes:
    """A recorded text as bytes, with ``{x*2100}`` written out."""
    return re.sub(rb"\{(.)\*(\d+)\}", lambda m: m[1] * int(m[2]), text.encode("latin-1"), flags=re.DOTALL)


@functools.cache
def cases(version: Literal["1.6.45", "1.6.18"] = "1.6.45") -> tuple[Case, ...]:
    """All recorded cases, with the answers of that version of memcached."""
    found = []
    for line in RECORDING.read_text("utf-8").splitlines():
        raw = json.loads(line)
        steps = raw.get("exchange_1.6.18", raw["exchange"]) if version == "1.6.18" else raw["exchange"]
        exchange = tuple((kind, _expand(value) if isinstance(value, str) else value) for kind, value in steps)
        found.append(Case(raw["id"], tuple(raw["args"]), exchange))
    return tuple(found)


def parts(reply: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Splits a reply into (header line, data block); the data block is empty but after VALUE and VA."""
    at = 0
    while at < len(reply):
        end = reply.find(b"\n", at) + 1 or len(reply)
        line, at = reply[at:end], end
        words = line.split()
        size = -1
        if words[:1] == [b"VALUE"] and len(words) >= 4:
            size = int(words[3])
        elif words[:1] == [b"VA"] and len(words) >= 2:
            size = int(words[1])
        if size < 0:
            yield line, b""
        else:
            yield line, reply[at : at + size + 2]
            at += size + 2


@dataclass
class Numbers:
    """The CAS uniques of one case: which of ours stands for which of the recording's."""

    bound: dict[int, int] = field(default_factory=dict)
    literal: set[int] = field(default_factory=lambda: {0})
    ordered: bool = True

    def bind(self, recorded: int, actual: int) -> bool:
        """Whether ``actual`` may stand where ``recorded`` stood."""
        if recorded in self.literal:
            return recorded == actual
        if recorded not in self.bound:
            pairs = self.bound.items()
            if any(actual == mine or (self.ordered and (recorded < other) != (actual < mine)) for other, mine in pairs):
                return False
            self.bound[recorded] = actual
        return self.bound[recorded] == actual and actual > 0

    def ours(self, recorded: int) -> int:
        """The number to send for a recorded one: its own, or one as far from the nearest bound one as it was."""
        if recorded in self.literal or not self.bound:
            return recorded
        nearest = min(self.bound, key=lambda other: abs(other - recorded))
        return max(0, min(recorded - nearest + self.bound[nearest], 2**64 - 1)) if recorded < 2**63 else recorded

    def translate(self, data: bytes) -> bytes:
        """What to send: the recorded bytes with our CAS uniques in ``cas`` lines and in the meta flag C."""
        lines = data.split(b"\n")
        for i, line in enumerate(lines):
            if re.match(rb"cas |m[gsda] ", line):
                self.literal.update(int(m) for m in re.findall(rb" E(\d+)", line))
            if line.startswith(b"cas "):
                lines[i] = re.sub(rb"^(\S+(?: +\S+){4} +)(\d+)", lambda m: m[1] + b"%d" % self.ours(int(m[2])), line)
            elif re.match(rb"m[gsda] ", line):
                lines[i] = re.sub(rb" C(\d+)", lambda m: b" C%d" % self.ours(int(m[1])), line)
        return b"\n".join(lines)


def _same_word(numbers: Numbers, verb: bytes, place: int, expected: bytes, actual: bytes) -> bool:
    if verb == b"VALUE" and place == 4 and expected:
        return actual.isdigit() and numbers.bind(int(expected), int(actual))
    if verb in {b"HD", b"VA"} and place > 0:
        if re.fullmatch(rb"c\d+", expected):
            return bool(re.fullmatch(rb"c\d+", actual)) and numbers.bind(int(expected[1:]), int(actual[1:]))
        if re.fullmatch(rb"t\d+", expected):
            return bool(re.fullmatch(rb"t\d+", actual)) and abs(int(expected[1:]) - int(actual[1:])) <= 1
    return expected == actual


def same(numbers: Numbers, expected: bytes, actual: bytes) -> bool:
    """Whether a whole reply is the recorded one. Binds CAS uniques only if it is."""
    ours, theirs = list(parts(actual)), list(parts(expected))
    if len(ours) != len(theirs):
        return False
    trial = Numbers(dict(numbers.bound), set(numbers.literal), numbers.ordered)
    for (line, data), (wanted, wanted_data) in zip(ours, theirs, strict=True):
        words, wanted_words = re.split(rb"( |\r?\n)", line), re.split(rb"( |\r?\n)", wanted)
        if data != wanted_data or len(words) != len(wanted_words):
            return False
        if words[1::2] != wanted_words[1::2]:  # the separators
            return False
        pairs = enumerate(zip(wanted_words[::2], words[::2], strict=True))
        if not all(_same_word(trial, wanted_words[0], place, word, mine) for place, (word, mine) in pairs):
            return False
    numbers.bound = trial.bound
    return True


class MismatchError(AssertionError):
    """A reply that is not the recorded one; its text shows the exchange so far."""

    def __init__(self, case: Case, so_far: list[str], expected: bytes, actual: bytes) -> None:
        shown = "\n".join(so_far[-12:])
        super().__init__(f"{case.id}\n{shown}\nexpected {expected[:300]!r}\ngot      {actual[:300]!r}")


def play_in_process(
    case: Case,
    feed: Callable[[bytes], bytes],
    advance: Callable[[float], None],
    closed: Callable[[], bool],
) -> None:
    """Plays a case through ``feed``; sleeps go to ``advance``, so none is waited for."""
    numbers, log, got = Numbers(), [], b""
    for kind, value in case.exchange:
        if kind == "send":
            assert isinstance(value, bytes)
            sent = numbers.translate(value)
            log.append(f"> {sent[:200]!r}")
            got += feed(sent)
        elif kind == "recv":
            assert isinstance(value, bytes)
            log.append(f"< {got[:200]!r}")
            if not same(numbers, value, got):
                raise MismatchError(case, log, value, got)
            got = b""
        elif kind == "sleep":
            advance(float(value))
        if case.id in DEVIATIONS and closed():
            return
        if kind == "closed" and not closed():
            raise MismatchError(case, [*log, "the connection is still open"], b"", got)
    if closed() != (case.exchange[-1][0] == "closed"):
        raise MismatchError(case, [*log, "the connection was closed"], b"", got)


class Connection:
    """A blocking client socket that reads until a reply is the recorded one, or its patience ends."""

    patience = 60.0  # seconds for a reply that must come
    silence = 0.01  # seconds in which nothing may come

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.ended = False

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def _more(self, seconds: float) -> bool:
        self.socket.settimeout(max(seconds, 0.001))
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        self.received += data
        self.ended = self.ended or not data
        return bool(data)

    def take(self, enough: Callable[[bytes], bool], seconds: float) -> bytes:
        """Receives until ``enough`` says so, the time is over or the server closes; returns and forgets what came."""
        deadline = time.monotonic() + seconds
        while not enough(bytes(self.received)) and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0 or (not self._more(left) and not self.ended):
                break
        data = bytes(self.received)
        self.received.clear()
        return data


def is_all(numbers: Numbers, want: bytes, data: bytes) -> bool:
    """Whether that is the whole answer; where nothing is wanted, more may come at any time."""
    return bool(want) and same(numbers, want, data)


def play(case: Case, address: tuple[str, int], last_cas: int = 1) -> None:
    """Plays a case against a server; raises MismatchError at the first reply that differs.

    ``last_cas`` is the last CAS unique that the server gave; the recorded servers were fresh, theirs was 1.
    """
    numbers, log = Numbers({1: last_cas} if last_cas > 1 else {}), []
    with Connection(address) as connection:
        for kind, value in case.exchange:
            if kind == "send":
                assert isinstance(value, bytes)
                sent = numbers.translate(value)
                log.append(f"> {sent[:200]!r}")
                connection.socket.settimeout(60)
                connection.socket.sendall(sent)
            elif kind == "recv":
                assert isinstance(value, bytes)
                # What answers otherwise also ends the connection: that comes, too, but not within a silence on a busy machine.
                wait = connection.patience if value or case.id in DEVIATIONS else connection.silence
                got = connection.take(functools.partial(is_all, numbers, value), wait)
                log.append(f"< {got[:200]!r}")
                if case.id in DEVIATIONS and connection.ended:
                    return
                if not same(numbers, value, got):
                    raise MismatchError(case, log, value, got)
            elif kind == "sleep":
                time.sleep(float(value))
            elif kind == "closed":
                rest = connection.take(lambda _data: False, connection.patience)
                if rest or not connection.ended:
                    raise MismatchError(case, [*log, "the connection is still open"], b"", rest)
            if case.id in DEVIATIONS and connection.ended:
                return
        if case.exchange[-1][0] != "closed":
            rest = connection.take(lambda _data: False, connection.silence)
            if rest or connection.ended:
                raise MismatchError(case, [*log, "more came, or the end"], b"", rest)
