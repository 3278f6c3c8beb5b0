"""Every example of docs/testing.md and of the README is run as it stands there, by a pytest of its own, with users' plugin."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLIENTS = {
    "pymemcache", "pylibmc", "memcache", "aiomcache", "emcache", "meta_memcache", "django", "flask_caching", "dogpile",
    "aiocache",
}  # fmt: skip


def blocks() -> list[str]:
    return [block for page in ("docs/testing.md", "README.md") for block in BLOCK.findall((ROOT / page).read_text())]


def test_each_client_has_a_recipe() -> None:
    imported = set(re.findall(r"^(?:from|import) (\w+)", "\n".join(blocks()), re.MULTILINE))
    assert imported >= CLIENTS


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-n", "2"]])
def test_the_examples_work(tmp_path: Path, arguments: list[str]) -> None:
    tests = 0
    for number, block in enumerate(blocks()):
        tests += len(re.findall(r"^ *(?:async )?def test_", block, re.MULTILINE))
        (tmp_path / f"test_example_{number}.py").write_text(block)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    # Two packages of this environment bring a module `memcache`; python-memcached's is a file.
    (python_memcached,) = [each for each in files("python-memcached") or () if each.name == "memcache.py"]
    shutil.copy(python_memcached.locate(), tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert f"{tests} passed" in result.stdout
    assert tests >= 17
