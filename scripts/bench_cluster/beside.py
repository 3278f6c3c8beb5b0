"""What goes on beside a measurement, on a thread of its own, for as long as a block runs."""

from __future__ import annotations

import threading
import time
from typing import Self

from tests.cluster.servers import CacheServer


class Beside:
    """`with Beside(): ...`: `work` runs meanwhile, until `stop` is set."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    def work(self) -> None:
        raise NotImplementedError


class Deletes(Beside):
    """A client that deletes at a member so many keys a second that nobody holds, evenly, so many at once."""

    def __init__(self, server: CacheServer, rate: int, batch: int) -> None:
        super().__init__()
        self._server, self._rate, self._batch = server, rate, batch

    def work(self) -> None:
        number, due = 0, time.monotonic()
        with self._server.client() as client:
            while not self.stop.is_set():
                keys = range(number, number + self._batch)
                client.send(b"".join(b"delete other:%d noreply\r\n" % each for each in keys))
                number += self._batch
                due += self._batch / self._rate
                time.sleep(max(0.0, due - time.monotonic()))
