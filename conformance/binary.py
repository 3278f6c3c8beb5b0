"""The binary protocol: frames to send, frames to expect, and frames as a reader sees them.

Owns the 24 bytes of a header and the names of opcodes and statuses. In a case:

    >b set k={a} x=4:5,4:0 v=hi o=7 c={C1}      a request: key, extras (bytes:number), value, opaque, unique
    >b set k={a} keylen=300                     a malformed header: keylen, extlen, bodylen, magic, dt, raw
    <b set ok o=7 c={C1=cas}                    a reply: its status (or a|b), and what it must hold; extras and value as above
    <b* stat ok k=pid v={=int}                  the same, later: replies before it are dropped

A reply of status ok has no key, extras or value unless the line says so; one of an error may have any text as its value.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from .text import Binding, Part, RuleError, Scope, Template, parse
from .wire import FLOOD, BrokenError, Wire

HEADER = struct.Struct("!BBHBBHIIQ")
OPCODES = {
    "get": 0x00, "set": 0x01, "add": 0x02, "replace": 0x03, "delete": 0x04, "incr": 0x05, "decr": 0x06, "quit": 0x07,
    "flush": 0x08, "getq": 0x09, "noop": 0x0A, "version": 0x0B, "getk": 0x0C, "getkq": 0x0D, "append": 0x0E,
    "prepend": 0x0F, "stat": 0x10, "setq": 0x11, "addq": 0x12, "replaceq": 0x13, "deleteq": 0x14, "incrq": 0x15,
    "decrq": 0x16, "quitq": 0x17, "flushq": 0x18, "appendq": 0x19, "prependq": 0x1A, "verbosity": 0x1B, "touch": 0x1C,
    "gat": 0x1D, "gatq": 0x1E, "sasl-list": 0x20, "sasl-auth": 0x21, "sasl-step": 0x22, "gatk": 0x23, "gatkq": 0x24,
}  # fmt: skip
STATUSES = {
    "ok": 0x00, "not-found": 0x01, "exists": 0x02, "too-large": 0x03, "invalid": 0x04, "not-stored": 0x05,
    "non-numeric": 0x06, "auth-error": 0x20, "auth-continue": 0x21, "unknown": 0x81, "out-of-memory": 0x82,
}  # fmt: skip
FENCE = 0x0FE0CE00
NAMES = {code: name for name, code in OPCODES.items()}
STATUS_NAMES = {code: name for name, code in STATUSES.items()}


@dataclass(frozen=True)
class Frame(Part):
    """One request."""

    opcode: int
    words: dict[str, str] = field(hash=False)

    def render(self, scope: Scope) -> bytes:
        if "raw" in self.words:
            return parse(self.words["raw"]).render(scope)
        key, value = (parse(self.words.get(name, "")).render(scope) for name in "kv")
        extras = b"".join(_packed(piece, scope) for piece in self.words.get("x", "").split(",") if piece)
        given = {name: int(text, 0) for name, text in self.words.items() if name not in "kvxc"}
        body = extras + key + value
        cas = scope.number(self.words["c"].strip("{}")) if "c" in self.words else 0
        header = HEADER.pack(
            given.get("magic", 0x80), self.opcode, given.get("keylen", len(key)), given.get("extlen", len(extras)),
            given.get("dt", 0), given.get("vb", 0), given.get("bodylen", len(body)), given.get("o", 0), cas,
        )  # fmt: skip
        return header + body


@dataclass(frozen=True)
class ExpectFrame:
    """One reply that must come next."""

    opcode: int
    statuses: tuple[int, ...]
    words: dict[str, str] = field(hash=False)
    patient: bool = False  # replies before it are dropped

    def texts(self) -> list[Template]:
        """The templates in it, for the check of what is bound."""
        return [parse(self.words[name]) for name in "kvcx" if name in self.words]

    def describe(self, scope: Scope) -> bytes:
        """What is wanted, for the report."""
        words = [NAMES.get(self.opcode, hex(self.opcode)), self._wanted()]
        words += [f"{name}={parse(text).render(scope).decode('latin-1')}" for name, text in self.words.items()]
        return " ".join(words).encode("latin-1")

    def _wanted(self) -> str:
        return " or ".join(STATUS_NAMES[status] for status in self.statuses)

    def check(self, header: tuple[int, ...], body: bytes, scope: Scope) -> str | None:
        """None when a reply is this one, else what is wrong; variables are bound."""
        magic, opcode, key_length, extras_length, kind, status, _, opaque, cas = header
        if magic != 0x81:
            return f"the magic is {magic:#x}, not 0x81"
        if opcode != self.opcode:
            return f"the opcode is {NAMES.get(opcode, hex(opcode))}, not {NAMES.get(self.opcode, hex(self.opcode))}"
        if status not in self.statuses:
            return f"the status is {STATUS_NAMES.get(status, hex(status))}, not {self._wanted()}"
        if kind:
            return f"the data type is {kind}, not 0"
        if key_length + extras_length > len(body):
            return "key and extras are longer than the body"
        if opaque != int(self.words.get("o", "0"), 0):
            return f"the opaque is {opaque:#x}, not {self.words.get('o', '0')}"
        parts = {
            "x": body[:extras_length],
            "k": body[extras_length:][:key_length],
            "v": body[extras_length + key_length :],
        }
        wanted = {"x": b"".join(_packed(piece, scope) for piece in self.words.get("x", "").split(",") if piece)}
        if parts["x"] != wanted["x"]:
            return f"the extras are {parts['x'].hex() or 'none'}, not {wanted['x'].hex() or 'none'}"
        if parts["k"] != parse(self.words.get("k", "")).render(scope):
            return "the key differs"
        if ("v" in self.words or self.statuses == (0,)) and (
            wrong := parse(self.words.get("v", "")).match(parts["v"], scope)
        ):
            return f"the value is wrong: {wrong}"
        return self._cas(b"%d" % cas, scope)

    def _cas(self, found: bytes, scope: Scope) -> str | None:
        if "c" not in self.words:
            return None
        wrong = parse(self.words["c"]).match(found, scope)
        return f"the unique is {found.decode()}: {wrong}" if wrong else None


def _packed(piece: str, scope: Scope) -> bytes:
    """`4:5`: a number of so many bytes."""
    size, _, number = piece.partition(":")
    value = scope.number(number.strip("{}")) if not number.startswith("0x") else int(number, 16)
    return value.to_bytes(int(size), "big")


def request(text: str) -> Frame:
    """Reads what stands behind `>b`; ValueError when it is malformed."""
    name, words = _words(text)
    return Frame(_opcode(name), words)


def reply(text: str, *, patient: bool = False) -> ExpectFrame:
    """Reads what stands behind `<b` (or, patient, `<b*`); ValueError when it is malformed."""
    name, words = _words(text)
    statuses = words.pop("", "").split("|")
    if unknown := set(statuses) - STATUSES.keys():
        raise ValueError(f"unknown status {unknown.pop()}")
    return ExpectFrame(_opcode(name), tuple(STATUSES[status] for status in statuses), words, patient)


def _opcode(name: str) -> int:
    return OPCODES[name] if name in OPCODES else int(name, 16)


def _words(text: str) -> tuple[str, dict[str, str]]:
    name, *rest = text.split(" ")
    words: dict[str, str] = {}
    for word in rest:
        found = re.match(r"(k|v|x|c|o|keylen|extlen|bodylen|magic|dt|vb|raw)=(.*)", word)
        words[found[1] if found else ""] = found[2] if found else word
    if name not in OPCODES and not re.fullmatch(r"0x[0-9a-f]{2}", name):
        raise ValueError(f"unknown opcode {name}")
    return name, words


def take(wire: Wire) -> tuple[tuple[int, ...], bytes]:
    """The next reply: its header's fields and its body; BrokenError when it is no frame, or absurd."""
    head = wire.take(HEADER.size)
    header = HEADER.unpack(head)
    if header[0] != 0x81:
        raise BrokenError(f"no frame came: the first byte is {header[0]:#x}, not 0x81", head + wire.buffer[:100])
    if header[6] > FLOOD:
        raise BrokenError(f"flooded: a frame of {header[6]} bytes was announced", head)
    return header, wire.take(header[6])


def fence(wire: Wire) -> None:
    """A no-op must be answered next."""
    wire.send(HEADER.pack(0x80, OPCODES["noop"], 0, 0, 0, 0, 0, FENCE, 0))
    header, body = take(wire)
    if header[1] != OPCODES["noop"] or header[7] != FENCE:
        raise BrokenError("an answer too many", HEADER.pack(*header) + body)


def describe(data: bytes) -> list[str]:
    """Frames in lines of text, for a report; what is no frame as hex."""
    lines = []
    while len(data) >= HEADER.size and data[0] in {0x80, 0x81}:
        magic, opcode, key, extras, _, status, body, opaque, cas = HEADER.unpack_from(data)
        content = data[HEADER.size : HEADER.size + body]
        words = [NAMES.get(opcode, hex(opcode))]
        words += [STATUS_NAMES.get(status, hex(status))] if magic == 0x81 else []
        words += [f"x={content[:extras].hex()}"] if extras else []
        words += [f"k={content[extras:][:key]!r}"] if key else []
        words += [f"v={content[extras + key :][:60]!r}"] if content[extras + key :] else []
        words += [f"o={opaque:#x}"] if opaque else []
        words += [f"c={cas}"] if cas else []
        lines.append(" ".join(words))
        data = data[HEADER.size + body :]
    return [*lines, data[:32].hex(" ")] if data else lines


def uses(step: ExpectFrame | Frame) -> list[Binding]:
    """The places in a reply that bind variables."""
    return [binding for text in step.texts() for binding in text.bindings] if isinstance(step, ExpectFrame) else []


__all__ = ["ExpectFrame", "Frame", "RuleError", "describe", "fence", "reply", "request", "take", "uses"]
