"""Random faults, one after the other or two at once, chosen by a seed: what a long run does to a fleet.

Each fault is a method that does harm, waits, and undoes it. Nothing here checks anything.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from .ensemble import Ensemble
from .fleet import Fleet
from .network import Direction, Link
from .servers import CacheServer
from .workload import Workload


class Nemesis:
    """Does one fault after the other until a moment comes. `done` counts them by name."""

    def __init__(self, ensemble: Ensemble, fleet: Fleet, workload: Workload, seed: int) -> None:
        self._ensemble, self._fleet, self._workload = ensemble, fleet, workload
        self._chance = random.Random(f"nemesis {seed}")
        self.done: Counter[str] = Counter()
        self.slowest_recovery = 0.0
        self.faults: list[Callable[[], None]] = [
            self.kill_zookeeper,
            self.stop_zookeeper,
            self.isolate_zookeeper,
            self.slow_quorum,
            self.stop_all_zookeepers,
            self.blackhole,
            self.half_open,
            self.slow_links,
            self.reset_links,
            self.cut_after_append,
            self.end_session,
            self.stop_server,
            self.kill_server,
            self.end_server,
        ]

    def run(self, seconds: float) -> None:
        """Faults with pauses between; after each, everything has healed and is fresh again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._do(self._chance.choice(self.faults))
            time.sleep(self._chance.uniform(0.2, 1.5))

    def _do(self, fault: Callable[[], None]) -> None:
        name = fault.__name__.replace("_", " ")
        self._workload.history.event(name)
        fault()
        self._ensemble.heal()
        for server in self._fleet.servers:
            if server.process is not None:
                server.resume()
        self._ensemble.start()
        self._workload.history.event("healed")
        self.slowest_recovery = max(self.slowest_recovery, self._fleet.wait_fresh(seconds=30))
        self.done[name] += 1

    def _wait(self) -> None:
        time.sleep(self._chance.choice([0.1, 0.5, 1.0, 2.5, 4.0]))

    def _server(self) -> CacheServer:
        return self._chance.choice(self._fleet.servers)

    def _links(self) -> list[Link]:
        return self._fleet.links(self._server())

    # ZooKeeper

    def kill_zookeeper(self) -> None:
        server = self._chance.choice(self._ensemble.servers)
        server.end()
        self._wait()
        server.start()

    def stop_zookeeper(self) -> None:
        self._chance.choice(self._ensemble.servers).pause()
        self._wait()

    def isolate_zookeeper(self) -> None:
        self._ensemble.isolate(self._chance.choice(self._ensemble.servers).number)
        self._wait()

    def slow_quorum(self) -> None:
        for links in self._ensemble.server_links.values():
            links[0].delay(self._chance.uniform(0.01, 0.2))
        self._wait()

    def stop_all_zookeepers(self) -> None:
        for server in self._ensemble.servers:
            server.end()
        self._wait()

    # The way to ZooKeeper

    def blackhole(self) -> None:
        ways: list[tuple[Direction, ...]] = [("up",), ("down",), ("up", "down")]
        directions = self._chance.choice(ways)
        for link in self._links():
            link.blackhole(*directions)
        self._wait()

    def half_open(self) -> None:
        for link in self._links():
            link.half_open()
        self._wait()

    def slow_links(self) -> None:
        for link in self._links():
            link.delay(self._chance.uniform(0.05, 0.9))
            link.throttle(self._chance.choice([2_000, 50_000]))
        self._wait()

    def reset_links(self) -> None:
        for _ in range(self._chance.randint(1, 5)):
            for link in self._links():
                link.reset()
            time.sleep(0.2)

    def cut_after_append(self) -> None:
        for link in self._links():
            link.cut_after(self._chance.randint(1, 3))
            link.reset()
        self._wait()

    def end_session(self) -> None:
        server = self._server()
        if server.stats()["session"] == "connected":
            self._ensemble.kill_session(server.session)
        self._wait()

    # The servers

    def stop_server(self) -> None:
        self._server().pause()
        self._wait()

    def kill_server(self) -> None:
        self._restart(signal.SIGKILL)

    def end_server(self) -> None:
        self._restart(signal.SIGTERM)

    def _restart(self, sig: signal.Signals) -> None:
        server = self._server()
        server.end(sig)
        self._workload.restarted(server)
        time.sleep(self._chance.choice([0.0, 0.5, 3.0]))
        server.start()
