"""Known failures: --expect FILE.

Owns the file (a line each: the id of a case, or a pattern, and the reason; `#` begins a comment) and what it does to
results: a failure that is in it is `expected`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from .runner import Result


def read(path: Path) -> dict[str, str]:
    """The reasons by pattern; ValueError for a line without a reason or a second one for a name, and for what is no text."""
    known: dict[str, str] = {}
    try:
        text = path.read_text("utf-8-sig")  # editors put a mark of its encoding before a text
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, *reason = line.split(maxsplit=1)
            if not reason:
                raise ValueError(f"{path}:{number}: {name} has no reason")
            if name in known:
                raise ValueError(f"{path}:{number}: {name} stands there twice")
            known[name] = reason[0].strip()
    return known


def apply(results: Sequence[Result], known: Mapping[str, str]) -> list[str]:
    """Marks the failures that were expected; returns a line for each that passes now, and for each that fits nothing."""
    fitted: dict[str, list[Result]] = {name: [] for name in known}
    for result in results:
        for name, reason in known.items():
            if fnmatch.fnmatchcase(result.case.id, name):
                fitted[name].append(result)
                if result.status == "failed" and not result.deadly:
                    result.status = "expected"
                    result.reason = f"{reason} ({result.reason})"
    lines = []
    for name, members in fitted.items():
        if not members:
            lines.append(f"expected, but no case of this run: {name}")
        elif all(result.status == "passed" for result in members):
            lines.append(f"expected to fail, but passes now: {name} ({known[name]})")
    return lines
