"""Runs clients, each in a process of its own, and collects what they report. The only place that knows how a client's
file is run: .py by this interpreter, others by the interpreter of their language. Never imports a client.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .own_tests import Outcome
from .relay import Relay
from .servers import Target

HERE = Path(__file__).parent
INTERPRETERS = {
    ".java": [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        "/usr/share/java/spymemcached.jar:/usr/share/java/log4j-1.2.jar",
    ],
    ".js": ["node", "--no-deprecation"],
    ".php": ["php"],
    ".pl": ["perl"],
    ".rb": ["ruby"],
}
SUFFIXES = {".py", *INTERPRETERS}
SECONDS_A_CLIENT = 600.0
LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Scenario:
    """One scenario's result; `error` is None when it passed."""

    name: str
    operations: int
    seconds: float
    error: str | None


@dataclass
class Report:
    """What one client did with one server."""

    client: str
    title: str = ""
    version: str = ""
    scenarios: list[Scenario] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problem: str | None = None
    own: Outcome | None = None

    @property
    def calls(self) -> int:
        """Calls of the client's operations in all scenarios."""
        return sum(scenario.operations for scenario in self.scenarios)

    @property
    def passed(self) -> int:
        """Scenarios that passed."""
        return sum(scenario.error is None for scenario in self.scenarios)

    def failures(self) -> list[str]:
        """A line for everything that went wrong."""
        lines = [f"{one.name}: {one.error}" for one in self.scenarios if one.error is not None]
        lines += [f"never called: {operation}" for operation in self.missing]
        lines += [self.problem] if self.problem else []
        return lines + (self.own.failures() if self.own else [])


def clients(folder: str = "scenarios") -> dict[str, Path]:
    """All clients by name; a file of `scenarios/` is a client, or one of `discovery/` for servers of a cluster."""
    files = (HERE / folder).iterdir()
    found = [file for file in files if file.suffix in SUFFIXES and not file.stem.startswith("_")]
    return {file.stem.replace("_", "-"): file for file in sorted(found)}


def takes(name: str, target: Target) -> bool:
    """Whether the server has what the client needs: TLS for `...-tls`, datagrams for `...-udp`, logins for `...-sasl`."""
    kind = name.rpartition("-")[2]
    return bool({"tls": target.tls, "udp": target.udp, "sasl": target.sasl}.get(kind, True))


def port_for(name: str, target: Target) -> int:
    """Where the client connects."""
    kind = name.rpartition("-")[2]
    return {"tls": target.tls, "sasl": target.sasl}.get(kind, target.port)


def command_of(file: Path) -> list[str]:
    """How a client's file is run, without its arguments."""
    if file.suffix in INTERPRETERS:
        return [*INTERPRETERS[file.suffix], str(file)]
    return [sys.executable, "-m", f"{__package__}.child", f"{file.parent.name}.{file.stem}"]


def environment(packages: Path) -> dict[str, str]:
    """The environment of a client: this package and npm's are found wherever it is run, and who signed a TLS server."""
    paths = [str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    modules = [str(packages.resolve() / "node_modules"), os.environ.get("NODE_PATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "NODE_PATH": os.pathsep.join(filter(None, modules)),
        "TLS_AUTHORITY": str(packages.resolve() / "tls" / "certificate.pem"),
    }


async def run_client(name: str, target: Target, packages: Path, only: Sequence[str] = ()) -> Report:
    """Run one client's scenarios against a server. Never raises for what the client does."""
    report = Report(name)
    port = port_for(name, target)
    async with Relay(target.host, port) as second, Relay(target.host, port, mute=True) as mute:
        arguments = [
            target.host,
            str(port),
            str(second.port),
            str(mute.port),
            *(name.replace("_", " ") for name in only),
        ]
        try:
            process = await asyncio.create_subprocess_exec(
                *command_of({**clients("discovery"), **clients()}[name]),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(packages),
                limit=LONGEST_LINE,
            )
        except OSError as error:
            report.problem = f"cannot be run: {error}"
            return report
        try:
            await asyncio.wait_for(_collect(process, report), SECONDS_A_CLIENT)
        except TimeoutError:
            process.kill()
            report.problem = f"no end after {SECONDS_A_CLIENT:g} s"
        await process.wait()
    return report


async def _collect(process: asyncio.subprocess.Process, report: Report) -> None:
    """Read the client's report, line by line, to its end."""
    assert process.stdout is not None
    assert process.stderr is not None
    told = asyncio.create_task(process.stderr.read())
    finished = False
    async for line in process.stdout:
        entry: Mapping[str, object] = json.loads(line)
        if "scenario" in entry:
            report.scenarios.append(_scenario(entry))
        else:
            finished = True
            report.title, report.version = str(entry["title"]), str(entry["version"])
            report.covered, report.missing = _names(entry["covered"]), _names(entry["missing"])
    if not finished:
        last = (await told).decode("utf-8", "replace").strip().splitlines()[-3:]
        report.problem = f"ended early with status {await process.wait()}: {' / '.join(last)}"
    await told


def _scenario(entry: Mapping[str, object]) -> Scenario:
    """One line of a client's report."""
    operations, seconds, error = entry["operations"], entry["seconds"], entry["error"]
    assert isinstance(operations, int)
    assert isinstance(seconds, int | float)
    return Scenario(str(entry["scenario"]), operations, float(seconds), None if error is None else str(error))


def _names(value: object) -> list[str]:
    """A list of names in a client's report."""
    assert isinstance(value, list)
    return [str(name) for name in value]
