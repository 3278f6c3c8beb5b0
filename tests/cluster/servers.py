"""mcserver processes under test: started with options, spoken to over a socket, killed, paused, and always ended.

Owns the processes it starts and ends each by its own process id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.ports import free_port
from tests.threads import threads

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0  # s that anything may take which a test waits for; a busy machine is slow
QUICK = ("--max-stale", "2", "--zk-session-timeout", "2")  # so that a test sees them run out


class Client:
    """One blocking connection that speaks the text protocol."""

    def __init__(self, port: int, timeout: float = PATIENCE) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._reader.close()
            self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        """The next line of a reply without its end. ConnectionError when the server has closed."""
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed by the server")
        return line[:-2]

    def read(self, size: int) -> bytes:
        """So many bytes."""
        return self._reader.read(size)

    def ask(self, command: bytes) -> bytes:
        """A command of one line, and the line that answers it."""
        self.send(command + b"\r\n")
        return self.line()

    def lines(self, command: bytes) -> list[bytes]:
        """A command whose reply ends with END; without that."""
        self.send(command + b"\r\n")
        lines = []
        while (line := self.line()) != b"END":
            lines.append(line)
            if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
                break
        return lines

    def set(self, key: bytes, value: bytes, exptime: int = 0) -> bytes:
        self.send(b"set %s 0 %d %d\r\n%s\r\n" % (key, exptime, len(value), value))
        return self.line()

    def get(self, key: bytes) -> bytes | None:
        """The value; None for a miss. RuntimeError for a server's error."""
        lines = self.lines(b"get " + key)
        if not lines:
            return None
        if lines[0].startswith(b"SERVER_ERROR"):
            raise RuntimeError(lines[0].decode())
        return lines[1]

    def delete(self, key: bytes) -> bytes:
        return self.ask(b"delete " + key)

    def delete_confirmed(self, key: bytes) -> None:
        """Deletes, again when it is not confirmed: a busy machine may take longer than a server waits."""
        until(lambda: self.delete(key) in {b"DELETED", b"NOT_FOUND"}, what="a delete is never confirmed")

    def stats(self, which: bytes = b"cluster") -> dict[str, str]:
        pairs = (line.decode().split(" ", 2)[1:] for line in self.lines((b"stats " + which).rstrip()))
        return {pair[0]: pair[1] for pair in pairs}


class CacheServer:
    """One mcserver. It listens on a port of its own, the same after each start."""

    def __init__(self, zookeeper: str | None, *options: str, name: str = "cache", quick: bool = True) -> None:
        self.name = name
        self.port = free_port()
        self.options = [*(["--zookeeper", zookeeper, "--node-name", name] if zookeeper else [])]
        self.options += [*(QUICK if quick and zookeeper else ()), *options]
        self.environment = dict(os.environ)
        self.module = "mcserver"  # what is run; tests.released is an earlier release's coordination
        self.process: subprocess.Popen[bytes] | None = None
        self._log_handle, self._log_path = tempfile.mkstemp(prefix=f"mcserver-{name}-", suffix=".log")

    def __enter__(self) -> CacheServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Returns when it listens."""
        assert self.process is None
        command = [sys.executable, "-m", self.module, "-l", "127.0.0.1", "-p", str(self.port), *self.options]
        if self.module == "mcserver":
            command += threads(self.options)
        if os.geteuid() == 0:
            command += ["-u", "root"]
        log = self._log_handle
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.client().close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mcserver {self.name} did not start:\n{self.log}") from None
                time.sleep(0.02)

    def end(self, sig: signal.Signals = signal.SIGKILL) -> int:
        """Kill -9 (the default) or TERM; returns the exit status when the process is gone."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(sig)
        process.send_signal(signal.SIGCONT)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
            raise

    def close(self) -> None:
        self.end()
        os.close(self._log_handle)
        Path(self._log_path).unlink()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        return Path(self._log_path).read_text(errors="replace")

    def client(self, timeout: float = PATIENCE) -> Client:
        return Client(self.port, timeout)

    def ask(self, command: bytes) -> bytes:
        with self.client() as client:
            return client.ask(command)

    def get(self, key: bytes) -> bytes | None:
        with self.client() as client:
            return client.get(key)

    def set(self, key: bytes, value: bytes) -> bytes:
        with self.client() as client:
            return client.set(key, value)

    def delete(self, key: bytes) -> bytes:
        with self.client() as client:
            return client.delete(key)

    def delete_confirmed(self, key: bytes) -> None:
        with self.client() as client:
            client.delete_confirmed(key)

    def stats(self) -> dict[str, str]:
        with self.client() as client:
            return client.stats()

    @property
    def is_fresh(self) -> bool:
        return self.stats().get("stale") == "0"

    @property
    def session(self) -> int:
        return int(self.stats()["session_id"], 16)


def until(condition: Callable[..., object], seconds: float = PATIENCE, what: str = "") -> float:
    """Waits until the condition holds; the seconds it took. AssertionError after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited {seconds:g} s in vain{': ' + what if what else ''}"
        time.sleep(0.02)
    return time.monotonic() - started
