"""Files that somebody names: read whole, within a bound of bytes and of time, whatever stands at the name.

A pipe may be a shell's `<(...)`: a start waits for what comes out of it, but not for ever; a server that serves does not wait.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

PIPE_SECONDS = 5.0
"""How long a start waits for all that comes out of a pipe."""
NULL = os.makedev(1, 3)
"""/dev/null, the one device that is as good as a file: an empty one."""


class Patience:
    """How long this process waits for a pipe: the loop of a server that serves has other things to do."""

    seconds = PIPE_SECONDS


def never_wait() -> None:
    """The start is over: from now on a pipe has to have been written."""
    Patience.seconds = 0.0


def read(path: str, most: int) -> bytes:
    """All of it, but no more than `most` bytes. Raises OSError, also for what is neither a file nor a pipe that is written."""
    return read_with_mode(path, most)[0]


def read_with_mode(path: str, most: int) -> tuple[bytes, int]:
    """The same, and who may do what with it, as chmod writes it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if trouble := _trouble(found, path):
            raise trouble
        is_pipe, until = stat.S_ISFIFO(found.st_mode), time.monotonic() + Patience.seconds
        data = b""
        while len(data) < most:
            if is_pipe:
                _await(descriptor, until, path)
            piece = os.read(descriptor, most - len(data))
            if not piece:
                break
            data += piece
        return data, stat.S_IMODE(found.st_mode)
    finally:
        os.close(descriptor)


def nowhere() -> int:
    """A descriptor, the lowest that is free, where nothing is read and what is written is lost: /dev/null's, if there is one."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except OSError:
        import socket  # which is hardly ever needed this early

        ours, theirs = socket.socketpair()
        theirs.close()
        return ours.detach()


def check(path: str) -> None:
    """Raises OSError for what is there and is no file: for who lets others open it, who would wait. A pipe is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # pathlib takes its time to load
    except OSError:
        return  # whoever opens it says so
    if stat.S_ISFIFO(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, not a file", path)
    if trouble := _trouble(found, path):
        raise trouble


def _trouble(found: os.stat_result, path: str) -> OSError | None:
    """Why it can't be read; None for a file, a pipe, and /dev/null."""
    if stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode):
        return None
    if stat.S_ISDIR(found.st_mode):
        return OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL:
        return None
    return OSError(errno.EINVAL, "it is no file", path)


def _await(descriptor: int, until: float, path: str) -> None:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
        raise OSError(errno.ETIMEDOUT, "it is a pipe, and nobody wrote to its end in time", path)
