"""Sessions that watch a znode and don't listen: what telling many takes a server of ZooKeeper, and none of it the clients.

Who writes waits for his answer while those who watch at the same server are told. Real clients would wake up meanwhile, and want
the processors that the server needs.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from statistics import median

from tests.cluster.ensemble import ZooKeeperServer

OP_EXISTS = 3
WATCHERS = 84  # as at each of twelve servers of a thousand members
TURNS = 80
REST = 0.02  # s; from when all watch until the write


class Deaf:
    """One session, which ends when it isn't heard of for a while."""

    def __init__(self, server: ZooKeeperServer, timeout: float = 20.0) -> None:
        self._link = socket.create_connection(("127.0.0.1", server.client_port), 10)
        self._asked = 0
        self._send(struct.pack("!iqiqi", 0, 0, int(timeout * 1000), 0, 16) + bytes(17))
        self._receive()

    def _send(self, frame: bytes) -> None:
        self._link.sendall(struct.pack("!i", len(frame)) + frame)

    def _receive(self) -> bytes:
        (length,) = struct.unpack("!i", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._link.recv(count - len(data))
            if not part:
                raise ConnectionError("ZooKeeper has ended a session")
            data += part
        return data

    def ask(self, path: str) -> None:
        self._asked += 1
        self._send(struct.pack("!iii", self._asked, OP_EXISTS, len(path)) + path.encode() + b"\x01")

    def heard(self) -> None:
        """Until the answer to the last question; what watches have said before it is thrown away."""
        while struct.unpack_from("!i", self._receive())[0] != self._asked:
            pass

    def close(self) -> None:
        self._link.close()


def tell(server: ZooKeeperServer, path: str, write: Callable[[], object]) -> float:
    """Seconds that a write of `path` takes longer for each session at the same server that watches it."""
    watchers = [Deaf(server) for _ in range(WATCHERS)]
    try:
        taken: dict[int, list[float]] = {0: [], WATCHERS: []}
        for _ in range(TURNS):
            for count, times in taken.items():
                _watch(watchers[:count], path)
                time.sleep(REST)
                began = time.perf_counter()
                write()
                times.append(time.perf_counter() - began)
        return max((median(taken[WATCHERS]) - median(taken[0])) / WATCHERS, 1e-6)
    finally:
        for watcher in watchers:
            watcher.close()


def _watch(watchers: Sequence[Deaf], path: str) -> None:
    for watcher in watchers:
        watcher.ask(path)
    for watcher in watchers:
        watcher.heard()
