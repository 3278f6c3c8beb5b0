"""The way out of the log: nobody waits for a stderr that isn't read, nothing is lost without a count, nothing repeats."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcserver.system.logs import ASKED, KINDS_MOST, QUEUE_BYTES, Repeats, TextFormatter, Writer, trace_lines
from tests.conftest import Start
from tests.ports import free_port
from tests.serving import Client, eventually

LINE = b"a line of the log\n"


@contextlib.contextmanager
def unread_server(*args: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], Client]]]:
    """A server whose stderr is a pipe that is full from the start, and a way to connect."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mcserver", "-u", "root", "-l", "127.0.0.1", "-p", str(port), *args], stderr=write
    )
    os.close(write)

    def connect() -> Client:
        deadline = time.monotonic() + 15
        while True:
            try:
                return Client(("127.0.0.1", port))
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    try:
        yield process, connect
    finally:
        os.close(read)
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("verbose", ["", "-vv"])
def test_a_stderr_that_nobody_reads_stops_nobody(verbose: str) -> None:
    with unread_server(*filter(None, [verbose])) as (process, connect):
        client = connect()
        client.send(b"cache_memlimit 64\r\n" * 3000)
        for _ in range(3000):
            assert client.until(b"\r\n") == b"OK\r\n"
        for _ in range(300):
            stranger = connect()
            stranger.send(b"*1\r\n$4\r\nPING\r\n")
            stranger.to_end()
            stranger.close()
        assert client.command(b"mn") == b"MN\r\n"
        assert int(client.stats()["log_worker_dropped"]) >= 2999
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.slow
def test_what_clients_cause_is_said_once_and_counted(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(b"cache_memlimit 64\r\n" * 5000 + b"mn\r\n")
    client.until(b"MN\r\n")
    for _ in range(50):
        stranger = server.connect()
        stranger.send(b"*1\r\n$4\r\nPING\r\n")
        stranger.to_end()
    eventually(lambda: "Redis's protocol" in server.log())
    assert server.log().count("memory limit is now") == 1
    assert server.log().count("Redis's protocol") == 1
    assert client.stats()["log_worker_dropped"] == str(4999 + 49)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("daemon", [False, True])
def test_closed_standard_streams(tmp_path: Path, closed: tuple[int, ...], daemon: bool) -> None:
    pid_file, ports = tmp_path / "pid", tmp_path / "ports"
    command = [sys.executable, "-m", "mcserver", "-u", "root", "-l", "127.0.0.1", "-p", "-1", "-P", str(pid_file)]
    closing = " ".join(f"{each}>&-" for each in closed)
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *command, *(["-d"] if daemon else [])],
        env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
    )
    eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n") and ports.exists())
    pid = int(pid_file.read_text())
    client = Client(("127.0.0.1", int(ports.read_text().split()[-1])))
    try:
        assert client.command(b"mn") == b"MN\r\n"
        for descriptor in closed:
            assert Path(f"/proc/{pid}/fd/{descriptor}").readlink() == Path("/dev/null")
    finally:
        client.close()
        os.kill(pid, signal.SIGTERM)
    assert process.wait(10) == 0
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_its_thread_never_gets_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment: what it got while it began was nobody's."""
    masks: list[set[int]] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda *args: masks.append(mask()))

    def mask() -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    before = mask()
    Writer(1).put(b"line\n")
    assert masks[0] >= {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP}
    assert mask() == before


def test_dropped_lines_are_told_with_the_next_that_gets_through() -> None:
    read, write = os.pipe()
    writer = Writer(write)
    writer.setFormatter(TextFormatter())
    count = 3 * QUEUE_BYTES // len(LINE)
    for _ in range(count):
        writer.put(LINE)
    assert writer.dropped > count // 2
    taken = b""
    while len(taken) < (count - writer.dropped) * len(LINE):
        taken += os.read(read, 1 << 16)
    writer.finish(5)
    dropped = writer.dropped
    writer.put(LINE)
    writer.finish(5)
    last = os.read(read, 1 << 16).decode()
    assert f"WARNING {dropped} lines of the log were dropped" in last
    assert last.endswith(LINE.decode())
    assert writer.dropped == dropped
    os.close(read)
    os.close(write)


def test_lines_that_a_full_disk_refused_are_told_when_there_is_room(tmp_path: Path) -> None:
    """The file system's limit of a file's size stands for the disk. What was cut ends where it was cut."""
    path, code = (
        tmp_path / "log",
        """
import os, resource, signal, sys
from mcserver.system.logs import TextFormatter, Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
writer = Writer(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
writer.setFormatter(TextFormatter())
for number in range(3):
    writer.put(b"%d" % number + b"x" * 38 + b"\\n")
    writer.finish(60)
for number in range(5):
    writer.put(b"lost\\n")
    writer.finish(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))
for text in (b"one\\n", b"two\\n"):
    writer.put(text)
    writer.finish(60)
print(writer.dropped)
""",
    )
    dropped = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout
    lines = path.read_text().splitlines()
    assert [len(line) for line in lines[:3]] == [39, 39, 20]
    assert "WARNING 6 lines of the log were dropped" in lines[3]
    assert lines[4:] == ["one", "two"]
    assert dropped == "6\n"


def record(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("mcserver", logging.WARNING, "", 0, text, args, None)


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    text = "".join(map(chr, range(256))) + "\u2028"
    line = TextFormatter().format(logging.LogRecord("mcserver", logging.WARNING, "", 0, "%s", (text,), None))
    assert line.isprintable()
    assert line.endswith("\xfe\xff\\u2028")


def test_a_repeated_message_is_held_back_and_counted() -> None:
    now = 100.0
    repeats = Repeats(lambda: now)
    assert all(repeats.filter(record("start %d", each)) for each in range(3)), "a start says everything"
    repeats.begin()
    assert [repeats.filter(record("a %d", each)) for each in range(4)] == [True, False, False, False]
    assert repeats.filter(record("%s", "b"))
    assert repeats.filter(record("%s", "c"))
    assert not repeats.filter(record("%s", "c"))
    assert repeats.held_back == 4
    assert repeats.overdue() == []
    now += 61
    again = record("a %d", 9)
    assert repeats.filter(again)
    assert again.getMessage() == "a 9 (3 more like it since the last)"
    assert repeats.overdue() == ["c (1 like it in the last minute)"]
    assert repeats.overdue() == []
    now += 61
    assert repeats.filter(record("a %d", 10))


def test_what_the_operator_asked_for_is_said_each_time() -> None:
    repeats = Repeats(lambda: 1.0)
    repeats.begin()
    asked = logging.makeLogRecord({"name": "mcserver", "msg": "read %s again", "args": ("a",), **ASKED})
    assert [repeats.filter(asked) for _ in range(3)] == [True] * 3
    assert repeats.held_back == 0


def test_a_flood_is_counted_without_being_spelled() -> None:
    """Who floods is one of the last that are named; to look for each one's address would cost more than to refuse it."""
    now, spelled = 100.0, []

    class Client:
        def __init__(self, number: int) -> None:
            self.number = number

        def __str__(self) -> str:
            spelled.append(self.number)
            return f"client {self.number}"

    repeats = Repeats(lambda: now)
    repeats.begin()
    for number in range(1000):
        repeats.filter(record("%s: no", Client(number)))
    assert len(spelled) < 12
    now += 61
    assert repeats.overdue() == ["client 512: no (999 like it in the last minute)"]


def test_kinds_have_an_end() -> None:
    repeats = Repeats(lambda: 1.0)
    repeats.begin()
    said = [each for each in range(3 * KINDS_MOST) if repeats.filter(record("%s", f"text {each}"))]
    assert len(said) == KINDS_MOST + 1


@pytest.mark.parametrize("byte", [each for each in range(256) if each not in b"\n \r"])
def test_every_byte_of_a_key_is_traced(byte: int) -> None:
    key = b"k" + bytes([byte]) + b"y"
    text = b">28 VALUE " + key + b" 0 3\r\na\r\n\r\nVALUE b 0 1 7\r\nx\r\nEND\r\n"
    assert list(trace_lines(text)) == [b">28 sending key " + key, b">28 sending key b", b">28 END"]


@pytest.mark.slow
def test_a_tab_in_a_key_is_traced(start: Start) -> None:
    server = start("-vv")
    client = server.connect()
    assert client.command(b"set a\tb 0 0 1\r\nx") == b"STORED\r\n"
    assert client.command(b"get a\tb", b"END\r\n") == b"VALUE a\tb 0 1\r\nx\r\nEND\r\n"
    eventually(lambda: r"sending key a\tb" in server.log())
    assert "Traceback" not in server.log()
