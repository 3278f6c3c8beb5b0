"""`mcconform report A.json B.json ...`: several runs side by side.

Owns the matrix: a line a server, with what it passed and failed at each level, and a line a case for the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .formats import unwritable
from .html import NO_TEXT, matrix_page

HEAD = [
    "server",
    "must passed",
    "failed",
    "unsupported",
    "should passed",
    "failed",
    "version passed",
    "failed",
    "not run",
    "suite",
]
Run = dict[str, Any]


def summary(runs: Sequence[Run]) -> list[list[str]]:
    """A line for each run, below the head."""
    lines = [HEAD]
    for run in runs:
        cases = run["cases"]

        def count(level: str, *statuses: str, cases: list[dict[str, str]] = cases) -> str:
            return str(sum(case["level"] == level and case["status"] in statuses for case in cases))

        ended = run.get("ended", "")
        if ended and not cases:  # zeros would look like a server without a fault
            told = ended if ended.startswith(run["name"]) else f"{run['name']}: {ended}"
            lines.append([told, *["-"] * (len(HEAD) - 2), run["suite_version"]])
            continue
        lines.append([
            run["name"], count("must", "passed"), count("must", "failed", "expected"), count("must", "unsupported"),
            count("should", "passed"), count("should", "failed", "expected"), count("version", "passed"),
            count("version", "failed", "expected"), str(run["counts"].get("not run", 0)), run["suite_version"],
        ])  # fmt: skip
    return lines


def by_case(runs: Sequence[Run]) -> list[list[str]]:
    """A line for each case that did not pass everywhere, below the head."""
    statuses = [{case["id"]: case["status"] for case in run["cases"]} for run in runs]
    names = list(dict.fromkeys(name for known in statuses for name in known))
    rows = [[name, *(known.get(name, "") for known in statuses)] for name in names]
    return [["case", *(run["name"] for run in runs)], *(row for row in rows if set(row[1:]) - {"passed"})]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table for a README."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])


def main(argv: Sequence[str]) -> int:
    """0, or 2 when a file cannot be read."""
    options = argparse.ArgumentParser(prog="mcconform report", description="Makes a matrix of several runs.")
    options.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what --json wrote")
    options.add_argument("--html", type=Path, metavar="FILE", help="also write it as a page, with a line a case")
    given = options.parse_args(argv)
    runs: list[Run] = []
    for path in given.files:
        try:
            runs.append(json.loads(path.read_text("utf-8")))
            summary(runs[-1:])
            by_case(runs[-1:])
        except OSError as error:
            print(f"mcconform report: cannot read {path}: {error.strerror}", file=sys.stderr)
            return 2
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            print(f"mcconform report: {path} is not what --json writes", file=sys.stderr)
            return 2
    if given.html and (why := unwritable(given.html)):
        print(f"mcconform report: {why}", file=sys.stderr)
        return 2
    print(markdown(summary(runs)))
    if given.html:
        given.html.write_text(matrix_page(summary(runs), by_case(runs)), "utf-8", NO_TEXT)
    return 0
