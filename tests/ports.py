"""The one place where tests get a port that they name before anybody listens on it, or use again after it was let go.

The ports lie below the kernel's range for outgoing connections, so no client and no `bind` to port 0 gets one in between.
A counter in a file, behind a lock, hands them out: processes of the tests that run at the same time never get the same, and
no port comes again before all the others were given. Who can listen on port 0 and keep the socket needs none of this.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from conformance.ports import is_free

FIRST, END = 20000, 32000  # the kernel's own begin at 32768, /proc/sys/net/ipv4/ip_local_port_range
COUNTER = Path(tempfile.gettempdir(), f"mcserver-tests-ports-{os.geteuid()}")


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody listens on, and that no other caller gets."""
    with COUNTER.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or FIRST - 1)
        taken: list[int] = []
        for _ in range(FIRST, END):
            port = port + 1 if FIRST <= port < END - 1 else FIRST
            if is_free(port):
                taken.append(port)
            if len(taken) == count:
                break
        else:
            raise OSError(f"no {count} free ports from {FIRST} to {END - 1}")
        file.truncate(0)
        file.write(b"%d" % port)
    return taken


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
