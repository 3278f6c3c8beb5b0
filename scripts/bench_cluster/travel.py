"""How long a delete takes from one server to another and until it is answered, beside what bare kazoo needs, in turns of one run.

Three members. A delete that is answered stands beside an append that nobody watches, of a client at the same server of
ZooKeeper as the member: that is what any confirmation takes.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterator
from typing import Any

from kazoo.client import KazooClient

from tests.cluster.servers import CacheServer, Client

from . import calibrate
from .stage import Result, Stage, percentile, table

PAUSE = 0.02  # s between two deletes: each finds everything idle
POLL = 0.0002  # s between two looks whether the key is gone


def measure(quick: bool) -> str:
    rounds = 60 if quick else 300
    ours: list[float] = []
    bare: list[float] = []
    answered: list[float] = []
    applied: list[float] = []
    appended: list[float] = []
    with Stage() as stage:
        here, there, _ = stage.servers(3, "--ack", "a:=applied")
        with here.client() as deleting, there.client() as holding:
            peers, beside = BarePeers(stage.ensemble.hosts), client_beside(here)
            try:
                for number in range(rounds):
                    ours.append(delete_once(deleting, holding, b"key:%d" % number))
                    time.sleep(PAUSE)
                    bare.append(peers.tell_once())
                    time.sleep(PAUSE)
                    answered.append(confirm_once(deleting, b"none:%d" % number))
                    time.sleep(PAUSE)
                    appended.append(append_once(beside))
                    time.sleep(PAUSE)
                    applied.append(confirm_once(deleting, b"a:%d" % number))
                    time.sleep(PAUSE)
            finally:
                peers.close()
                beside.stop()
                beside.close()
    results = []
    for name, share, bound in (("p50", 0.5, 1.5), ("p99", 0.99, 2.0)):
        mine, theirs = percentile(ours, share) * 1000, percentile(bare, share) * 1000
        figure = f"{mine:.1f} ms, bare kazoo {theirs:.1f} ms: {mine / theirs:.2f}"
        results.append(Result(f"delete at A until B has lost the key, {name}", figure, f"{bound:g} times bare kazoo"))
        mine, theirs = percentile(answered, share) * 1000, percentile(appended, share) * 1000
        figure = f"{mine:.1f} ms, a bare append {theirs:.1f} ms: {mine / theirs:.2f}"
        limit = "1.5 times an append" if name == "p50" else ""
        results.append(Result(f"delete at A until it is answered, committed, {name}", figure, limit))
    figure = f"{percentile(applied, 0.5) * 1000:.1f} ms, p99 {percentile(applied, 0.99) * 1000:.1f} ms"
    results.append(Result("the same, applied, p50", figure))
    return table(f"How a delete travels ({rounds} deletes, ZooKeeper with fsync)", results)


def delete_once(deleting: Client, holding: Client, key: bytes) -> float:
    """Seconds until the other server has lost the key."""
    holding.set(key, b"value")
    sent = time.perf_counter()
    deleting.send(b"delete %s\r\n" % key)
    while holding.get(key) is not None:
        time.sleep(POLL)
    gone = time.perf_counter() - sent
    deleting.line()
    return gone


def confirm_once(deleting: Client, key: bytes) -> float:
    """Seconds until a delete is answered."""
    sent = time.perf_counter()
    deleting.delete(key)
    return time.perf_counter() - sent


def client_beside(server: CacheServer) -> KazooClient:
    """At the server of ZooKeeper that the member is connected to."""
    client = KazooClient(server.stats()["server"])
    client.start()
    client.ensure_path("/calibrate")
    return client


def append_once(client: KazooClient) -> float:
    """Seconds until an append, as the fleet's are, is answered."""
    sent = time.perf_counter()
    calibrate.append(client)
    return time.perf_counter() - sent


class BarePeers:
    """Two kazoo clients: one creates znodes in sequence, the other watches for the next and reads it."""

    def __init__(self, hosts: str) -> None:
        self._writer, self._reader = KazooClient(hosts), KazooClient(hosts)
        for client in (self._writer, self._reader):
            client.start()
        self._writer.ensure_path("/bare")
        self._read: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._numbers: Iterator[int] = itertools.count(1)
        self._follow(0)

    def _follow(self, number: int) -> None:
        path = f"/bare/e-{number:010d}"

        def got(_: Any) -> None:
            self._read.put(time.perf_counter())

        def created(_: Any) -> None:
            self._reader.get_async(path).rawlink(got)
            self._follow(next(self._numbers))

        self._reader.exists_async(path, watch=created)

    def tell_once(self) -> float:
        """Seconds from the create until the peer has the data."""
        sent = time.perf_counter()
        self._writer.create_async("/bare/e-", b"d key:123", sequence=True)
        return self._read.get(timeout=30) - sent

    def close(self) -> None:
        for client in (self._writer, self._reader):
            client.stop()
            client.close()
