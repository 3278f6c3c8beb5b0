"""A real server process on a free port, and a plain socket to talk to it. Everything is bounded in time and ended by its pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.threads import threads

START_SECONDS = REPLY_SECONDS = END_SECONDS = 60
"""Far more than any takes on a quiet machine: what is waited for comes, or never."""


class Client:
    """A socket with helpers. Every wait ends within REPLY_SECONDS, with an error."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        """A pair of host and port, or the path of a Unix socket."""
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(REPLY_SECONDS)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, REPLY_SECONDS)
        self.unread = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, mark: bytes) -> bytes:
        """All bytes up to the mark and with it."""
        while mark not in self.unread:
            received = self.socket.recv(1 << 16)
            assert received, f"closed after {self.unread[-200:]!r}"
            self.unread += received
        end = self.unread.index(mark) + len(mark)
        data, self.unread = self.unread[:end], self.unread[end:]
        return data

    def to_end(self) -> bytes:
        """All bytes until the server closes."""
        while received := self.socket.recv(1 << 16):
            self.unread += received
        data, self.unread = self.unread, b""
        return data

    def is_closed(self) -> bool:
        """Waits for the server to close, without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def command(self, line: bytes, mark: bytes = b"\r\n") -> bytes:
        """Sends a line; returns the reply up to the mark."""
        self.send(line + b"\r\n")
        return self.until(mark)

    def stats(self, sub: str = "") -> dict[str, str]:
        """The lines of `stats`, or of one of its sub-commands."""
        reply = self.command(f"stats {sub}".strip().encode(), b"END\r\n").decode()
        lines = [line.split(" ", 2) for line in reply.split("\r\n")[:-2]]
        assert all(line[0] == "STAT" and len(line) == 3 for line in lines), reply
        return {key: value for _, key, value in lines}


class Server:
    """One `mcserver` process, on a free port of 127.0.0.1 unless the arguments say otherwise."""

    def __init__(self, folder: Path, args: Sequence[str], *, environment: dict[str, str] | None = None) -> None:
        """Returns when it listens. Its stderr goes to a file in the folder."""
        self.port_file = folder / "ports"
        self.stderr_file = folder / "stderr"
        self.clients: list[Client] = []
        self.address: tuple[str, int] | str
        command = [
            sys.executable,
            "-m",
            "mcserver",
            "-u",
            "root",
            *self._listening_options(args),
            *args,
            *threads(args),
        ]
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, "MEMCACHED_PORT_FILENAME": str(self.port_file), **(environment or {})},
            )
        self.pid = self.process.pid
        self._await_start()
        if unix := re.search(r"listens on unix:([^,;]+)[,;]", self.log()):
            self.address = unix[1]
        else:
            found = re.search(r"listens on tcp6?:\[?([^\]\s]+)\]?:(\d+)", self.log())
            assert found, self.log()
            self.address = (found[1], int(found[2]))

    def _listening_options(self, args: Sequence[str]) -> list[str]:
        if "-s" in args:
            return []
        host = [] if "-l" in args else ["-l", "127.0.0.1"]
        return host if "-p" in args else [*host, "-p", "-1"]

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while " listens on " not in self.log():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log()}"
            assert time.monotonic() < deadline, f"did not start: {self.log()}"
            time.sleep(0.005)

    @property
    def tcp(self) -> tuple[str, int]:
        assert not isinstance(self.address, str)
        return self.address

    @property
    def port(self) -> int:
        return self.tcp[1]

    def log(self) -> str:
        """All that it printed so far."""
        return self.stderr_file.read_text("utf-8", "replace")

    def connect(self) -> Client:
        client = Client(self.address)
        self.clients.append(client)
        return client

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, seconds: float = END_SECONDS) -> int:
        """Waits for it to end by itself; its exit code."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """Ends it, if it still runs; it must then leave by itself, and without an error."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                assert self.process.wait(END_SECONDS) == 0, self.log()
            finally:
                self.process.kill()
                self.process.wait(END_SECONDS)

    def resident(self) -> int:
        """Bytes of memory that it really has."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_to_end(*args: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail, or to print and end."""
    return subprocess.run(
        [sys.executable, "-m", "mcserver", *args],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def eventually(condition: Callable[..., object], seconds: float = REPLY_SECONDS) -> None:
    """Waits until the condition holds; fails when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
