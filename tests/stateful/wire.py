"""The text protocol in front of the model: bytes in, bytes out, as memcached 1.6.45 speaks it.

Only what the tests send needs to be right here; recorded exchanges and a real memcached prove it (test_model.py).
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from tests.stateful.model import Item, Mode, Model, NonNumericError

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
NON_NUMERIC = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
OPAQUE = b"CLIENT_ERROR opaque token too long\r\n"
INVALID_FLAG = b"CLIENT_ERROR invalid flag\r\n"
META_STATUS = {"STORED": b"HD", "NOT_STORED": b"NS", "EXISTS": b"EX", "NOT_FOUND": b"NF"}
META_MODES: dict[bytes, Mode] = {b"E": "add", b"A": "append", b"P": "prepend", b"R": "replace", b"S": "set"}
LEAST_WORDS = {
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), 5),
    b"flush_all": 1,
    **dict.fromkeys((b"get", b"gets", b"delete", b"mg", b"md", b"ma", b"me"), 2),
    **dict.fromkeys((b"incr", b"decr", b"touch", b"gat", b"gats", b"ms"), 3),
}


class ProtocolError(Exception):
    """Carries the reply to a command that can't be carried out."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def integer(word: bytes, least: int, most: int, digits: int) -> int | None:
    """Memcached's strict numbers: digits only, a minus only where negative numbers are allowed."""
    if not re.fullmatch(rb"-?\d+" if least < 0 else rb"\d+", word) or len(word) > digits:
        return None
    return int(word) if least <= int(word) <= most else None


def int32(word: bytes) -> int | None:
    """A length or an exptime."""
    return integer(word, -(2**31), 2**31 - 1, 11)


def uint64(word: bytes) -> int | None:
    """A delta or a CAS unique."""
    return integer(word, 0, 2**64 - 1, 22)


def uint32(word: bytes) -> int | None:
    """The client flags of a meta command."""
    return integer(word, 0, 2**32 - 1, 11)


def loose(word: bytes, negative: bool) -> int | None:
    """The classic flags and exptime: C's strtol, cut to 32 bits."""
    match = re.fullmatch(rb"([+-]?)(\d+)", word)
    if not match or int(match[2]) >= 2**63 or (match[1] == b"-" and not negative and int(match[2])):
        return None
    number = -int(match[2]) if match[1] == b"-" else int(match[2])
    return (number + 2**31) % 2**32 - 2**31 if negative else number % 2**32


@dataclass
class Flags:
    """The flags of a meta command, parsed."""

    words: list[bytes] = field(default_factory=list)

    def has(self, letter: bytes) -> bool:
        return any(word[:1] == letter for word in self.words)

    def text(self, letter: bytes) -> bytes:
        return next((word[1:] for word in self.words if word[:1] == letter), b"")

    def number(self, letter: bytes) -> int:
        """The flag's number, 0 without it; check() made sure that it is one."""
        return int(self.text(letter) or 0)

    def check(self) -> None:
        """Raises the ProtocolError of the first flag that is wrong."""
        seen = set()
        for word in self.words:
            letter, text = word[:1], word[1:]
            if not (letter.isdigit() or b"A" <= letter <= b"z"):
                raise ProtocolError(BAD_LINE)
            if letter in seen:
                raise ProtocolError(b"CLIENT_ERROR duplicate flag\r\n")
            seen.add(letter)
            if letter not in b"bNTRlOPLkstcfvhuqxFCEMJDI":
                raise ProtocolError(INVALID_FLAG)
            if (letter in b"NTR" and int32(text) is None) or (letter in b"CE" and uint64(text) is None):
                raise ProtocolError(BAD_TOKEN)
            if letter == b"F" and uint32(text) is None:
                raise ProtocolError(BAD_LINE)
            if letter == b"D" and uint64(text) is None:
                raise ProtocolError(b"CLIENT_ERROR invalid numeric delta value\r\n")
            if letter == b"J" and uint64(text) is None:
                raise ProtocolError(b"CLIENT_ERROR invalid numeric initial value\r\n")


class ModelSession:
    """One connection to the model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.closed = False
        self._buffer = b""
        self._binary: bool | None = None  # unknown before the first byte
        self._swallow = 0
        self._block: tuple[int, Callable[[bytes], bytes]] | None = None

    # framing

    def feed(self, data: bytes) -> bytes:
        """What the server answers to these bytes. The binary protocol is not modelled: its clients get nothing here."""
        if self._binary is None and data:
            self._binary = data[0] == 0x80
        if self._binary:
            return b""
        self._buffer += data
        out = b""
        while not self.closed:
            if self._swallow:
                cut = min(self._swallow, len(self._buffer))
                self._swallow, self._buffer = self._swallow - cut, self._buffer[cut:]
                if self._swallow:
                    break
            if self._block:
                size, finish = self._block
                if len(self._buffer) < size + 2:
                    break
                block, self._buffer = self._buffer[: size + 2], self._buffer[size + 2 :]
                self._block = None
                out += finish(block)
                continue
            end = self._buffer.find(b"\n")
            if end < 0:
                self.closed = len(self._buffer) > 2048 and not re.match(rb" {0,100}gets? ", self._buffer)
                break
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            out += self._line(line)
        return out

    def _line(self, line: bytes) -> bytes:
        if len(line) < 3:
            return BAD_LINE
        line = line.removesuffix(b"\r")
        verb = line.split(b" ", 1)[0]
        words = [verb, *line[len(verb) :].split(b" ")]
        words = [verb, *(word for word in words[1:] if word)]
        if verb == b"quit":
            self.closed = True
            return b""
        if verb == b"mn":
            return b"MN\r\n"
        if verb == b"version":
            return b"VERSION 1.6.45\r\n"
        if verb not in LEAST_WORDS:
            return self._unknown(words)
        if len(words) < LEAST_WORDS[verb]:
            return BAD_LINE
        silent = verb[:1] not in {b"m", b"g"} and words[-1] == b"noreply"
        try:
            reply = getattr(self, "_" + verb.decode())(words)
        except ProtocolError as error:
            reply = error.reply
        return b"" if silent else bytes(reply)

    def _unknown(self, words: list[bytes]) -> bytes:
        if len(words) > 1 and words[-1].startswith(b"HTTP/"):
            self.closed = True
        if self.closed or words[-1] == b"noreply":
            return b""
        return b"ERROR\r\n"

    # classic

    def _storage(self, words: list[bytes]) -> bytes:
        mode = cast(Mode, words[0].decode())  # one of them, or it had not come here
        key, silent = words[1], words[-1] == b"noreply"
        size = int32(words[4])
        if size is None or not 0 <= size <= 2**31 - 3:
            return BAD_LINE
        flags, exptime = loose(words[2], False), loose(words[3], True)
        unique = uint64(words[5]) if mode == "cas" and len(words) > 5 else 0
        if len(key) > 250 or flags is None or exptime is None or unique is None or (mode == "cas" and len(words) < 6):
            self._swallow = size + 2
            return BAD_LINE
        if not self.model.fits(key, size, flags):
            self._swallow = size + 2
            self.model.drop_refused(mode, key, meta=False)
            return TOO_LARGE
        expires = self.model.expiry(exptime)

        def finish(block: bytes) -> bytes:
            if block[-2:] != b"\r\n":
                return b"" if silent else BAD_CHUNK
            status, _ = self.model.store(mode, key, block[:-2], flags, expires, compare=unique)
            return b"" if silent else status.encode() + b"\r\n"

        self._block = size, finish
        return b""

    _set = _add = _replace = _append = _prepend = _cas = _storage

    def _retrieve(self, keys: list[bytes], uniques: bool, exptime: int | None = None) -> bytes:
        out = b""
        for key in keys:
            if len(key) > 250:
                return BAD_LINE + b"\r\n"
            item = self.model.hit(key) if exptime is None else self.model.touch(key, exptime)
            if item:
                cas = b" %d" % item.cas if uniques else b""
                out += b"VALUE %b %d %d%b\r\n%b\r\n" % (key, item.flags, len(item.value), cas, item.value)
        return out + b"END\r\n"

    def _get(self, words: list[bytes]) -> bytes:
        return self._retrieve(words[1:], uniques=words[0] == b"gets")

    _gets = _get

    def _gat(self, words: list[bytes]) -> bytes:
        exptime = int32(words[1])
        if exptime is None:
            return BAD_EXPTIME
        return self._retrieve(words[2:], words[0] == b"gats", exptime)

    _gats = _gat

    @staticmethod
    def _key(key: bytes) -> bytes:
        if len(key) > 250:
            raise ProtocolError(BAD_LINE)
        return key

    def _touch(self, words: list[bytes]) -> bytes:
        key, exptime = self._key(words[1]), int32(words[2])
        if exptime is None:
            return BAD_EXPTIME
        return b"TOUCHED\r\n" if self.model.touch(key, exptime) else b"NOT_FOUND\r\n"

    def _delete(self, words: list[bytes]) -> bytes:
        return b"DELETED\r\n" if self.model.delete(self._key(words[1])) else b"NOT_FOUND\r\n"

    def _incr(self, words: list[bytes]) -> bytes:
        key, delta = self._key(words[1]), uint64(words[2])
        if delta is None:
            return b"CLIENT_ERROR invalid numeric delta argument\r\n"
        try:
            found = self.model.arithmetic(key, delta, incr=words[0] == b"incr")
        except NonNumericError:
            return NON_NUMERIC
        return found.encode() + b"\r\n" if isinstance(found, str) else b"%d\r\n" % found[0]

    _decr = _incr

    def _flush_all(self, words: list[bytes]) -> bytes:
        delay = int32(words[1]) if len(words) > 1 and words[1] != b"noreply" else 0
        if delay is None:
            return BAD_EXPTIME
        self.model.flush_all(delay)
        return b"OK\r\n"

    # meta

    def _meta(self, words: list[bytes], first_flag: int) -> tuple[bytes, Flags]:
        """The key and the flags of a meta command, or a ProtocolError."""
        key, flags = words[1], Flags(words[first_flag:])
        if len(words) > 20:
            raise ProtocolError(b"CLIENT_ERROR options flags are too long\r\n")
        self._key(key)
        flags.check()
        if flags.has(b"b"):
            try:
                key = base64.b64decode(key)
            except binascii.Error:
                key = b""
            if not key:
                raise ProtocolError(b"CLIENT_ERROR error decoding key\r\n")
        if len(flags.text(b"O")) > 31:
            raise ProtocolError(OPAQUE)
        return key, flags

    @staticmethod
    def _echo(flags: Flags, key: bytes, binary: bool, show: dict[bytes, Callable[[], bytes]]) -> bytes:
        """The return flags, in the order of the request."""
        out = b""
        for word in flags.words:
            letter = word[:1]
            if letter == b"O":
                out += b" " + word
            elif letter == b"k":
                out += b" k" + (base64.b64encode(key) + b" b" if binary else key)
            elif letter in show:
                out += show[letter]()
        return out

    def _lifetimes(self, flags: Flags, item: Item, created: bool) -> dict[bytes, Callable[[], bytes]]:
        """What T, N and t do, each when its letter comes."""

        def touch() -> bytes:
            item.exptime = self.model.expiry(flags.number(b"T"))
            return b""

        def vivified() -> bytes:
            if created:
                item.exptime = self.model.expiry(flags.number(b"N"))
            return b""

        def remaining() -> bytes:
            return b" t%d" % ((item.exptime - self.model.now) % 2**32 if item.exptime else -1)

        return {b"T": touch, b"N": vivified, b"t": remaining}

    def _mg(self, words: list[bytes]) -> bytes:
        key, flags = self._meta(words, 2)
        item, created = self.model.find(key), False
        if not item and flags.has(b"N"):
            item = self.model.vivify(key, b"", flags.number(b"E"))
            created = item is not None
        if not item:
            return b"" if flags.has(b"q") else b"EN" + self._echo(flags, key, flags.has(b"b"), {}) + b"\r\n"
        won = created

        def recache() -> bytes:
            nonlocal won
            limit = self.model.expiry(flags.number(b"R"))
            won = won or (not item.token and not created and item.exptime != 0 and item.exptime < limit)
            return b""

        out = self._echo(flags, key, item.binary, {
            **self._lifetimes(flags, item, created),
            b"R": recache,
            b"s": lambda: b" s%d" % len(item.value),
            b"c": lambda: b" c%d" % item.cas,
            b"f": lambda: b" f%d" % item.flags,
            b"l": lambda: b" l%d" % (self.model.now - item.accessed),
            b"h": lambda: b" h%d" % item.fetched,
        })  # fmt: skip
        out += b" Z" * item.token + b" X" * item.stale
        won = won or (item.stale and not item.token)
        out += b" W" * won
        item.token = item.token or won
        if not flags.has(b"u"):
            item.fetched, item.accessed = True, self.model.now
        if flags.has(b"v") and not (flags.has(b"C") and flags.number(b"C") == item.cas):
            return b"VA %d%b\r\n%b\r\n" % (len(item.value), out, item.value)
        return b"HD" + out + b"\r\n"

    def _ms(self, words: list[bytes]) -> bytes:
        size = int32(words[2])
        if size is None or not 0 <= size <= 2**31 - 3:
            return BAD_LINE
        try:
            key, flags = self._meta(words, 3)
            letter = flags.text(b"M")[:1] or b"S"
            if flags.has(b"M") and letter not in META_MODES:
                raise ProtocolError(b"CLIENT_ERROR invalid mode for ms M token\r\n")
            mode = META_MODES[letter]
            if not self.model.fits(key, size, flags.number(b"F")):
                self.model.drop_refused(mode, key, meta=True)
                raise ProtocolError(TOO_LARGE)
        except ProtocolError:
            self._swallow = size + 2
            raise
        if flags.has(b"C") and mode in {"set", "replace"}:
            mode = "cas"
        vivify = flags.has(b"N") and mode in {"append", "prepend"}
        expires = self.model.expiry(flags.number(b"N" if vivify else b"T"))

        def finish(block: bytes) -> bytes:
            if block[-2:] != b"\r\n":
                return BAD_CHUNK
            status, item = self.model.store(
                mode, key, block[:-2], flags.number(b"F"), expires, vivify=vivify, binary=flags.has(b"b"),
                compare=flags.number(b"C"), new_cas=flags.number(b"E"), allow_stale=flags.has(b"I"),
            )  # fmt: skip
            if status == "STORED" and flags.has(b"q"):
                return b""
            return META_STATUS[status] + self._echo(flags, key, flags.has(b"b"), {
                b"c": lambda: b" c%d" % (item.cas if item else 0),
                b"s": lambda: b" s%d" % (len(item.value) if item else size),
            }) + b"\r\n"  # fmt: skip

        self._block = size, finish
        return b""

    def _md(self, words: list[bytes]) -> bytes:
        key, flags = self._meta(words, 2)
        echo = self._echo(flags, key, flags.has(b"b"), {}) + b"\r\n"
        item = self.model.find(key)
        if not item:
            return b"NF" + echo
        if flags.has(b"C") and flags.number(b"C") != item.cas:
            return b"EX" + echo
        if flags.has(b"x"):
            self.model.empty(key, flags.number(b"F"), flags.number(b"T"), flags.number(b"E"))
        if flags.has(b"I"):
            ttl = flags.number(b"T") if flags.has(b"T") else None
            self.model.mark_stale(key, ttl, flags.number(b"E"))
        elif not flags.has(b"x"):
            self.model.delete(key)
        return b"" if flags.has(b"q") else b"HD" + echo

    def _ma(self, words: list[bytes]) -> bytes:
        try:
            key, flags = self._meta(words, 2)
        except ProtocolError as error:
            text = OPAQUE if error.reply == OPAQUE else b"CLIENT_ERROR invalid or duplicate flag\r\n"
            raise ProtocolError(text) from error
        letter = flags.text(b"M")[:1] or b"I"
        if letter not in b"I+D-":
            raise ProtocolError(b"CLIENT_ERROR invalid mode for ma M token\r\n")
        item = self.model.find(key)
        delta = flags.number(b"D") if flags.has(b"D") else 1
        try:
            found = self.model.arithmetic(
                key, delta, letter in b"I+", compare=flags.number(b"C"), new_cas=flags.number(b"E")
            )
        except NonNumericError:
            return NON_NUMERIC
        created = False
        if found == "NOT_FOUND" and flags.has(b"N"):
            initial = flags.number(b"J")
            made = self.model.vivify(key, b"%d" % initial, flags.number(b"E"))
            if made:
                found, created = (initial, made), True
        if isinstance(found, str):
            return META_STATUS[found] + self._echo(flags, key, flags.has(b"b"), {}) + b"\r\n"
        number, made = found
        lifetime, grown = made.exptime, not created and made is not item
        reply = self._changed(key, flags, number, made, created)
        if grown:  # memcached sets T on the item that the longer number has replaced
            made.exptime = lifetime
        return b"" if flags.has(b"q") else reply

    def _changed(self, key: bytes, flags: Flags, number: int, item: Item, created: bool) -> bytes:
        out = self._echo(flags, key, flags.has(b"b"), {
            **self._lifetimes(flags, item, created),
            b"c": lambda: b" c%d" % item.cas,
        })  # fmt: skip
        text = b"%d" % number
        return b"VA %d%b\r\n%b\r\n" % (len(text), out, text) if flags.has(b"v") else b"HD" + out + b"\r\n"

    def _me(self, words: list[bytes]) -> bytes:
        key = self._key(words[1])
        if words[2:3] == [b"b"] and len(words) > 3:  # memcached wants one more word
            key = base64.b64decode(key)
        item = self.model.find(key)
        if not item:
            return b"EN\r\n"
        shown = base64.b64encode(key) if item.binary else key
        size = self.model.size(key, len(item.value), item.flags)
        exptime = item.exptime - self.model.now if item.exptime else -1
        return b"ME %b exp=%d la=%d cas=%d fetch=%b cls=0 size=%d\r\n" % (
            shown, exptime, self.model.now - item.accessed, item.cas, b"yes" if item.fetched else b"no", size,
        )  # fmt: skip
