"""What a run says to a person: the table by section, each failure, and the line that repeats it.

Owns the words and the layout. It writes to the stream it is given, in colour only when told to.
"""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from . import binary, library
from .datagrams import HEADER
from .notation import FEATURES, LEVELS, Case
from .runner import STATUSES, Result
from .servers import MEMORY, fill, is_template
from .wire import Address

EVERY = 10.0  # seconds between two lines of progress off a terminal
SOCKET = "/tmp/server.sock"  # in lines for a shell
LONG = 200  # bytes of one text that a report shows
LINES = 40  # lines of one exchange that a report shows
CAUSES = 3  # that a report names at its end
NAMED = 12  # cases of one cause that a report names
VERBS = {"get", "set", *FEATURES}
KEY = re.compile(rb"[a-z0-9]{4}\.[0-9a-z]+\.[a-z0-9]+")
OPTIONS = re.compile(r"(?<=^needs a server with )-.*(?=: give|, which)")
ERROR = re.compile(rb"(?:CLIENT_|SERVER_)?ERROR\b")
RUN = re.compile(rb"(.)\1{63,}", re.DOTALL)


class Style:
    """Colours, or none."""

    def __init__(self, *, colour: bool) -> None:
        self.colour = colour

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def dim(self, text: str) -> str:
        return self._paint("2", text)

    def bold(self, text: str) -> str:
        return self._paint("1", text)


def show(data: bytes) -> str:
    """Bytes in one line of readable text: escapes for what is not printable, runs shortened as {y*1000}."""
    pieces = []
    at = 0
    for found in RUN.finditer(data):
        pieces += [_printable(data[at : found.start()]), f"{{{_printable(found[1])}*{len(found[0])}}}"]
        at = found.end()
    text = "".join([*pieces, _printable(data[at:])])
    return text if len(text) <= 4 * LONG else text[: 4 * LONG] + f"... ({len(data)} bytes)"


def _printable(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def telnet(log: Sequence[tuple[int, str, bytes]], most: int = LINES) -> list[str]:
    """An exchange as telnet would show it: a line each, `>` what was sent, `<` what came, `~` a pause; at most `most` lines.

    Of a longer one the first lines and the last are shown.
    """
    several = len({number for number, _, _ in log}) > 1
    lines: list[str] = []
    for number, way, data in log:
        mark = f"{number}{way}" if several else way
        lines += [f"~ {data.decode()}"] if way == "~" else _one_way(mark, data, most)
    if len(lines) <= most:
        return lines
    return [
        *lines[: most // 2],
        f"... {len(lines) - most + 1} lines more",
        *lines[len(lines) - (most - most // 2 - 1) :],
    ]


def _one_way(mark: str, data: bytes, most: int) -> list[str]:
    if data[:1] in {b"\x80", b"\x81"} and len(data) >= binary.HEADER.size:
        return [f"{mark} {text}" for text in binary.describe(data)]
    count = data.count(b"\n")
    if count > 2 * most:
        head, tail = data.split(b"\n", most)[:most], data.rsplit(b"\n", most)[1:]
        middle = f"{mark} ... {count - 2 * most + 1} lines more"
        return [*_lines(mark, [*head, b""]), middle, *_lines(mark, tail)]
    return _lines(mark, data.split(b"\n"))


def _lines(mark: str, pieces: list[bytes]) -> list[str]:
    """Pieces that stood between line ends, as lines; the last one had no end."""
    texts = [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
    lines = []
    for piece in texts:
        text = show(piece)
        end = "" if piece.endswith(b"\r\n") else "  (no CRLF)"
        lines.append(f"{mark} {text.removesuffix(chr(92) + 'r' + chr(92) + 'n') if not end else text}{end}")
    return lines


def repeat(result: Result, where: Address, command: str) -> list[str]:
    """Shell lines that send the failing exchange again; where the suite starts the server, with `command`, that comes first.

    What a shell cannot do (several connections at a time, a login, a file for the server) the suite is asked to do again.
    """
    if where.user or result.case.files or len({number for number, _, _ in result.log}) > 1:
        return [_again(result, where, command)]
    lines = []
    if command:
        started, where = _started(result, where, command)
        lines.append(f"{started} &")
    pieces: list[str] = []
    patience = 2.0  # seconds that nc waits for what comes next: a pause counts
    for _, way, data in result.log:
        if way == "~" and pieces:
            pause = float(data.split()[0])
            pieces.append(f"sleep {pause:g}")
            patience = max(patience, pause + 2)
        elif way == ">":
            pieces += _printf(HEADER.pack(1, 0, 1, 0) + data if where.udp else data)
    if where.tls:
        return [*lines, f"{_joined(pieces)} | openssl s_client -quiet -connect {where.host}:{where.port}"]
    target = f"-U {shlex.quote(where.path)}" if where.path else f"{where.host} {where.port}"
    return [*lines, f"{_joined(pieces)} | nc {'-u ' if where.udp else ''}-w {math.ceil(patience)} {target}"]


def _started(result: Result, where: Address, command: str) -> tuple[str, Address]:
    """How the server of a case is started, and where it is then."""
    options = [option.replace("{socket}", SOCKET) for option in result.case.options]
    words = command.split()
    if SOCKET in options or "{socket}" in command:
        where = Address(path=SOCKET)
    if is_template(words):
        return " ".join(fill(words, where, SOCKET, MEMORY)), where
    if not where.path:
        options = ["-l", where.host, "-p", str(where.port), *(["-U", str(where.port)] if where.udp else []), *options]
    return f"{command} {shlex.join(options)}", where


def _again(result: Result, where: Address, command: str) -> str:
    words = ["--spawn", command] if command else [str(where)]
    words += ["--user", "NAME:PASSWORD"] if where.user else []
    words += ["--tls", "CA"] if where.tls else []
    return shlex.join(["mcconform", *words, "--only", result.case.id])


def _joined(pieces: list[str]) -> str:
    return pieces[0] if len(pieces) == 1 else "{ " + "; ".join(pieces) + "; }" if pieces else "printf ''"


def _printf(data: bytes) -> list[str]:
    """Shell commands that print `data`; long runs are made, not spelled."""
    pieces: list[str] = []
    at = 0
    for found in [*RUN.finditer(data), None]:
        text = data[at : found.start() if found else len(data)]
        if text:
            quoted = "".join(_shell(byte) for byte in text)
            if pieces and pieces[-1].startswith("printf"):
                pieces[-1] = pieces[-1][:-1] + quoted + "'"
            else:
                pieces.append(f"printf '{quoted}'")
        if found:
            byte = found[1][0]
            pieces.append(f"head -c {len(found[0])} /dev/zero | tr '\\0' '\\{byte:03o}'")
            at = found.end()
    return pieces


def _shell(byte: int) -> str:
    known = {10: "\\n", 13: "\\r", 39: "'\\''", 92: "\\\\", 37: "%%"}
    return known.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")


def failure(result: Result, where: Address, command: str, style: Style) -> list[str]:
    """One failing case in full."""
    case = result.case
    assert result.failure
    cited = library.cited(case)
    lines = [
        style.bad("FAILED ") + style.bold(case.id) + style.dim(f"  ({case.level}; {case.doc.removesuffix(':')})"),
        f"  {case.requirement}",
        *([f"  protocol.txt, {cited[0]}: {cited[1]} ..."] if cited else []),
        f"  {result.reason}",
        *(style.dim(f"    {line}") for line in telnet(result.log)),
    ]
    if result.failure.wanted:
        lines.append(f"  wanted  {show(result.failure.wanted)}")
    lines.append(f"  came    {show(result.failure.got) or 'nothing'}")
    lines += [f"  repeat  {line}" for line in repeat(result, where, command)]
    return lines


def cause(result: Result) -> tuple[str, str, str]:
    """What failures of one cause have in common: the kind of reason, what was wanted and what came, without names."""
    assert result.failure
    if result.among:
        return "in flight", "", ""
    if result.failure.reason.startswith(("the server closed", "the server broke", "the server ended")):
        return _no_numbers(result.reason), _before(result.log), ""
    wanted, got = (_plain(text) for text in (result.failure.wanted, result.failure.got))
    if wanted == got:  # but for numbers and keys: which of them differ says what is wrong
        got += f" but for {_differing(result.failure.wanted, result.failure.got)}"
    return _no_numbers(result.reason), wanted, got


def _differing(wanted: bytes, got: bytes) -> list[int]:
    """The places of the words that are not the same in the first lines of two texts."""
    pairs = zip(*(text.split(b"\n")[0].split() for text in (wanted, got)), strict=False)
    return [place for place, (one, other) in enumerate(pairs) if one != other]


def _no_numbers(reason: str) -> str:
    return re.sub(r"\d[\d.]*", "N", reason)[:80]


def _before(log: Sequence[tuple[int, str, bytes]]) -> str:
    """What came before the end of a connection: an error, or else the command that was sent last.

    What was wanted next says nothing of the cause.
    """
    came = next((data for _, way, data in reversed(log) if way == "<"), b"")
    if ERROR.match(came):
        return "an error"
    sent = next((data for _, way, data in reversed(log) if way == ">"), b"")
    if sent[:1] == b"\x80":
        return show(sent[:2])
    verb = sent.split()[0].decode("latin-1") if sent.split() else ""
    return verb if verb in VERBS else "no command"


def _plain(text: bytes) -> str:
    """The first line of a text; keys, numbers and the names of variables taken out."""
    line = show(KEY.sub(b"KEY", text.split(b"\n")[0][:LONG]))
    return re.sub(r"\d+", "N", re.sub(r"<\w+: ", "<", line))


def causes(results: Sequence[Result]) -> list[list[Result]]:
    """The failures, those of one cause together: first what ended the server, then must, then the most frequent.

    So within a cause, too: the first speaks for the others.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if result.status == "failed":
            groups.setdefault(cause(result), []).append(result)

    for group in groups.values():
        group.sort(key=lambda result: (not result.deadly, LEVELS.index(result.case.level)))

    def weight(group: list[Result]) -> tuple[bool, int, int]:
        return not any(r.deadly for r in group), -sum(r.case.level == "must" for r in group), -len(group)

    return sorted(groups.values(), key=weight)


def failures(results: Sequence[Result], where: Address, command: str, style: Style) -> list[str]:
    """Every cause with one case in full and the names of the others; the three that matter first of all."""
    groups = causes(results)
    lines: list[str] = []
    for group in groups:
        lines += failure(group[0], where, command, style)
        if others := [result.case.id for result in group[1:]]:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            same = "in flight with it" if group[0].among else f"the same {_times(len(others))} more"
            lines.append(f"  {same}: {', '.join(others[:NAMED])}{more}")
        lines.append("")
    if len(groups) > 1:
        total = sum(len(group) for group in groups)
        lines.append(style.bold(f"{total} failures, {len(groups)} causes; those that matter most:"))
        lines += [
            f"  {size(group)}: {group[0].reason}: {told(group[0])} ({group[0].case.id})" for group in groups[:CAUSES]
        ]
        lines.append("")
    return lines


def left_out(missing: Mapping[str, str]) -> list[str]:
    """What is left out, by why: a line for each way in which the server answered what it does not know."""
    features: dict[str, list[str]] = {}
    for feature, why in missing.items():
        features.setdefault(why, []).append(feature)
    return [f"left out: what uses {', '.join(names)}: {why}" for why, names in features.items()] or [
        "left out: nothing"
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def verdict(results: Sequence[Result]) -> str:
    """The run in one line: `837 passed, none failed, 386 left out`."""
    count = {status: sum(result.status == status for result in results) for status in STATUSES}
    words = [f"{count['passed']} passed", f"{count['failed'] or 'none'} failed"]
    words += [f"{count['expected']} failed as expected"] if count["expected"] else []
    words += [f"{out} left out"] if (out := count["skipped"] + count["unsupported"]) else []
    words += [f"{count['not run']} not run"] if count["not run"] else []
    return ", ".join(words)


def told(result: Result) -> str:
    """A cause in a few words."""
    assert result.failure
    wanted, got = (
        show(text.split(b"\n")[0].rstrip(b"\r")[:80]) for text in (result.failure.wanted, result.failure.got)
    )
    return f"wanted {wanted}, came {got or 'nothing'}" if wanted else f"came {got}"


def size(group: Sequence[Result]) -> str:
    """How many cases failed for one cause, and how many of them are a must."""
    musts = sum(result.case.level == "must" for result in group)
    many = f"{len(group)} case{'s' * (len(group) > 1)}"
    return many if not musts else f"{many}, a must" if musts == len(group) == 1 else f"{many}, {musts} of them must"


def table(results: Sequence[Result], style: Style) -> list[str]:
    """How many passed, failed and so on by section, and why cases were left out."""
    sections: dict[str, dict[str, int]] = {}
    reasons: dict[tuple[str, str], int] = {}
    for result in results:
        counts = sections.setdefault(result.case.section, dict.fromkeys(STATUSES, 0))
        counts[result.status] += 1
        if result.status in {"skipped", "unsupported", "not run"}:
            kind = result.status, OPTIONS.sub("options of its own", result.reason)
            reasons[kind] = reasons.get(kind, 0) + 1
    total = {status: sum(counts[status] for counts in sections.values()) for status in STATUSES}
    columns = [status for status in STATUSES if total[status] or status in {"passed", "failed", "skipped"}]
    width = max([len(section) for section in sections] + [len("section")])

    def row(counts: dict[str, int]) -> str:
        cells = []
        for status in columns:
            cell = f"{counts[status]:{len(status)}}"
            cells.append(style.bad(cell) if status == "failed" and counts[status] else cell)
        return "  ".join(cells)

    lines = [f"{'section':{width}}  " + "  ".join(columns)]
    lines += [f"{section:{width}}  {row(counts)}" for section, counts in sections.items()]
    lines.append(style.bold(f"{'all':{width}}  {row(total)}"))
    lines += [f"{status} {count}: {why}" for (status, why), count in sorted(reasons.items(), key=lambda i: -i[1])]
    return lines


def listing(cases: Sequence[Case]) -> list[str]:
    """A line a case, for --list."""
    return [f"{case.id}  [{case.level}] {case.requirement}" for case in cases]


class Progress:
    """A line on a terminal that is written over and over; elsewhere a line every ten seconds."""

    def __init__(self, stream: TextIO, total: int, *, terminal: bool) -> None:
        self.stream = stream
        self.total = total
        self.terminal = terminal
        self.counts = dict.fromkeys(STATUSES, 0)
        self.told = time.monotonic()

    def done(self, result: Result) -> None:
        """Counts one result in."""
        self.counts[result.status] += 1
        ended = sum(self.counts.values())
        text = f"{ended}/{self.total} cases, {self.counts['failed']} failed"
        if self.terminal:
            self.stream.write(f"\r{text}\x1b[K")
        elif time.monotonic() - self.told > EVERY:
            self.told = time.monotonic()
            self.stream.write(text + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Wipes the line."""
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
