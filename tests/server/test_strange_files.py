"""The files of -e as a stranger, a full disk or a bad copy leaves them: the next start serves what was kept, or begins empty.

Each case changes the memory file or the record of a server that ended well, in the way that its name says. The next start, in
this process, then says one line: how many items go on, with every answer as it was; or why none do. What is no cache's memory,
and what is no file, is refused before anything of it is changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from mcserver.core import Engine
from mcserver.server.lives import Memory
from mcserver.server.memory_file import MAGIC, META_MAGIC, NAME_BYTES
from mcserver.settings.config import Config
from mcserver.system.process import StartError
from tests.core.harness import MIB, Client
from tests.peer import end_gracefully, memcached
from tests.serving import Client as Remote

HEAD, PAGE, SECTOR = 2 * MIB, 64 << 10, 4096
"""Where the items begin in the file; bytes of a page of theirs at this -m; bytes of one of the system's."""
SIZES = (0, 10, 100, 1000, 5000, 40_000)
EMPTY = "starting empty: "


class Files(NamedTuple):
    """What a server left: both files' bytes, and what each key was answered with but for the seconds that it had left."""

    memory: bytes
    record: bytes
    values: dict[bytes, bytes]


class Place:
    """Where the files lie, and the starts that find them there."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.memory = folder / "memory"
        self.record = folder / "memory.meta"
        self._caplog = caplog

    def put(self, files: Files) -> None:
        """Whatever was there before, of whatever kind, is gone."""
        for path, data in ((self.memory, files.memory), (self.record, files.record)):
            remove(path)
            path.write_bytes(data)

    @contextmanager
    def started(self, *, keep: bool = False) -> Iterator[tuple[Engine, Memory]]:
        """One server's memory, as start.py opens it, until its end, which leaves a record or not. Raises StartError."""
        memory = Memory(Config(memory_file=str(self.memory), maxbytes=4 * MIB))
        memory.open()
        assert memory._file is not None
        try:
            engine = memory.engine()
            yield engine, memory
            if keep:
                memory.keep(engine, None)
        finally:
            if not keep:
                memory._file.close()
            os.close(memory._fd)

    def outcome(self, values: dict[bytes, bytes]) -> str:
        """What the next start makes of the files: the one line that it says, without the file's name."""
        self._caplog.clear()
        with self.started() as (engine, memory):
            lines = [each.getMessage() for each in self._caplog.records]
            assert len(lines) == 1, lines
            _, name, line = lines[0].partition(f"-e {self.memory}: ")
            assert name, lines
            count, client = engine.stats()["curr_items"], Client(engine)
            found = {key: answer(client, key) for key in values}
            if memory.resumed:
                assert line.startswith(f"{count} items go on, after "), line
                self.is_right(found, values)
            else:
                assert line.startswith("starting empty: "), line
                assert set(found.values()) <= {b"EN\r\n"}
                assert count == 0
            stores(engine, client)
            client.session.close()
        return line

    def is_right(self, found: dict[bytes, bytes], values: dict[bytes, bytes]) -> None:
        assert found == values


class Forged(Place):
    """Where somebody made the record's checksum right again: of times and flushes it may say anything, not of values."""

    def is_right(self, found: dict[bytes, bytes], values: dict[bytes, bytes]) -> None:
        for key, said in found.items():
            assert said == b"EN\r\n" or without_winning(said) == values[key], key


def without_winning(said: bytes) -> bytes:
    """The answer without what a refresh adds."""
    head, end, value = said.partition(b"\r\n")
    return head.removesuffix(b" W").removesuffix(b" Z").removesuffix(b" X") + end + value


def remove(path: Path) -> None:
    """Whatever has this name."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def answer(client: Client, key: bytes) -> bytes:
    return client.send(b"mg %s v f c\r\n" % key)


def stores(engine: Engine, client: Client) -> None:
    """The engine is as good as any: pages move, items leave, and what was just stored is there."""
    for n in range(20):
        client.send(b"set new-%d 0 0 %d\r\n%s\r\n" % (n, 30_000, b"x" * 30_000))
    engine.maintain()
    assert client.send(b"set a 0 0 1\r\na\r\nget a\r\n") == b"STORED\r\nVALUE a 0 1\r\na\r\nEND\r\n"


def left_by(place: Place, seed: int) -> Files:
    """What a server of values of many sizes, with lifetimes, deletes and a flush, leaves at its end."""
    chance = random.Random(seed)
    with place.started(keep=True) as (engine, _):
        client = Client(engine)
        for n in range(250):
            value = chance.randbytes(chance.choice(SIZES))
            lifetime = chance.choice((0, 10**6))
            client.send(b"ms key-%d %d F%d T%d\r\n%s\r\n" % (n, len(value), n, lifetime, value))
            if n % 5 == 0:
                client.send(b"delete key-%d\r\n" % chance.randrange(n + 1))
        engine.flush_prefix(b"key-1")
        engine.refresh_prefix(b"other-", 30)
        client.send(b"set key-1-later 0 0 4\r\nlate\r\n")
        values = {key: found for n in range(250) if (found := answer(client, key := b"key-%d" % n)) != b"EN\r\n"}
        values[b"key-1-later"] = answer(client, b"key-1-later")
        client.session.close()
    assert len(values) > 80
    return Files(place.memory.read_bytes(), place.record.read_bytes(), values)


@pytest.fixture
def place(caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    """A directory on a tmpfs."""
    caplog.set_level(logging.INFO, "mcserver")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Place(Path(folder), caplog)


@pytest.fixture
def files(place: Place) -> Files:
    """What a server left there."""
    return left_by(place, 1)


@pytest.fixture
def forged(place: Place, caplog: pytest.LogCaptureFixture) -> Forged:
    return Forged(place.memory.parent, caplog)


def signed(head: bytes, rest: bytes) -> bytes:
    """A record whose checksum is right. head: its line of JSON."""
    return META_MAGIC + hashlib.blake2b(head + rest, digest_size=32).hexdigest().encode() + b"\n" + head + rest


def parts(record: bytes) -> tuple[bytes, bytes]:
    """The line of JSON, and what the engine wrote."""
    _, _, head, rest = record.split(b"\n", 3)
    return head + b"\n", rest


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


# Lengths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_memory_of_another_length(place: Place, files: Files) -> None:
    """Cut at each page's beginning, one byte before and behind, and in its middle; and longer than it was."""
    size = len(files.memory)
    cuts = {at + by for at in range(HEAD, size, PAGE) for by in (-1, 0, 1, PAGE // 2 + 1)} - {size}
    for length in sorted({0, 1, len(MAGIC), len(MAGIC) + NAME_BYTES - 1, len(MAGIC) + NAME_BYTES, SECTOR, *cuts}):
        place.put(files)
        os.truncate(place.memory, length)
        assert place.outcome(files.values).startswith(EMPTY), length
    for more in (1, SECTOR, PAGE + 1, 1 << 34):
        place.put(files)
        os.truncate(place.memory, size + more)
        assert "items go on" in place.outcome(files.values), more


@pytest.mark.slow
def test_a_record_of_another_length(place: Place, files: Files) -> None:
    head, rest = parts(files.record)
    before = len(files.record) - len(rest)
    for length in (*range(0, before + 8, 3), *range(before + 8, len(files.record), SECTOR), len(files.record) - 1):
        place.put(files._replace(record=files.record[:length]))
        assert place.outcome(files.values).startswith(EMPTY), length
    for record in (files.record + b"\n", files.record * 2):
        place.put(files._replace(record=record))
        assert place.outcome(files.values).endswith("its record is damaged")
    for cut in (rest[:-1], rest[:100], b"", rest + b"\0", rest * 2):  # and the checksum is of what is left
        place.put(files._replace(record=signed(head, cut)))
        assert "the record" in place.outcome(files.values), len(cut)


def test_a_huge_record_is_not_read(place: Place, files: Files) -> None:
    place.put(files)
    os.truncate(place.record, 1 << 29)
    assert place.outcome(files.values).endswith("is no record of this server")


# Bytes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_changed_byte_of_the_memory(place: Place, files: Files) -> None:
    """In its name, in what is unused, and, of each page, in the first item, and in 5 places that chance names."""
    chance = random.Random(2)
    for at in range(len(MAGIC) + NAME_BYTES):
        place.put(files._replace(memory=flipped(files.memory, at)))
        assert place.outcome(files.values).endswith("don't belong together"), at
    for at in (len(MAGIC) + NAME_BYTES, SECTOR, HEAD - 1):
        place.put(files._replace(memory=flipped(files.memory, at)))
        assert "items go on" in place.outcome(files.values), at
    said = []
    for page in range(HEAD, len(files.memory), PAGE):
        for at in (page, page + 30, *(page + chance.randrange(PAGE) for _ in range(5))):
            place.put(files._replace(memory=flipped(files.memory, at)))
            said.append(place.outcome(files.values))
    assert sum(each.endswith("the memory is not what was kept") for each in said) > 50
    assert any("items go on" in each for each in said), "where no item was"


@pytest.mark.slow
def test_a_changed_byte_of_the_record(place: Place, files: Files) -> None:
    chance, before = random.Random(3), len(files.record) - len(parts(files.record)[1])
    for at in (*range(0, before, 2), *(chance.randrange(before, len(files.record)) for _ in range(60))):
        place.put(files._replace(record=flipped(files.record, at)))
        assert place.outcome(files.values).startswith(EMPTY), at


@pytest.mark.slow
def test_a_changed_record_with_its_checksum(forged: Forged, files: Files) -> None:
    """Each word of the engine's part, from the layout to the table of pages, and some of the ghosts."""
    chance = random.Random(4)
    head, rest = parts(files.record)
    words = len(rest) - 4096 * 8  # what is behind are ghosts
    said = []
    for at in (*range(0, words, 4), *(chance.randrange(words, len(rest) - 4) for _ in range(50))):
        odd = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\x80", chance.randbytes(4)))
        forged.put(files._replace(record=signed(head, rest[:at] + odd + rest[at + 4 :])))
        said.append(forged.outcome(files.values))
    assert sum(each.startswith(EMPTY) for each in said) > 100
    assert sum("items go on" in each for each in said) > 50


# What is in the record --------------------------------------------------------------------------------------------------


ODD = ("null", "true", '""', '"x"', "[]", "{}", "-1", "7", "1e400", "-1e400", "NaN", "1" + "0" * 400, "[" * 50_000)


@pytest.mark.parametrize("field", ["name", "boot", "boot_time", "wall_time", "fleet"])
def test_a_field_that_is_odd_missing_or_there_twice(forged: Forged, files: Files, field: str) -> None:
    head, rest = parts(files.record)
    fields = json.loads(head)
    for odd in ODD:
        lines = [f'"{name}": {odd if name == field else json.dumps(value)}' for name, value in fields.items()]
        forged.put(files._replace(record=signed(("{" + ", ".join(lines) + "}\n").encode(), rest)))
        said = forged.outcome(files.values)
        if (field, odd) not in {
            ("boot", '""'),
            ("boot", '"x"'),
            ("fleet", "null"),
            ("fleet", "{}"),
        } and field != "wall_time":
            assert said.startswith(EMPTY), odd
        elif field == "wall_time":  # which counts after another boot alone
            assert said.startswith(EMPTY) or odd in {"1e400", "-1e400", "NaN"}, odd
        else:
            assert "items go on" in said, odd
    for twice in ({**fields, field: 1}, fields):
        line = json.dumps({**fields, field: None})[:-1] + ", " + json.dumps(twice)[1:] + "\n"
        forged.put(files._replace(record=signed(line.encode(), rest)))
        forged.outcome(files.values)
    del fields[field]
    forged.put(files._replace(record=signed(json.dumps(fields).encode() + b"\n", rest)))
    assert forged.outcome(files.values).endswith("its record makes no sense")


def test_a_time_that_is_still_to_come(forged: Forged, files: Files) -> None:
    head, rest = parts(files.record)
    fields = json.loads(head)
    fields["boot_time"] += 3600.0
    forged.put(files._replace(record=signed(json.dumps(fields).encode() + b"\n", rest)))
    assert forged.outcome(files.values).endswith("its record makes no sense")


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"\xff\xfe\n", b"{\n", b"{}", b"x" * (2 << 20) + b"\n"])
def test_a_line_that_is_none(forged: Forged, files: Files, line: bytes) -> None:
    forged.put(files._replace(record=signed(line, parts(files.record)[1])))
    assert forged.outcome(files.values).endswith("its record makes no sense")


def test_a_record_of_another_build(place: Place, files: Files) -> None:
    head, rest = parts(files.record)
    for layout in (0, 2, 1 << 31):
        place.put(files._replace(record=signed(head, layout.to_bytes(4, "little") + rest[4:])))
        assert place.outcome(files.values).endswith("it was kept by another version")
    later = files.record.replace(META_MAGIC, b"mcserver kept 2\n")
    place.put(files._replace(record=later))
    assert place.outcome(files.values).endswith("its record is of another program or version")
    place.put(files._replace(memory=files.memory.replace(MAGIC, b"mcserver memory 2\n")))
    assert place.outcome(files.values).endswith("don't belong together")


# Files that belong elsewhere --------------------------------------------------------------------------------------------


def test_files_of_two_runs(place: Place, files: Files) -> None:
    remove(place.memory)
    other = left_by(place, 5)
    place.put(other)
    assert "items go on" in place.outcome(other.values), "both of the other's: it was copied, or renamed"
    for mixed in (files._replace(record=other.record), files._replace(memory=other.memory)):
        place.put(mixed)
        assert place.outcome(files.values).endswith("don't belong together")


def as_directory(path: Path) -> None:
    path.mkdir()


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def as_link(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(b"mine")
    path.symlink_to("elsewhere")


def as_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def as_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero


KINDS = (as_directory, as_pipe, as_socket, as_link, as_link_to_nothing, as_device)


@pytest.mark.parametrize("make", KINDS)
def test_a_memory_that_is_no_file(place: Place, files: Files, make: Callable[[Path], None]) -> None:
    """There is no start, and everything stays as it is."""
    place.put(files)
    place.memory.unlink()
    make_or_stop(make, place.memory)
    before = os.lstat(place.memory)
    with pytest.raises(StartError, match=r"-e"), place.started():
        pass
    assert os.lstat(place.memory).st_mode == before.st_mode
    assert place.record.read_bytes() == files.record
    if place.memory.with_name("elsewhere").exists():
        assert place.memory.with_name("elsewhere").read_bytes() == b"mine"
    remove(place.memory)
    place.memory.write_bytes(files.memory)
    assert "items go on" in place.outcome(files.values)


@pytest.mark.parametrize("make", KINDS)
def test_a_record_that_is_no_file(place: Place, files: Files, make: Callable[[Path], None]) -> None:
    """The memory is empty, and the thing gone; a directory has to be removed by whoever made it."""
    place.put(files)
    place.record.unlink()
    make_or_stop(make, place.record)
    if make is as_directory:
        with pytest.raises(StartError, match=f"remove {place.record}, or name another file with -e"), place.started():
            pass
        remove(place.record)
        return
    assert place.outcome(files.values).startswith(EMPTY)
    assert not os.path.lexists(place.record)


def make_or_stop(make: Callable[[Path], None], path: Path) -> None:
    """A device can be made by root alone; for anybody else a pipe stands for it."""
    try:
        make(path)
    except PermissionError:
        as_pipe(path)


def test_a_record_of_another_user(place: Place, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put(files)
    mine, real = place.record.stat().st_ino, os.fstat

    def others(fd: int) -> os.stat_result:
        found = real(fd)
        return os.stat_result((*found[:4], 4711, *found[5:])) if found.st_ino == mine else found

    monkeypatch.setattr(os, "fstat", others)
    assert place.outcome(files.values).endswith("is no record of this server")


# What would be lost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"#!/bin/sh\n" * 1000,
        b"\0" * 446 + b"\x80" + b"\0" * 63 + b"\x55\xaa" + b"\0" * (4 * MIB - 512),  # a disk's image
        b"\0" * (HEAD - 1) + b"x",
        b"%PDF-1.7\n" + b"\0" * (MIB - 9),
        b"".join(n.to_bytes(8, "little") for n in range(1, 2 * MIB // 8 + 1)),  # numbers, and whole pages of them
        b"mcserver kept 1\n",
    ],
    ids=["a byte", "script", "image", "late byte", "pages of text", "numbers", "record"],
)
def test_a_file_that_is_no_memory_stays_as_it_is(place: Place, content: bytes) -> None:
    place.memory.write_bytes(content)
    place.memory.chmod(0o644)
    with (
        pytest.raises(StartError, match=r"something else in it .* name another file with -e, or remove it"),
        place.started(),
    ):
        pass
    assert place.memory.read_bytes() == content
    assert stat.S_IMODE(place.memory.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0" * (HEAD - 1),
        b"\0" * 3 * MIB,
        MAGIC,
        MAGIC[:5],
        b"\0" * HEAD + b"item",
        b"mcserver memory 2\nx",
    ],
    ids=["empty", "a zero", "zeros", "more zeros", "mark", "half a mark", "items without a mark", "a later version's"],
)
def test_a_file_in_which_nothing_would_be_lost_is_taken(place: Place, content: bytes) -> None:
    """Empty, or a server's that was killed."""
    place.memory.write_bytes(content)
    with place.started() as (engine, memory):
        assert not memory.resumed
        stores(engine, client := Client(engine))
        client.session.close()


def test_what_was_a_memory_is_known_by_its_record(place: Place, files: Files) -> None:
    for record in (files.record, b"Tmain\nKslab_config 1.25\n"):
        place.put(files._replace(memory=b"nothing of it is left", record=record))
        assert place.outcome(files.values).startswith(EMPTY)


@pytest.mark.slow
@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGUSR1])
@pytest.mark.parametrize("stored", [False, True])
def test_memcacheds_memory_is_emptied(place: Place, ended: signal.Signals, stored: bool) -> None:
    """Of one that was killed, and of one that left a record; as memcached itself does with what it can't use."""
    with memcached("-e", str(place.memory), "-m", "64") as address:
        client = Remote(address)
        for size in (0, 100, 5000, 300_000, 900_000) if stored else ():
            for n in range(20):
                client.command(b"set key-%d-%d 0 0 %d\r\n%s" % (n, size, size, b"x" * size))
        pid = int(client.stats()["pid"])
        client.close()
        if ended == signal.SIGUSR1:
            end_gracefully(pid)
            assert place.record.exists()
        else:
            os.kill(pid, ended)
    assert place.outcome({}).startswith(EMPTY)
