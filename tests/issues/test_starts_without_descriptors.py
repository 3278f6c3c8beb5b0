"""A start with descriptors that somebody left open: without room for its own it hung, deaf to SIGTERM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcserver.system.process import inherited_descriptors

ROOT = Path(__file__).parent.parent.parent
CONNECTIONS = 10
LIMIT = CONNECTIONS + 3 + 64
"""What a start with one thread asks for, besides what it inherits."""


def start(code: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-u", "nobody", "-l", "127.0.0.1", "-p", "-1", "-t", "1", "-c", str(CONNECTIONS)]
    end = f"from mcserver import cli; sys.exit(cli.main({arguments!r}))"
    return subprocess.run(
        [sys.executable, "-c", f"import os, resource, sys; {code}; {end}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
def test_what_was_left_open_counts() -> None:
    limit = f"[os.dup(0) for _ in range(60)]; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))"
    # Root may raise the limit: that it can't be must be so for everybody who runs this.
    refuse = "resource.setrlimit = lambda *_: (_ for _ in ()).throw(ValueError)"
    done = start(f"{limit}; {refuse}")
    assert done.returncode == 71
    assert f"limit of open files to {LIMIT + 60} (it is {LIMIT}, and 60 were open before the start)" in done.stderr
    assert "Traceback" not in done.stderr


def test_they_are_counted() -> None:
    before = inherited_descriptors()
    more = [os.dup(0) for _ in range(5)]
    try:
        assert inherited_descriptors() == before + 5
    finally:
        for each in more:
            os.close(each)


REFUSED = """
import gc, os
from mcserver.core import Engine
before = sorted(os.listdir("/proc/self/fd"))
for settings in (
    {"memory_limit": 1}, {"room_for": "nothing"}, {"slab_sizes": [200, 100]}, {"prefix_delimiter": 1}, {"like": "text"},
    {"version": "text"},
):
    try:
        Engine(**settings)
    except (ValueError, TypeError):
        gc.collect()
        assert sorted(os.listdir("/proc/self/fd")) == before, settings
    else:
        raise SystemExit(f"{settings} are taken")
"""
NO_ROOM = """
import gc, os, resource
from mcserver.core import Engine, Workers
engine = Engine()
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
more = []
try:
    while True:
        more.append(os.dup(2))
except OSError:
    pass
for room in range(1, 8):  # the owner's box; an epoll, a timer and a box for each worker
    os.close(more.pop())
    try:
        Workers(engine, None, 2)
    except OSError:
        pass
    gc.collect()
    for each in (0, 1, 2, *more):
        os.fstat(each)
    held = []
    try:
        while True:
            held.append(os.dup(2))
    except OSError:
        assert len(held) == room, f"{room - len(held)} are still held"
    for each in held:
        os.close(each)
"""


@pytest.mark.parametrize("code", [REFUSED, NO_ROOM], ids=["settings", "descriptors"])
def test_what_could_not_be_made_closes_its_own_descriptors_and_no_other(code: str) -> None:
    """What had not been opened yet stood at 0, and that was closed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_loop_that_cannot_run_ends_the_process() -> None:
    """Its threads serve already, and the signals are blocked."""
    done = start("import mcserver.server.loop; mcserver.server.loop.serve = lambda *_: 1 / 0")
    assert done.returncode == 70
    assert "internal error: the server ends" in done.stderr


@pytest.mark.slow
def test_a_step_that_the_system_refuses_is_named() -> None:
    done = start(
        "from mcserver.server.lives import Memory; Memory.open = lambda _: (_ for _ in ()).throw(OSError(24, 'none left'))"
    )
    assert done.returncode == 71
    assert "can't start: none left" in done.stderr
