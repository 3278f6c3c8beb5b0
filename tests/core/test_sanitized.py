"""Short runs of the soak and of the fuzzer under sanitizers: address, undefined behaviour, and threads in the soak."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ["asan", "fuzz", *(["tsan"] if "MCSERVER_SOAK" in os.environ else [])]
"""ThreadSanitizer needs a build of its own: scripts/soak --tests."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.xdist_group("sanitized")  # both wait for one build
@pytest.mark.timeout(900)  # the first to come builds the core with the sanitizers
@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_found(program: str) -> None:
    command = [f"scripts/{program}", "--seconds", "10", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert " s, " in done.stdout, "it says how much it did"
