"""Several mcservers on one ensemble, each with links of its own to every ZooKeeper server, and clients that check them.

Owns the servers it starts. What a test expects of every run is in `verify`: everything fresh again soon, no broken promise.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import threading
import time
from pathlib import Path

from .ensemble import Ensemble
from .network import Link
from .servers import PATIENCE, CacheServer, until
from .workload import OPTIONS, Workload


class Fleet:
    """`count` servers called s0, s1, ... in a chroot of their own. Use it as a context manager."""

    def __init__(
        self, ensemble: Ensemble, name: str, *options: str, count: int = 3, quick: bool = True, hosts: str = ""
    ) -> None:
        """`hosts`: ZooKeeper's addresses for all servers alike, instead of links of their own."""
        self.ensemble, self.name = ensemble, name
        self.servers = []
        for number in range(count):
            peer = f"{name}-s{number}"
            zookeeper = (hosts or ensemble.hosts_for(peer)) + f"/{name}"
            self.servers.append(CacheServer(zookeeper, *OPTIONS, *options, name=f"s{number}", quick=quick))

    def __enter__(self) -> Fleet:
        try:
            for server in self.servers:
                server.start()
            self.wait_fresh()
            until(lambda: all(server.stats()["members"] == str(len(self.servers)) for server in self.servers))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def links(self, server: CacheServer) -> list[Link]:
        """Its links to ZooKeeper, by the number of the ZooKeeper server."""
        return self.ensemble.peer_links[f"{self.name}-{server.name}"]

    def connected_to(self, server: CacheServer) -> int:
        """The number of the ZooKeeper server that it is connected to; 0 for none."""
        port = server.stats()["server"].rpartition(":")[2]
        return next((number for number, link in enumerate(self.links(server), 1) if str(link.port) == port), 0)

    @property
    def leader(self) -> CacheServer:
        return next(server for server in self.servers if server.process and server.stats()["is_leader"] == "1")

    def wait_fresh(self, *servers: CacheServer, seconds: float = PATIENCE) -> float:
        """Until these servers (else all) hold a certificate and have applied the whole log; the seconds it took."""
        started = time.monotonic()
        for server in servers or self.servers:
            until(functools.partial(_is_settled, server), seconds, f"{server.name} is not fresh")
        return time.monotonic() - started

    def total(self, figure: str) -> int:
        return sum(int(server.stats()[figure]) for server in self.servers)

    def settle(self, workload: Workload) -> None:
        """Ends the workload and reads what every server still holds, when all that was committed is applied everywhere.

        A delete that is confirmed as applied is the barrier. It waits for nobody who serves without a certificate; of those, each
        shows one that began after it.
        """
        workload.stop()
        self.wait_fresh()
        until(lambda: self.servers[0].delete(b"a:barrier") == b"NOT_FOUND", what="nothing is confirmed as applied")
        confirmed = time.monotonic()
        for server in self.servers:
            if server.stats()["on_stale"] == "serve":
                until(functools.partial(_is_proved, server, confirmed), what=f"{server.name} is not fresh")
        workload.read_everything()

    def verify(self, workload: Workload) -> None:
        """With everything healed: fresh again, every promise kept."""
        self.settle(workload)
        found = workload.history.anomalies()
        if found:
            path = Path(tempfile.mkdtemp(prefix="history-")) / "history.jsonl"
            workload.history.dump(path)
            logs = "\n".join(f"--- {server.name}\n{server.log}" for server in self.servers)
            lines = "\n".join(f"{anomaly.promise}: {anomaly.text}" for anomaly in found[:10])
            raise AssertionError(f"{len(found)} anomalies, history in {path}\n{lines}\n{logs}")
        assert len(workload.history.reads) > 20, "the clients saw next to nothing: " + workload.history.report()


def _is_proved(server: CacheServer, since: float) -> bool:
    """Whether its certificate is of a round that began after that moment, and so covers all that was confirmed before."""
    most = (time.monotonic() - since) * 1000
    return 0 <= int(server.stats()["fresh_age_ms"]) < most


def _is_settled(server: CacheServer) -> bool:
    stats = server.stats()
    return stats["stale"] == "0" and stats["lag_entries"] == "0" and stats["session"] == "connected"


class Probe:
    """Asks a server for a key all the time and keeps how long the answers took: the data path must not notice."""

    def __init__(self, server: CacheServer, rest: float = 0.005) -> None:
        self._server, self._rest = server, rest
        self.latencies: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        with self._server.client() as client:
            while not self._stop.is_set():
                started = time.monotonic()
                client.get(b"probe")
                self.latencies.append(time.monotonic() - started)
                time.sleep(self._rest)

    def noticed_nothing(self) -> None:
        """Most gets took less than ZooKeeper's half a second and more: they did not wait for it, however busy the machine."""
        assert len(self.latencies) > 5
        assert statistics.median(self.latencies) < 0.25
