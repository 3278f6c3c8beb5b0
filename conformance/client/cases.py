"""The catalogue: how the server misbehaves, what the client is asked, and what a good client may answer.

Owns the cases and the judgement of one outcome. An operation's outcome is `right` (the true value), `miss`, `error`
(an exception), or something else, which is always a fault: a wrong value is the worst that a cache can give.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..binary import HEADER
from .misbehaving import Answer, Script, right

TIMEOUT = 1.0  # seconds: what every driver tells its client
PATIENCE = 5.0  # seconds that one operation may take all the same
HUGE = 900_000  # bytes

Operation = list[Any]  # ["get", KEY], ["many", [KEY, ...]] or ["set", KEY, VALUE]
FINE = ("right",)
SAFE = ("right", "miss", "error")
NOT_RIGHT = ("miss", "error")


@dataclass(frozen=True)
class ClientCase:
    """One misbehaviour. allowed: for each operation the outcomes of a good client. only: the protocols it makes sense for."""

    id: str
    sentence: str
    good: str
    script: Script
    operations: tuple[Operation, ...]
    allowed: tuple[tuple[str, ...], ...]
    values: Callable[[bytes], bytes] = lambda key: b"value-of-" + key
    only: tuple[str, ...] = ("text", "meta", "binary")
    door: str = ""  # with TLS alone: one of doors.Doors' names, when it is not `right`


def first(verb: str, act: Script) -> Script:
    """`act` for the first such request, and right answers to all others."""
    return lambda answer: act(answer) if answer.verb == verb and answer.number == 0 else right(answer)


def send(answer: Answer, data: bytes, *, close: bool = False) -> bool:
    answer.sock.sendall(data)
    return close


def late(seconds: float) -> Script:
    def act(answer: Answer) -> bool:
        time.sleep(seconds)
        return right(answer)

    return act


def split(answer: Answer) -> bool:
    for at in range(len(answer.data)):
        answer.sock.sendall(answer.data[at : at + 1])
    return False


def never(answer: Answer) -> bool:
    return False


def cut(answer: Answer) -> bool:
    """The half of the value, then the end of the connection."""
    return send(answer, answer.data[: -len(answer.end) - 6 or None], close=True)


def cut_in_order(answer: Answer) -> bool:
    """As `cut`, but TLS says that the end is meant."""
    send(answer, answer.data[: -len(answer.end) - 6 or None])
    assert isinstance(answer.sock, ssl.SSLSocket)
    answer.sock.unwrap()
    return True


def closed(answer: Answer) -> bool:
    return True


def reset(answer: Answer) -> bool:
    answer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


def failing(answer: Answer) -> bool:
    """The server says that it cannot."""
    if answer.protocol == "binary":
        fields = list(HEADER.unpack(answer.data[: HEADER.size]))
        text = b"Out of memory"
        fields[2], fields[3], fields[5], fields[6] = 0, 0, 0x82, len(text)
        return send(answer, HEADER.pack(*fields) + text)
    return send(answer, b"SERVER_ERROR out of memory\r\n")


def wrong_key(answer: Answer) -> bool:
    """The value of another key, with that key's name."""
    data = answer.data.replace(b"VALUE " + answer.keys[0], b"VALUE other").replace(b"value-of-", b"worth-of-")
    return send(answer, data)


def reverse(answer: Answer) -> bool:
    return send(answer, b"".join(reversed(answer.items)) + answer.end)


def broken_middle(answer: Answer) -> bool:
    """One item, then an error in place of the rest."""
    return send(answer, b"".join(answer.items[:1]) + b"SERVER_ERROR out of memory writing get response\r\n")


def noise(answer: Answer) -> bool:
    return send(answer, b"\xff\xfe nonsense \x00\r\n" * 3, close=True)


def longer(answer: Answer) -> bool:
    """More data than the length says."""
    return send(answer, answer.data.replace(b"\r\n" + b"value-of", b"\r\nmore-than-value-of"))


def immense(answer: Answer) -> bool:
    """A length that no memory can hold."""
    head = answer.data.split(b"\r\n")[0].split(b" ")
    head[1 if answer.protocol == "meta" else 3] = b"99999999999999"
    return send(answer, b" ".join(head) + b"\r\nx")


def endless(answer: Answer) -> bool:
    """A line without end: 64 MiB of it."""
    for _ in range(64):
        answer.sock.sendall(b"V" * (1 << 20))
    return True


A, B, MANY = ["get", "a"], ["get", "b"], ["many", ["a", "b", "c"]]
SHUT = {"stranger", "elsewhere", "plain"}  # doors behind which a good client asks nothing
TEXT = ("text",)
LINES = ("text", "meta")
CASES = (
    ClientCase(
        "right",
        "Nothing is wrong.",
        "The value, the values, and stored.",
        right,
        (["set", "a", "x"], A, MANY),
        (FINE, FINE, FINE),
    ),
    ClientCase(
        "late",
        "The reply comes after 0.4 s, within the time-out.",
        "Waits.",
        first("get", late(0.4)),
        (A, B),
        (FINE, FINE),
    ),
    ClientCase(
        "split", "Every byte comes on its own.", "Reads on until the reply is whole.", split, (A, B), (FINE, FINE)
    ),
    ClientCase("huge", "A value of 900000 bytes.", "Reads all of it.", right, (A,), (FINE,), lambda key: b"h" * HUGE),
    ClientCase(
        "value-like-a-reply",
        "A value holds END, line ends and another VALUE line.",
        "Counts bytes.",
        right,
        (A, B),
        (FINE, FINE),
        lambda key: b"x\r\nEND\r\nVALUE b 0 1\r\ny\r\n",
    ),
    ClientCase(
        "never",
        "No answer at all.",
        "An error or a miss once its time-out is over; the next call works.",
        first("get", never),
        (A, B),
        (NOT_RIGHT, SAFE),
    ),
    ClientCase(
        "late-reply",
        "The reply comes when the client has given up.",
        "Throws the connection away: the late reply is nobody's.",
        first("get", late(TIMEOUT + 0.6)),
        (A, ["sleep", 1.0], B, B),
        (SAFE, SAFE, SAFE, SAFE),
    ),
    ClientCase(
        "closed",
        "The connection closes instead of an answer.",
        "An error or a miss, then a new connection.",
        first("get", closed),
        (A, B, ["sleep", 3.2], B),
        (SAFE, SAFE, SAFE, FINE),
    ),
    ClientCase(
        "reset",
        "The connection is reset instead of an answer.",
        "An error or a miss, then a new connection.",
        first("get", reset),
        (A, B, ["sleep", 3.2], B),
        (SAFE, SAFE, SAFE, FINE),
    ),
    ClientCase(
        "cut",
        "The connection closes in the middle of a value.",
        "Never a shorter value.",
        first("get", cut),
        (A, B),
        (SAFE, SAFE),
    ),
    ClientCase(
        "get-error",
        "A get is answered SERVER_ERROR.",
        "An error or a miss; the next reply is the next call's.",
        first("get", failing),
        (A, B),
        (NOT_RIGHT, SAFE),
    ),
    ClientCase(
        "set-error",
        "A set is answered SERVER_ERROR.",
        "Never says that it stored.",
        first("set", failing),
        (["set", "a", "x"], B),
        (NOT_RIGHT, SAFE),
    ),
    ClientCase(
        "set-closed",
        "The connection closes instead of STORED.",
        "Never says that it stored, unless it asked again.",
        lambda answer: answer.verb == "set" or right(answer),
        (["set", "a", "x"],),
        (NOT_RIGHT,),
    ),
    ClientCase(
        "wrong-key",
        "A get is answered with another key's value, under its name.",
        "Does not give it for the key asked.",
        first("get", wrong_key),
        (A, B),
        (NOT_RIGHT, SAFE),
        only=TEXT,
    ),
    ClientCase(
        "out-of-order",
        "The items of a multiget come in reverse order.",
        "Goes by the keys.",
        reverse,
        (MANY,),
        (FINE,),
        only=TEXT,
    ),
    ClientCase(
        "error-in-multiget",
        "After the first of three items comes SERVER_ERROR.",
        "An error, or what came; the next reply is the next call's.",
        first("get", broken_middle),
        (MANY, B),
        ((*SAFE, "part"), SAFE),
        only=TEXT,
    ),
    ClientCase(
        "noise",
        "Bytes that are no reply.",
        "An error or a miss; then it works again.",
        first("get", noise),
        (A, ["sleep", 1.2], B),
        (NOT_RIGHT, SAFE, SAFE),
    ),
    ClientCase(
        "longer",
        "A value has more bytes than its length says.",
        "Sees that no line end follows; gives nothing wrong later.",
        first("get", longer),
        (A, B),
        (NOT_RIGHT, SAFE),
        only=LINES,
    ),
    ClientCase(
        "immense",
        "A length of 10^14 bytes is announced.",
        "An error in time, in little memory.",
        first("get", immense),
        (A, B),
        (NOT_RIGHT, SAFE),
        only=LINES,
    ),
    ClientCase(
        "endless",
        "A line of 64 MiB without end.",
        "An error in time.",
        first("get", endless),
        (A, B),
        (NOT_RIGHT, SAFE),
        only=LINES,
    ),
    ClientCase(
        "tls-stranger",
        "The certificate is from an authority that the client was not told of.",
        "An error or a miss, and asks nothing.",
        right,
        (["set", "a", "x"], A),
        (NOT_RIGHT, NOT_RIGHT),
        door="stranger",
    ),
    ClientCase(
        "tls-other-name",
        "The certificate is from the right authority, for another host.",
        "An error or a miss, and asks nothing.",
        right,
        (["set", "a", "x"], A),
        (NOT_RIGHT, NOT_RIGHT),
        door="elsewhere",
    ),
    ClientCase(
        "tls-silent",
        "The first connection is accepted, and no handshake comes.",
        "An error or a miss once its time-out is over, then a new connection.",
        right,
        (A, ["sleep", 3.2], B),
        (SAFE, SAFE, FINE),
        door="silent",
    ),
    ClientCase(
        "tls-plain",
        "The handshake is answered in plain text.",
        "An error or a miss.",
        right,
        (A, B),
        (NOT_RIGHT, NOT_RIGHT),
        door="plain",
    ),
    ClientCase(
        "tls-cut",
        "TLS is ended in good order in the middle of a value.",
        "Never a shorter value.",
        first("get", cut_in_order),
        (A, B),
        (SAFE, SAFE),
        door="right",
    ),
)


def outcome(operation: Operation, told: dict[str, Any], values: Callable[[bytes], bytes]) -> str:
    """`right`, `miss`, `error`, `part`, or what is wrong in words."""
    if told.get("seconds", 0) > PATIENCE:
        return f"took {told['seconds']:.1f} s, with a time-out of {TIMEOUT:g} s"
    if "error" in told:
        return "error"
    value = told.get("value")
    if operation[0] == "sleep":
        return "right"
    if operation[0] == "set":
        return "right" if value else "miss"
    if operation[0] == "get":
        if value is None:
            return "miss"
        return (
            "right"
            if value == values(operation[1].encode()).decode("latin-1")
            else f"gave {str(value)[:60]!r} for {operation[1]}"
        )
    if value is not None and not isinstance(value, dict):
        return f"gave {str(value)[:60]!r} for several keys"
    wanted = {key: values(key.encode()).decode("latin-1") for key in operation[1]}
    got = {key: item for key, item in (value or {}).items() if item is not None}
    if wrong := {key: item[:60] for key, item in got.items() if wanted.get(key) != item}:
        return f"gave {wrong!r}"
    return "right" if got == wanted else "part" if got else "miss"


def _questions(operation: Operation) -> list[tuple[str, str]]:
    """What an operation asks for: verb and key."""
    if operation[0] == "many":
        return [("get", key) for key in operation[1]]
    return [] if operation[0] == "sleep" else [(operation[0], operation[1])]


def judge(
    case: ClientCase, told: list[dict[str, Any]], asked: Mapping[tuple[str, str], int] | None = None
) -> list[str]:
    """What a client did wrong; nothing when it did well.

    asked: how often the server was asked, by verb and key. Who asks again after an error may get it right.
    """
    faults = ["it asked all the same"] if asked and case.door in SHUT else []
    calls = Counter(each for operation in case.operations for each in _questions(operation))
    again = {each for each, times in (asked or {}).items() if times > calls[each]}
    for number, (operation, allowed) in enumerate(zip(case.operations, case.allowed, strict=True)):
        what = f"call {number + 1}, {operation[0]}"
        if number >= len(told):
            return [*faults, f"{what}: never came back"]
        found = outcome(operation, told[number], case.values)
        if found == "right" and again & {*_questions(operation)}:
            continue
        if operation[0] != "sleep" and found not in allowed:
            detail = f" ({told[number]['error']})" if found == "error" else ""
            faults.append(f"{what}: {found}{detail}; wanted {' or '.join(allowed)}")
    return faults
