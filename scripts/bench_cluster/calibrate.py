"""How long a request takes a real ZooKeeper server, and a client: processor time and waiting, apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from kazoo.client import KazooClient

from mcserver.coordination.kazoo_reads import MultiRead
from tests.cluster.ensemble import Ensemble, ZooKeeperServer
from tests.cluster.servers import CacheServer
from tests.coordination.simulator.costs import Service

from . import deaf

MANY = 3000  # requests of a kind
SEVERAL = 32  # znodes that one request reads
WINDOW = 100  # of them under way at once
ROUNDS = 200  # requests one by one
CPUCLOCK_SCHED = 2  # as clock_getcpuclockid(3) makes the clock of another process


def measure(ensemble: Ensemble) -> Service:
    """Takes some ten seconds; the ensemble should have nothing else to do."""
    leader, (follower, other) = ensemble.leader, ensemble.followers
    client = KazooClient(f"127.0.0.1:{follower.client_port}")
    client.start(10)
    try:
        client.ensure_path("/calibrate")
        client.set("/calibrate", b"x" * 100)
        for _ in range(2):  # the first time warms the servers up
            own = time.process_time()
            (read,) = _spent(lambda: _pipelined(lambda n: client.get_async("/calibrate")), follower)
            own = (time.process_time() - own) / MANY
            (several,) = _spent(lambda: _pipelined(lambda n: _read_several(client)), follower)
            both, write, apply = _spent(
                lambda: _pipelined(lambda n: client.set_async("/calibrate", b"%0100d" % n)), follower, leader, other
            )
        reads = _one_by_one(lambda: read_one(client))
        writes = _one_by_one(lambda: append(client))
        event, tell = deaf.tell(follower, "/calibrate", lambda: append(client, tells=True))
    finally:
        client.stop()
        client.close()
    more = max((several - read) / (SEVERAL - 1), 1e-7)
    parts = (read, more, max(both - apply, 5e-6), max(write - apply, 5e-6), apply, event, tell, own / 2, 0.0, 0.0)
    return with_waits(Service(*(round(part * 1e6, 1) for part in parts)), reads, writes)


def read_one(client: KazooClient) -> None:
    client.get("/calibrate")


def _read_several(client: KazooClient) -> Any:
    result = client.handler.async_result()
    client._call(MultiRead(["/calibrate"] * SEVERAL), result)
    return result


def append(client: KazooClient, *, tells: bool = False) -> None:
    """As the fleet appends to its log; `tells` those who watch /calibrate."""
    transaction = client.transaction()
    if tells:
        transaction.set_data("/calibrate", b"x" * 100)
    else:
        transaction.check("/calibrate", -1)
    transaction.create("/calibrate/e-", b"y" * 100, sequence=True)
    transaction.commit()


def with_waits(service: Service, reads: list[float], writes: list[float]) -> Service:
    """The same processor times, with the waiting that goes with such reads and writes."""
    read, own = service.read, 2 * service.call
    hop = max(20.0, (median(reads) * 1e6 - read - own) / 2)
    work = service.forward + service.write + 2 * service.apply
    return replace(service, hop=round(hop, 1), commit=round(max(100.0, median(writes) * 1e6 - own - 2 * hop - work), 1))


def _pipelined(ask: Callable[[int], Any]) -> None:
    under_way = []
    for number in range(MANY):
        under_way.append(ask(number))
        if len(under_way) >= WINDOW:
            under_way.pop(0).get(timeout=30)
    for each in under_way:
        each.get(timeout=30)


def _one_by_one(ask: Callable[[], Any]) -> list[float]:
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
        time.sleep(0.005)
    return taken


def _spent(work: Callable[[], None], *servers: ZooKeeperServer) -> tuple[float, ...]:
    """Seconds of a processor that each server took for one of MANY requests."""
    before = [cpu_of(server) for server in servers]
    work()
    return tuple((cpu_of(server) - was) / MANY for server, was in zip(servers, before, strict=True))


def cpu_of(server: ZooKeeperServer | CacheServer) -> float:
    """Seconds of a processor so far, by the process's own clock: /proc counts in hundredths, which is too coarse."""
    assert server.process is not None
    return time.clock_gettime((~server.process.pid << 3) | CPUCLOCK_SCHED)
