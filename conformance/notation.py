"""Case files: how a case is written, and what it is once read.

Owns the notation of conformance/cases/*.case (docs/conformance.md describes it) and the `Case` it yields. It runs
nothing. A file is a header (`section`, `doc`) and cases; a case is its id, one requirement sentence, its properties
and the exchange:

    case classic/incr/wraps-at-2^64
      An incr past 2^64-1 wraps around.
      rule: arith.wrap
      stored {a} 0 0 18446744073709551615
      > incr {a} 10
      < 9
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal as OneOf

from .binary import ExpectFrame, Frame, reply, request
from .datagrams import LARGEST
from .text import Binding, Encoded, Literal, Run, Scope, Template, TemplateError, Value, parse

APART = 0.02  # seconds between two writes that must arrive apart
Version = tuple[int, ...]
LEVELS = ("must", "should", "version")
SUITES = ("classic", "meta", "binary", "admin")
# What a command needs: the feature that a look at the server finds, or misses.
FEATURES = {
    "gets": "gets", "cas": "cas", "add": "add", "replace": "replace", "append": "append", "prepend": "prepend",
    "delete": "delete", "incr": "incr", "decr": "decr", "touch": "touch", "gat": "gat", "gats": "gats",
    "mg": "meta", "ms": "meta", "md": "meta", "ma": "meta", "mn": "meta", "me": "meta",
    "version": "version", "verbosity": "verbosity", "flush_all": "flush_all", "quit": "quit",
    "stats": "stats", "slabs": "admin", "lru": "admin", "lru_crawler": "admin", "watch": "admin",
}  # fmt: skip
SINCE = {"touch": (1, 4, 8), "gat": (1, 5, 3), "gats": (1, 5, 3), "meta": (1, 6)}  # the release that brought it
LARGE = 1 << 18  # bytes of a write that servers with a lower item size limit than memcached's may refuse
KNOWN = (1, 6, 18)  # of releases before this one only what the text says, and what never changed, is judged
COMMAND = re.compile(rb"^ *([a-z_]+)(?=[ \r\n])", re.MULTILINE)
STORES = re.compile(rb"(?:set|add|replace|append|prepend|cas) \S+ \S+ \S+ (\d+)\b|ms \S+ (\d+)\b")
NOREPLY = re.compile(rb" noreply *\r?$", re.MULTILINE)
NEEDS = {
    "destructive": "would harm a cache in use: give --destructive or --spawn",
    "alone": "needs a server that nobody else uses at that time: give --destructive or --spawn",
    "own": "needs a server that the suite started: give --spawn",
    "fresh": "needs a server of its own: give --spawn",
    "whole": "needs its writes in one piece: not with --split",
    "tcp": "needs TCP",
    "plain": "needs a server without TLS",
    "open": "needs a server without authentication",
}
CLOSED = re.compile(r"\d\.\.\d")  # a rule with both limits: seconds, mostly
CONDITION = re.compile(r"\[(<?)([0-9.]+)(\+?)\] *(.*)")
LIST_WORDS = ("has", "haslf", "next", "nextlf", "none", "each", "eachlf", "lines", "least")


class NotationError(ValueError):
    """A case file that cannot be read: the message names file and line."""


@dataclass(frozen=True)
class Line:
    """One demand on a list: a word of LIST_WORDS, and the text it is about (or a count, for `lines` and `least`)."""

    word: str
    text: Template
    count: int = 0
    condition: str = ""


@dataclass(frozen=True)
class Send:
    """Bytes to write in one piece; `patient`: again while the answer is BUSY."""

    text: Template
    patient: bool = False


@dataclass(frozen=True)
class Expect:
    """Exactly this must come next; a text with rules is matched line by line."""

    text: Template


@dataclass(frozen=True)
class ExpectList:
    """Lines up to `end`, in which some must be found."""

    end: Template
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Until:
    """Lines are read and dropped until one is this (used on watchers); it ends with LF or CRLF."""

    text: Template


Word = OneOf["closed", "wait", "use", "mute", "crowd", "gone", "hangup"]


@dataclass(frozen=True)
class Act:
    """What is neither sent nor received.

    closed: the server must close the connection. wait: sleep so many seconds. use: go on with connection number N.
    mute: no closing check on this connection. crowd: open up to N idle connections. gone: the server's process must end.
    hangup: the client closes this connection.
    """

    word: Word
    amount: float = 0


Step = Send | Expect | ExpectList | ExpectFrame | Until | Act


@dataclass
class Case:
    """One requirement and the exchange that shows whether a server meets it."""

    id: str
    requirement: str
    section: str
    doc: str
    rules: tuple[str, ...] = ()
    level: str = "must"
    suite: str = "classic"
    uses: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    since: Version = ()
    until: Version = ()
    steps: list[tuple[str, Step]] = field(default_factory=list)
    undo: tuple[str, ...] = ()  # lines that put back what the case changed, sent when it fails on the way

    @functools.cached_property
    def features(self) -> frozenset[str]:
        """What the server must know for the case to say anything: from the commands it sends, unless `uses` says it."""
        if self.uses:
            return self.uses - {"nothing"}
        wants = [binding.rule for _, step in self.steps for text in _templates(step) for binding in text.bindings]
        found = {"cas"} if "cas" in wants else set()
        if self.suite == "binary":
            return frozenset({"binary", *found})
        for _, step in self.steps:
            if isinstance(step, Send):
                text = sent(step)
                found |= {FEATURES[verb.decode()] for verb in COMMAND.findall(text) if verb.decode() in FEATURES}
                found |= {"noreply"} if NOREPLY.search(text) else set()
                if any(isinstance(part, Run) for part in step.text.parts) and len(text) > LARGEST:
                    found.add("item-limit")
                elif len(text) > LARGE:
                    found.add("large-values")
        return frozenset(found)

    @property
    def exclusive(self) -> bool:
        """Whether no other case may use the server at the same time."""
        return bool(self.needs & {"destructive", "alone"})

    def exchange(self, profile: Version) -> list[Step]:
        """The steps that hold for a server of this version."""
        steps = [step for condition, step in self.steps if holds(condition, profile)]
        return [_list_for(step, profile) if isinstance(step, ExpectList) else step for step in steps]

    def applies(self, profile: Version) -> bool:
        """Whether the case says anything about a server of this version."""
        if profile < KNOWN and (self.suite in {"meta", "admin"} or self.level == "version"):
            return False
        if any(profile < since for feature, since in SINCE.items() if feature in self.features):
            return False
        return profile >= self.since and not (self.until and profile >= self.until)

    def seconds(self, profile: Version) -> float:
        """How long the case sleeps."""
        return sum(step.amount for step in self.exchange(profile) if isinstance(step, Act) and step.word == "wait")

    def timed(self, profile: Version) -> bool:
        """Whether seconds decide: it sleeps, a crowd comes, or a time within limits stands in what is wanted."""
        return any(
            (isinstance(step, Act) and step.word in {"wait", "crowd"})
            or (isinstance(step, Expect | Until) and _has_time(step.text))
            or (isinstance(step, ExpectList) and any(_has_time(line.text) for line in step.lines))
            for step in self.exchange(profile)
        )


class _Anything(dict[str, bytes]):
    """Variables that nothing has bound yet."""

    def __missing__(self, name: str) -> bytes:
        return b"1"


def _has_time(text: Template) -> bool:
    return any("NOW" in binding.rule or CLOSED.search(binding.rule) for binding in text.bindings)


def sent(step: Send) -> bytes:
    """What a step sends, with some key and some value where a run puts its own."""
    return step.text.render(Scope("xxxx.xxx.", lambda: 2**31, _Anything()))


def version(text: str) -> Version:
    """`1.6.45` as numbers that compare."""
    return tuple(int(number) for number in text.split("."))


def holds(condition: str, profile: Version) -> bool:
    """Whether `1.6.40+` (since) or `<1.6.40` (before) is true of a version; an empty condition always is."""
    if not condition:
        return True
    if condition.startswith("<"):
        return profile < version(condition[1:])
    return profile >= version(condition.rstrip("+"))


def _list_for(step: ExpectList, profile: Version) -> ExpectList:
    return ExpectList(step.end, tuple(line for line in step.lines if holds(line.condition, profile)))


def read(name: str, text: str) -> Iterator[Case]:
    """The cases of one file; NotationError says where it is malformed."""
    defaults = {"section": name, "suite": "classic", "doc": "memcached 1.6.45"}
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.startswith("case "):
            yield from _block(name, block, defaults)
            block = [(number, line)]
        elif line[0] == " " and block:
            block.append((number, line.strip()))
        elif line.split(":")[0] in defaults:
            yield from _block(name, block, defaults)
            block = []
            key, _, value = line.partition(":")
            defaults[key] = value.strip()
        else:
            raise NotationError(f"{name}:{number}: not a case, and not within one: {line}")
    yield from _block(name, block, defaults)


def _block(name: str, block: list[tuple[int, str]], defaults: dict[str, str]) -> Iterator[Case]:
    """One case, or one for each row of its `each` table."""
    if not block:
        return
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    lines = []
    for number, line in block:
        if line.startswith("each "):
            columns = line.split()[1:]
        elif line.startswith("| "):
            cells = [cell.strip() for cell in line[2:].split(" | ")]
            if len(cells) != len(columns):
                raise NotationError(f"{name}:{number}: {len(columns)} cells wanted: {line}")
            rows.append(dict(zip(columns, cells, strict=True)))
        else:
            lines.append((number, line))
    for row in rows or [{}]:
        yield _case(name, [(number, _fill(line, row)) for number, line in lines], defaults)


def _fill(line: str, row: dict[str, str]) -> str:
    for column, cell in row.items():
        line = line.replace(f"${column}", cell)
    return line


def _case(name: str, lines: list[tuple[int, str]], defaults: dict[str, str]) -> Case:
    case = Case(
        lines[0][1].removeprefix("case ").strip(), "", defaults["section"], defaults["doc"], suite=defaults["suite"]
    )
    steps = _Steps(case)
    for number, line in lines[1:]:
        try:
            if not case.requirement:
                case.requirement = line
            elif not _property(case, line):
                steps.add(line)
        except (ValueError, IndexError) as error:
            raise NotationError(f"{name}:{number}: {error}") from error
    try:
        steps.flush()
        if case.suite == "classic" and "meta" in case.features:
            case.suite = "meta"  # a row of a table that is about a meta command
        _check(case)
    except ValueError as error:
        raise NotationError(f"{name}:{lines[0][0]}: {case.id}: {error}") from error
    return case


def _property(case: Case, line: str) -> bool:
    """Takes `rule: x y`, `level: should` and their like; False when the line is none of them."""
    found = re.match(r"(rule|level|suite|uses|doc|options|file|needs|since|until|undo): *(.*)", line)
    if not found:
        return False
    key, value = found.groups()
    if key == "rule":
        case.rules = tuple(value.split())
    elif key == "level":
        case.level = value
    elif key == "suite":
        case.suite = value
    elif key == "uses":
        case.uses = frozenset(value.split())
    elif key == "doc":
        case.doc = value
    elif key == "options":
        case.options = tuple(value.split())
    elif key == "file":
        file, _, content = value.partition(" ")
        case.files[file] = content.replace("\\n", "\n")
    elif key == "undo":
        case.undo += (value,)
    elif key == "needs":
        case.needs = frozenset(value.split())
    elif key == "since":
        case.since = version(value)
    else:
        case.until = version(value)
    return True


class _Steps:
    """Gathers an exchange line by line: neighbouring sends become one write, a list takes the lines below it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sending: dict[str, list[str]] = {}
        self.frames: list[Frame] = []
        self.list: tuple[str, Template, list[Line]] | None = None

    def add(self, line: str) -> None:
        condition = ""
        if found := CONDITION.fullmatch(line):
            condition, line = found[1] + found[2] + found[3], found[4]
        word, _, rest = line.partition(" ")
        if self.list and word in LIST_WORDS:
            count = int(rest) if word in {"lines", "least"} else 0
            self.list[2].append(Line(word, parse(rest), count, condition))
            return
        if word == ">~":
            self.flush()
            self._put(condition, Send(parse(rest) + b"\r\n", patient=True))
            return
        if word == ">b":
            self._finish_list()
            self.frames.append(request(rest))
            return
        if word in {">", ">>"}:
            self._finish_list()
            self.sending.setdefault(condition, []).append(rest + ("" if word == ">>" else "\\r\\n"))
            return
        self.flush()
        if word in {"<b", "<b*"}:
            self._put(condition, reply(rest, patient=word == "<b*"))
        elif word == "stored":
            self._stored(rest, condition)
        elif word in {"<", "<<", "<lf"}:
            end = {"<": b"\r\n", "<lf": b"\n", "<<": b""}[word]
            self._put(condition, Expect(parse(rest) + end if end else parse(rest)))
        elif word == "list":
            self.list = (condition, parse(rest), [])
        elif word in {"until", "untillf"}:
            self._put(condition, Until(parse(rest) + (b"\r\n" if word == "until" else b"\n")))
        elif word == "--":
            self._put(condition, Act("wait", APART))
        elif word.startswith("@"):
            self._put(condition, Act("use", int(word[1:])))
        else:
            self._put(condition, _act(word, rest))

    def flush(self) -> None:
        """Ends a write and a list that are under way."""
        self._finish_list()
        for condition, texts in self.sending.items():
            self._put(condition, Send(parse("".join(texts))))
        self.sending = {}
        if self.frames:
            self._put("", Send(Template(tuple(self.frames))))
            self.frames = []

    def _finish_list(self) -> None:
        if self.list:
            condition, end, lines = self.list
            self._put(condition, ExpectList(end, tuple(lines)))
            self.list = None

    def _put(self, condition: str, step: Step) -> None:
        self.case.steps.append((condition, step))

    def _stored(self, rest: str, condition: str) -> None:
        """`stored KEY FLAGS EXPTIME DATA`: a set that must succeed; the length is counted here."""
        key, flags, exptime, data = (*rest.split(" ", 3), "")[:4]
        size = len(parse(data).render(Scope("", lambda: 0)))
        self._put(condition, Send(parse(f"set {key} {flags} {exptime} {size}\\r\\n{data}\\r\\n")))
        self._put(condition, Expect(parse("STORED\\r\\n")))


def _act(word: str, rest: str) -> Act:
    if word in {"closed", "mute", "gone", "hangup"} and not rest:
        return Act(word)  # type: ignore[arg-type]  # one of Word, as just checked
    if word in {"wait", "crowd"}:
        return Act(word, float(rest))  # type: ignore[arg-type]  # one of Word, as just checked
    raise NotationError(f"cannot read this line: {word} {rest}".rstrip())


def _check(case: Case) -> None:
    """Raises ValueError when a case contradicts itself or uses what it never bound."""
    if not case.requirement or case.level not in LEVELS or not case.rules:
        raise NotationError("a case has a requirement, a level and a rule")
    if case.suite not in SUITES:
        raise NotationError(f"unknown suite: {case.suite}")
    if unknown := case.needs - NEEDS.keys():
        raise NotationError(f"unknown needs: {' '.join(unknown)}")
    bound = {"NOW", "MAX"}
    for _, step in case.steps:
        for template in _templates(step):
            for expression in _uses(template):
                name = re.match(r"[A-Z][A-Z0-9]*", expression)
                if name and name[0] not in bound:
                    raise TemplateError(f"{name[0]} is used before a reply bound it")
            bound |= {binding.name for binding in template.bindings}


def no_datagram(case: Case) -> str:
    """Why a case cannot be played over UDP, where a write is one request of one datagram; empty when it can."""
    if case.suite not in {"classic", "meta"} or case.options or case.needs:
        return "is about more than commands and replies: not over UDP"
    sends = [sent(step) for _, step in case.steps if isinstance(step, Send)]
    acts = [step for _, step in case.steps if isinstance(step, Act) and step.word != "wait"]
    if acts or any(isinstance(step, Act) and step.amount == APART for _, step in case.steps):
        return "needs a connection: not over UDP"
    if any(_commands(text) != 1 or len(text) > LARGEST or not text.endswith(b"\n") for text in sends):
        return "does not send one command in a datagram: not over UDP"
    return ""


def _commands(text: bytes) -> int:
    """How many commands a write holds; the data of those that store are no lines of their own."""
    count = 0
    while text:
        line, _, text = text.partition(b"\n")
        if found := STORES.match(line):
            text = text[int(found[1] or found[2]) + 2 :]
        count += 1
    return count


def relaxed(case: Case) -> Case | None:
    """The case without the words behind CLIENT_ERROR and SERVER_ERROR, which are for people; None when it demands none."""
    steps = [(condition, _wordless(step)) for condition, step in case.steps]
    return None if steps == case.steps else replace(case, steps=steps)


def _wordless(step: Step) -> Step:
    if not isinstance(step, Expect) or not step.text.parts or not isinstance(step.text.parts[0], Literal):
        return step
    found = re.match(rb"(?:CLIENT|SERVER)_ERROR(?= )", step.text.parts[0].data)
    whole = step.text.render(Scope("", lambda: 0, _Anything()))
    if not found or whole.count(b"\n") != 1 or not whole.endswith(b"\r\n") or step.text.bindings:
        return step
    return Expect(Template((Literal(found[0] + b" "), Binding("", "text"), Literal(b"\r\n"))))


def _templates(step: Step) -> Iterable[Template]:
    if isinstance(step, ExpectFrame):
        return step.texts()
    if isinstance(step, ExpectList):
        return [line.text for line in step.lines]
    return [] if isinstance(step, Act) else [step.text]


def _uses(template: Template) -> Iterator[str]:
    for part in template.parts:
        if isinstance(part, Value):
            yield part.expression
        elif isinstance(part, Encoded):
            yield from _uses(part.inner)
        elif isinstance(part, Binding):
            yield from part.rule.removeprefix("!").split("..") if ".." in part.rule or part.rule[0] == "!" else ()
