"""Ports for servers that are told theirs before they listen.

Owns the numbers: which were given lately, by this process or another of the suite's. A number that somebody else was given in
the same moment would lead cases to that one's server, while their own ends since its port is taken.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections import deque
from pathlib import Path

RANGE = (10000, 20000)  # the kernel gives its own from 32768 on
KEPT = 256  # numbers that are nobody else's after they were given: by then their servers listen, or have ended

_guard = threading.Lock()
_kept: deque[int] = deque()
_file: list[int] = []


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has, and that nobody is given by the suite until KEPT others were given here."""
    with _guard:
        while True:
            port = random.randrange(*RANGE)
            if port in _kept or not _lock(port):
                continue
            if not is_free(port):
                _unlock(port)
                continue
            _kept.append(port)
            if len(_kept) > KEPT:
                _unlock(_kept.popleft())
            return port


def is_free(port: int) -> bool:
    """Whether nobody has this TCP port of 127.0.0.1 now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _lock(port: int) -> bool:
    """Among processes, by a lock on one byte of a file; they end with the process."""
    if not _file:
        path = Path(tempfile.gettempdir(), f"mcconform-ports-{os.geteuid()}")
        _file.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        fcntl.lockf(_file[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _unlock(port: int) -> None:
    fcntl.lockf(_file[0], fcntl.LOCK_UN, 1, port)
