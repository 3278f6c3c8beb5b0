"""Where cases find their server: one that is there already, or servers that the suite starts.

Owns processes: it starts them on free ports, waits until they accept, shares them among cases with the same options,
and ends them. A server that died is started again for the next case, where the suite can start it. It does not know what
a case sends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .datagrams import Datagrams
from .notation import NEEDS, Case
from .ports import free_port
from .wire import Address, BrokenError, UnreachableError, connect

REFUSED = 64  # the exit status of a server that will not have an option, as memcached ends (and, for -S, without SASL's files)
STARTS = 4  # servers that start at a time
EPITAPH = 4096  # bytes at the end of its standard error that a server's end is read from
TELLING = re.compile(r"\b\w*error\b|panic|fatal|assert|abort|terminat|sanitizer", re.IGNORECASE)
START = 20.0  # seconds that a server may take to accept its first connection


PLACES = ("{host}", "{port}", "{socket}", "{memory}")
MEMORY = 64  # megabytes, unless a case says otherwise


def words_of(command: str) -> list[str]:
    """A command as a shell would split it; UnreachableError when it is none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UnreachableError(f"cannot start {command}: {str(error).lower()}") from None
    if command and not words:
        raise UnreachableError("cannot start a command without words")
    return words


def is_template(command: list[str]) -> bool:
    """Whether a command says itself where host, port and the like belong; memcached's options are not added then."""
    return any(place in word for word in command for place in PLACES)


def fill(command: list[str], where: Address, path: str, memory: int) -> list[str]:
    """The command with its places filled in."""
    values = {"{host}": where.host or "127.0.0.1", "{port}": str(where.port), "{socket}": path, "{memory}": str(memory)}
    for place, value in values.items():
        command = [word.replace(place, value) for word in command]
    return command


def _megabytes(options: list[str]) -> int:
    return int(options[options.index("-m") + 1]) if "-m" in options else MEMORY


class RefusedError(UnreachableError):
    """The server ended at its start because of an option."""


class Process:
    """A server that the suite started."""

    def __init__(self, command: list[str], options: list[str], directory: Path, dial: Address) -> None:
        self.command = command
        self.stopped = False  # the suite ended it, not a case
        self.errors = directory / "stderr"
        users = directory / "sasl-users"
        users.write_text("mcconform:mcconform\n")
        path = str(directory / "server.sock")
        options = [option.replace("{socket}", path) for option in options]
        if "-s" in options or any("{socket}" in word for word in command):
            self.address = replace(dial, host="", port=0, path=path, tls=None)  # memcached has no TLS there
        else:
            self.address = replace(dial, host="127.0.0.1", port=dial.port or free_port(), path="")
        if is_template(command):
            words = fill(command, self.address, path, _megabytes(options))
        else:
            where = [] if self.address.path else ["-l", self.address.host, "-p", str(self.address.port)]
            words = [*command, *where, *options]
            if dial.udp:
                words += ["-U", str(self.address.port)]
        try:
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    # -S does not start without a folder for the settings of a SASL library, or a file of users
                    env={"SASL_CONF_PATH": str(directory), "MEMCACHED_SASL_PWDB": str(users), **os.environ},
                )
        except OSError as error:
            raise UnreachableError(f"cannot start {shlex.join(words)}: {error.strerror}") from error
        self._wait_until_up(words)

    def _wait_until_up(self, command: list[str]) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                end = self.epitaph()
                refused = self.process.returncode == REFUSED or ("-S" in command and "sasl" in end.lower())
                raise (RefusedError if refused else UnreachableError)(end)
            with contextlib.suppress(UnreachableError):
                _part(connect(replace(self.address, udp=False), 1.0))
                return
            time.sleep(0.02)
        self.stop()
        raise UnreachableError(f"{shlex.join(command)}: accepted no connection within {START:g} s")

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    def epitaph(self) -> str:
        """How the process ended, and the end of what it wrote to its standard error."""
        text = self.errors.read_text(errors="replace")[-EPITAPH:]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        words = [line for line in lines if TELLING.search(line)][-1:] or lines[-3:]
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
        """Ends the process and its children, at once: it has nothing that would be worth saving."""
        self.stopped = self.stopped or self.process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Lease:
    """A server for the length of one case."""

    address: Address
    process: Process | None = None


def entrance(where: Address, case: Case) -> str:
    """Why a case has nothing to say about a server with TLS or authentication; empty when it has."""
    if where.tls and "plain" in case.needs:
        return NEEDS["plain"]
    return NEEDS["open"] if where.user and "open" in case.needs else ""


class Servers:
    """Lends servers to cases."""

    shared_by_all = False
    restartable = False
    private = False  # whether a case can have a server of its own

    def restart(self, lease: Lease) -> bool:
        """Ends what is left of a server that died or hangs, and has another in its place; False when it cannot."""
        raise NotImplementedError

    def reason_to_skip(self, case: Case) -> str:
        """Why this case cannot run here; empty when it can."""
        raise NotImplementedError

    def lend(self, case: Case) -> contextlib.AbstractContextManager[Lease]:
        """A server fit for the case; others may use it at the same time unless the case is destructive or fresh."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what was started."""


class Given(Servers):
    """The one server at an address; it may be a live cache. `command` starts it again, with its places filled in."""

    shared_by_all = True

    def __init__(self, where: Address, *, destructive: bool, command: str = "") -> None:
        self.where = where
        self.destructive = destructive
        self.alone = threading.Lock()
        self.command = words_of(command)
        self.restartable = bool(command)
        self.directory = tempfile.TemporaryDirectory(prefix="mcconform-") if command else None
        self.process: Process | None = None
        try:
            connect(where, 5.0).close()
        except UnreachableError:
            if not self.restart(Lease(where)):
                self.close()
                raise

    def restart(self, lease: Lease) -> bool:
        if not self.command or not self.directory:
            return False
        if self.process:
            self.process.stop()
        try:
            self.process = Process(self.command, [], Path(self.directory.name), self.where)
        except UnreachableError:
            return False
        return True

    def close(self) -> None:
        if self.process:
            self.process.stop()
        if self.directory:
            self.directory.cleanup()

    def reason_to_skip(self, case: Case) -> str:
        if case.options:
            return f"needs a server with {' '.join(case.options)}: give --spawn"
        unmet = case.needs & {"fresh", "own"}
        if not self.destructive:
            unmet |= case.needs & {"destructive", "alone"}
        if self.where.path:
            unmet |= case.needs & {"tcp"}
        if gate := entrance(self.where, case):
            return gate
        return NEEDS[min(unmet)] if unmet else ""

    @contextlib.contextmanager
    def lend(self, case: Case) -> Iterator[Lease]:
        with self.alone if case.exclusive else contextlib.nullcontext():
            yield Lease(self.where)


class Spawned(Servers):
    """Servers started from a command: a template with places, or one that takes memcached's options.

    dial: how to be let in (TLS, user, UDP); its host and port are not used.
    """

    restartable = private = True

    def __init__(self, command: str, dial: Address | None = None) -> None:
        self.command = words_of(command)
        self.dial = replace(dial or Address(), host="", port=0, path="")
        self.template = is_template(self.command)
        self.directory = tempfile.TemporaryDirectory(prefix="mcconform-")
        self.guard = threading.Lock()
        self.starting = threading.Semaphore(STARTS)
        self.shared: dict[tuple[object, ...], Process] = {}
        self.locks: dict[tuple[object, ...], threading.Lock] = {}
        self.refused: dict[tuple[str, ...], RefusedError] = {}  # by options: they are not tried twice
        self.started = 0

    def reason_to_skip(self, case: Case) -> str:
        if unmet := entrance(self.dial, case):
            return unmet
        options = case.options
        if self.template and options and not (options[0] == "-m" and len(options) == 2 and "{memory}" in self.text):
            return f"needs a server with {' '.join(options)}, which a template cannot say"
        if self.template and "{socket}" in self.text and "tcp" in case.needs:
            return NEEDS["tcp"]
        return ""

    @property
    def text(self) -> str:
        return " ".join(self.command)

    def restart(self, lease: Lease) -> bool:
        if lease.process:
            lease.process.stop()  # lend() starts another in its place
        return True

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
                    dial = replace(self.dial, user="") if {"-Y", "-S"} & {*options} else self.dial
                    return Process(self.command, options, directory, dial)
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


def _part(sock: socket.socket | Datagrams) -> None:
    """Says that nothing more comes and waits for the server to close: no case is to find this connection counted."""
    with contextlib.suppress(OSError):
        if isinstance(sock, socket.socket):
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
    sock.close()
