"""What every measurement needs: an ensemble, servers pinned to a core, and words for figures. It measures nothing itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmark.programs import Server, cores

from tests.cluster.ensemble import Ensemble
from tests.cluster.network import Network
from tests.cluster.servers import CacheServer, until


class Result(NamedTuple):
    """One line of a table: what, its figure, and the bound it is held to ("" without one)."""

    what: str
    figure: str
    bound: str = ""


class Stage(ExitStack):
    """Everything that a measurement starts on it ends with it."""

    def __init__(self, *, fsync: bool = True, links: bool = False) -> None:
        super().__init__()
        network = self.enter_context(Network()) if links else None
        self.ensemble = self.enter_context(Ensemble(network, fsync=fsync))
        for zookeeper in self.ensemble.servers:
            if zookeeper.process is not None:
                pin(zookeeper.process.pid, cores()[1])

    def servers(self, count: int, *options: str, core: int | None = None, links: bool = False) -> list[CacheServer]:
        """Members of one fleet, all fresh; default timeouts. With `core`, all of them there."""
        made = []
        for number in range(count):
            hosts = self.ensemble.hosts_for(f"s{number}") if links else self.ensemble.hosts
            made.append(self.start(CacheServer(hosts, *options, name=f"s{number}", quick=False), core))
        until(lambda: all(server.is_fresh and server.stats()["members"] == str(count) for server in made), 30)
        return made

    def start(self, server: CacheServer, core: int | None = None) -> CacheServer:
        self.enter_context(server)
        if core is not None:
            assert server.process is not None
            pin(server.process.pid, core)
        return server

    @property
    def zxid(self) -> int:
        """Counts ZooKeeper's writes: the low half rises by one with each."""
        line = next(line for line in self.ensemble.leader.ask(b"srvr").splitlines() if line.startswith("Zxid"))
        return int(line.split()[1], 16)


def pin(pid: int, core: int) -> None:
    """All threads of a process to one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def target(server: CacheServer) -> Server:
    """A server as the load generator knows it."""
    assert server.process is not None
    return Server(server.name, server.port, server.process.pid)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))]


def table(title: str, results: Sequence[Result]) -> str:
    lines = [f"**{title}**", "", "| what | measured | bound |", "|---|---|---|"]
    lines += [f"| {result.what} | {result.figure} | {result.bound} |" for result in results]
    return "\n".join(lines) + "\n"
