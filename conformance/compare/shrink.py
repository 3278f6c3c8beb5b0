"""Makes a stream that shows a difference as short as it can be, and writes it down as a case.

Owns the search: halves, quarters and single commands are left out as long as `differs` still says so, then lines lose
words. It knows nothing of servers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence

from ..report import show

Writes = list[list[str]]
TRIES = 2000  # streams that one search may play
SECONDS = 60.0  # that one search may take: a server that hangs at each stream costs a time-out each


def shrink(writes: Writes, differs: Callable[[Writes], bool], seconds: float = SECONDS) -> Writes:
    """The shortest stream found that still differs, within so many seconds; `writes` must differ."""
    deadline = time.monotonic() + seconds
    left = TRIES
    best = writes

    def holds(candidate: Writes) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and time.monotonic() < deadline and bool(candidate) and differs(candidate)

    improved = True
    while improved and left > 0:
        improved = False
        for candidate in _smaller(best):
            if holds(candidate):
                best, improved = candidate, True
                break
    return best


def _smaller(writes: Writes) -> Iterator[Writes]:
    """Streams that are a bit smaller, the boldest first."""
    size = len(writes) // 2
    while size:
        for start in range(0, len(writes), size):
            yield [*writes[:start], *writes[start + size :]]
        size //= 2
    for at, commands in enumerate(writes):
        if len(commands) > 1:
            yield [*writes[:at], *([command] for command in commands), *writes[at + 1 :]]
            for i in range(len(commands)):
                yield [*writes[:at], commands[:i] + commands[i + 1 :], *writes[at + 1 :]]
    for at, commands in enumerate(writes):
        for i, command in enumerate(commands):
            for shorter in _shorter(command):
                yield [*writes[:at], [*commands[:i], shorter, *commands[i + 1 :]], *writes[at + 1 :]]


def _shorter(command: str) -> Iterator[str]:
    """A command with a word less in its line; data blocks stay as they are."""
    line, end, data = re.split(r"((?:\\r)?\\n)", command, maxsplit=1) if "\\n" in command else (command, "", "")
    words = line.split()
    if words != line.split(" "):
        yield " ".join(words) + end + data
    for at in range(5 if data and words[0] != "ms" else 3 if data else 2, len(words)):
        yield " ".join(words[:at] + words[at + 1 :]) + end + data


def as_case(name: str, writes: Sequence[Sequence[str]], first: bytes, second: bytes) -> list[str]:
    """The stream as a case, the first server's reply as what is wanted; uniques are for the reader to name."""
    lines = [f"case {name}", "  The second server answers as the first."]
    for commands in writes:
        for command in commands:
            lines += [f"  >> {command}"]
        lines += ["  --"]
    lines = lines[:-1]
    lines += [f"  # first:  {show(first)}", f"  # second: {show(second)}"]
    return lines
