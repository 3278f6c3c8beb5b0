"""The terminal goes under a server that was started in it, as when its window is closed: it serves on, as memcached."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.peer import MEMCACHED
from tests.ports import free_port
from tests.serving import END_SECONDS, Client, eventually

OURS = (sys.executable, "-m", "mcserver")
pytestmark = pytest.mark.slow


class Terminal:
    """A terminal of its own for one process, which leads its session."""

    def __init__(self, command: Sequence[str]) -> None:
        self._master, slave = os.openpty()
        try:
            self.process = subprocess.Popen(["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave)
        finally:
            os.close(slave)
        self._is_open = True

    def hang_up(self) -> None:
        """The kernel sends SIGHUP; whatever is read or written from now on is an error or an end."""
        if self._is_open:
            os.close(self._master)
            self._is_open = False

    def seconds(self) -> float:
        """Of a processor's time that the process took."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def in_a_terminal(*command: str) -> Iterator[tuple[Terminal, Client]]:
    """With a client, when it serves."""
    port = free_port()
    terminal = Terminal([*command, "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1"])
    found: list[Client] = []

    def connects() -> bool:
        with contextlib.suppress(OSError):
            found.append(Client(("127.0.0.1", port)))
        return bool(found)

    try:
        eventually(connects)
        yield terminal, found[0]
    finally:
        terminal.hang_up()
        terminal.process.kill()
        terminal.process.wait(END_SECONDS)
        for each in found:
            each.close()


@pytest.mark.parametrize(
    "command", [(MEMCACHED,), (MEMCACHED, "-vv"), OURS, (*OURS, "-vv"), (*OURS, "--loop", "asyncio")]
)
def test_it_serves_on(command: tuple[str, ...]) -> None:
    """What it would print is lost, and costs nothing; SIGTERM ends it in good order."""
    with in_a_terminal(*command) as (terminal, client):
        assert client.command(b"set k 0 0 1\r\n1") == b"STORED\r\n"
        terminal.hang_up()
        time.sleep(0.2)
        before = terminal.seconds()
        for _ in range(20):
            assert client.command(b"get k", b"END\r\n") == b"VALUE k 0 1\r\n1\r\nEND\r\n"
            time.sleep(0.05)
        assert terminal.seconds() - before < 0.5, "it spins"
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(END_SECONDS) == 0


def test_who_ends_with_its_stdin_ends() -> None:
    """Also when nobody is left to hear where it listens."""
    with in_a_terminal(*OURS, "--ephemeral") as (terminal, client):
        assert client.command(b"mn") == b"MN\r\n"
        terminal.hang_up()
        assert terminal.process.wait(END_SECONDS) == 0


def test_before_it_serves() -> None:
    """SIGHUP waits for its handler from the first moment on; memcached has one before it listens."""
    port = free_port()
    terminal = Terminal([*OURS, "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-t", "1"])
    try:
        eventually(lambda: is_held(terminal.process.pid))
        terminal.hang_up()

        def serves() -> bool:
            assert terminal.process.poll() is None
            with contextlib.suppress(OSError):
                client = Client(("127.0.0.1", port))
                assert client.command(b"mn") == b"MN\r\n"
                client.close()
                return True
            return False

        eventually(serves)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(END_SECONDS) == 0
    finally:
        terminal.hang_up()
        terminal.process.kill()
        terminal.process.wait(END_SECONDS)


def is_held(pid: int) -> bool:
    """Whether SIGHUP is blocked or caught in the process."""
    with open(f"/proc/{pid}/status") as file:
        masks = dict(line.split(":\t") for line in file.read().splitlines() if line.startswith(("SigBlk", "SigCgt")))
    return any(int(each, 16) & 1 << (signal.SIGHUP - 1) for each in masks.values())
