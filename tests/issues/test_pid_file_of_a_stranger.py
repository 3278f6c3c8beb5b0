"""Whatever stands at the name of the pid file: a pipe held start and end, a device filled memory or was replaced."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mcserver.system.process import remove_pid_file, write_atomically, write_pid_file

pytestmark = pytest.mark.timeout(20)


def test_a_pipe_holds_neither_the_start_nor_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    os.mkfifo(path)
    assert "something that is no file is there" in write_pid_file(path)
    remove_pid_file(path)
    assert path.is_fifo()


def test_a_device_without_an_end(tmp_path: Path) -> None:
    """By a link, which is replaced."""
    path = tmp_path / "pid"
    path.symlink_to("/dev/zero")
    remove_pid_file(path)
    assert write_pid_file(path) == ""
    assert path.read_text() == f"{os.getpid()}\n"
    assert Path("/dev/zero").is_char_device()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """`-P /dev/null` as root would take the machine's."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        with pytest.raises(OSError, match="no file"):
            write_atomically(path, "1\n")
    assert path.is_socket()
    assert [each.name for each in tmp_path.iterdir()] == ["socket"], "and no draft stays"


@pytest.mark.parametrize("content", [b"\xff\n", b"", b"9" * 100, b"\x00"])
def test_the_end_with_any_bytes_in_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pid"
    path.write_bytes(content)
    remove_pid_file(path)
    assert path.read_bytes() == content


def test_the_end_takes_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert write_pid_file(path) == ""
    remove_pid_file(path)
    assert not path.exists()
