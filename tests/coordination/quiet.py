"""A simulated fleet without clients and without mishaps, for tests of one machine at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcserver.coordination.entry import Entry, decode, line
from mcserver.coordination.ports import Change, Level
from mcserver.coordination.settings import Settings
from mcserver.testing.tree import Delta

from .simulator.ensemble import Ensemble
from .simulator.fleet import Fleet, Host
from .simulator.scheduler import MS, World

META = "/cache/invalidation/meta"


class Quiet(Fleet):
    """Servers n1, n2, ... that do only what a test asks of them. Times in milliseconds."""

    def __init__(self, hosts: int = 0, **settings: Any) -> None:
        super().__init__(World(1))
        self.hiccups = 0.0
        self.busy = False
        self.ensemble = Ensemble(self.world, 3, session_timeout=0.4)
        self.ensemble.on_commit = self.checkers.on_commit
        self.settings = replace(
            Settings(
                max_stale=0.4,
                ack_timeout=1.0,
                reply_deadline=0.1,
                retry_delay=0.02,
                retry_delay_max=0.1,
                trim_every=0.2,
                member_margin=0.1,
                lock_window=0.1,
            ),
            **settings,
        )
        for n in range(hosts):
            self.start(f"n{n + 1}")
        if hosts:
            self.run(400)

    def run(self, milliseconds: float) -> None:
        self.world.run(self.world.now + int(milliseconds * MS))

    def meta(self) -> dict[str, Any]:
        import json

        return dict(json.loads(self.ensemble.tree.nodes[META].data))

    def log(self) -> list[bytes]:
        """The entries of the current log that are still there, in order."""
        path = f"/cache/invalidation/{self.meta()['log']}"
        nodes = self.ensemble.tree.nodes
        return [nodes[f"{path}/{name}"].data for name in sorted(nodes[path].children)]

    def path_of_the_last_entry(self) -> str:
        path = f"/cache/invalidation/{self.meta()['log']}"
        return f"{path}/{max(self.ensemble.tree.nodes[path].children)}"

    def lines(self) -> list[bytes]:
        """Everything that the current log says, in order."""
        return [line(change) for entry in self.log() for change in told(entry).changes]

    def by_hand(self, *paths: str) -> None:
        """Deletes znodes behind everybody's back."""
        self.ensemble.change_by_hand([Delta("delete", path) for path in paths])

    def used(self) -> int:
        """The generation above which none was used, as the ensemble counts them."""
        return self.ensemble.tree.nodes["/cache/invalidation"].stat().cversion

    def leading(self) -> Host:
        (leader,) = [host for host in self.hosts if host.node.election.is_leader]
        return leader


def told(data: bytes) -> Entry:
    """An entry that is readable."""
    entry = decode(data)
    assert entry is not None
    return entry


def tell(host: Host, key: bytes, level: Level = Level.COMMITTED) -> Any:
    """A delete at a server, as its clients do it; the answer to wait for."""
    host.cache.delete(key)
    return host.node.submit([Change("delete", key)], level)


def tell_several(fleet: Quiet, host: Host, count: int, pause: int) -> None:
    """Deletes at a server, of the keys 0, 1, ... that nobody waits for, each followed by so many ms."""
    for n in range(count):
        tell(host, b"%d" % n, Level.ASYNC)
        fleet.run(pause)
