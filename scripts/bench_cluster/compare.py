"""The simulated fleet beside a real one of the same size: what ZooKeeper is asked, and how long a delete takes.

What else goes on on this machine makes every step longer that waits for a processor. So the model's waits are those of bare
reads and writes that were taken in turns with the fleet's deletes, as are the two that it knows nothing of: a client's turn at
a member, and the look at all members that finds the key gone. What a member's own machines take is measured under a flow.

The members of a real fleet have a host each. Here they share the processors: when an entry is in the log all of them are told,
and the one that waits for its answer competes with them. So `committed` is measured, at last, with all the others at the
lowest priority (SCHED_IDLE): the one that is asked, and ZooKeeper, have a processor when they need one, as they would there. In
the model of that the members have processors of their own, and ZooKeeper's servers share those of this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from kazoo.client import KazooClient

from tests.cluster.ensemble import Ensemble
from tests.cluster.servers import CacheServer, Client, until
from tests.coordination.simulator.costs import Service

from . import calibrate, simulate

IDLE = 10  # s
FLOW, FLOW_SECONDS = 20, 6  # deletes a second, of the whole fleet; for so long
ROUNDS = 40
REST = 0.1  # s before each request: one that comes after a rest takes longer than one of many
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


@dataclass
class Waits:
    """Seconds, taken in turns with the fleet's deletes."""

    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)  # a command that asks the loop, and not ZooKeeper
    looks: list[float] = field(default_factory=list)  # a get at all the others at once
    call: float = 0.0  # of a member's processor, for what it asks or is told

    def take(self, bare: KazooClient, clients: Sequence[Client]) -> None:
        for kept, ask in (
            (self.reads, lambda: calibrate.read_one(bare)),
            (self.writes, lambda: calibrate.append(bare)),
            (self.turns, lambda: clients[0].ask(b"cluster leader")),
            (self.looks, lambda: _all_lost(clients[1:], b"n:1")),
        ):
            time.sleep(REST)
            began = time.perf_counter()
            ask()
            kept.append(time.perf_counter() - began)


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
            waits, alone = Waits(), Waits()
            real = _real(ensemble, size, waits, alone)
            alone.call = waits.call
        model = _model(size, service, waits, alone)
        lines.append(f"| {size} | real | " + " | ".join(f"{figure:.1f}" for figure in real) + " |")
        lines.append("| | model | " + " | ".join(f"{figure:.1f}" for figure in model) + " |")
        ratios = (made / seen if seen else 0.0 for made, seen in zip(model, real, strict=True))
        lines.append("| | ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
        figures = (waits.reads, waits.writes, waits.turns, waits.looks, alone.reads, alone.writes, alone.turns)
        bare = ", ".join(f"{median(each) * 1000:.1f}" for each in figures)
        bare += f", {waits.call * 1000:.2f}"
        lines.append(
            f"| | bare read, write; turn, look; read, write, turn while the others give way; call | {bare} ms |"
            + " |" * (len(Seen._fields) - 1)
        )
    return "\n".join(lines) + "\n"


def _real(ensemble: Ensemble, size: int, waits: Waits, alone: Waits) -> Seen:
    """Fills `waits`, and `alone` with those of the time in which all but one of the members give way."""
    levels = ("--ack", "a:=applied", "--ack", "f:=async")
    servers = [CacheServer(ensemble.hosts, *levels, name=f"s{n}", quick=False) for n in range(size)]
    bare = KazooClient(f"127.0.0.1:{ensemble.followers[0].client_port}")
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(CacheServer.start, servers))
        until(lambda: all(_settled(server, size) for server in servers), 180)
        time.sleep(AT_LEAST)
        idle = _rates(ensemble, lambda: time.sleep(IDLE))
        worked = _worked(servers)
        flowing = _rates(ensemble, lambda: _flow(servers))
        told = FLOW * FLOW_SECONDS * size  # a watch fires at each for each entry
        waits.call = (_worked(servers) - worked) / (2 * flowing[0] * FLOW_SECONDS + told)
        bare.start(10)
        clients = [server.client() for server in servers]
        committed, gone, applied = [], [], []
        for number in range(ROUNDS):
            waits.take(bare, clients)
            time.sleep(REST)
            gone.append(_delete(clients, b"c:%d" % number)[1])
            time.sleep(REST)
            began = time.perf_counter()
            clients[number % size].delete(b"a:%d" % number)
            applied.append((time.perf_counter() - began) * 1000)
        for server in servers[1:]:
            _give_way(server)
        for number in range(ROUNDS):
            alone.take(bare, clients)
            time.sleep(REST)
            began = time.perf_counter()
            clients[0].delete(b"d:%d" % number)
            committed.append((time.perf_counter() - began) * 1000)
        for client in clients:
            client.close()
        return Seen(*idle, *flowing, median(committed), median(gone), median(applied))
    finally:
        bare.stop()
        bare.close()
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
    return (after[0] - before[0]) / span, (after[1] - before[1]) / span


def _worked(servers: Sequence[CacheServer]) -> float:
    """Seconds of a processor, of all members."""
    return sum(calibrate.cpu_of(server) for server in servers)


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


def _give_way(server: CacheServer) -> None:
    """From now on this member has the processors only when nobody else wants them."""
    assert server.process is not None
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


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
    time.sleep(REST)
    began = time.perf_counter()
    clients[0].delete(key)
    took = time.perf_counter() - began
    while not _all_lost(clients[1:], key):
        time.sleep(0.0002)
    return took * 1000, (time.perf_counter() - began) * 1000


def _all_lost(clients: Sequence[Client], key: bytes) -> bool:
    """Asks all of them at once."""
    for client in clients:
        client.send(b"mg %s\r\n" % key)
    answers = [client.line() for client in clients]  # every one is read
    return answers.count(b"EN") == len(answers)


def _model(size: int, service: Service, waits: Waits, alone: Waits) -> Seen:
    with simulate.quietly():
        fleet = _modelled(size, service, waits, hosts=False)
        idle = simulate.flow(fleet, 0, IDLE)
        flowing = simulate.flow(fleet, FLOW, FLOW_SECONDS)
        shared = simulate.alone(fleet, ROUNDS)
        fleet.world.close()
        fleet = _modelled(size, service, alone, hosts=True)
        committed = simulate.alone(fleet, ROUNDS).committed + median(alone.turns) * 1000
        fleet.world.close()
    turn, look = median(waits.turns) * 1000, median(waits.looks) * 1000
    gone = max(shared.committed, shared.gone) + turn + look
    return Seen(
        idle.reads + idle.writes,
        idle.writes,
        flowing.reads + flowing.writes,
        flowing.writes,
        committed,
        gone,
        shared.applied + turn,
    )


def _modelled(size: int, service: Service, waits: Waits, *, hosts: bool) -> simulate.Simulated:
    """`hosts`: the members have processors of their own."""
    service = calibrate.with_waits(service, waits.reads, waits.writes)  # with what the bare client took for its calls
    service = replace(service, call=waits.call * 1e6)
    fleet = simulate.Simulated(size, service, writes=100.0, shared=SHARED, hosts=hosts)
    fleet.run(AT_LEAST)
    return fleet
