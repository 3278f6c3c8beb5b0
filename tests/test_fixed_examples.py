"""The tests make the same examples in every run, whatever else is loaded in their process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = """
import importlib, sys
import tests.conftest
from hypothesis import given, strategies as st

for name in sys.argv[1:]:
    importlib.import_module(name)

@given(st.lists(st.integers() | st.binary()))
def note(values):
    print(values)

note()
"""


def examples(*modules: str) -> list[str]:
    command = [sys.executable, "-c", EXAMPLES, *modules]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    ).stdout.splitlines()


@pytest.mark.slow
def test_other_modules_change_no_example() -> None:
    alone = examples()
    assert len(alone) == 100
    assert examples("tests.stateful.policy", "conformance.library", "mcserver.system.logs") == alone
