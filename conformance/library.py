"""The cases and the rules they cover, read from the files beside this module.

Owns finding, ordering and choosing cases, and the consistency of the library: ids are unique, every rule that a case
names is in rules.txt. It runs nothing.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

from .notation import LEVELS, SUITES, Case, NotationError, read, relaxed

# The order of sections in reports.
FILES = (
    "framing", "numbers", "storage", "retrieval", "delete", "arithmetic", "touch", "cas", "exptime", "flush",
    "meta_syntax", "meta_get", "meta_set", "meta_delete", "meta_arithmetic", "meta_debug", "lease",
    "admin", "slabs", "crawler", "watch", "stats", "settings", "connection", "auth", "binary",
)  # fmt: skip

# A case of level must takes any words behind CLIENT_ERROR and SERVER_ERROR: the text leaves them to the server. Its twin
# of level should, ID/words, wants memcached's.
WORDS = " The words of the error are memcached's."


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
            if case.level == "must" and (plain := relaxed(case)):
                found[case.id] = plain
                words = replace(case, id=f"{case.id}/words", level="should", requirement=case.requirement + WORDS)
                found[words.id] = words
    return tuple(found.values())


@functools.cache
def citations() -> dict[str, tuple[str, str]]:
    """For each rule that memcached's protocol.txt states: the section as it is headed, and the first words of the sentence."""
    text = (resources.files(__package__) / "citations.txt").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return {rule: (section, words) for rule, section, words in rows}


def cited(case: Case) -> tuple[str, str] | None:
    """The sentence that a case of level must rests on; None for the other levels."""
    known = citations()
    found = next((known[rule] for rule in case.rules if rule in known), None) if case.level == "must" else None
    return (found[0].removesuffix(":"), found[1]) if found else None


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


def choose(
    patterns: Sequence[str], level: str, *, suites: Sequence[str] = SUITES, without: Sequence[str] = ()
) -> list[Case]:
    """The cases of these suites whose id fits a pattern and none of `without`, and whose level is at most `level`.

    A pattern with `*` or `?` must fit the whole id, another may be any part of it.
    """
    highest = LEVELS.index(level)
    return [
        case
        for case in cases()
        if LEVELS.index(case.level) <= highest
        and case.suite in suites
        and (not patterns or any(_fits(case.id, p) for p in patterns))
        and not any(_fits(case.id, p) for p in without)
    ]


def _fits(name: str, pattern: str) -> bool:
    if any(char in pattern for char in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name
