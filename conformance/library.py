"""The cases and the rules they cover, read from the files beside this module.

Owns finding, ordering and choosing cases, and the consistency of the library: ids are unique, every rule that a case
names is in rules.txt. It runs nothing.
"""

from __future__ import annotations

import fnmatch
import functools
from importlib import resources

from .notation import LEVELS, Case, NotationError, read

# The order of sections in reports.
FILES = (
    "framing", "numbers", "storage", "retrieval", "delete", "arithmetic", "touch", "cas", "exptime", "flush",
    "meta_syntax", "meta_get", "meta_set", "meta_delete", "meta_arithmetic", "meta_debug", "lease",
    "admin", "slabs", "crawler", "watch", "stats", "settings", "connection", "auth",
)  # fmt: skip


@functools.cache
def cases() -> tuple[Case, ...]:
    """Every case, in the order of FILES."""
    folder = resources.files(__package__) / "cases"
    found: dict[str, Case] = {}
    for name in FILES:
        for case in read(f"{name}.case", (folder / f"{name}.case").read_text("utf-8")):
            if case.id in found:
                raise NotationError(f"{name}.case: {case.id} is there twice")
            if unknown := set(case.rules) - rules().keys():
                raise NotationError(f"{name}.case: {case.id}: not in rules.txt: {' '.join(sorted(unknown))}")
            found[case.id] = case
    return tuple(found.values())


@functools.cache
def rules() -> dict[str, str]:
    """Every rule: its id, `group.name`, and its sentence."""
    found: dict[str, str] = {}
    for line in (resources.files(__package__) / "rules.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, sentence = line.partition(" ")
            if name in found or not sentence.strip():
                raise NotationError(f"rules.txt: {name} is there twice, or says nothing")
            found[name] = sentence.strip()
    return found


def group(rule: str) -> str:
    """The group of a rule: what stands before the dot."""
    return rule.partition(".")[0]


def choose(patterns: list[str], level: str) -> list[Case]:
    """The cases whose id fits a pattern and whose level is at most `level`.

    A pattern with `*` or `?` must fit the whole id, another may be any part of it.
    """
    highest = LEVELS.index(level)
    return [
        case
        for case in cases()
        if LEVELS.index(case.level) <= highest and (not patterns or any(_fits(case.id, p) for p in patterns))
    ]


def _fits(name: str, pattern: str) -> bool:
    if any(char in pattern for char in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name
