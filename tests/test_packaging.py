"""The package: a source distribution that holds all it needs, a wheel that works, every Python that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.giving_way import GIVES_WAY

ROOT = Path(__file__).parent.parent
SCRAP = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", ".*_cache", "__pycache__", "*.so", "engine.c", "*.egg-info", ".hypothesis"
)
BUILD_SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
ENGINE_WORKS = """
from mcserver.core import Engine, Session
print(Session(Engine(), None).feed(b"set a 0 0 1\\r\\nx\\r\\nget a\\r\\n").decode())
"""
TOP_LEVEL = (
    "import pkgutil, sys; print(*(m.name for m in pkgutil.iter_modules([p for p in sys.path if 'site-packages' in p])))"
)
OTHER_PYTHONS = ("3.12", "3.13", "3.14")
QUICK = (
    "tests/core",
    "tests/admin",
    "tests/transcripts/test_in_process.py",
    "tests/test_cli.py",
    "tests/settings/test_config.py",
)


def hasty_compiler(where: Path) -> str:
    """CC=...: gcc that doesn't optimise. What is built is the same, in a quarter of the time."""
    (where / "gcc").write_text('#!/bin/sh\nexec gcc "$@" -O0\n')
    (where / "gcc").chmod(0o755)
    return f"CC={where / 'gcc'}"


def run(command: Sequence[str | Path], where: Path, timeout: float = 600) -> str:
    """What it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    result = subprocess.run(
        [*GIVES_WAY, *command], cwd=where, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_wheel_from_the_source_distribution_works(tmp_path: Path) -> None:
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=SCRAP)
    name = run([sys.executable, "-c", BUILD_SDIST, tmp_path], tree).splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / name.removesuffix(".tar.gz")
    for each in (path for path in tree.rglob("*") if path.is_file()):
        assert (source / each.relative_to(tree)).exists(), f"{each.relative_to(tree)} is not in the source distribution"

    run(["env", hasty_compiler(tmp_path), f"PYTHONS={sys.executable}", "scripts/wheels"], source, 800)
    (wheel,) = (source / "dist").glob("mcserver-*-manylinux*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], tmp_path)
    run([*pip, "--python", tmp_path / "venv", "install", "--no-deps", wheel], tmp_path)
    binaries = tmp_path / "venv/bin"
    assert run([binaries / "mcserver", "-V"], tmp_path).startswith("memcached 1.6.45\n")
    assert "Redistribution and use" in run([binaries / "mcserver", "-i"], tmp_path)
    packages = next((tmp_path / "venv/lib").glob("python3*/site-packages"))
    assert {each.name.split("-")[0] for each in (packages / "mcserver.libs").iterdir()} == {"libssl", "libcrypto"}
    (licence,) = packages.glob("mcserver-*.dist-info/licenses/**/OpenSSL.txt")
    assert "Apache License" in licence.read_text()
    assert "conformance" not in run([binaries / "python", "-c", TOP_LEVEL], tmp_path).split()
    assert run([binaries / "python", "-c", ENGINE_WORKS], tmp_path).split() == [
        "STORED",
        "VALUE",
        "a",
        "0",
        "1",
        "x",
        "END",
    ]


@pytest.mark.slow
def test_a_build_without_a_compiler_says_what_to_install(tmp_path: Path) -> None:
    """In its first line: the rest of pip's page is long."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import backend; backend.build_wheel(sys.argv[2])"
    backend = ROOT / "packaging/backend"
    for environment, missing in (
        ({"PATH": str(tmp_path)}, "a C compiler (gcc)"),
        ({"HEADERS": "none"}, "the headers of Python"),
        ({"CFLAGS": "-nostdinc"}, "the headers of OpenSSL"),
    ):
        fake = "import sysconfig; sysconfig.get_path = lambda name: '/nowhere'; " if "HEADERS" in environment else ""
        result = subprocess.run(
            [sys.executable, "-c", fake + code, backend, tmp_path],
            env={**os.environ, "CC": "", **environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 1
        first, second, *_ = result.stderr.splitlines()
        assert missing in first
        assert "apt-get install gcc" in second


@pytest.mark.slow
def test_the_suite_is_a_package_of_its_own(tmp_path: Path) -> None:
    """It installs without mcserver and a compiler, under its own name, with all that it reads."""
    source = shutil.copytree(ROOT / "conformance", tmp_path / "source", ignore=SCRAP)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], tmp_path)
    (wheel,) = tmp_path.glob("mcconform-*-py3-none-any.whl")
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], tmp_path)
    run([*pip, "--python", tmp_path / "venv", "install", "--no-deps", wheel], tmp_path)
    binaries = tmp_path / "venv/bin"
    assert run([binaries / "python", "-c", TOP_LEVEL], tmp_path).split() == ["mcconform"]
    spawn = [str(binaries / "mcconform"), "--spawn", "memcached -u root -U 0 -t 1", "--only", "classic/get/"]
    assert "FAILED" not in run(spawn, tmp_path)
    for command in (["client", "--list"], ["--coverage"], ["compare", "--help"], ["faults", "--help"]):
        assert run([binaries / "mcconform", *command], tmp_path)


def interpreter(version: str) -> Path | None:
    """Python of this version, on the path or among pyenv's, if it is installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    for candidate in candidates:
        if candidate and not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
            return Path(candidate)
    return None


INSTALLED = [version for version in OTHER_PYTHONS if interpreter(version)]
"""Each costs a build and two minutes: the newest in scripts/test, all in scripts/soak --tests."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("version", INSTALLED if "MCSERVER_SOAK" in os.environ else INSTALLED[-1:])
def test_the_other_pythons_that_are_installed_pass_the_quick_tests(version: str) -> None:
    environment = f".venv-{version}"
    run(["sh", "-c", f'. scripts/setup.sh; have_venv {environment} test "$0"', str(interpreter(version))], ROOT, 800)
    run(["env", f"PYTHON={environment}/bin/python", "scripts/build"], ROOT, 800)
    pytest_line = ["-m", "pytest", "-q", "-m", "not slow and not cluster", "-n", "2", "-p", "no:cacheprovider", *QUICK]
    assert " passed" in run([ROOT / environment / "bin/python", *pytest_line], ROOT).splitlines()[-1]
