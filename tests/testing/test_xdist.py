"""The plugin under pytest-xdist: each worker has a server of its own, and its tests see nothing of the others'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import os
import time
import pytest

SEEN = []

@pytest.mark.parametrize("number", range(12))
def test_alone(memcached, number):
    worker = os.environ["PYTEST_XDIST_WORKER"]
    SEEN.append(memcached.port)
    assert len(memcached) == 0 and memcached.commands == [] and len(set(SEEN)) == 1
    memcached[worker] = str(number)
    time.sleep(0.02)  # the other worker puts its own meanwhile
    assert dict(memcached) == {worker: str(number).encode()}
    with open(f"port-{worker}", "w") as file:
        file.write(str(memcached.port))
"""


MARKS = """
import os
import pytest

@pytest.mark.memcached("-m", 2)
class TestMarks:
    @pytest.mark.memcached("-I", "4k")
    def test_both(self, memcached):
        settings = memcached.stats("settings")
        assert (settings["maxbytes"], settings["item_size_max"]) == (str(2 << 20), "4096")

@pytest.mark.memcached(memory=2)
def test_names(memcached):
    raise AssertionError("the mark was taken without effect")
"""


@pytest.mark.slow
def test_a_mark_is_flags_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "test_marks.py").write_text(MARKS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "1 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "takes flags as on a command line" in result.stdout


@pytest.mark.slow
def test_workers_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_workers.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "each",
        str(tmp_path),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "24 passed" in result.stdout, result.stdout + result.stderr
    ports = {path.read_text() for path in tmp_path.glob("port-*")}
    assert len(ports) == 2
