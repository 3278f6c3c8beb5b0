"""The servers under test: how each is started, pinned to a core, asked, and stopped. Never how they work inside."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 15
STOP_SECONDS = 10


class BenchError(Exception):
    """A measurement that can't be made; the text says why."""


def cores() -> tuple[int, int]:
    """The core of the servers and that of the load generator: the first and the last that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@dataclass(frozen=True)
class Program:
    """A server's name, as the tables show it, and its command."""

    name: str
    command: tuple[str, ...]

    @contextmanager
    def running(
        self,
        memory: int = 64,
        connections: int = 1200,
        core: int | None = None,
        threads: int = 1,
        more: Sequence[str] = (),
        stderr: int | None = None,
        tls: ssl.SSLContext | None = None,
        login: bytes = b"",
        sasl: bytes = b"",
        environment: Mapping[str, str] | None = None,
        whole: bool = True,
    ) -> Iterator[Server]:
        """Starts it with `-m` MEMORY (MiB) and `-c` CONNECTIONS, waits until it answers, stops it at the end.

        `core`: the servers' if None; with more than one of the `threads` it may use all cores. `more`: options. `stderr`: a
        descriptor; where its last words are looked for if None. `tls`: how it is spoken to, if `more` has -Z; `login`: what -Y
        wants, and `sasl` what -S does, which then answers nothing else here. `environment`: beside this process'. `whole`: waits
        until everything is answered, so that everything is loaded.
        """
        flags = [f"-m{memory}", f"-c{connections}", "-p-1", "-U0", f"-t{threads}", "-l127.0.0.1"]  # -1: a free port
        if os.geteuid() == 0:
            flags.append("-uroot")
        own = ",".join(map(str, sorted(set(cores())))) if threads > 1 else str(cores()[0])
        command = ["taskset", "-c", own if core is None else str(core), *self.command, *flags, *more]
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=log if stderr is None else stderr, cwd=ROOT,
            env={**os.environ, "MEMCACHED_PORT_FILENAME": f"{folder}/ports", **(environment or {})},
        ) as process:  # fmt: skip
            try:
                server = self._started(process, Path(folder, "ports"), tls, login, sasl)
                if whole and not sasl:
                    server.stats()
                yield server
            except (BenchError, OSError) as error:
                log.seek(0)
                raise BenchError(f"{error}; its last words: {log.read()[-500:].decode(errors='replace')}") from error
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _started(
        self, process: subprocess.Popen[bytes], ports: Path, tls: ssl.SSLContext | None, login: bytes, sasl: bytes
    ) -> Server:
        """Returns as soon as it has written its port there, and answers. BenchError when it ends, or START_SECONDS are over."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BenchError(f"{self.name} ended with status {process.returncode} before it served")
            if ports.exists() and (found := re.findall(r"TCP INET: (\d+)", ports.read_text("ascii"))):
                udp = re.search(r"UDP INET: (\d+)", ports.read_text("ascii"))
                opened = tuple(map(int, found))
                server = Server(self.name, opened[0], process.pid, tls, int(udp[1]) if udp else 0, login, opened)
                if sasl:
                    log_in_by_sasl(server.port, sasl)
                else:
                    server.version()
                return server
            time.sleep(0.002)
        raise BenchError(f"{self.name} did not serve within {START_SECONDS} s")


def subject(path: str | None = None) -> Program:
    """The mcserver of this checkout, or what stands in for it."""
    if path:
        return Program("subject", (path,))
    command = Path(sys.executable).with_name("mcserver")  # what is started everywhere; -m takes a few milliseconds more
    return Program("mcserver", (str(command),) if command.exists() else (sys.executable, "-m", "mcserver"))


def peer(path: str = "memcached") -> Program:
    """The memcached to compare with."""
    return Program("memcached", (path,))


@dataclass(frozen=True)
class Server:
    """A running server. Memory is in bytes."""

    name: str
    port: int
    pid: int
    tls: ssl.SSLContext | None = None
    udp: int = 0
    """Its port of UDP; 0: none."""
    login: bytes = b""
    """What -Y wants first."""
    ports: tuple[int, ...] = ()
    """Of all listeners."""

    def ask(self, command: bytes, end: bytes) -> bytes:
        """Sends one command on a connection of its own; returns the reply up to and with `end`."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            self.tls.wrap_socket(plain) if self.tls is not None else nullcontext(plain) as connection,
        ):
            self._log_in(connection)
            connection.sendall(command)
            return receive_until(connection, end)

    def hold(self, stack: ExitStack) -> None:
        """A connection that has asked once, kept until the stack is left."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection)
        stack.enter_context(connection)
        self._log_in(connection)
        connection.sendall(b"version\r\n")
        receive_until(connection, b"\r\n")

    def _log_in(self, connection: socket.socket) -> None:
        if self.login:
            connection.sendall(b"set auth 0 0 %d\r\n%b\r\n" % (len(self.login), self.login))
            receive_until(connection, b"STORED\r\n")

    def version(self) -> str:
        """What `version` says."""
        return self.ask(b"version\r\n", b"\r\n").decode().split()[1]

    def stats(self, group: str = "") -> dict[str, str]:
        """The statistics of a group; the general ones if it has no name."""
        lines = self.ask(f"stats {group}".strip().encode() + b"\r\n", b"END\r\n").decode().splitlines()
        return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))

    def cpu_time(self) -> float:
        """Milliseconds of CPU time that it has taken since exec, all of its threads."""
        spent = sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{self.pid}/task").glob("*/schedstat"))
        return spent / 1e6

    def resident(self) -> int:
        """What is in memory now."""
        return self._status("VmRSS")

    def peak_resident(self) -> int:
        """The most that was ever in memory."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        match = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        if not match:
            raise BenchError(f"{self.name} has no {field}")
        return int(match[1]) * 1024


def log_in_by_sasl(port: int, name_and_password: bytes) -> None:
    """A connection of its own that logs in (name, a blank, password) and goes. BenchError if it may not."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(sasl_request(name_and_password))
        if connection.recv(64)[6:8] != b"\0\0":
            raise BenchError("the server refuses the login")


def sasl_request(name_and_password: bytes) -> bytes:
    """PLAIN's, of the binary protocol."""
    body = b"PLAIN\0" + name_and_password.replace(b" ", b"\0", 1)
    return struct.pack(">BBHBBHIIQ", 0x80, 0x21, len(b"PLAIN"), 0, 0, 0, len(body), 0, 0) + body


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    """Receives until the reply ends with `end`. ConnectionError when the connection is closed before."""
    reply = b""
    while not reply.endswith(end):
        data = connection.recv(1 << 20)
        if not data:
            raise ConnectionError("closed before the end of a reply")
        reply += data
    return reply
