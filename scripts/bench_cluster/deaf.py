"""Sessions that watch a znode and don't listen: what telling many takes a server of ZooKeeper, and none of it the clients.

Who writes waits for his answer while those who watch at the same server are told: one thread of the server finds them, another
wakes those that send, and the answer goes the same way behind them. So he waits for the slowest of these threads, when each has
a processor. What he waits by the clock, on a machine of two processors, is what they wait for each other.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.ensemble import ZooKeeperServer

OP_EXISTS = 3
WATCHERS = 84  # as at each of twelve servers of a thousand members
TURNS = 80
REST = 0.02  # s; from when all watch until the write, and from then until all are told


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


def tell(server: ZooKeeperServer, path: str, write: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a processor for each session that watches `path` there when it is written: of all the server's threads together,
    and of the one that has most to do for it.
    """
    watchers = [Deaf(server) for _ in range(WATCHERS)]
    try:
        taken: Counter[str] = Counter()
        for _ in range(TURNS):
            for count, sign in ((0, -1), (WATCHERS, 1)):
                _watch(watchers[:count], path)
                time.sleep(REST)
                before = _worked(server)
                write()
                time.sleep(REST)
                for thread, worked in _worked(server).items():
                    taken[thread] += sign * (worked - before.get(thread, 0))
        each = TURNS * WATCHERS * 1e9
        return max(sum(taken.values()) / each, 2e-6), max(max(taken.values()) / each, 1e-6)
    finally:
        for watcher in watchers:
            watcher.close()


def _worked(server: ZooKeeperServer) -> dict[str, int]:
    """ns of a processor by each of its threads so far, the compilers aside."""
    assert server.process is not None
    worked = {}
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # some end meanwhile
            if "Compiler" not in (thread / "comm").read_text():
                worked[thread.name] = int((thread / "schedstat").read_text().split()[0])
    return worked


def _watch(watchers: Sequence[Deaf], path: str) -> None:
    for watcher in watchers:
        watcher.ask(path)
    for watcher in watchers:
        watcher.heard()
