"""-e where the file system gives nothing more: no room, no writing, no directory, or another server at the same moment.

One clear line says so, the next start is empty, and nobody is answered with anything that was not stored.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Start
from tests.ports import free_port
from tests.serving import END_SECONDS, Client, Server, eventually, run_to_end

SIZE = 4 << 20
"""Bytes of the file system: the head of the file and some pages."""
pytestmark = pytest.mark.slow


@pytest.fixture
def small() -> Iterator[Path | None]:
    """A tmpfs of its own that is soon full; None where nothing may be mounted."""
    with TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], timeout=60, check=True)


def stored(server: Server) -> None:
    """Some values, of which those that are still there are right."""
    client = server.connect()
    for n in range(60):
        said = client.command(b"set k%d 0 0 100000\r\n" % n + b"%06d" % n + b"x" * 99_994)
        assert said in {b"STORED\r\n", b"SERVER_ERROR out of memory storing object\r\n"}
    are_right(client)
    client.close()


def are_right(client: Client) -> None:
    for n in range(60):
        said = client.command(b"get k%d" % n, b"END\r\n")
        assert said in {b"END\r\n", b"VALUE k%d 0 100000\r\n%06d%s\r\nEND\r\n" % (n, n, b"x" * 99_994)}


def leave(server: Server) -> str:
    server.signal(signal.SIGUSR1)
    assert server.end() == 0, server.log()
    assert "Traceback" not in server.log()
    return server.log()


def begins_empty(start: Start, file: Path) -> None:
    server = start("-e", str(file), "-t", "1")
    client = server.connect()
    assert client.stats()["curr_items"] == "0"
    assert server.log().count("starting empty") <= 1
    client.close()


def fill(folder: Path) -> None:
    """To the last byte."""
    with (folder / "other").open("wb", buffering=0) as other:
        try:
            while True:
                other.write(b"x" * 4096)
        except OSError:
            pass


def test_no_room_for_the_record(start: Start, small: Path | None) -> None:
    if small is None:
        return
    server = start("-e", str(small / "items"), "-t", "1")
    stored(server)
    fill(small)
    assert server.connect().command(b"mn") == b"MN\r\n"
    for each in server.clients:
        each.close()
    log = leave(server)
    assert f"nothing is kept: can't write {small}/items.meta: No space left on device" in log
    (small / "other").unlink()
    begins_empty(start, small / "items")


def test_no_room_from_the_start(small: Path | None) -> None:
    if small is None:
        return
    fill(small)
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(small / "items"))
    assert ended.returncode == 71
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("when", ["at the end", "at the start"])
def test_nothing_may_be_written(start: Start, small: Path | None, when: str) -> None:
    if small is None:
        return
    server = start("-e", str(small / "items"), "-t", "1")
    stored(server)
    for each in server.clients:
        each.close()
    server.clients.clear()
    if when == "at the start":
        leave(server)
    # A file that is open for writing holds up a change of the whole file system: its directory alone is changed then.
    remount = ["mount", "-o", "remount,ro", str(small)]
    if when == "at the end":
        subprocess.run(["mount", "--bind", str(small), str(small)], timeout=60, check=True)
        remount = ["mount", "-o", "remount,ro,bind", str(small)]
    subprocess.run(remount, timeout=60, check=True)
    try:
        if when == "at the end":
            server.signal(signal.SIGUSR1)  # its own way there was opened before: it may still write
            assert server.end() == 0
            assert "Traceback" not in server.log()
        ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(small / "items"))
        assert ended.returncode == 71
        assert "Read-only file system" in ended.stderr
        assert "Traceback" not in ended.stderr
    finally:
        if when == "at the end":
            subprocess.run(["umount", str(small)], timeout=60, check=True)
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(small)], timeout=60, check=True)
    again = start("-e", str(small / "items"), "-t", "1").connect()
    are_right(again)


@pytest.mark.parametrize(
    "spoil",
    [
        shutil.rmtree,
        lambda folder: folder.rename(folder.with_name("away")),
        lambda folder: (folder / "items").unlink(),
        lambda folder: (folder / "items").rename(folder / "away"),
    ],
    ids=["directory removed", "directory renamed", "file removed", "file renamed"],
)
def test_what_is_there_goes_meanwhile(start: Start, spoil: Callable[[Path], object]) -> None:
    with TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name, "folder")
        folder.mkdir()
        server = start("-e", str(folder / "items"), "-t", "1")
        stored(server)
        spoil(folder)
        client = server.connect()
        are_right(client)
        client.close()
        log = leave(server)
        assert ("nothing is kept: can't write" in log) is (not (folder.exists() or folder.with_name("away").exists()))
        folder.mkdir(exist_ok=True)
        begins_empty(start, folder / "items")


def test_two_at_once() -> None:
    """One serves, and the others say that it does."""
    with TemporaryDirectory(dir="/dev/shm") as name:
        file, printed = Path(name, "items"), Path(name, "printed")
        ports = [free_port() for _ in range(4)]
        command = [sys.executable, "-m", "mcserver", "-u", "root", "-l", "127.0.0.1", "-e", str(file)]
        with printed.open("ab") as log:
            processes = [
                subprocess.Popen(
                    [*command, "-p", str(port)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                for port in ports
            ]
        try:
            eventually(lambda: sum(each.poll() is not None for each in processes) == len(processes) - 1)
            eventually(lambda: " listens on " in printed.read_text())
            assert sorted(each.poll() or 0 for each in processes) == [0, 71, 71, 71]
            assert printed.read_text().count("another server has its memory in") == len(processes) - 1
            one = next(port for port, each in zip(ports, processes, strict=True) if each.poll() is None)
            client = Client(("127.0.0.1", one))
            assert client.command(b"set k 0 0 1\r\n1") == b"STORED\r\n"
            client.close()
        finally:
            for each in processes:
                each.terminate()
                each.wait(END_SECONDS)
