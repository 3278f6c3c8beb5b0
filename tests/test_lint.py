"""`scripts/lint` passes, and its own rules find what they are for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lint_rules", ROOT / "scripts/lint_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with two compiled layers."""
    (tmp_path / "mcserver/core").mkdir(parents=True)
    (tmp_path / "mcserver/coordination").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.mcserver]\ncore-layers = ["low other", "high"]\n')
    (tmp_path / "mcserver/core/low.pxd").write_text("from libc.stdint cimport int64_t\n")
    (tmp_path / "mcserver/core/other.pxd").write_text("")
    (tmp_path / "mcserver/core/high.pxd").write_text("from .low cimport *\nfrom .other cimport thing\n")
    return tmp_path


@pytest.mark.slow
def test_lint_passes() -> None:
    result = subprocess.run([ROOT / "scripts/lint"], capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_arrows_upwards_are_right(rules: ModuleType, project: Path) -> None:
    assert list(rules.core_arrows(project)) == []


@pytest.mark.parametrize(
    "line", ["from .high cimport *", "from .other cimport thing", "from mcserver.core.high cimport *", "cimport high"]
)
def test_arrows_downwards_and_sideways_are_found(rules: ModuleType, project: Path, line: str) -> None:
    (project / "mcserver/core/low.pxd").write_text(f"# comment\n{line}\n")
    (complaint,) = rules.core_arrows(project)
    assert complaint.startswith("mcserver/core/low.pxd:2: low is not above ")


@pytest.mark.parametrize(
    ("page", "missing"),
    [
        ("low other   a\nhigh        b\n", None),
        ("high        b\nlow other   a\n", "high"),
        ("low         a\nhigh        b\n", "low other"),
    ],
)
def test_the_architecture_page_lists_the_layers(
    rules: ModuleType, project: Path, page: str, missing: str | None
) -> None:
    (project / "docs").mkdir()
    (project / "docs/architecture.md").write_text(page)
    complaints = list(rules.core_in_docs(project))
    assert [missing in each for each in complaints] == [True] * (missing is not None)


def test_a_module_without_a_layer_is_found(rules: ModuleType, project: Path) -> None:
    (project / "mcserver/core/new.pyx").write_text("")
    assert list(rules.core_arrows(project)) == ["mcserver/core/new.pyx:1: not in pyproject.toml's core-layers"]


KAZOO = """
from kazoo.client import KazooClient
class Driver:
    def good(self):
        self._client.create_async("/a").rawlink(print)
        loop.run_in_executor(None, self._client.start)
        self.cache.get("a")
    def bad(self):
        self._client.create("/a")
"""


def test_calls_that_wait_for_zookeeper_are_found(rules: ModuleType, project: Path) -> None:
    (project / "mcserver/coordination/driver.py").write_text(KAZOO)
    complaints = list(rules.blocking_kazoo(project))
    assert complaints == ["mcserver/coordination/driver.py:9: _client.create() waits for ZooKeeper"]
    (project / "mcserver/coordination/driver.py").write_text(
        KAZOO.replace("def bad(self):", 'def bad(self):\n        """Runs on a thread, never on the loop."""')
    )
    assert list(rules.blocking_kazoo(project)) == []


def test_kazoo_outside_of_coordination_is_found(rules: ModuleType, project: Path) -> None:
    (project / "mcserver/server.py").write_text("import kazoo.client\n")
    assert list(rules.blocking_kazoo(project)) == ["mcserver/server.py:1: only mcserver/coordination may import kazoo"]


@pytest.mark.parametrize("call", ["skip('why')", "importorskip('x')"])
def test_skipped_tests_are_found(rules: ModuleType, project: Path, call: str) -> None:
    (project / "tests/test_x.py").write_text(f"import pytest\npytest.{call}\n")
    assert list(rules.skipped_tests(project)) == ["tests/test_x.py:2: tests are not skipped"]


@pytest.mark.slow
def test_the_rules_are_a_program_too() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/lint_rules.py"], capture_output=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, b"")


@pytest.mark.parametrize(
    "line", ["from .b import thing", "from . import b", "import mcserver.b", "from mcserver import b"]
)
@pytest.mark.parametrize("within", ["", "if TYPE_CHECKING:\n    ", "def late():\n    "])
def test_circles_of_imports_are_found(rules: ModuleType, project: Path, line: str, within: str) -> None:
    (project / "mcserver/__init__.py").write_text("")
    (project / "mcserver/b.py").write_text("from .c import x\n")
    (project / "mcserver/c.py").write_text("import os\n")
    (project / "mcserver/a.py").write_text(f"{within}{line}\n")
    assert list(rules.circles(project)) == []
    (project / "mcserver/c.py").write_text("from mcserver.a import y\n")
    (complaint,) = rules.circles(project)
    assert "imports in a circle: " in complaint
    assert all(f"mcserver.{name}" in complaint for name in "abc")


def test_marks_of_a_merge_are_found(rules: ModuleType, project: Path) -> None:
    page = project / "README.md"
    page.write_text("# A\n<<< not one\n")
    assert list(rules.unmerged(project)) == []
    page.write_text("# A\n" + "<" * 7 + " HEAD\na\n" + "=" * 7 + "\nb\n" + ">" * 7 + " branch\n")
    assert [complaint.split(": ")[0] for complaint in rules.unmerged(project)] == ["README.md:2", "README.md:6"]


@pytest.mark.parametrize(
    ("exception", "is_found"),
    [
        ("noqa", True),
        ("noqa: BLE001", True),
        ("noqa: PTH110, PTH118", True),
        ("type: ignore", True),
        ("type: ignore[misc, arg-type]", True),
        ("noqa: BLE001  # it is shown", False),
        ("noqa: BLE001 - it is shown", False),
        ("type: ignore[misc]  # it has no types", False),
    ],
)
def test_an_exception_says_why(rules: ModuleType, project: Path, exception: str, is_found: bool) -> None:
    (project / "tests/test_it.py").write_text(f"import this\n\nthis()  # {exception}\n")
    expected = ["tests/test_it.py:3: say why, behind another #"] if is_found else []
    assert list(rules.unexplained(project)) == expected
