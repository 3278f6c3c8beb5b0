"""The simulated fleet beside a real one of the same size: what ZooKeeper is asked, and how long a delete takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from tests.cluster.ensemble import Ensemble
from tests.cluster.servers import CacheServer, Client, until
from tests.coordination.simulator.costs import Service

from . import calibrate, simulate

IDLE = 10  # s
FLOW, FLOW_SECONDS = 20, 6  # deletes a second, of the whole fleet; for so long
ROUNDS = 15
SHARED = 2  # processors that everything on this machine shares
AT_LEAST = 24  # the settling of a fleet, s: until the first sheets are written, and the joins forgotten


class Seen(NamedTuple):
    """Of one fleet; requests and writes a second, of all of ZooKeeper's servers; ms."""

    idle_requests: float
    idle_writes: float
    flow_requests: float
    flow_writes: float
    committed: float
    gone: float
    applied: float


def measure(sizes: Sequence[int]) -> str:
    lines = [
        f"**The model beside real members** ({SHARED} processors for everything)",
        "",
        "| members | | " + " | ".join(name.replace("_", " ") for name in Seen._fields) + " |",
        "|---|---|" + "---|" * len(Seen._fields),
    ]
    for size in sizes:
        with Ensemble() as ensemble:
            service = calibrate.measure(ensemble)
            real = _real(ensemble, size)
        model = _model(size, service)
        lines.append(f"| {size} | real | " + " | ".join(f"{figure:.1f}" for figure in real) + " |")
        lines.append("| | model | " + " | ".join(f"{figure:.1f}" for figure in model) + " |")
        ratios = (made / seen if seen else 0.0 for made, seen in zip(model, real, strict=True))
        lines.append("| | ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines) + "\n"


def _real(ensemble: Ensemble, size: int) -> Seen:
    servers = [CacheServer(ensemble.hosts, "--ack", "a:=applied", name=f"s{n}", quick=False) for n in range(size)]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(CacheServer.start, servers))
        until(lambda: all(_settled(server, size) for server in servers), 90)
        time.sleep(AT_LEAST)
        idle = _rates(ensemble, lambda: time.sleep(IDLE))
        flowing = _rates(ensemble, lambda: _flow(servers))
        clients = [server.client() for server in servers]
        committed, gone, applied = [], [], []
        for number in range(ROUNDS):
            took, last = _delete(clients, b"c:%d" % number)
            committed.append(took)
            gone.append(last)
            time.sleep(0.1)
            began = time.perf_counter()
            clients[number % size].delete(b"a:%d" % number)
            applied.append((time.perf_counter() - began) * 1000)
            time.sleep(0.1)
        for client in clients:
            client.close()
        return Seen(*idle, *flowing, median(committed), median(gone), median(applied))
    finally:
        for server in servers:
            server.close()


def _settled(server: CacheServer, size: int) -> bool:
    stats = server.stats()
    return stats["stale"] == "0" and stats["members"] == str(size)


def _rates(ensemble: Ensemble, work: Callable[[], None]) -> tuple[float, float]:
    """Requests and writes a second while something goes on."""
    before, began = _requests(ensemble), time.monotonic()
    work()
    after, span = _requests(ensemble), time.monotonic() - began
    return tuple((late - early) / span for late, early in zip(after, before, strict=True))  # type: ignore[return-value]


def _requests(ensemble: Ensemble) -> tuple[int, int]:
    """Requests of clients so far, without this one's, and ZooKeeper's writes."""
    packets, zxid = 0, 0
    for server in ensemble.servers:
        for line in server.ask(b"srvr").splitlines():
            if line.startswith("Received: "):
                packets += int(line.split()[1]) - 1
            elif line.startswith("Zxid: "):
                zxid = max(zxid, int(line.split()[1], 16) & 0xFFFFFFFF)
    return packets, zxid


def _flow(servers: Sequence[CacheServer]) -> None:
    clients = [server.client() for server in servers]
    began = time.monotonic()
    for number in range(FLOW * FLOW_SECONDS):
        time.sleep(max(0.0, began + number / FLOW - time.monotonic()))
        clients[number * 7 % len(clients)].send(b"delete f:%d noreply\r\n" % number)
    time.sleep(max(0.0, began + FLOW_SECONDS - time.monotonic()))
    for client in clients:
        client.close()


def _delete(clients: Sequence[Client], key: bytes) -> tuple[float, float]:
    """ms until the first member's delete is answered, and until the last other one has lost the key."""
    for client in clients[1:]:
        client.set(key, b"x")
    began = time.perf_counter()
    clients[0].delete(key)
    took = time.perf_counter() - began
    for client in clients[1:]:
        while client.get(key) is not None:
            time.sleep(0.0002)
    return took * 1000, (time.perf_counter() - began) * 1000


def _model(size: int, service: Service) -> Seen:
    with simulate.quietly():
        fleet = simulate.Simulated(size, service, writes=100.0, shared=SHARED)
        fleet.run(AT_LEAST)
        idle = simulate.flow(fleet, 0, IDLE)
        flowing = simulate.flow(fleet, FLOW, FLOW_SECONDS)
        alone = simulate.alone(fleet, ROUNDS)
        fleet.world.close()
    return Seen(idle.reads + idle.writes, idle.writes, flowing.reads + flowing.writes, flowing.writes, *alone)
