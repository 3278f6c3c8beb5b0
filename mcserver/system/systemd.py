"""The service manager's protocols: sockets that it opened (LISTEN_FDS), and telling it how things are (NOTIFY_SOCKET).

Without its variables in the environment nothing here does anything. See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import stat
import time
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

from mcserver.system.early_log import log
from mcserver.system.process import StartError

if TYPE_CHECKING:
    import asyncio

FIRST_DESCRIPTOR = 3
METRICS = "metrics"
"""FileDescriptorName= of the socket that stands for --metrics; all others are the cache's."""


def inherited(environment: MutableMapping[str, str]) -> tuple[list[socket.socket], socket.socket | None] | None:
    """The cache's listeners and that of --metrics which the manager opened, non-blocking; None without any.

    The variables are taken out, so that no child believes them. Raises StartError for a socket that can't be served.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not is_number(count) or not int(count):
        return None
    listeners: list[socket.socket] = []
    metrics: socket.socket | None = None
    for number in range(int(count)):
        listener = _listener(FIRST_DESCRIPTOR + number)
        if number < len(names) and names[number] == METRICS:
            metrics = listener
        else:
            listeners.append(listener)
    return listeners, metrics


def is_number(text: str) -> bool:
    """Digits that are a number to int() and fit into 64 bits: of the environment anything may come."""
    return text.isascii() and text.isdigit() and len(text) < 20


def _listener(descriptor: int) -> socket.socket:
    listener: socket.socket | None = None
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError("it is no socket")
        listener = socket.socket(fileno=descriptor)
        if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it is no listening stream socket")
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if listener is not None:
            listener.detach()  # it is the manager's
        raise StartError(
            f"the service manager's socket {descriptor} can't be served: {error.strerror or error}; "
            "use ListenStream= and Accept=no in the socket unit"
        ) from error
    os.set_inheritable(descriptor, False)
    listener.setblocking(False)
    return listener


class Manager:
    """Tells the service manager: ready, alive, reloading, ending. Nothing that goes wrong with it stops the server."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        interval, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = pid in {"", str(os.getpid())} and is_number(interval)
        self._interval = int(interval) / 1e6 if ours else 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = -math.inf
        """When the watchdog was last told, on the monotonic clock."""

    def ready(self, loop: asyncio.AbstractEventLoop, status: str) -> None:
        """The server serves; from now on the loop says that it turns, twice within the manager's time."""
        self._tell(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")
        if self._interval and self._address and self._loop is not loop:  # another: it serves again (--take-over)
            self._loop = loop
            self._turn()

    def _turn(self) -> None:
        assert self._loop is not None
        self._alive()
        self._loop.call_later(self._interval / 2, self._turn)

    def _alive(self) -> None:
        self._heard = time.monotonic()
        self._tell("WATCHDOG=1")

    def waiting(self) -> None:
        """Of who has no loop, and waits in slices: he is alive, too. To be called often; most calls do nothing."""
        if self._interval and self._address and time.monotonic() > self._heard + self._interval / 4:
            self._alive()

    @contextlib.contextmanager
    def working(self, seconds: float) -> Iterator[None]:
        """Of who works in one go, without slices: a thread says that he is alive, but for no longer than this."""
        if not (self._interval and self._address):
            yield
            return
        import threading

        done, until = threading.Event(), time.monotonic() + seconds

        def tell() -> None:
            while time.monotonic() < until and not done.wait(self._interval / 4):
                self._alive()

        self._alive()
        thread = threading.Thread(target=tell, name="watchdog", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # the system has no thread for us
            yield
            return
        try:
            yield
        finally:
            done.set()
            thread.join()

    def reloading(self) -> None:
        """`reloaded` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)
                told.sendto(text.encode(), address)
        except OSError as error:
            log.warning("the service manager can't be told: %s", error.strerror)
