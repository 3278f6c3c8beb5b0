"""Templates: the text of a case, with its keys, variables and runs.

Owns the small language inside a line of a case (escapes and `{...}`), for sending and for matching. It knows nothing
of cases, connections or reports, and does no I/O.

    {a}           a key of this case, unique to this run        {a:250}   the same, exactly 250 bytes long
    {C1}          a variable that an earlier reply bound        {C1+1}    arithmetic on it; {NOW} is the unix time
    {y*1000}      a run of one byte; {y*MAX+1} also             {b64:..} {uri:..}   encodings of what they hold
    {MAX}         the item size limit of the server, in bytes
    {C2=C1+1..}   (replies only) bind C2 to what stands there, by a rule; {=RULE} checks without binding

Rules: int, cas, word, text, time, LOW..HIGH (either may be missing), !EXPR (anything else), or words parted by |.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CAS_MAX = 2**64 - 1
MAX_ITEM = 1 << 20  # bytes: what memcached takes unless told otherwise
NAME = re.compile(r"[a-z][a-z0-9]*")
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*")
EXPRESSION = re.compile(r"(?:([A-Z][A-Z0-9]*)|(\d+))?([+-]\d+)?")
ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "s": b" ", "0": b"\0", "\\": b"\\", "{": b"{", "}": b"}"}


class TemplateError(ValueError):
    """A template that cannot be read: the message says what and where."""


class RuleError(Exception):
    """What stands in a reply breaks a rule; the message is for the report."""


@dataclass
class Scope:
    """What the names in a case stand for: its keys, the variables bound so far, the time."""

    prefix: str
    now: Callable[[], int]
    variables: dict[str, bytes] = field(default_factory=dict)
    max_item: int = MAX_ITEM

    def key(self, name: str, length: int = 0) -> bytes:
        """The key `name` of this case; with `length`, padded to exactly so many bytes."""
        text = (self.prefix + name).encode()
        if not length:
            return text
        if length < len(text):
            raise TemplateError(f"key {name} cannot be made {length} bytes long")
        return text + text[-1:] * (length - len(text))

    def number(self, expression: str) -> int:
        """The value of `C1`, `C1+1`, `NOW-100` or `7`."""
        match = EXPRESSION.fullmatch(expression)
        if not match or not expression:
            raise TemplateError(f"not an expression: {expression}")
        name, literal, offset = match.groups()
        given: dict[str, Callable[[], int]] = {"NOW": self.now, "MAX": lambda: self.max_item}
        base = int(literal or 0) if name is None else given[name]() if name in given else int(self.variables[name])
        return base + int(offset or 0)


class Part:
    """One piece of a template; subclasses say what it becomes."""

    def render(self, scope: Scope) -> bytes:
        """The bytes to send, or to find in a reply."""
        raise NotImplementedError


@dataclass(frozen=True)
class Literal(Part):
    """Bytes as they stand."""

    data: bytes

    def render(self, scope: Scope) -> bytes:
        return self.data


@dataclass(frozen=True)
class Key(Part):
    """A key of the case, maybe padded to a length."""

    name: str
    length: int

    def render(self, scope: Scope) -> bytes:
        return scope.key(self.name, self.length)


@dataclass(frozen=True)
class Value(Part):
    """A variable, or arithmetic on one."""

    expression: str

    def render(self, scope: Scope) -> bytes:
        if VARIABLE.fullmatch(self.expression) and self.expression not in {"NOW", "MAX"}:
            return scope.variables[self.expression]
        return b"%d" % scope.number(self.expression)


@dataclass(frozen=True)
class Run(Part):
    """One byte, as often as an expression says."""

    byte: bytes
    times: str

    def render(self, scope: Scope) -> bytes:
        return self.byte * scope.number(self.times)


def _uri(data: bytes) -> bytes:
    """Every byte but letters, digits and `-._~` as %XX, as metadump and watch write keys."""
    return re.sub(rb"[^A-Za-z0-9._~-]", lambda m: b"%%%02X" % m[0][0], data)


ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {"b64": base64.b64encode, "uri": _uri}


@dataclass(frozen=True)
class Encoded(Part):
    """Another template, encoded."""

    encoding: str
    inner: Template

    def render(self, scope: Scope) -> bytes:
        return ENCODINGS[self.encoding](self.inner.render(scope))


@dataclass(frozen=True)
class Binding(Part):
    """A place in a reply that a rule judges, and a variable may keep."""

    name: str
    rule: str

    def render(self, scope: Scope) -> bytes:
        return f"<{self.name + ': ' if self.name else ''}{self.rule}>".encode()

    @property
    def pattern(self) -> bytes:
        """The shape of what may stand here; `check` judges the rest."""
        if self.rule == "text":
            return rb"[^\r\n]*"
        if self.rule in {"int", "cas"}:
            return rb"\d{1,20}"
        if self.rule == "time":
            return rb"\d{1,20}\.\d{1,20}"
        if ".." in self.rule:
            return rb"-?\d{1,20}"
        if self.rule.startswith("!"):
            return rb"\d{1,20}"
        if self.rule == "word":
            return rb"\S+"
        return b"(?:" + b"|".join(re.escape(word.encode()) for word in self.rule.split("|")) + b")"

    def check(self, found: bytes, scope: Scope) -> None:
        """Raises RuleError when `found` breaks the rule; binds the variable when it keeps it."""
        text = found.decode("latin-1")
        if self.rule == "cas" and not 0 < int(found) <= CAS_MAX:
            raise RuleError(f"{text} is no cas unique")
        if ".." in self.rule:
            low, high = self.rule.split("..")
            if low and int(found) < scope.number(low):
                raise RuleError(f"{text} is less than {low}" + self._value(low, scope))
            if high and int(found) > scope.number(high):
                raise RuleError(f"{text} is more than {high}" + self._value(high, scope))
        if self.rule.startswith("!") and int(found) == scope.number(self.rule[1:]):
            raise RuleError(f"{text} should differ from {self.rule[1:]}")
        if self.name:
            scope.variables[self.name] = found

    @staticmethod
    def _value(expression: str, scope: Scope) -> str:
        return "" if expression.lstrip("-").isdigit() else f" = {scope.number(expression)}"


@dataclass(frozen=True)
class Template:
    """A text of a case, read once, rendered or matched for each run."""

    parts: tuple[Part, ...]

    def render(self, scope: Scope) -> bytes:
        """The bytes of this text; places that a rule judges show as `<rule>`."""
        return b"".join(part.render(scope) for part in self.parts)

    def __add__(self, data: bytes) -> Template:
        return Template((*self.parts, Literal(data)))

    @property
    def bindings(self) -> list[Binding]:
        """The places that rules judge, in order."""
        return [part for part in self.parts if isinstance(part, Binding)]

    def match(self, line: bytes, scope: Scope) -> str | None:
        """None when `line` is this text and keeps its rules (variables are then bound); else what is wrong."""
        pattern = b"".join(
            b"(" + part.pattern + b")" if isinstance(part, Binding) else re.escape(part.render(scope))
            for part in self.parts
        )
        found = re.fullmatch(pattern, line, re.DOTALL)
        if found is None:
            return "the text differs"
        before = dict(scope.variables)
        try:
            for binding, text in zip(self.bindings, found.groups(), strict=True):
                binding.check(text, scope)
        except RuleError as error:
            scope.variables = before
            return str(error)
        return None


def parse(text: str) -> Template:
    """Reads a template; TemplateError when it is malformed."""
    parts, end = _parse(text, 0, nested=False)
    assert end == len(text)
    return Template(tuple(parts))


def _parse(text: str, at: int, *, nested: bool) -> tuple[list[Part], int]:
    parts: list[Part] = []
    literal = bytearray()
    while at < len(text):
        char = text[at]
        if char == "}":
            if nested:
                break
            raise TemplateError(f"stray }} in {text!r}")
        if char == "\\":
            data, at = _escape(text, at)
            literal += data
        elif char == "{":
            if literal:
                parts.append(Literal(bytes(literal)))
                literal.clear()
            part, at = _place(text, at + 1)
            parts.append(part)
        else:
            literal += char.encode()
            at += 1
    if literal:
        parts.append(Literal(bytes(literal)))
    return parts, at


def _escape(text: str, at: int) -> tuple[bytes, int]:
    code = text[at + 1 : at + 2]
    if code == "x":
        return bytes.fromhex(text[at + 2 : at + 4]), at + 4
    if code not in ESCAPES:
        raise TemplateError(f"unknown escape \\{code} in {text!r}")
    return ESCAPES[code], at + 2


def _place(text: str, at: int) -> tuple[Part, int]:
    """One `{...}`, from behind its opening brace; returns it and the position behind its closing brace."""
    for encoding in ENCODINGS:
        if text.startswith(encoding + ":", at):
            inner, end = _parse(text, at + len(encoding) + 1, nested=True)
            return Encoded(encoding, Template(tuple(inner))), end + 1
    run = re.compile(r"(\\x[0-9a-f]{2}|\\[rnts0]|[^{}])\*(\d+|MAX[+-]\d+)\}").match(text, at)
    if run:
        byte = _escape(run[1], 0)[0] if len(run[1]) > 1 else run[1].encode()
        return (Literal(byte * int(run[2])) if run[2].isdigit() else Run(byte, run[2])), run.end()
    end = text.find("}", at)
    if end < 0:
        raise TemplateError(f"unclosed {{ in {text!r}")
    body = text[at:end]
    name, equals, rule = body.partition("=")
    if equals:
        if (name and not VARIABLE.fullmatch(name)) or not rule:
            raise TemplateError(f"malformed rule {{{body}}}")
        return Binding(name, rule), end + 1
    key, _, length = body.partition(":")
    if NAME.fullmatch(key) and (not length or length.isdigit()):
        return Key(key, int(length or 0)), end + 1
    if EXPRESSION.fullmatch(body) and body:
        return Value(body), end + 1
    raise TemplateError(f"cannot read {{{body}}}")
