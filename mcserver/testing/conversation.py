"""One connection without its wire: bytes in, and steps out (send, wait, close) for whoever has the wire.

Owns the session's part in the engine, and is its owner (docs/architecture.md). Never does input or output, nor looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mcserver.core import Session
from mcserver.testing.commands import Command, Commands, Framing
from mcserver.testing.faults import Fault, Faults

if TYPE_CHECKING:
    import threading

    from mcserver.admin.commands import Admin
    from mcserver.admin.context import Reply
    from mcserver.admin.figures import Figures
    from mcserver.admin.ports import Cluster
    from mcserver.admin.watchers import Watchers
    from mcserver.core import Engine

SLOW_STEP = 0.1
"""Seconds between the pieces of a slow reply."""


class Send(NamedTuple):
    """These bytes go out."""

    data: bytes


class Wait(NamedTuple):
    """Nothing more happens for so many seconds."""

    seconds: float


class Close(NamedTuple):
    """The connection ends; with `reset`, as by a process that was killed."""

    reset: bool = False


Step = Send | Wait | Close


class House(Protocol):
    """What all conversations of a server share."""

    engine: Engine
    admin: Admin
    watchers: Watchers
    faults: Faults
    commands: Commands
    cluster: Cluster | None
    figures: Figures
    lock: threading.RLock

    def before_command(self) -> None:
        """Called before each command takes effect."""

    def connectable(self) -> bool:
        """Whether a new connection is taken. Raises RuntimeError in a forked process."""


class Conversation:
    """`receive` input, then take `steps` until there are none, again whenever `wake` is called."""

    def __init__(self, house: House, wake: Callable[[], None] = lambda: None, fd: int = -1) -> None:
        """fd: a number to show in `stats conns`; nothing is read or written there."""
        self.fd = fd
        self.wake = wake
        self.is_hole = False
        """A blackhole swallowed it: nothing is answered any more."""
        self._house = house
        self._framing = Framing()
        self._ended = False
        self._more = False
        self._steps = self._run()
        self.session = Session(house.engine, self, -1)

    def receive(self, data: bytes) -> None:
        """Input from the client."""
        if not self.is_hole:
            self._framing.receive(data)

    def next(self) -> Step | None:
        """What to do now; None: nothing until more comes, or until `wake`. After a Close there is nothing any more."""
        return next(self._steps, None)

    def close(self) -> None:
        """The client has gone."""
        with self._house.lock:
            self.session.close()

    # The steps -------------------------------------------------------------------------------------------------------

    def _run(self) -> Iterator[Step | None]:
        """Ends with the connection; yields None to wait for more."""
        house = self._house
        while True:
            yield from self._leftover()
            if self._ended:
                yield Close()
                return
            waits = self.session.state == "conn_waiting" or self.session.resps_waiting > 0
            found = None if self.is_hole or waits else self._framing.next()
            if found is None:
                head = None if self.is_hole or waits else self._framing.head()
                if head is None or house.faults.may_meet(head[0]):
                    yield None
                else:
                    yield from self._piecemeal(*head)
                continue
            data, command = found
            if command is not None:
                house.commands.add(command)
                other: Fault | None = None
                for fault in house.faults.meet(command):
                    if fault.kind == "delay":
                        yield Wait(fault.seconds)
                    else:
                        other = fault
                if other is not None:
                    ends = yield from self._meet(other, command, data)
                    if ends:
                        return
                    continue
            yield from self._sent(self._feed(data))

    def _piecemeal(self, command: Command, size: int, rest: int) -> Iterator[Step | None]:
        """A line whose value has not come yet and that no fault is to meet: the engine says whether it waits for one."""
        yield from self._sent(self._feed(self._framing.take(size)))
        value = bytearray()
        while len(value) < rest and self.session.state in {"conn_nread", "conn_swallow"}:
            piece = self._framing.take(rest - len(value))
            if not piece:
                yield None
                continue
            value += piece
            yield from self._sent(self._feed(piece))
        self._house.commands.add(replace(command, value=bytes(value[:-2])) if value else command)

    def _meet(self, fault: Fault, command: Command, data: bytes) -> Generator[Step, None, bool]:
        """What a command that meets this fault gets. Returns whether the connection is at its end."""
        if fault.kind == "error":
            if not command.noreply:
                yield Send(fault.text)
        elif fault.kind == "drop":
            self.close()
            yield Close(reset=True)
            return True
        elif fault.kind == "half":
            reply = self._feed(data)
            if reply:
                yield Send(reply[: (len(reply) + 1) // 2])
            self.close()
            yield Close()
            return True
        elif fault.kind == "blackhole":
            self.is_hole = True
        else:
            reply, size = self._feed(data), max(1, int(fault.rate * SLOW_STEP))
            for at in range(0, len(reply), size):
                yield Wait(min(SLOW_STEP, 1 / fault.rate) if size == 1 else SLOW_STEP)
                yield Send(reply[at : at + size])
        return False

    def _feed(self, data: bytes) -> bytes:
        with self._house.lock:
            self._house.before_command()
            return self.session.feed(data)

    def _sent(self, data: bytes) -> Iterator[Step]:
        if data:
            yield Send(data)

    def _leftover(self) -> Iterator[Step]:
        """What became sendable since: turns that were cut, held replies, a watcher's lines."""
        while True:
            with self._house.lock:
                if self._more and not self.session.closed:
                    self._more = False
                    self.session.proceed()
                data = self.session.drain()
            if data:
                yield Send(data)
            if not self._more or self._ended:
                return

    # What the session asks of its owner ------------------------------------------------------------------------------

    def command(self, session: Session, line: bytes) -> Reply:
        return self._house.admin.command(session, line)

    def interest(self, session: Session, read: bool, write: bool) -> None:
        """Only of sessions with a socket."""

    def closed(self, session: Session, reason: str) -> None:
        self._ended = True
        self._house.watchers.remove(session)
        if self._house.cluster is not None:
            self._house.cluster.closed(session)
        self.wake()

    def later(self, session: Session) -> None:
        self._more = True
        self.wake()

    def events(self, session: Session, events: list[tuple[str, bytes, int, int]]) -> bool:
        cluster = self._house.cluster
        return cluster is not None and cluster.events(Remote(self), events)  # type: ignore[arg-type]  # as good as a session to it

    def lock(self, session: Session, key: bytes) -> None:
        if self._house.cluster is not None:
            self._house.cluster.lock(Remote(self), key)  # type: ignore[arg-type]  # as good as a session to it

    def trace(self, session: Session | None, text: bytes) -> None:
        """-vv's trace goes nowhere: `commands` shows the same."""


class Remote:
    """A session as coordination holds it: what it lets go has to be sent."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._session = conversation.session

    def __hash__(self) -> int:
        return hash(self._session)

    def __eq__(self, other: object) -> bool:
        return other is self._session or (isinstance(other, Remote) and other._session is self._session)

    def release(self, errors: dict[int, bytes] | None = None) -> None:
        """See Session.release."""
        self._session.release(errors)
        self._conversation.wake()

    def grant(self) -> None:
        """See Session.grant."""
        self._session.grant()
        self._conversation.wake()

    def refuse(self, reply: bytes) -> None:
        """See Session.refuse."""
        self._session.refuse(reply)
        self._conversation.wake()
