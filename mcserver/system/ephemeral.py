"""--ephemeral: a server for the tests of programs in any language. It tells where it is, and ends with whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence

READ_BYTES = 4096


def tell(
    listeners: Sequence[socket.socket], datagrams: Sequence[socket.socket] = (), metrics: socket.socket | None = None
) -> None:
    """One line of JSON on stdout: pid, and host and port, or socket_path, of the first listener.

    Besides udp_port and metrics_port, where there are any. Who is not there to hear it has closed stdin, too.
    """
    where: dict[str, object] = {}
    for listener in listeners[:1]:
        address = listener.getsockname()
        where = {"socket_path": address} if isinstance(address, str) else {"host": address[0], "port": address[1]}
    for name, socket_ in (("udp_port", next(iter(datagrams), None)), ("metrics_port", metrics)):
        if socket_ is not None and socket_.family != socket.AF_UNIX:
            where[name] = socket_.getsockname()[1]
    with contextlib.suppress(OSError):  # not by sys.stdout, which would try again at the end
        os.write(1, json.dumps({**where, "pid": os.getpid()}).encode() + b"\n")


def end_with_stdin(loop: asyncio.AbstractEventLoop, stop: Callable[[bool], None]) -> None:
    """Calls stop(False) on the loop when standard input is at its end: the one at its other end has gone."""

    def wait() -> None:
        try:
            while os.read(0, READ_BYTES):
                pass
        except OSError:
            pass
        try:
            loop.call_soon_threadsafe(stop, False)
        except RuntimeError:
            pass  # the server has ended before

    threading.Thread(target=wait, name="stdin", daemon=True).start()
