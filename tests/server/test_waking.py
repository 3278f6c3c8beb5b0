"""A worker's slices are short, so that a request that wakes it waits less for Python's thread; what an operator chose stays."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

from tests.conftest import Start
from tests.serving import Server, eventually

SHORT = 100_000
"""ns."""
GETATTR = {"x86_64": 315, "aarch64": 275}[platform.machine()]
TELLS_SLICES = tuple(map(int, platform.release().split(".")[:2])) >= (6, 12)
"""An older kernel takes no notice of a slice, and says 0."""


def attributes(thread: int) -> tuple[int, int, int]:
    """Its policy, nice value and slice in ns."""
    room = ctypes.create_string_buffer(56)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(GETATTR, thread, room, len(room), 0) == 0, errno.errorcode[ctypes.get_errno()]
    _, policy, _, nice, _, runtime = struct.unpack_from("IIQiIQ", room.raw)
    return policy, nice, runtime


def threads(server: Server) -> list[tuple[int, int, int]]:
    """What the kernel says of all but the first, which is Python's."""
    tasks = (int(entry.name) for entry in Path(f"/proc/{server.pid}/task").iterdir())
    return [attributes(task) for task in tasks if task != server.pid]


def all_have_asked(server: Server, workers: int) -> bool:
    """A worker asks when it first runs, which may be after the server listens."""
    return sum(runtime == SHORT for _, _, runtime in threads(server)) == (workers if TELLS_SLICES else 0)


def test_workers_ask_for_short_slices(start: Start) -> None:
    server = start("-t", "3")
    usual = attributes(server.pid)
    assert usual[:2] == attributes(os.getpid())[:2]
    eventually(lambda: all_have_asked(server, 3))
    assert all(each[:2] == usual[:2] for each in threads(server))
    assert usual[2] != SHORT


def set_before(start: Start, folder: Path, code: str) -> Server:
    """A server of two threads in whose process this is run before anything else."""
    (folder / "sitecustomize.py").write_text(f"import os\n{code}\n")
    return start("-t", "2", environment={"PYTHONPATH": str(folder)})


def test_a_nice_value_stays(start: Start, tmp_path: Path) -> None:
    server = set_before(start, tmp_path, "os.nice(7)")
    eventually(lambda: all_have_asked(server, 2))
    assert {each[1] for each in threads(server)} == {attributes(os.getpid())[1] + 7}


def test_another_policy_stays(start: Start, tmp_path: Path) -> None:
    server = set_before(start, tmp_path, "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))")
    assert server.connect().command(b"mn") == b"MN\r\n"  # a worker has run
    found = threads(server)
    assert {each[0] for each in found} == {os.SCHED_BATCH}
    assert all(each[2] != SHORT for each in found)
