"""The tests that clients' packages carry, run against any server. What to run, and which tests fail on memcached too and
why, is data: own_tests.toml. Never changes a package: it works on a copy, where the port 11211 becomes the server's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from .servers import Target

DATA = Path(__file__).with_name("own_tests.toml")
SECONDS_A_SUITE = 900.0
PORTS = re.compile(r"\b1121[1-3]\b")
TEXTS = ["**/*.py", "**/*.js"]


@dataclass
class Outcome:
    """What a suite's tests did: names that passed, and those that failed with the first line of why.

    `known` are tests that memcached fails, too, with the reason; they count neither way.
    """

    passes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    skipped: int = 0

    @property
    def passed(self) -> int:
        """Tests that passed."""
        return len(self.passes)

    @property
    def total(self) -> int:
        """Tests that passed or failed on this server's account."""
        return len(self.passes) + len(self.failed)

    def failures(self) -> list[str]:
        """A line for each failure that isn't known."""
        return [f"own test {name}: {why}" for name, why in self.failed.items()]


@dataclass(frozen=True)
class Suite:
    """One package's tests. Fields are own_tests.toml's, explained there."""

    client: str
    source: str
    runner: str
    arguments: list[str]
    ports: list[str]
    environment: dict[str, str]
    files: dict[str, str]
    known: dict[str, str]


def suites() -> dict[str, Suite]:
    """All suites by their client's name."""
    entries = tomllib.loads(DATA.read_text(encoding="utf-8"))["suite"]
    return {entry["client"]: _suite(entry) for entry in entries}


def _suite(entry: Mapping[str, Any]) -> Suite:
    defaults: dict[str, Any] = {"source": "", "ports": TEXTS, "environment": {}, "files": {}, "known": {}}
    return Suite(**{**defaults, **entry})


def run_suite(suite: Suite, target: Target, packages: Path) -> Outcome:
    """Run a package's tests against a server, on a copy of its source from `packages`. Blocks until they end."""
    with tempfile.TemporaryDirectory(prefix="own-tests-") as temporary:
        folder = Path(temporary, "package")
        try:
            _copy(suite, packages, folder, target.port)
        except FileNotFoundError as error:
            return Outcome(failed={"all": f"the package's source is not there: {error.filename}"})
        report = Path(temporary, "report")
        places = {"host": target.host, "port": str(target.port), "report": str(report), "folder": str(folder)}
        places |= {"installed": sysconfig.get_path("platlib"), "packages": str(packages.resolve())}
        command = [*_runner(suite, packages, report), *(argument.format(**places) for argument in suite.arguments)]
        extra = {name: value.format(**places) for name, value in suite.environment.items()}
        modules = {"NODE_PATH": str(packages.resolve() / "node_modules")}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **modules, **extra},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SECONDS_A_SUITE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(failed={"all": f"no end after {SECONDS_A_SUITE:g} s"})
        if not report.exists():
            return Outcome(failed={"all": f"no report: {done.stdout.decode('utf-8', 'replace')[-400:]}"})
        outcome = _sorted(suite, _results(suite, report.read_text(encoding="utf-8")))
        if not outcome.passed and not outcome.failed:
            return Outcome(failed={"all": f"no test ran: {done.stdout.decode('utf-8', 'replace')[-400:]}"})
        return outcome


def _copy(suite: Suite, packages: Path, folder: Path, port: int) -> None:
    """Copy the package's source, put the server's port into it, and add the files that it lacks."""
    if suite.source:
        shutil.copytree(packages / suite.source, folder)
    else:
        folder.mkdir()
    for file in [file for pattern in suite.ports for file in folder.glob(pattern)]:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        file.write_text(PORTS.sub(str(port), text), encoding="utf-8", errors="surrogateescape")
    for name, content in suite.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def _runner(suite: Suite, packages: Path, report: Path) -> list[str]:
    """The command that runs tests and writes their report, without the suite's own arguments."""
    if suite.runner == "mocha":
        mocha = packages.resolve() / "node_modules" / "mocha" / "bin" / "mocha.js"
        return ["node", "--no-deprecation", str(mocha), "--reporter", "json", "--reporter-option", f"output={report}"]
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", f"--junitxml={report}"]


def _results(suite: Suite, report: str) -> list[tuple[str, str | None]]:
    """Each test's name and why it failed, `skipped`, or None where it passed."""
    if suite.runner == "mocha":
        return [
            (test["fullTitle"], test["err"].get("message", "failed").splitlines()[0] if test["err"] else None)
            for test in json.loads(report)["tests"]
        ]
    results: list[tuple[str, str | None]] = []
    for case in ET.fromstring(report).iter("testcase"):
        bad = [child for child in case if child.tag in {"failure", "error"}]
        why: str | None = (bad[0].get("message") or "failed").splitlines()[0] if bad else None
        if case.find("skipped") is not None:
            why = "skipped"
        results.append((f"{case.get('classname')}::{case.get('name')}", why))
    return results


def _sorted(suite: Suite, results: list[tuple[str, str | None]]) -> Outcome:
    """The outcome of a suite from its tests' results; a name that comes twice failed if it failed once."""
    outcome = Outcome()
    for name, why in dict(sorted(results, key=lambda result: result[1] is not None)).items():
        reason = next((text for pattern, text in suite.known.items() if re.search(pattern, name)), None)
        if reason is not None:
            outcome.known[name] = reason
        elif why is None:
            outcome.passes.append(name)
        elif why == "skipped":
            outcome.skipped += 1
        else:
            outcome.failed[name] = why
    if not results:
        outcome.failed["all"] = "no test ran"
    return outcome
