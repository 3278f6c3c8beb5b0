"""Whether concurrent operations on one key fit some order in which each took effect between its call and its reply.

The search of Wing and Gong with what was seen before remembered (Lowe). A register holds a value and, once a `gets` has
seen it, its CAS unique; each operation says which reply and which next register it allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Register(NamedTuple):
    """value: None if there is no item. cas: None as long as nobody has seen it."""

    value: bytes | None = None
    cas: int | None = None


class Operation(NamedTuple):
    """What a client asked at `call` and was told at `end` (any clock that all share)."""

    verb: str
    argument: bytes
    reply: bytes
    call: float
    end: float


def step(now: Register, verb: str, argument: bytes, reply: bytes) -> Register | None:
    """The register after the operation; None if it can't have been answered so."""
    value = now.value
    if verb == "get":
        return now if reply == (b"" if value is None else b"=" + value) else None
    if verb == "gets":
        if value is None:
            return now if reply == b"" else None
        cas, _, seen = reply.partition(b"=")
        if seen != value or not cas or now.cas not in (None, int(cas)):
            return None
        return Register(value, int(cas))
    if verb == "cas":
        cas, _, new = argument.partition(b"=")
        right = b"NOT_FOUND" if value is None else b"STORED" if now.cas == int(cas) else b"EXISTS"
        return None if reply != right else Register(new) if right == b"STORED" else now
    if verb == "incr":
        if value is None or not value.isdigit():
            return now if reply == (b"NOT_FOUND" if value is None else b"CLIENT_ERROR") else None
        new = b"%d" % (int(value) + int(argument))
        return Register(new) if reply == new else None
    right, new_value = {
        "set": (b"STORED", argument),
        "add": (b"STORED", argument) if value is None else (b"NOT_STORED", value),
        "replace": (b"STORED", argument) if value is not None else (b"NOT_STORED", None),
        "append": (b"STORED", value + argument) if value is not None else (b"NOT_STORED", None),
        "delete": (b"DELETED", None) if value is not None else (b"NOT_FOUND", None),
        "flush": (b"OK", None),
    }[verb]
    if reply != right:
        return None
    return now if right.startswith(b"NOT_") else Register(new_value)


def fits(history: Sequence[Operation]) -> bool:
    """Whether there is such an order, from an empty register on."""
    order = sorted(history)
    order.sort(key=lambda operation: operation.call)
    everything = (1 << len(order)) - 1
    seen: set[tuple[int, Register]] = set()
    stack = [(0, Register())]
    while stack:
        done, now = stack.pop()
        if done == everything:
            return True
        if (done, now) in seen:
            continue
        seen.add((done, now))
        first_end = min(operation.end for number, operation in enumerate(order) if not done >> number & 1)
        for number, operation in enumerate(order):
            if operation.call > first_end:
                break
            if not done >> number & 1:
                after = step(now, operation.verb, operation.argument, operation.reply)
                if after is not None:
                    stack.append((done | 1 << number, after))
    return False
