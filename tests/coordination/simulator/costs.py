"""What ZooKeeper's servers do, counted, and how long it takes them: the simulated world with service times.

Each server, and each host, has processors; every request, reply and event takes one for as long as it was measured to on a
real ensemble (scripts/bench --cluster --simulate). With `shared`, they run on the same few processors, as those do that the
model is compared with. Nothing here decides anything: the machines, and the order of the world, are those
of the other tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcserver.coordination.ports import Create, Operation, Set, Stat

from .client import SimulatedZooKeeper
from .ensemble import Connection, Ensemble, Request, Server, Session
from .scheduler import Process, World

REPLY, STAT, EVENT = 24, 68, 36  # bytes around what a reply, a Stat and an event carry


@dataclass(frozen=True)
class Service:
    """Microseconds of a processor, or, `hop` (on the wire) and `commit` (for a majority's disks), of waiting."""

    read: float
    more: float  # for each further znode that one request reads; at the member, too
    forward: float  # a write at the server that its client is connected to
    write: float  # at the one that leads
    apply: float  # at every server
    event: float  # a watch that fires
    tell: float  # that part of it for which the answer to the write waits
    call: float  # at a member, for what it asks or is told
    hop: float
    commit: float


class Processors:
    """A few of them; work is done in the order in which it comes."""

    def __init__(self, count: int) -> None:
        self._free = [0] * count
        self.worked = 0  # ns

    def work(self, now: int, microseconds: float) -> int:
        """When it is done (ns)."""
        cost = int(microseconds * 1000)
        self.worked += cost
        free = self._free
        soonest = min(free)
        done = max(now, soonest) + cost
        free[free.index(soonest)] = done
        return done


@dataclass
class Count:
    """Of one server."""

    reads: int = 0
    writes: int = 0  # that its clients asked for
    events: int = 0
    received: int = 0  # bytes
    sent: int = 0


def _size(value: Any) -> int:
    """Bytes of an answer."""
    if isinstance(value, Stat):
        return STAT
    if isinstance(value, tuple | list):
        return 4 + sum(_size(each) for each in value)
    if isinstance(value, bytes | str):
        return 4 + len(value)
    return 0


class CostedConnection(Connection):
    """Takes the time that it takes."""

    server: CostedServer
    _last = 0  # ns; what the client gets, it gets in order

    def __init__(self, client: SimulatedZooKeeper, server: Server, session: Session) -> None:
        super().__init__(client, server, session)
        assert isinstance(server.ensemble, CostedEnsemble)
        self._ensemble = server.ensemble

    def _hop(self) -> int:
        """Longer now and then, by chance."""
        roll = self._chance()
        return int(1000 * self._ensemble.service.hop * (0.6 + 0.5 * roll + 2 * roll**16))

    def send(self, request: Request) -> None:
        if self.blackholed or not self.alive:
            return
        service = self._ensemble.service
        sent = self._ensemble.host(self.client.process).work(
            self.world.now, service.call + service.more * _more(request)
        )
        self._to_server = max(self._to_server, sent + self._hop())
        self.world.at(self._to_server, None, self._arrive, request)

    def _work(self) -> None:
        ensemble = self._ensemble
        while self._queue and self.alive:
            request = self._queue.popleft()
            if request.kind != "write":
                self.server.count.reads += 1
                self.server.count.received += REPLY + _asked(request)
                self._read(request)
                continue
            self.server.count.writes += 1
            self.server.count.received += REPLY + sum(_written(operation) for operation in request.args)
            self._busy = True
            forwarded = self.server.cpu.work(self.world.now, ensemble.service.forward)
            self.world.at(forwarded, None, self._propose, request)
            return

    def _propose(self, request: Request) -> None:
        service = self._ensemble.service
        done = self._ensemble.costed[0].cpu.work(self.world.now, service.write)
        wait = service.commit * (0.7 + 0.4 * self._chance() + 2 * self._chance() ** 16)
        self.world.at(done + int(wait * 1000), None, self._commit, request)

    def _latency(self) -> int:
        return int(1000 * self._ensemble.service.hop / 4)  # between servers

    def _reply(self, request: Request, result: Any) -> None:
        if self.blackholed or not self.alive:
            return
        service = self._ensemble.service
        self.server.count.sent += REPLY + _size(result)
        if request.kind == "write":
            ready = self.server.answers_at()
        else:
            ready = self.server.cpu.work(self.world.now, service.read + service.more * _more(request))
        self._tell(ready, self.client.receive, request, result, self.server.zxid)

    def event(self, kind: str, path: str) -> None:
        if self.blackholed or not self.alive:
            return
        self.server.count.events += 1
        self.server.count.sent += EVENT + len(path)
        self._tell(self.server.tell(self._ensemble.service), self.client.watch_event, kind, path)

    def _tell(self, ready: int, call: Callable[..., None], *args: Any) -> None:
        self._to_client = max(self._to_client, ready + self._hop())
        self.world.at(self._to_client, None, self._handle, call, *args)

    def _handle(self, call: Callable[..., None], *args: Any) -> None:
        process = self.client.process
        done = self._ensemble.host(process).work(self.world.now, self._ensemble.service.call)
        self._last = max(self._last, done)
        self.world.at(self._last, process, call, self, *args)


def _written(operation: Operation) -> int:
    return 8 + len(operation.path) + (len(operation.data) if isinstance(operation, Create | Set) else 0)


def _more(request: Request) -> int:
    """How many znodes it reads but the first."""
    return len(request.args) - 1 if request.kind == "gets" else 0


def _asked(request: Request) -> int:
    return sum(13 + len(path) for path in request.args) if request.kind == "gets" else len(request.args)


class CostedServer(Server):
    def __init__(self, ensemble: Ensemble, number: int, cpu: Processors) -> None:
        super().__init__(ensemble, number)
        self.count = Count()
        self.cpu = cpu
        self._teller = Processors(
            1
        )  # the thread that finds who is to be told, and answers whoever wrote; not what sends it
        self._backlog = 0  # ns; when the processors were free before anybody was told of what was applied last

    def tell(self, service: Service) -> int:
        """When an event is on its way (ns)."""
        self._teller.work(self.ensemble.world.now, service.tell)
        return self.cpu.work(self.ensemble.world.now, service.event)

    def answers_at(self) -> int:
        """When a write is answered (ns): behind what was to be done before, and when all are found who are to be told."""
        return max(self._backlog, self._teller.work(self.ensemble.world.now, 0.0))

    def catch_up(self, index: int) -> None:
        behind = min(index, len(self.ensemble.log)) - self.tree.applied
        if behind > 0 and isinstance(self.ensemble, CostedEnsemble):
            self._backlog = self.cpu.work(self.ensemble.world.now, behind * self.ensemble.service.apply)
        super().catch_up(index)


class CostedEnsemble(Ensemble):
    """`servers` with `processors` each, or all of them on `shared` ones; members on those, too, unless they have `hosts`."""

    def __init__(
        self,
        world: World,
        service: Service,
        *,
        servers: int = 3,
        processors: int = 4,
        timeout: float,
        shared: int = 0,
        hosts: bool = True,
    ) -> None:
        super().__init__(world, servers, session_timeout=timeout)
        self.service = service
        self._shared = Processors(shared) if shared else None
        self._own = hosts or self._shared is None
        self._hosts: dict[Process, Processors] = {}
        self.costed = [CostedServer(self, n, self._shared or Processors(processors)) for n in range(servers)]
        self.servers = list(self.costed)
        self.lag = 0.05

    def open_session(self, client: SimulatedZooKeeper) -> Session:
        """A transaction, too, though the tree shows nothing of it."""
        self._session_written()
        for server in self.costed:
            server.cpu.work(self.world.now, self.service.apply)
        return super().open_session(client)

    def end_session(self, session: Session, forced: bool = False) -> None:
        if not session.closed:
            self._session_written()
        super().end_session(session, forced)

    def _session_written(self) -> None:
        self.costed[0].count.writes += 1
        self.costed[0].cpu.work(self.world.now, self.service.forward + self.service.write)

    def host(self, process: Process) -> Processors:
        """A member's processor."""
        if not self._own and self._shared is not None:
            return self._shared
        if process not in self._hosts:
            self._hosts[process] = Processors(1)
        return self._hosts[process]

    def connect(self, client: SimulatedZooKeeper, server: Server, session: Session) -> Connection:
        return CostedConnection(client, server, session)

    def count(self) -> Count:
        """Of all servers."""
        total = Count()
        for server in self.costed:
            for name, value in vars(server.count).items():
                setattr(total, name, getattr(total, name) + value)
        return total
