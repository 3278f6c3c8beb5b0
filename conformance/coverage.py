"""Which case covers which rule, and which fault each case finds.

Owns the matrix that --coverage prints; the data are the cases' own `rule:` lines and the faults' `found_by`.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import library
from .faults import faults
from .notation import Case


def by_rule(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The ids of the cases for each rule; an empty list for a rule that no case covers."""
    found: dict[str, list[str]] = {rule: [] for rule in library.rules()}
    for case in cases:
        for rule in case.rules:
            found[rule].append(case.id)
    return found


def matrix(cases: Sequence[Case]) -> list[str]:
    """The lines of --coverage."""
    rules = by_rule(cases)
    lines = [f"{len(rules)} rules, {len(cases)} cases"]
    for rule, ids in rules.items():
        lines.append(f"{rule}  {library.rules()[rule]}")
        lines += [f"    {name}" for name in ids or ["NO CASE"]]
    lines += ["", f"{len(faults())} faults, each with the cases that must fail behind it"]
    for fault in faults():
        lines.append(f"{fault.id}  ({fault.group}) {fault.sentence}")
        lines += [f"    {name}" for name in fault.found_by]
    return lines
