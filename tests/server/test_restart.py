"""-e: a server that ends gracefully leaves its memory to the next one, beside memcached's own -e; anything else starts empty."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcserver.server.memory_file import META_MAGIC, MemoryFile, UnusableError, unpack
from tests.conftest import Start
from tests.peer import end_gracefully, memcached
from tests.serving import Client, Server, run_to_end

STORES = (
    b"set plain 5 0 5\r\nhello\r\nset soon 0 1 1\r\nx\r\nset later 1 1000 1\r\ny\r\nset big 0 0 300000\r\n"
    + b"b" * 300000
    + b"\r\n"
    b"set n 0 0 2\r\n41\r\nincr n 1\r\nset gone 0 0 1\r\nz\r\ndelete gone\r\n"
)
ASKED = b"mg plain v f\r\nmg soon v\r\nmg later v f\r\nmg big s\r\nmg n v\r\nmg gone v\r\nmn\r\n"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A file on a tmpfs."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder, "memory")


def leave(server: Server, number: signal.Signals = signal.SIGUSR1) -> None:
    for client in server.clients:
        client.close()
    server.clients.clear()
    server.signal(number)
    assert server.end() in {0, -number}, server.log()


def stored(server: Server) -> Client:
    client = server.connect()
    client.command(STORES + b"mn", b"MN\r\n")
    return client


@pytest.mark.slow
def test_everything_goes_on_as_from_memcached(start: Start, memory: Path) -> None:
    theirs = memory.with_name("theirs")
    with memcached("-e", str(theirs)) as address:
        client = Client(address)
        client.command(STORES + b"mn", b"MN\r\n")
        pid = int(client.stats()["pid"])
        client.close()
        end_gracefully(pid)
    first = start("-e", str(memory))
    client = stored(first)
    unique = client.command(b"mg plain c")
    leave(first)
    time.sleep(1.5)
    second = start("-e", str(memory))
    client = second.connect()
    with memcached("-e", str(theirs)) as address:
        other = Client(address)
        expected = other.command(ASKED[:-2], b"MN\r\n")
        assert expected.startswith(b"VA 5 f5\r\nhello")
        assert expected.count(b"EN\r\n") == 2
        assert client.command(ASKED[:-2], b"MN\r\n") == expected
        for name in ("curr_items", "total_items", "cmd_set", "get_hits"):
            assert client.stats()[name] == other.stats()[name], name
        assert int(client.stats()["uptime"]) >= 2, "it goes on, as memcached's"
        other.close()
    assert client.command(b"mg plain c") == unique
    ttl = int(client.command(b"mg later t").split(b"t")[1])
    assert 990 <= ttl <= 999
    assert "5 items go on" in second.log()
    assert client.stats("settings")["memory_file"] == str(memory)


@pytest.mark.slow
def test_shutdown_graceful_keeps_and_shutdown_does_not(start: Start, memory: Path) -> None:
    server = start("-e", str(memory), "-A")
    client = stored(server)
    client.send(b"shutdown graceful\r\n")
    assert server.end() == 0
    server = start("-e", str(memory), "-A")
    client = server.connect()
    assert client.command(b"mg plain v") == b"VA 5\r\n"
    client.send(b"shutdown\r\n")
    assert server.end() == 0
    assert not memory.with_name("memory.meta").exists()
    server = start("-e", str(memory))
    assert server.connect().command(b"mg plain v") == b"EN\r\n"
    assert "starting empty: there is no record of it" in server.log()


@pytest.mark.slow
def test_a_crash_starts_empty(start: Start, memory: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        server = start("-e", str(memory))
        stored(server)
        leave(server, number)
        server = start("-e", str(memory))
        assert server.connect().command(b"mg plain v") == b"EN\r\n"
        assert server.log().count("starting empty") == 1
        leave(server)


@pytest.mark.slow
def test_a_flush_that_was_due_comes(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    stored(server).command(b"flush_all 2")
    leave(server)
    server = start("-e", str(memory))
    client = server.connect()
    deadline = time.monotonic() + 60
    while client.command(b"mg later") != b"EN\r\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_record_is_good_once(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    stored(server)
    leave(server)
    meta = memory.with_name("memory.meta")
    record = meta.read_bytes()
    server = start("-e", str(memory))
    assert not meta.exists(), "before anything is served"
    server.connect().command(b"set plain 0 0 3\r\nnew")
    leave(server)
    meta.write_bytes(record)
    server = start("-e", str(memory))
    assert server.connect().command(b"mg plain v") == b"EN\r\n"
    assert "don't belong together" in server.log()


@pytest.mark.slow
def test_a_copy_of_a_record_is_good_for_nothing(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    stored(server)
    leave(server)
    meta = memory.with_name("memory.meta")
    record = meta.read_bytes()
    leave(start("-e", str(memory)), signal.SIGKILL)
    meta.write_bytes(record)
    server = start("-e", str(memory))
    assert server.connect().command(b"mg plain v") == b"EN\r\n"
    assert "don't belong together" in server.log()


@pytest.mark.slow
def test_a_record_that_can_not_be_removed_is_an_error(memory: Path) -> None:
    meta = memory.with_name("memory.meta")
    meta.mkdir()
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(memory))
    assert ended.returncode == 71
    assert ended.stderr.splitlines()[-1].endswith(f"remove {meta}, or name another file with -e")


def a_pipe_for_a_record(_file: Path, meta: Path) -> None:
    meta.unlink()
    os.mkfifo(meta)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file, meta: os.truncate(file, file.stat().st_size // 2), "the file is too short"),
        (lambda file, meta: file.write_bytes(b"#!/bin/sh\n" * 1000), "don't belong together"),
        (lambda file, meta: meta.write_bytes(meta.read_bytes()[:-1]), "damaged"),
        (lambda file, meta: meta.write_bytes(b"T\nKslab_config 1.25\n"), "another program"),
        (lambda file, meta: meta.write_bytes(b""), "another program"),
        (a_pipe_for_a_record, "no record of this server"),
        (lambda file, meta: meta.unlink(), "no record"),
    ],
)
def test_what_can_not_be_served_starts_empty(
    start: Start, memory: Path, spoil: Callable[[Path, Path], object], why: str
) -> None:
    server = start("-e", str(memory))
    stored(server)
    leave(server)
    spoil(memory, memory.with_name("memory.meta"))
    server = start("-e", str(memory))
    client = server.connect()
    assert client.command(b"mg plain v") == b"EN\r\n"
    assert server.log().count("starting empty") == 1
    assert why in server.log()
    stored(server)
    leave(server)
    assert start("-e", str(memory)).connect().command(b"mg later v") == b"VA 1\r\n"


def test_a_record_for_which_there_is_no_room_leaves_nothing(memory: Path) -> None:
    file = MemoryFile(str(memory))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write(b"x" * 100_000, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        os.close(file.fd)
    assert list(memory.parent.iterdir()) == [memory]


@pytest.mark.parametrize("field", [{"wall_time": 10**400}, {"wall_time": "nan"}, {"name": 7}, {"fleet": [1]}, {}])
def test_a_record_that_makes_no_sense(field: dict[str, object]) -> None:
    fields = {"name": "00", "boot": "", "boot_time": 0, "wall_time": time.time(), "fleet": None, **field}
    head = json.dumps(fields if field else [1]).encode() + b"\n"
    checksum = hashlib.blake2b(head + b"record", digest_size=32).hexdigest().encode() + b"\n"
    with pytest.raises(UnusableError, match="makes no sense"):
        unpack(META_MAGIC + checksum + head + b"record")


@pytest.mark.slow
def test_other_settings_start_empty_and_fitting_ones_do_not(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    stored(server)
    leave(server)
    for megabytes in ("100", "300", "64"):  # whose pages would differ
        server = start("-e", str(memory), "-m", megabytes, "-t", "2", "-v")
        assert server.connect().command(b"mg plain v") == b"VA 5\r\n"
        leave(server)
    server = start("-e", str(memory), "-I", "2m")
    assert server.connect().command(b"mg plain v") == b"EN\r\n"
    assert "starting empty: -I differs" in server.log()


@pytest.mark.slow
def test_two_servers_never_share_a_file(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    second = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(memory))
    assert second.returncode == 71
    assert "another server has its memory in" in second.stderr
    assert stored(server).command(b"mg plain v") == b"VA 5\r\n"


@pytest.mark.slow
def test_files_that_are_not_taken(memory: Path) -> None:
    memory.mkdir()
    link, elsewhere = memory / "link", memory / "elsewhere"
    elsewhere.write_text("mine")
    link.symlink_to(elsewhere)
    foreign = memory / "foreign"
    foreign.write_text("theirs")
    os.chown(foreign, 12345, 12345)
    twice = memory / "twice"
    twice.touch()
    twice.with_name("other").hardlink_to(twice)
    for path, why in (
        (twice, "has another name, too"),
        (memory, "Is a directory"),
        (link, "symbolic link"),
        (foreign, "another user's"),
        (elsewhere, "has something else in it"),
        (Path("/proc/x/y"), "can't open"),
    ):
        ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(path))
        assert (ended.returncode, ended.stdout) == (71, "")
        assert why in ended.stderr, ended.stderr
    assert elsewhere.read_text() == "mine"


@pytest.mark.slow
def test_both_files_are_the_owners_alone(start: Start, memory: Path) -> None:
    server = start("-e", str(memory))
    stored(server)
    leave(server)
    assert {path.stat().st_mode & 0o777 for path in memory.parent.iterdir()} == {0o600}
