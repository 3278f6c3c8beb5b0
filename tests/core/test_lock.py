"""How long the engine's lock is held, and how long others have it while one waits, both in the holders' CPU time.

So it doesn't matter here what else the machine does, nor when it lets a thread run: docs/architecture.md, "The lock".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcserver.core import Engine
from tests.core.harness import MIB, Client
from tests.core.threaded import Owner, Peer

HELD = 0.002
PASSED = 0.004
"""Seconds. Measured: 0.5 and 1.3 ms. With a mutex, which goes to whoever asks first, 6.9 ms passed beside seven floods."""

ITEMS = 400_000
FLOOD = 70_000
"""More flushes than an item can count."""


def filled() -> Engine:
    engine = Engine(memory_limit=256 * MIB)
    client = Client(engine)
    for first in range(0, ITEMS, 10_000):
        client.send(b"".join(b"set key%d 0 0 3 noreply\r\nabc\r\n" % i for i in range(first, first + 10_000)))
    return engine


def exchange(peer: Peer, data: bytes, lines: int) -> None:
    """Sends all of it, and reads as many lines meanwhile."""
    sender = threading.Thread(target=peer.sock.sendall, args=(data,))
    sender.start()
    while lines > 0:
        lines -= peer.sock.recv(1 << 20).count(b"\n")
    sender.join()


@contextmanager
def others(engine: Engine, owner: Owner) -> Iterator[None]:
    """Meanwhile gets are asked for one at a time, and background work is done."""
    over = threading.Event()
    peer = owner.connect()

    def get() -> None:
        while not over.wait(0.0005):
            peer.sock.sendall(b"get key5\r\n")
            while not peer.sock.recv(4096).endswith(b"END\r\n"):
                pass

    def maintain() -> None:
        while not over.wait(min(engine.maintain(), 0.01)):
            pass

    threads = [threading.Thread(target=each) for each in (get, maintain)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def longest(flooders: int) -> tuple[float, float]:
    """Seconds for which the lock was held, and passed by one who waited, while so many flood it."""
    engine = filled()
    with Owner(engine, 8) as owner:
        floods = [owner.connect() for _ in range(flooders)]
        count = FLOOD // flooders
        with others(engine, owner):
            engine.measure_lock()
            threads = [
                threading.Thread(target=exchange, args=(flood, b"set x 0 0 1\r\na\r\nflush_all\r\n" * count, 2 * count))
                for flood in floods
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    held, passed, _ = engine.lock_times()
    return held, passed


@pytest.mark.slow
@pytest.mark.parametrize("flooders", [1, 7])
def test_a_flood_of_flushes(flooders: int) -> None:
    """Once in five times: a virtual machine that is stopped by its host takes the pause for its threads' work."""
    for _ in range(5):
        held, passed = longest(flooders)
        if 0 < held < HELD and passed < PASSED:
            return
    pytest.fail(f"held for {held:.4f} s, others had it for {passed:.4f} s while one waited")
