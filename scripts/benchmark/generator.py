"""The load generator: built from loadgen/*.c when they are newer than the program, run pinned to its core, its report parsed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import cast

from .programs import ROOT, BenchError, Server, cores

SOURCES = Path(__file__).parent / "loadgen"
PROGRAM = ROOT / "build" / "loadgen"
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion")
LIMIT_SECONDS = 300


def build() -> Path:
    """Compiles the generator if need be; returns its path."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    if not PROGRAM.exists() or any(source.stat().st_mtime > PROGRAM.stat().st_mtime for source in sources):
        PROGRAM.parent.mkdir(exist_ok=True)
        units = [str(source) for source in sources if source.suffix == ".c"]
        new = PROGRAM.with_suffix(f".{os.getpid()}")  # several may build at once
        subprocess.run([*COMPILE, *units, "-o", str(new), "-lm", "-lssl", "-lcrypto"], check=True)
        new.replace(PROGRAM)
    return PROGRAM


def load(
    server: Server, mode: str, core: int | None = None, limit: float | None = None, **options: float | str | bool
) -> dict[str, int]:
    """Runs one mode of the generator against a server; returns its report. BenchError when a reply was wrong.

    `core`: the generator's if None. `limit`: in seconds, LIMIT_SECONDS if None.
    """
    return cast(dict[str, int], _run(mode, server.name, core, limit, port=server.port, pid=server.pid, **options))


def turns(servers: tuple[Server, Server], **options: float | str | bool) -> list[tuple[float, float]]:
    """Both servers in short turns: nanoseconds of CPU time that a request cost the first and the second. BenchError as `load`."""
    first, second = servers
    names = f"{first.name} or {second.name}"
    ports = [each.udp if "udp" in options else each.port for each in servers]
    sides = {"port": ports[0], "pid": first.pid, "rival_port": ports[1], "rival_pid": second.pid}
    found = cast(list[tuple[float, float]], _run("turns", names, None, None, **sides, **options))
    return [(ours, theirs) for ours, theirs in found]


def _run(mode: str, name: str, core: int | None, limit: float | None, **options: float | str | bool) -> object:
    command = ["taskset", "-c", str(cores()[1] if core is None else core), str(build()), mode]
    for option, value in options.items():
        command.append(f"--{option.replace('_', '-')}" + ("" if value is True else f"={value}"))
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit or LIMIT_SECONDS)
    if run.returncode:
        raise BenchError(f"{name}: {run.stderr.strip()}")
    return json.loads(run.stdout)
