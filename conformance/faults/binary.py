"""Faults in the binary protocol: frames that change on their way."""

from __future__ import annotations

from collections.abc import Callable

from ..binary import HEADER, OPCODES
from .planted import Change, Fault, Talk

Fields = list[
    int
]  # magic, opcode, key length, extras length, data type, status or vbucket, body length, opaque, unique
MAGIC, OPCODE, KEY, EXTRAS, TYPE, STATUS, BODY, OPAQUE, CAS = range(9)
OPAQUE_VERBS = (
    "getk",
    "gatk",
    "gat",
    "touch",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "incr",
    "decr",
    "delete",
    "stat",
)
STORES = ("add", "addq", "replace", "replaceq", "setq")


def frames(change: Callable[[Fields, bytes], tuple[Fields, bytes] | None]) -> Change:
    """Applies `change` to each whole frame of a piece; None drops the frame."""

    def apply(data: bytes, talk: Talk) -> bytes:
        out = b""
        while len(data) >= HEADER.size and data[0] in {0x80, 0x81}:
            fields = list(HEADER.unpack_from(data))
            size = HEADER.size + fields[BODY]
            changed = change(fields, data[HEADER.size : size])
            if changed:
                out += HEADER.pack(*changed[0]) + changed[1]
            data = data[size:]
        return out + data

    return apply


def put(where: int, value: int | Callable[[int], int], *names: str, status: int | None = None) -> Change:
    """Sets a field of the frames of these opcodes (all, when none is named), with this status."""
    codes = {OPCODES[name] for name in names}

    def change(fields: Fields, body: bytes) -> tuple[Fields, bytes]:
        if (not codes or fields[OPCODE] in codes) and (status is None or fields[STATUS] == status):
            fields[where] = value if isinstance(value, int) else value(fields[where])
        return fields, body

    return frames(change)


def body(edit: Callable[[bytes], bytes], *names: str) -> Change:
    """Changes the bodies of the frames of these opcodes, keeping their length."""
    codes = {OPCODES[name] for name in names}
    return frames(lambda fields, data: (fields, edit(data) if fields[OPCODE] in codes and data else data))


def silent(*names: str, status: int) -> Change:
    """Drops replies of these opcodes with this status."""
    codes = {OPCODES[name] for name in names}
    return frames(lambda fields, data: None if fields[OPCODE] in codes and fields[STATUS] == status else (fields, data))


def becomes(name: str, other: str) -> Change:
    """A request of one opcode is taken for another; its replies are not changed back."""
    return put(OPCODE, OPCODES[other], name)


def found(*names: str) -> tuple[str, ...]:
    return tuple(f"binary/{name}" for name in names)


def fault(
    name: str, sentence: str, found_by: tuple[str, ...], request: Change | None = None, reply: Change | None = None
) -> Fault:
    return Fault(f"binary-{name}", sentence, "binary", found_by, request=request, reply=reply)


FAULTS = (
    fault("opaque", "the opaque comes back as 0", found("get/hit", "get/miss", "noop"), reply=put(OPAQUE, 0)),
    fault("magic", "replies have the magic of requests", found("noop", "version"), reply=put(MAGIC, 0x80)),
    fault("type", "the data type is 1", found("noop", "set/flags"), reply=put(TYPE, 1)),
    fault(
        "opcode",
        "a getk is answered as a get",
        found("getk/hit", "getk/miss"),
        reply=put(OPCODE, OPCODES["get"], "getk"),
    ),
    fault("cas-zero", "replies have no unique", found("get/hit", "set/cas", "add/new"), reply=put(CAS, 0)),
    fault(
        "cas-other",
        "get shows another unique than set",
        found("get/hit", "getk/hit"),
        reply=put(CAS, lambda c: c + 1, "get", "getk"),
    ),
    fault(
        "cas-ignored",
        "the unique of a request is ignored",
        found(
            "set/cas",
            "set/cas-missing",
            "replace/cas",
            "append/cas",
            "prepend/cas",
            "delete/cas",
            "incr/cas",
            "setq/cas",
        ),
        request=put(CAS, 0),
    ),
    fault(
        "flags",
        "flags are lost",
        found("get/hit", "set/flags", "gat/hit"),
        reply=body(lambda b: bytes(4) + b[4:], "get", "gat"),
    ),
    fault(
        "flags-16",
        "flags are cut to 16 bits",
        found("set/flags"),
        request=body(lambda b: bytes(2) + b[2:], "set"),
    ),
    fault(
        "exptime",
        "exptimes are ignored",
        found("set/expires"),
        request=body(lambda b: b[:4] + bytes(4) + b[8:], "set"),
    ),
    fault(
        "touch",
        "touch, gat and their like ignore the exptime",
        found("touch/hit", "gat/hit", "gatk/hit", "gatq/hit", "gatkq/hit"),
        request=body(lambda b: bytes(4) + b[4:], "touch", "gat", "gatk", "gatq", "gatkq"),
    ),
    fault(
        "value",
        "a NUL in a value becomes a blank",
        found("set/binary-data"),
        reply=body(lambda b: b[:4] + b[4:].replace(b"\0", b" "), "get"),
    ),
    fault("miss", "a miss is found", found("get/miss", "delete/hit"), reply=put(STATUS, 0, "get", status=1)),
    fault(
        "add-status",
        "add of what is there answers not stored",
        found("add/present", "addq/present"),
        reply=put(STATUS, 5, "add", "addq", status=2),
    ),
    fault(
        "add-sets",
        "add sets",
        found("add/present"),
        request=becomes("add", "set"),
    ),
    fault(
        "replace-sets",
        "replace sets",
        found("replace/missing"),
        request=becomes("replace", "set"),
    ),
    fault(
        "append-prepends",
        "append prepends",
        found("append/present"),
        request=becomes("append", "prepend"),
    ),
    fault(
        "prepend-appends",
        "prepend appends",
        found("prepend/present"),
        request=becomes("prepend", "append"),
    ),
    fault(
        "append-status",
        "append to nothing answers not found",
        found("append/missing", "prepend/missing", "appendq/missing", "prependq/missing"),
        reply=put(STATUS, 1, "append", "prepend", "appendq", "prependq", status=5),
    ),
    fault(
        "delete-missing",
        "delete of nothing is fine",
        found("delete/miss", "deleteq/miss"),
        reply=put(STATUS, 0, "delete", "deleteq", status=1),
    ),
    fault("decr-counts-up", "decr counts up", found("decr/number", "decr/floor"), request=becomes("decr", "incr")),
    fault(
        "incr-ascii",
        "incr ignores the high bytes",
        found("incr/wraps"),
        reply=body(lambda b: b[:7] + b"\0" if len(b) == 8 else b, "incr"),
    ),
    fault(
        "initial",
        "a missing number starts at 0",
        found("incr/initial", "decr/initial"),
        request=body(lambda b: b[:8] + bytes(8) + b[16:], "incr", "decr"),
    ),
    fault(
        "no-initial",
        "a missing number is always made",
        found("incr/no-initial", "decr/no-initial", "incrq/missing", "decrq/missing"),
        request=body(lambda b: b[:16] + bytes(4) + b[20:], "incr", "decr", "incrq", "decrq"),
    ),
    fault(
        "non-numeric",
        "a value that is no number is invalid",
        found("incr/non-numeric", "decr/non-numeric"),
        reply=put(STATUS, 4, status=6),
    ),
    fault(
        "quiet-errors",
        "quiet opcodes hide their errors",
        found(
            "setq/cas",
            "addq/present",
            "replaceq/missing",
            "deleteq/miss",
            "appendq/missing",
            "prependq/missing",
            "incrq/missing",
        ),
        reply=frames(
            lambda f, b: (
                None if f[OPCODE] >= OPCODES["setq"] and f[OPCODE] <= OPCODES["prependq"] and f[STATUS] else (f, b)
            )
        ),
    ),
    fault(
        "quiet-hits",
        "quiet gets hide their hits",
        found("getq/hit", "getkq/hit", "gatq/hit", "gatkq/hit"),
        reply=silent("getq", "getkq", "gatq", "gatkq", status=0),
    ),
    fault(
        "loud-gets",
        "quiet gets answer misses",
        found("getq/miss", "gatq/miss"),
        request=frames(
            lambda f, b: (
                [
                    *f[:OPCODE],
                    {OPCODES["getq"]: OPCODES["get"], OPCODES["gatq"]: OPCODES["gat"]}.get(f[OPCODE], f[OPCODE]),
                    *f[KEY:],
                ],
                b,
            )
        ),
    ),
    fault(
        "loud-sets",
        "quiet stores are answered",
        found("setq/stored", "addq/stored", "replaceq/stored"),
        request=frames(
            lambda f, b: (
                [
                    *f[:OPCODE],
                    f[OPCODE] - 0x10 if OPCODES["setq"] <= f[OPCODE] <= OPCODES["replaceq"] else f[OPCODE],
                    *f[KEY:],
                ],
                b,
            )
        ),
    ),
    fault(
        "loud-rest",
        "other quiet opcodes are answered",
        found("deleteq/hit", "incrq/number", "decrq/number", "quitq"),
        request=frames(
            lambda f, b: (
                [
                    *f[:OPCODE],
                    f[OPCODE] - 0x10 if OPCODES["deleteq"] <= f[OPCODE] <= OPCODES["quitq"] else f[OPCODE],
                    *f[KEY:],
                ],
                b,
            )
        ),
    ),
    fault(
        "loud-appends",
        "quiet appends are answered",
        found("appendq/present", "prependq/present"),
        request=frames(
            lambda f, b: ([*f[:OPCODE], f[OPCODE] - 0x0B if f[OPCODE] in {0x19, 0x1A} else f[OPCODE], *f[KEY:]], b)
        ),
    ),
    fault(
        "loud-flush",
        "flushq is answered",
        found("flushq"),
        request=becomes("flushq", "flush"),
    ),
    fault(
        "key",
        "getk and its like lose the key",
        found("getk/hit", "getkq/hit", "gatk/hit", "gatkq/hit"),
        reply=put(KEY, 0, "getk", "getkq", "gatk", "gatkq"),
    ),
    fault(
        "stat-end",
        "stat has no end",
        found("stat/general", "stat/settings"),
        reply=frames(lambda f, b: None if f[OPCODE] == OPCODES["stat"] and not f[BODY] else (f, b)),
    ),
    fault(
        "stat-unknown",
        "stat of an unknown word is fine",
        found("stat/unknown"),
        reply=put(STATUS, 0, "stat", status=1),
    ),
    fault(
        "unknown",
        "an unknown opcode is invalid",
        found("unknown/opcode"),
        reply=put(STATUS, 4, status=0x81),
    ),
    fault(
        "malformed",
        "what is malformed is answered as unknown",
        found("malformed/get-extras", "malformed/set-no-extras", "key/251"),
        reply=put(STATUS, 0x81, status=4),
    ),
    fault(
        "too-large",
        "too large is out of memory",
        found("set/too-large"),
        reply=put(STATUS, 0x82, status=3),
    ),
    fault(
        "flush-delay",
        "flush ignores its delay",
        found("flush/delay"),
        request=body(lambda b: bytes(4), "flush"),
    ),
    fault(
        "flush",
        "flush does nothing",
        found("flush/all"),
        request=becomes("flush", "noop"),
        reply=frames(lambda f, b: ([*f[:OPCODE], OPCODES["flush"] if f[OPAQUE] == 1 else f[OPCODE], *f[KEY:]], b)),
    ),
    fault(
        "version",
        "version is empty",
        found("version"),
        reply=frames(
            lambda f, b: ([*f[:OPCODE], OPCODES["noop"], *f[KEY:]], b) if f[OPCODE] == OPCODES["version"] else (f, b)
        ),
    ),
    fault("quit", "quit is not answered", found("quit", "quit/not-run"), request=becomes("quit", "quitq")),
    fault(
        "touch-unique",
        "touch and gat and their like answer no unique",
        found("touch/unique", "gat/unique", "gatk/unique", "gatq/unique", "gatkq/unique"),
        reply=put(CAS, 0, "touch", "gat", "gatk", "gatq", "gatkq"),
    ),
    fault(
        "quiet-non-numeric",
        "quiet counters call a value that is no number invalid",
        found("incrq/non-numeric", "decrq/non-numeric"),
        reply=put(STATUS, 4, "incrq", "decrq", status=6),
    ),
    fault(
        "quiet-cas-ignored",
        "quiet opcodes and decr ignore the unique of a request",
        found("replaceq/cas", "appendq/cas", "prependq/cas", "deleteq/cas", "incrq/cas", "decrq/cas", "decr/cas"),
        request=put(CAS, 0, "replaceq", "appendq", "prependq", "deleteq", "incrq", "decrq", "decr"),
    ),
    fault(
        "quiet-opaque",
        "errors of quiet opcodes lose their opaque",
        found("replaceq/cas", "appendq/cas", "prependq/cas", "deleteq/cas", "incrq/cas", "decrq/cas"),
        reply=put(OPAQUE, 0, "replaceq", "appendq", "prependq", "deleteq", "incrq", "decrq", status=2),
    ),
    fault(
        "cas-missing",
        "a unique is ignored when there is no item",
        found("add/cas-missing", "addq/cas-missing", "setq/cas-missing"),
        request=put(CAS, 0, "add", "addq", "setq"),
    ),
    fault(
        "cas-missing-status",
        "a unique where there is no item answers exists",
        found("replace/cas-missing", "replaceq/cas-missing", "delete/cas-missing"),
        reply=put(STATUS, 2, "replace", "replaceq", "delete", status=1),
    ),
    fault(
        "cas-missing-append",
        "an append to nothing, with a unique, answers not found",
        found("append/cas-missing"),
        reply=put(STATUS, 1, "append", status=5),
    ),
    fault(
        "stores-flags",
        "add, replace and the quiet forms cut flags to 16 bits",
        found(*(f"{verb}/flags-exptime" for verb in STORES)),
        request=body(lambda b: bytes(2) + b[2:], *STORES),
    ),
    fault(
        "stores-exptime",
        "add, replace and the quiet forms ignore exptimes",
        found(*(f"{verb}/flags-exptime" for verb in STORES)),
        request=body(lambda b: b[:4] + bytes(4) + b[8:], *STORES),
    ),
    fault(
        "stores-exptime-swapped",
        "exptimes are read with the low byte first",
        found("set/flags-exptime", *(f"{verb}/flags-exptime" for verb in STORES)),
        request=body(lambda b: b[:4] + b[7:3:-1] + b[8:], "set", *STORES),
    ),
    fault(
        "initial-exptime",
        "the number that a counter makes stays",
        found("incr/initial-expires", "decr/initial-expires", "incrq/initial", "decrq/initial"),
        request=body(lambda b: b[:16] + bytes(4) + b[20:], "incr", "decr", "incrq", "decrq"),
    ),
    fault(
        "initial-quiet",
        "quiet counters make nothing",
        found("incrq/initial", "decrq/initial"),
        request=body(lambda b: b[:16] + b"\xff" * 4 + b[20:], "incrq", "decrq"),
    ),
    fault(
        "delete-unique",
        "a delete answers a unique",
        found("delete/no-unique"),
        reply=put(CAS, 77, "delete", status=0),
    ),
    fault(
        "opaque-16",
        "the opaque is cut to 16 bits",
        found(*(f"header/opaque/{verb}" for verb in OPAQUE_VERBS)),
        request=put(OPAQUE, lambda o: o & 0xFFFF),
    ),
    fault(
        "sasl",
        "sasl-list is answered without SASL",
        found("sasl/off"),
        reply=put(STATUS, 0, "sasl-list", status=0x81),
    ),
)
