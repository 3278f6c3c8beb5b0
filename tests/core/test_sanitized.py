"""Short runs of the soak and of the fuzzer under sanitizers: address, undefined behaviour, and threads."""

import subprocess
from pathlib import Path

import pytest

from tests.giving_way import GIVES_WAY

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    ["asan"],
    ["fuzz"],
    ["fuzz", "--workers"],
    ["fuzz", "--workers", "--tls"],
    ["fuzz", "--kept"],
    ["tsan"],
    ["tsan", "--fuzz"],
]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.xdist_group("sanitized")  # they wait for the same builds
@pytest.mark.timeout(900)  # the first to come builds the core with the sanitizers
@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_nothing_is_found(program: list[str]) -> None:
    command = [*GIVES_WAY, f"scripts/{program[0]}", *program[1:], "--seconds", "10", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert " s, " in done.stdout, "it says how much it did"
