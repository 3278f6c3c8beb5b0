"""Accepts clients while the event loop is still being loaded, in a thread of its own. The workers answer them.

What needs Python (cold commands, a full house, an error) waits for the loop. It never runs beside it.
"""

from __future__ import annotations

import os
import select
import threading

from mcserver.server.connections import Connections


class Early:
    """From `start` to `stop`; both may be called when there is nothing to do."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._end = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Opens the connections' workers. Raises StartError. Without a thread for it clients wait for the loop, no longer."""
        self._connections.open()
        try:
            self._end = os.eventfd(0)
            thread = threading.Thread(target=self._accept, args=(self._end,), name="mc-early", daemon=True)
            thread.start()
        except (OSError, RuntimeError):  # no descriptor, no thread
            self._forget()
        else:
            self._thread = thread

    def stop(self) -> None:
        """Returns when nobody accepts any more."""
        if self._thread is not None:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            self._thread = None
            self._forget()

    def _forget(self) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def _accept(self, end: int) -> None:
        waiting = select.poll()
        for each in (end, *self._connections.listeners):
            waiting.register(each, select.POLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == end:
                    return
                if not self._connections.accept_early(fd):
                    waiting.unregister(fd)
