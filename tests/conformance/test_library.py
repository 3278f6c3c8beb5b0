"""The library as a whole: how much there is, and that nothing is left out."""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from conformance import library
from conformance.coverage import by_rule, matrix
from conformance.faults import faults
from conformance.notation import Case, Send
from conformance.profiles import CHANGES, PROFILES, nearest, profile, release
from conformance.text import Scope

HOME = Path(str(resources.files("conformance")))


def test_there_are_enough_cases_for_each_profile() -> None:
    for name in PROFILES:
        least = 300 if release(name) < (1, 6) else 900
        assert sum(case.applies(release(name)) for case in library.cases()) >= least


@pytest.mark.parametrize(
    ("says", "judged_by"),
    [
        ("1.6.18", "1.6.18"),
        ("1.6.38", "1.6.38"),
        ("1.6.45", "1.6.45"),
        ("1.6.99", "1.6.45"),
        ("1.6.9", "1.5"),
        ("", "1.6.45"),
    ],
)
def test_a_server_is_judged_by_the_release_that_it_says_it_is(says: str, judged_by: str) -> None:
    assert nearest(says) == judged_by


def test_profiles_are_the_releases_that_the_cases_know() -> None:
    assert [release(profile(name)) for name in ("1.4", "1.6.20")] == [(1, 4, 39), (1, 6, 20)]
    for wrong in ("1.3", "1.6", "1.6.17", "1.6.46", "1.6.020", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            profile(wrong)


def test_every_rule_has_a_case() -> None:
    assert [rule for rule, ids in by_rule(library.cases()).items() if not ids] == []


HARMFUL = re.compile(
    rb"^(?:flush_all|verbosity|cache_memlimit|shutdown|stats (?:reset|detail o)|\x80[\x08\x18\x1b])", re.MULTILINE
)
"""How a request begins that harms a cache in use, on a server that takes it, well formed or not."""


def harms(case: Case) -> bool:
    for step in case.exchange(release(PROFILES[-1])):
        with contextlib.suppress(KeyError):  # with something in it that a server has told: no such request
            if isinstance(step, Send) and HARMFUL.search(step.text.render(Scope("k.", lambda: 0))):
                return True
    return False


def test_what_harms_a_cache_is_marked_so() -> None:
    marks = {"destructive", "alone", "own", "fresh"}
    harmful = [case for case in library.cases() if harms(case)]
    assert len(harmful) > 30
    unmarked = [case.id for case in harmful if not case.needs & marks and not case.options]
    assert unmarked == ["classic/set/value-like-a-command"]  # a value is no request


def test_every_rule_group_has_a_fault() -> None:
    groups = {library.group(rule) for rule in library.rules()}
    assert groups - {fault.group for fault in faults()} == set()


def test_there_are_enough_faults_and_each_names_its_cases() -> None:
    assert len(faults()) >= 60
    assert len({fault.id for fault in faults()}) == len(faults())
    known = {case.id for case in library.cases()}
    assert [fault.id for fault in faults() if not fault.found_by or set(fault.found_by) - known] == []


def test_every_case_has_a_requirement_of_its_own() -> None:
    counts = Counter((case.requirement, case.since, case.until) for case in library.cases())
    assert [key for key, count in counts.items() if count > 1] == []


def test_conditions_name_releases_that_changed_something() -> None:
    used = {condition.strip("<+") for case in library.cases() for condition, _ in case.steps if condition}
    used |= {".".join(map(str, end)) for case in library.cases() for end in (case.since, case.until) if end}
    assert used - CHANGES.keys() == set()


def test_every_case_file_is_read() -> None:
    assert {path.stem for path in (HOME / "cases").glob("*.case")} == set(library.FILES)


def test_the_matrix_shows_every_rule_and_every_fault() -> None:
    lines = matrix(library.cases())
    assert "    NO CASE" not in lines
    heads = {line.split(" ")[0] for line in lines if line and line[0] != " "}
    assert library.rules().keys() | {fault.id for fault in faults()} <= heads


@pytest.mark.parametrize(
    ("pattern", "level", "some", "none"),
    [
        ("classic/incr/*", "version", "classic/incr/adds", "classic/decr/floor"),
        ("wraps", "version", "classic/incr/wraps-at-2^64", "classic/incr/adds"),
        ("classic/cas/", "must", "classic/cas/match", "classic/cas/zero"),
        ("framing/short", "should", "framing/short/four-bytes", "framing/short/crlf"),
    ],
)
def test_cases_are_chosen_by_pattern_and_level(pattern: str, level: str, some: str, none: str) -> None:
    ids = {case.id for case in library.choose([pattern], level)}
    assert some in ids
    assert none not in ids


def test_only_the_standard_library_is_imported() -> None:
    for path in HOME.rglob("*.py"):
        if "clients" in path.parts:  # scenarios for real clients, which are no part of the suite
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names | {"conformance"}, f"{path}: {name}"


@pytest.mark.slow
def test_copied_out_it_works_alone(tmp_path: Path) -> None:
    shutil.copytree(HOME, tmp_path / "conformance", ignore=shutil.ignore_patterns("clients", "__pycache__"))
    command = [sys.executable, "-S", "-m", "conformance", "--list", "--only", "classic/incr/adds"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("classic/incr/adds  [must] ")


@pytest.mark.slow
def test_a_reader_that_stops_ends_the_listing_quietly() -> None:
    command = f"{sys.executable} -m conformance --list | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=HOME.parent, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
