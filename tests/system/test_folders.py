"""Files that are written or removed where another user may be quicker: no way leads us where he wants.

A swap of a directory for a link, which in life is chance, is done here before each system call in turn.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mcserver.server import handover
from mcserver.server.listeners import clear_the_way, open_listeners, remove_socket, write_port_file
from mcserver.server.memory_file import MemoryFile, UnusableError
from mcserver.settings.config import Config
from mcserver.system.folders import Folder
from mcserver.system.process import StartError, open_descriptors, remove_pid_file, write_pid_file
from tests.conftest import Start
from tests.serving import eventually

STRANGER = 4711
STEPS_MOST = 60
"""More system calls than any of the ways tried here takes."""
GiveAway = Callable[[Path], None]


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> GiveAway:
    """Makes a directory another user's; where only root could, it is us who become another."""

    def away(path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)

    return away


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of our own, in one of our own."""
    made = tmp_path / "above" / "folder"
    made.mkdir(parents=True)
    return made


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def memory(path: Path) -> None:
    """From start to end, twice, so that there is a record to be read."""
    for _ in range(2):
        file = MemoryFile(str(path))
        try:
            file.read()
            file.write(b"record", None)
        finally:
            os.close(file.fd)
            file.close()


def memory_anew(path: Path) -> None:
    """As who serves again begins another one."""
    first = MemoryFile(str(path))
    try:
        second = first.anew()
    finally:
        os.close(first.fd)
    os.close(second.fd)
    second.close()


def refusals(folder: Path) -> Iterator[str]:
    """What each of the ways says."""
    yield write_pid_file(folder / "pid")
    with pytest.raises(StartError) as port:
        write_port_file(str(folder / "port"), [])
    yield str(port.value)
    with pytest.raises(StartError) as kept:
        MemoryFile(str(folder / "memory"))
    yield str(kept.value)


# Whose folder ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["folder", "above"])
def test_a_strangers_folder_is_refused(folder: Path, which: str, give_away: GiveAway) -> None:
    """On the way or at its end, for each kind of file; the reason says what to change."""
    dead_socket(folder / "socket")
    give_away(folder if which == "folder" else folder.parent)
    for said, option in zip(refusals(folder), ("-P", "MEMCACHED_PORT_FILENAME", "-e"), strict=True):
        assert f"{which} belongs to user " in said
        assert option in said
    (folder / "pid").write_text(f"{os.getpid()}\n")
    remove_pid_file(folder / "pid")
    with pytest.raises(StartError):
        clear_the_way(str(folder / "socket"))
    remove_socket(str(folder / "socket"), os.lstat(folder / "socket"))
    assert sorted(each.name for each in folder.iterdir()) == ["pid", "socket"]


def test_one_on_the_way_that_others_may_write_is_refused(folder: Path) -> None:
    for mode in (0o777, 0o757):
        folder.parent.chmod(mode)
        for said in refusals(folder):
            assert "above may be written by other users (chmod o-w or +t)" in said
    folder.parent.chmod(0o1777)
    assert write_pid_file(folder / "pid") == "", "as in /tmp"


def test_a_group_that_is_not_ours_is_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.chmod(0o775)
    group = folder.parent.stat().st_gid
    assert write_pid_file(folder / "pid") == ""
    found = os.fstat

    def others(fd: int) -> os.stat_result:
        fields = list(found(fd))
        fields[5] = STRANGER if fields[5] == group else fields[5]
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", others)
    assert "may be written by other users" in write_pid_file(folder / "pid")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777, 0o1777])
def test_at_the_end_of_the_way_others_may_write(folder: Path, mode: int) -> None:
    """Many a directory of a pid file can: what is done there follows nothing."""
    folder.chmod(mode)
    assert write_pid_file(folder / "pid") == ""
    write_port_file(str(folder / "port"), [])
    memory(folder / "memory")
    remove_pid_file(folder / "pid")
    assert sorted(each.name for each in folder.iterdir()) == ["memory", "memory.meta", "port"]


def test_an_old_socket_goes_only_where_nobody_else_may_write(folder: Path) -> None:
    dead_socket(folder / "socket")
    folder.chmod(0o777)
    with pytest.raises(StartError, match="other users may write"):
        clear_the_way(str(folder / "socket"))
    folder.chmod(0o1777)
    clear_the_way(str(folder / "socket"))
    assert not list(folder.iterdir())


def test_links_on_the_way_are_followed_if_they_are_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /var/run, a link of root's to /run."""
    links = folder.parent / "links"
    links.mkdir(mode=0o1777)
    (links / "whole").symlink_to(folder)
    (links / "near").symlink_to("../folder/.")
    (links / "twice").symlink_to("whole/../folder")
    (links / "round").symlink_to("round")
    (links / "file").write_text("")
    for name in ("whole", "near", "twice"):
        assert write_pid_file(links / name / "pid") == ""
        assert (folder / "pid").read_text() == f"{os.getpid()}\n"
        remove_pid_file(links / name / "pid")
        assert not (folder / "pid").exists()
    assert "Too many levels" in write_pid_file(links / "round" / "pid")
    assert "Not a directory" in write_pid_file(links / "file" / "pid")
    monkeypatch.chdir(folder)
    assert write_pid_file("pid") == ""
    assert (folder / "pid").exists()


@pytest.mark.parametrize("name", ["folder/", "folder/.", "folder/..", "/", ""])
def test_a_name_that_is_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(folder.parent)
    before = open_descriptors()
    with pytest.raises(OSError, match="Is a directory"):
        Folder(name)
    with pytest.raises(FileNotFoundError):
        Folder(f"{folder}/missing/pid")
    assert open_descriptors() == before


def test_a_link_of_a_strangers_is_not_followed(folder: Path) -> None:
    if os.getuid() != 0:
        return  # only root has something to give away
    sticky = folder.parent / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "link").symlink_to(folder)
    os.chown(sticky / "link", STRANGER, STRANGER, follow_symlinks=False)
    for said in refusals(sticky / "link"):
        assert f"link is a link of user {STRANGER}" in said
    assert not list(folder.iterdir())


# Links that were put there before -------------------------------------------------------------------------------------


def test_links_in_the_place_of_each_file(folder: Path) -> None:
    precious = folder / "precious"
    precious.write_text("data")
    for name in ("pid", "port", "memory.meta", "memory.meta.new", "memory", "socket", "door"):
        (folder / name).symlink_to(precious)
    assert write_pid_file(folder / "pid") == ""
    write_port_file(str(folder / "port"), [])
    with pytest.raises(StartError, match="symbolic link"):
        MemoryFile(str(folder / "memory"))
    (folder / "memory").unlink()
    file = MemoryFile(str(folder / "memory"))
    file.write(b"record", None)
    os.close(file.fd)
    file.close()
    with pytest.raises(StartError, match="in use"):
        open_listeners(Config(domain_socket=str(folder / "socket")))
    with pytest.raises(StartError, match="in use"):
        handover.open_door(str(folder / "door"))
    assert precious.read_text() == "data"
    links = {each.name for each in folder.iterdir() if each.is_symlink()}
    assert links == {"socket", "door"}, "the others were replaced"


def test_links_to_nothing(folder: Path) -> None:
    """A socket or a file would be made where they lead."""
    for name in ("pid", "memory", "socket", "door"):
        (folder / name).symlink_to(folder / "nothing")
    assert write_pid_file(folder / "pid") == ""
    with pytest.raises(StartError, match="symbolic link"):
        MemoryFile(str(folder / "memory"))
    with pytest.raises(StartError, match="in use"):
        open_listeners(Config(domain_socket=str(folder / "socket")))
    with pytest.raises(StartError, match="in use"):
        handover.open_door(str(folder / "door"))
    assert not (folder / "nothing").exists()


# Swapped meanwhile ----------------------------------------------------------------------------------------------------


class Swapper:
    """Puts a stranger's link to `elsewhere` in the place of `folder`, before the `at`-th system call that is by a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, elsewhere: Path, at: int) -> None:
        self._folder, self._elsewhere, self._at = folder, elsewhere, at
        self.calls = 0
        for name in ("open", "stat", "lstat", "replace", "unlink", "readlink", "access"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._folder.rename(self._folder.with_name("away"))
                self._folder.symlink_to(self._elsewhere)
                os.chown(self._folder, STRANGER, STRANGER, follow_symlinks=False)
            return call(*args, **kwargs)

        return wrapped


def write_and_remove(path: Path) -> None:
    write_pid_file(path)
    remove_pid_file(path)


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (write_and_remove, "pid"),
        (lambda path: write_port_file(str(path), []), "port"),
        (memory, "memory"),
        (memory_anew, "memory"),
        (lambda path: clear_the_way(str(path)), "socket"),
        (lambda path: remove_socket(str(path), os.lstat(path)), "socket"),
    ],
)
def test_a_folder_that_is_swapped_at_any_moment(tmp_path: Path, way: Callable[[Path], object], name: str) -> None:
    """What it leads to stays as it is: names, content, rights."""
    if os.getuid() != 0:
        return  # a link of one's own may lead anywhere
    for at in range(1, STEPS_MOST):
        sticky, elsewhere = tmp_path / f"sticky{at}", tmp_path / f"elsewhere{at}"
        for each in (sticky, sticky / "folder", elsewhere):
            each.mkdir()
            dead_socket(each / "socket")
        sticky.chmod(0o1777)
        (elsewhere / "pid").write_text(f"{os.getpid()}\n")
        for kept in ("port", "memory", "memory.meta", "memory.meta.new"):
            (elsewhere / kept).write_text("precious")
        before = content(elsewhere)
        with pytest.MonkeyPatch.context() as patched:
            swapper = Swapper(patched, sticky / "folder", elsewhere, at)
            try:
                way(sticky / "folder" / name)
            except (StartError, OSError, UnusableError):
                pass  # a word about it is right, and so is none, and so is an empty start
        assert content(elsewhere) == before, f"before call {at}"
        if swapper.calls < at:
            assert at > 3
            return
    pytest.fail("more steps than are tried")


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        each.name: (each.lstat().st_mode, b"" if each.is_socket() else each.read_bytes()) for each in folder.iterdir()
    }


@pytest.mark.parametrize("what", ["nothing", "another memory", "a file", "a link", "a stranger's", "others may write"])
def test_a_memory_that_is_begun_anew_takes_nothing_else_away(folder: Path, what: str) -> None:
    """It was ours under this name; what is there now may be anybody's."""
    path, before = folder / "memory", open_descriptors()
    file = MemoryFile(str(path))
    ours = path.lstat()
    if what != "others may write":
        path.unlink()
    if what == "another memory":
        path.touch()
    elif what in {"a file", "a stranger's"}:
        path.write_text("precious")
    elif what == "a link":
        path.symlink_to(folder / "nothing")
    elif what == "others may write":
        folder.chmod(0o777)
    if what == "a stranger's":
        if os.getuid() != 0:
            os.close(file.fd)
            file.close()
            return  # only root has something to give away
        os.chown(path, STRANGER, STRANGER)
    there = path.lstat() if os.path.lexists(path) else None
    if what in {"nothing", "another memory"}:
        second = file.anew()
        assert os.path.samestat(os.fstat(second.fd), path.lstat())
        assert not os.path.samestat(ours, path.lstat())
        os.close(second.fd)
        second.close()
    else:
        with pytest.raises(StartError, match=r"name (another|a) file (with -e|on a tmpfs)"):
            file.anew()
    os.close(file.fd)
    assert there is None or os.path.samestat(path.lstat(), there)
    assert [each.name for each in folder.iterdir()] == ["memory"]
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["memory.meta", "memory.meta.new"])
def test_a_strangers_record_stays(folder: Path, name: str) -> None:
    """Root could remove it in /tmp, and anybody where all may write."""
    if os.getuid() != 0:
        return  # only root has something to give away
    (folder / name).write_text("precious")
    os.chown(folder / name, STRANGER, STRANGER)
    file = MemoryFile(str(folder / "memory"))
    if name == "memory.meta":
        with pytest.raises(UnusableError, match="is no record of this server"):
            file.read()
        with pytest.raises(StartError, match=r"memory\.meta is another user's; remove "):
            file.clear()
    with pytest.raises(PermissionError, match="is another user's"):
        file.write(b"record", None)
    os.close(file.fd)
    file.close()
    assert (folder / name).read_text() == "precious"
    assert sorted(each.name for each in folder.iterdir()) == ["memory", name]


def test_a_memory_that_is_replaced_while_it_is_opened_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """By who had it locked until now, and began anew under its name: what is left has none, and would not be found."""
    lock = fcntl.flock

    def late(fd: int, how: int) -> None:
        (folder / "memory").rename(folder / "gone")
        (folder / "memory").touch()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    before = open_descriptors()
    with pytest.raises(StartError, match="was replaced just now: start again"):
        MemoryFile(str(folder / "memory"))
    assert open_descriptors() == before


def test_a_door_that_is_swapped_takes_nothing_away(tmp_path: Path) -> None:
    """At its end it is the next one's, or something that a stranger put there."""
    folder = tmp_path / "folder"
    folder.mkdir()

    async def serve(swap: Callable[[Path], object]) -> None:
        path = folder / "door"
        waiting = handover.HandOver(handover.open_door(str(path)), lambda: pytest.fail("nobody asked"), lambda: None)
        swap(path)
        waiting.close()

    def another(path: Path) -> None:
        path.unlink()
        path.write_text("precious")

    asyncio.run(serve(lambda path: None))
    assert not list(folder.iterdir())
    asyncio.run(serve(another))
    assert (folder / "door").read_text() == "precious"
    (folder / "door").unlink()
    asyncio.run(serve(lambda path: folder.chmod(0o777)))
    assert (folder / "door").is_socket(), "nothing is removed by its name where others may write"


@pytest.mark.parametrize("what", ["a file", "a link", "others may write"])
def test_a_door_in_the_place_of_another_takes_nothing_else_away(tmp_path: Path, what: str) -> None:
    """One that is ending may still listen there. What is no door stays, and so does one that others could swap."""
    path = tmp_path / "door"
    handover.open_door(str(path)).close()
    before = handover.open_door(str(path), instead=True)
    with before, handover.open_door(str(path), instead=True), pytest.raises(StartError, match="a server listens on"):
        handover.open_door(str(path))
    path.unlink()
    if what == "a file":
        path.write_text("precious")
    elif what == "a link":
        dead_socket(tmp_path / "socket")
        path.symlink_to(tmp_path / "socket")
    else:
        dead_socket(path)
        tmp_path.chmod(0o777)
    there = path.lstat()
    with pytest.raises(StartError):
        handover.open_door(str(path), instead=True)
    assert os.path.samestat(path.lstat(), there)


# Real processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory of ours that every user can enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_strangers_door_is_not_asked(reachable: Path) -> None:
    """Who listens first at a path in /tmp gets nothing from us, and gives us nothing."""
    if os.getuid() != 0:
        return  # only root can be two
    reachable.chmod(0o1777)
    path = reachable / "door"
    code = (
        "import os, socket\n"
        f"os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "door = socket.socket(socket.AF_UNIX)\n"
        f"door.bind({str(path)!r}); door.listen(); print('ready', flush=True)\n"
        "one, _ = door.accept(); print(one.recv(100), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(StartError, match="another user serves there"):
            handover.inherit(str(path))
        assert other.stdout.readline() == b"b''\n"
        assert other.wait(60) == 0
    with pytest.raises(StartError, match="another user's: remove it"):
        handover.open_door(str(path))
    assert path.is_socket()


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "mode"), [(65534, 0o755), (0, 0o1777), (0, 0o777), (STRANGER, 0o777)])
def test_the_pid_file_of_a_user_that_root_becomes(start: Start, reachable: Path, owner: int, mode: int) -> None:
    """/run/memcached is its own; in /tmp the file may be new; in a stranger's folder there is none, and the server says why."""
    if os.getuid() != 0:
        return  # nobody is given up
    folder, sockets = reachable / "folder", reachable / "sockets"
    for each in (folder, sockets):
        each.mkdir()
    folder.chmod(mode)
    sockets.chmod(0o777)
    os.chown(folder, owner, owner)
    server = start("-u", "nobody", "-s", str(sockets / "socket"), "-P", str(folder / "pid"))
    assert server.connect().command(b"mn") == b"MN\r\n"
    if owner == STRANGER:
        eventually(lambda: f"folder belongs to user {STRANGER}" in server.log())
        assert not list(folder.iterdir())
    else:
        assert "WARNING" not in server.log()
        assert (folder / "pid").read_text() == f"{server.pid}\n"
