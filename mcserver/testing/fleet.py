"""Several servers in a test's process that are coherent as in production: the same machines, an ensemble within the process.

Owns the members and the network between them and the ensemble. What the fleet promises, and when, is docs/coherence.md; nothing
of it is made easier here, only the timeouts are short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, overload

from mcserver.coordination.fleet import Fleet as Membership
from mcserver.coordination.layout import head_of, version
from mcserver.coordination.node import Node
from mcserver.coordination.notices import Notices
from mcserver.coordination.opening import make_settings
from mcserver.coordination.runtime import AsyncioRuntime
from mcserver.testing.ensemble import Ensemble, InProcessZooKeeper
from mcserver.testing.flags import fleet_config_of
from mcserver.testing.host import Host
from mcserver.testing.server import Server

if TYPE_CHECKING:
    from types import TracebackType

    from mcserver.settings.cluster import ClusterConfig

T = TypeVar("T")

IN_PROCESS = "in-process:1"
"""Stands for ZooKeeper's address in the settings."""
DEFAULTS = ("--max-stale", "1", "--zk-session-timeout", "1", "--ack-timeout", "2", "--zk-writes", "10000")
"""A test should not have to wait; flags of its own go before these."""
READY_SECONDS = 10.0
"""How long is waited for what has to come in a fraction of a second."""
DRAIN_SECONDS = 0.5
"""How long a member that ends tells the others what is queued."""


class Fleet(Sequence[Server]):
    """`Fleet(3, "--ack", "applied")`: three servers with these flags; fleet[0] is a Server like any other.

    Members are named by their number or their Server. Where it doesn't run, RuntimeError.
    """

    def __init__(self, members: int, *flags: str | float) -> None:
        """members: how many, from 1; else ValueError, or TypeError. Raises ConfigError for flags that a server would refuse."""
        if not isinstance(members, int):
            raise TypeError(f"a fleet begins with the number of its members, such as 3, not with {members!r}")
        if members < 1:
            raise ValueError("a fleet has at least one member")
        words = tuple(map(str, flags))
        self._cluster = fleet_config_of(words, "--zookeeper", IN_PROCESS, *DEFAULTS)
        rest = _without_fleet(words)
        self._servers = [Server(*rest, name=f"n{number + 1}") for number in range(members)]
        self._parts: list[_Part] = []
        self._host: Host | None = None

    # From start to end -----------------------------------------------------------------------------------------------

    def start(self) -> Fleet:
        """Returns when all members have joined and serve; raises TimeoutError after READY_SECONDS.

        Raises RuntimeError when it was started before.
        """
        if self._host is not None or self._parts:
            raise RuntimeError("this fleet was started before: make another one")
        self._host = Host.join()
        try:
            self._start(self._host)
        except BaseException:  # nothing goes on behind a test that got no fleet
            self.stop()
            raise
        return self

    def _start(self, host: Host) -> None:
        ensemble = host.call(Ensemble, host.loop, self._cluster.session_timeout)
        for server in self._servers:
            server.start()
            self._parts.append(host.call(_Part, server, ensemble, self._cluster, host))
        self._until(lambda: all(part.is_ready(len(self._servers)) for part in self._parts), "the fleet did not join")

    def stop(self) -> None:
        """Ends all members."""
        host, self._host = self._host, None
        if host is None or host.is_foreign:
            return
        for part in self._parts:
            host.wait(part.leave())
        for server in self._servers:
            server.stop()
        host.leave()

    def __enter__(self) -> Fleet:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Fleet:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # The members -----------------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int) -> Server: ...
    @overload
    def __getitem__(self, index: slice) -> list[Server]: ...
    def __getitem__(self, index: int | slice) -> Server | list[Server]:
        return self._servers[index]

    def __len__(self) -> int:
        return len(self._servers)

    def partition(self, *members: Server | int) -> None:
        """Cuts these members off from the ensemble, and so from the others (none named: all of them).

        Their clients still reach them: they serve for --max-stale, and then by --on-stale.
        """
        self._let_arrive()
        for part in self._named(members):
            self._running().call(part.zookeeper.cut)

    def heal(self, *members: Server | int) -> None:
        """Ends the partition of these members (none named: of all)."""
        self._let_arrive()
        for part in self._named(members):
            self._running().call(part.zookeeper.heal)

    def settle(self, seconds: float = READY_SECONDS) -> None:
        """Waits until every member that is not cut off has told and heard all there is; raises TimeoutError after `seconds`."""
        self._let_arrive()
        self._until(
            lambda: all(part.is_settled for part in self._parts if not part.is_cut),
            "the fleet did not settle",
            seconds,
        )

    def until_stale(self, member: Server | int, seconds: float = READY_SECONDS) -> None:
        """Waits until a member that is cut off answers by --on-stale; raises TimeoutError after `seconds`."""
        (part,) = self._named([member])
        self._until(lambda: part.node.gate.is_stale, "it still serves", seconds)

    def stats(self, member: Server | int) -> dict[str, int | float | str]:
        """`stats cluster` of this member, by name; numbers are numbers."""
        (part,) = self._named([member])
        return self._running().call(part.membership.stats)

    def _let_arrive(self) -> None:
        """What clients have sent counts, though they wait for no reply."""
        for server in self._servers:
            server.settle()

    def _named(self, members: Sequence[Server | int]) -> list[_Part]:
        self._running()
        return [self._parts[self._index(each)] for each in members] or list(self._parts)

    def _index(self, member: Server | int) -> int:
        for number, server in enumerate(self._servers):
            if member is server or (isinstance(member, int) and member in (number, number - len(self))):
                return number
        raise ValueError(f"{member!r} is no member of this fleet: they are 0 to {len(self) - 1}, or fleet[0] and so on")

    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeError("this fleet does not run")
        return self._host

    def _until(self, condition: Callable[[], bool], text: str, seconds: float = READY_SECONDS) -> None:
        host = self._running()
        deadline = time.clock_gettime(time.CLOCK_MONOTONIC) + seconds
        while not host.call(condition):
            if time.clock_gettime(time.CLOCK_MONOTONIC) > deadline:
                raise TimeoutError(text)
            time.sleep(0.001)


class _Part:
    """One member's part in the fleet. Made and used on the loop's thread."""

    def __init__(self, server: Server, ensemble: Ensemble, cluster: ClusterConfig, host: Host) -> None:
        own = cluster.but(node_name=server.name, advertise=f"127.0.0.1:{server.port}")
        settings = replace(
            make_settings(own, ()),
            reply_deadline=min(0.5, own.session_timeout / 2),
            retry_delay=0.01,
            retry_delay_max=0.1,
        )
        notices = _Silent(own.on_stale, own.max_stale, own.join)
        self._ensemble = ensemble
        self.zookeeper = InProcessZooKeeper(ensemble)
        self.node = Node(self.zookeeper, AsyncioRuntime(host.loop), server.engine, settings)
        server.engine.broadcast(True, own.broadcast_writes)
        server.engine.lock_prefixes(own.lock_writes)
        server.engine.hold_off(own.hold_off)
        self.membership = Membership(self.node, notices, DRAIN_SECONDS)
        server.join(self.membership, own)
        self.node.start()

    @property
    def is_cut(self) -> bool:
        return bool(self.zookeeper.why)

    def is_ready(self, members: int) -> bool:
        """It serves, and tells so many members."""
        return not self.node.gate.is_stale and len(self.node.discovery()[1]) == members and bool(self.node.leader())

    @property
    def is_settled(self) -> bool:
        """It has told all there is, and applied all that the log has."""
        reader = self.node.reader
        if self.node.gate.is_stale or not self.node.publisher.is_idle or reader.log is None:
            return False
        log = self._ensemble.tree.nodes.get(self.node.context.layout.log(reader.log))
        return log is not None and reader.applied >= version(reader.gen, head_of(log.stat()))

    async def leave(self) -> None:
        """Without waiting for what can't come."""
        if self.is_cut:
            self.zookeeper.heal()
        await self.membership.leave()


class _Silent(Notices):
    """A test knows what it does to its fleet."""

    def changed(self, kind: str) -> None:
        """Not a word."""


def _without_fleet(flags: Sequence[str]) -> list[str]:
    """The flags of a single server among these."""
    from mcserver.cli import read_options
    from mcserver.settings.options import CLUSTER_OPTIONS, Draft

    rest: list[str] = []
    for option, written, value in read_options(flags, Draft()):
        if option not in CLUSTER_OPTIONS:
            rest += [written, value] if option.metavar else [written]
    return rest
