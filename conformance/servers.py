"""Where cases find their server: one that is there already, or servers that the suite starts.

Owns processes: it starts them on free ports, waits until they accept, shares them among cases with the same options,
and ends them. A server that died is started again for the next case. It does not know what a case sends.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .notation import NEEDS, Case
from .wire import Address, BrokenError, UnreachableError, connect

REFUSED = 64  # the exit status of a server that will not have an option, as memcached ends
STARTS = 4  # servers that start at a time
START = 20.0  # seconds that a server may take to accept its first connection


class RefusedError(UnreachableError):
    """The server ended at its start because of an option."""


class Process:
    """A server that the suite started."""

    def __init__(self, command: list[str], options: list[str], directory: Path) -> None:
        self.command = command
        self.errors = directory / "stderr"
        socket_path = directory / "server.sock"
        options = [option.replace("{socket}", str(socket_path)) for option in options]
        if "-s" in options:
            self.address = Address(path=str(socket_path))
        else:
            self.address = Address("127.0.0.1", free_port())
            options = ["-l", self.address.host, "-p", str(self.address.port), *options]
        try:
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
                )
        except OSError as error:
            raise UnreachableError(f"cannot start {shlex.join(command)}: {error.strerror}") from error
        self._wait_until_up([*command, *options])

    def _wait_until_up(self, command: list[str]) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                kind = RefusedError if self.process.returncode == REFUSED else UnreachableError
                raise kind(self.epitaph())
            with contextlib.suppress(UnreachableError):
                connect(self.address, 1.0).close()
                return
            time.sleep(0.02)
        self.stop()
        raise UnreachableError(f"{shlex.join(command)}: accepted no connection within {START:g} s")

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    def epitaph(self) -> str:
        """How the process ended, and the end of what it wrote to its standard error."""
        words = self.errors.read_text(errors="replace").strip().splitlines()[-3:]
        code = self.process.poll()
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"the server ended ({how}){': ' if words else ''}{' / '.join(words)}"

    def wait(self, seconds: float) -> None:
        """Waits for the process to end by itself; BrokenError when it does not."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BrokenError(f"the server's process still runs after {seconds:g} s") from None

    def stop(self) -> None:
        """Ends the process, at once: it has nothing that would be worth saving."""
        self.process.kill()
        self.process.wait()


@dataclass
class Lease:
    """A server for the length of one case."""

    address: Address
    process: Process | None = None


class Servers:
    """Lends servers to cases."""

    shared_by_all = False

    def reason_to_skip(self, case: Case) -> str:
        """Why this case cannot run here; empty when it can."""
        raise NotImplementedError

    def lend(self, case: Case) -> contextlib.AbstractContextManager[Lease]:
        """A server fit for the case; others may use it at the same time unless the case is destructive or fresh."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what was started."""


class Given(Servers):
    """The one server at an address; it may be a live cache."""

    shared_by_all = True

    def __init__(self, where: Address, *, destructive: bool) -> None:
        self.where = where
        self.destructive = destructive
        self.alone = threading.Lock()
        connect(where, 5.0).close()

    def reason_to_skip(self, case: Case) -> str:
        if case.options:
            return f"needs a server with {' '.join(case.options)}: give --spawn"
        unmet = case.needs & {"fresh", "own"}
        if not self.destructive:
            unmet |= case.needs & {"destructive", "alone"}
        if self.where.path:
            unmet |= case.needs & {"tcp"}
        return NEEDS[min(unmet)] if unmet else ""

    @contextlib.contextmanager
    def lend(self, case: Case) -> Iterator[Lease]:
        with self.alone if case.exclusive else contextlib.nullcontext():
            yield Lease(self.where)


class Spawned(Servers):
    """Servers started from a command that takes memcached's options."""

    def __init__(self, command: str) -> None:
        self.command = shlex.split(command)
        self.directory = tempfile.TemporaryDirectory(prefix="mcconform-")
        self.guard = threading.Lock()
        self.starting = threading.Semaphore(STARTS)
        self.shared: dict[tuple[object, ...], Process] = {}
        self.locks: dict[tuple[object, ...], threading.Lock] = {}
        self.refused: dict[tuple[str, ...], RefusedError] = {}  # by options: they are not tried twice
        self.started = 0

    def reason_to_skip(self, case: Case) -> str:
        return ""

    @contextlib.contextmanager
    def lend(self, case: Case) -> Iterator[Lease]:
        if "fresh" in case.needs:
            process = self.start(case)
            try:
                yield Lease(process.address, process)
            finally:
                process.stop()
            return
        kind = (case.options, tuple(sorted(case.files.items())), case.exclusive)
        with self.guard:
            lock = self.locks.setdefault(kind, threading.Lock())
        with lock:
            if kind not in self.shared or self.shared[kind].dead:
                self.shared[kind] = self.start(case)
            process = self.shared[kind]
            if case.exclusive:
                yield Lease(process.address, process)
        if not case.exclusive:
            yield Lease(process.address, process)

    def start(self, case: Case) -> Process:
        """A new server with the case's options; its files are written first."""
        with self.guard:
            if case.options in self.refused:
                raise self.refused[case.options]
            self.started += 1
            directory = Path(self.directory.name) / str(self.started)
        directory.mkdir()
        options = list(case.options)
        for name, content in case.files.items():
            (directory / name).write_text(content)
            options = [option.replace(f"{{file.{name}}}", str(directory / name)) for option in options]
        for attempt in range(3):
            try:
                with self.starting:
                    return Process(self.command, options, directory)
            except RefusedError as error:
                refusal = RefusedError(f"the server does not take {' '.join(case.options)}: {error.reason}")
                self.refused[case.options] = refusal
                raise refusal from error
            except UnreachableError:  # the port may have been taken in between
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        for process in self.shared.values():
            process.stop()
        self.directory.cleanup()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
