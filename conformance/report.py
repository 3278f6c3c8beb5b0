"""What a run says to a person: the table by section, each failure, and the line that repeats it.

Owns the words and the layout. It writes to the stream it is given, in colour only when told to.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TextIO

from .notation import Act, Case, Version
from .runner import Result
from .wire import Address

LONG = 200  # bytes of one text that a report shows
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


def telnet(log: Iterable[tuple[int, str, bytes]]) -> list[str]:
    """An exchange as telnet would show it: a line each, `>` what was sent, `<` what came."""
    lines = []
    several = len({number for number, _, _ in log}) > 1
    for number, way, data in log:
        mark = f"{number}{way}" if several else way
        for piece in data.splitlines(keepends=True) if b"\n" in data else [data]:
            text = show(piece)
            lines.append(f"{mark} {text.removesuffix(chr(92) + 'r' + chr(92) + 'n')}" if piece.endswith(b"\r\n") else
                         f"{mark} {text}  (no CRLF)")  # fmt: skip
    return lines


def repeat(result: Result, where: Address | None, command: str, profile: Version) -> list[str]:
    """Shell lines that send the failing exchange again; the server comes first when the suite had started it."""
    lines = []
    if where is None:
        options = " ".join(shlex.quote(option) for option in result.case.options)
        lines.append(f"{command} -l 127.0.0.1 -p 11211 {options}".rstrip() + " &")
        where = Address("127.0.0.1", 11211)
    waits = [step.amount for step in result.case.exchange(profile) if isinstance(step, Act) and step.word == "wait"]
    pieces: list[str] = []
    for number, way, data in result.log:
        if way == ">" and number == 1:
            if pieces and waits:
                pieces.append(f"sleep {waits.pop(0):g}")
            pieces += _printf(data)
    target = f"-U {shlex.quote(where.path)}" if where.path else f"{where.host} {where.port}"
    sent = pieces[0] if len(pieces) == 1 else "{ " + "; ".join(pieces) + "; }" if pieces else "printf ''"
    return [*lines, f"{sent} | nc -w 2 {target}"]


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


def failure(result: Result, where: Address | None, command: str, profile: Version, style: Style) -> list[str]:
    """One failing case in full."""
    case = result.case
    assert result.failure
    lines = [
        style.bad("FAILED ") + style.bold(case.id) + style.dim(f"  ({case.level}; {case.doc})"),
        f"  {case.requirement}",
        f"  {result.failure.reason}",
        *(style.dim(f"    {line}") for line in telnet(result.log)),
    ]
    if result.failure.wanted:
        lines.append(f"  wanted  {show(result.failure.wanted)}")
    lines.append(f"  came    {show(result.failure.got) or 'nothing'}")
    lines += [f"  repeat  {line}" for line in repeat(result, where, command, profile)]
    return lines


def table(results: Sequence[Result], style: Style) -> list[str]:
    """Passed, failed and skipped by section, and why cases were skipped."""
    sections: dict[str, dict[str, int]] = {}
    reasons: dict[str, int] = {}
    for result in results:
        counts = sections.setdefault(result.case.section, {"passed": 0, "failed": 0, "skipped": 0})
        counts[result.status] += 1
        if result.status == "skipped":
            reasons[result.reason] = reasons.get(result.reason, 0) + 1
    width = max([len(section) for section in sections] + [len("section")])
    lines = [f"{'section':{width}}  passed  failed  skipped"]
    for section, counts in sections.items():
        failed = f"{counts['failed']:6}"
        failed = style.bad(failed) if counts["failed"] else failed
        lines.append(f"{section:{width}}  {counts['passed']:6}  {failed}  {counts['skipped']:7}")
    total = {status: sum(counts[status] for counts in sections.values()) for status in ("passed", "failed", "skipped")}
    lines.append(style.bold(f"{'all':{width}}  {total['passed']:6}  {total['failed']:6}  {total['skipped']:7}"))
    lines += [f"skipped {count}: {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
    return lines


def listing(cases: Sequence[Case]) -> list[str]:
    """A line a case, for --list."""
    return [f"{case.id}  [{case.level}] {case.requirement}" for case in cases]


class Progress:
    """A line on a terminal that is written over and over; nothing elsewhere."""

    def __init__(self, stream: TextIO, total: int, *, terminal: bool) -> None:
        self.stream = stream
        self.total = total
        self.terminal = terminal
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def done(self, result: Result) -> None:
        """Counts one result in."""
        self.counts[result.status] += 1
        if self.terminal:
            ended = sum(self.counts.values())
            self.stream.write(f"\r{ended}/{self.total} cases, {self.counts['failed']} failed\x1b[K")
            self.stream.flush()

    def clear(self) -> None:
        """Wipes the line."""
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
