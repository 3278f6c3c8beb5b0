"""The edges of coordination: what its machines ask of ZooKeeper, of time and of the cache. It holds no behaviour.

The machines are coroutines that never import an event loop. A driver gives them awaitables: asyncio's futures in a
server, those of a deterministic scheduler in the tests. Rules for every implementation:

* Everything happens on one thread. A call of a port never blocks and never calls back before it has returned.
* A ZooKeeper call is sent when it is made; awaiting it only waits for the reply. So several calls made in a row are
  pipelined, and ZooKeeper carries them out, and answers, in that order. A failed answer that nobody awaits is dropped
  in silence.
* Watches, replies and session states arrive in the order of the wire.
* Every call ends within the driver's reply deadline: with its reply, an error of ZooKeeper, or `ConnectionLoss`.
"""

# ruff: noqa: N818 - the errors have the names that ZooKeeper gives them

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeVar

SECOND = 1_000_000_000  # in the unit of Runtime.now
T = TypeVar("T")


# Errors ---------------------------------------------------------------------------------------------------------------


class ZooKeeperError(Exception):
    """An answer other than success. `index` is the position of the operation that failed in a multi, else -1."""

    def __init__(self, text: str = "", index: int = -1) -> None:
        super().__init__(text)
        self.index = index


class Ambiguous(ZooKeeperError):
    """No answer: the request may have been carried out, or may be carried out still."""


class ConnectionLoss(Ambiguous):
    """The connection broke, or no answer came within the reply deadline.

    After a missed deadline the driver drops the connection, so that the state goes to SUSPENDED.
    """


class SessionExpired(Ambiguous):
    """The session ended before the answer came."""


class NotConnected(ZooKeeperError):
    """The request was not sent: there is no connection, or too many calls are outstanding."""


class NoNode(ZooKeeperError):
    """No such znode (or no parent, for a create)."""


class NodeExists(ZooKeeperError):
    """The znode exists already."""


class BadVersion(ZooKeeperError):
    """A conditional write or check found another version."""


class NotEmpty(ZooKeeperError):
    """A delete of a znode that has children."""


class NoAuth(ZooKeeperError):
    """The ACL forbids it."""


class Malformed(ZooKeeperError):
    """What a znode holds is not what we write there. The same bytes are not looked at twice."""


class TooLarge(ZooKeeperError):
    """The request is over the packet limit (1 MiB); the driver checks that before it sends."""


# ZooKeeper ------------------------------------------------------------------------------------------------------------


class SessionState(Enum):
    """CONNECTED: usable. SUSPENDED: no connection; the session may live, watches are gone. LOST: it is over."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Stat(NamedTuple):
    """The figures of a znode that the machines use; `ephemeral_owner` is a session id, or 0.

    `ctime` and `mtime`: milliseconds of the clock of ZooKeeper's leader at its creation and at its last write.
    """

    czxid: int
    mzxid: int
    version: int
    cversion: int
    num_children: int
    ephemeral_owner: int
    ctime: int = 0
    mtime: int = 0


class Create(NamedTuple):
    """A znode is made; with `sequence` its name ends in ten digits that count up."""

    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequence: bool = False


class Set(NamedTuple):
    """A znode's data, if its version is this one (-1: any)."""

    path: str
    data: bytes
    version: int = -1


class Delete(NamedTuple):
    """A znode goes, if its version is this one (-1: any) and it has no children."""

    path: str
    version: int = -1


class Check(NamedTuple):
    """Nothing but that the znode has this version (-1: any): for a transaction that depends on it."""

    path: str
    version: int = -1


Operation = Create | Set | Delete | Check
Watch = Callable[[], None]
"""Called once, at the first event of the watched thing or when the watch is lost with its connection: "look again"."""


class ZooKeeper(Protocol):
    """One session after another; the driver makes a new one after each LOST. Paths are absolute (below the chroot)."""

    @property
    def state(self) -> SessionState: ...

    @property
    def session(self) -> int:
        """The id of the session of the last CONNECTED (0 before the first). A new session is a new id."""

    @property
    def why(self) -> str:
        """Why there is no connection, and what to change; "" while there is one, or before that is known."""

    @property
    def connection(self) -> int:
        """Counts the connections: rises by one with each CONNECTED. Replies are ordered only within one connection."""

    def listen(self, listener: Callable[[SessionState], None]) -> None:
        """Calls the listener after each change of `state`. Calls that were pending fail before it is called."""

    def create(
        self, path: str, data: bytes = b"", *, ephemeral: bool = False, sequence: bool = False
    ) -> Awaitable[tuple[str, Stat]]:
        """The path as created (with its number, for a sequence) and the Stat.

        Errors: NoNode (the parent), NodeExists, NoAuth, TooLarge.
        """

    def multi(self, operations: Sequence[Operation]) -> Awaitable[list[str | Stat | None]]:
        """All or nothing. A result for each operation: the path for Create, Stat for Set, None for Check and Delete.

        Raises the error of the operation that failed, with its `index`.
        """

    def set(self, path: str, data: bytes, version: int = -1) -> Awaitable[Stat]: ...

    def get(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[bytes, Stat]]:
        """Data and Stat. With NoNode no watch is set."""

    def gets(self, paths: Sequence[str]) -> Awaitable[list[tuple[bytes, Stat] | None]]:
        """Data and Stat of each, in that order, None for one that is not there: one request, which costs little more than a get.

        They need not be of one moment.
        """

    def exists(self, path: str, watch: Watch | None = None) -> Awaitable[Stat | None]:
        """The Stat, or None; the watch is set either way."""

    def children(self, path: str, watch: Watch | None = None) -> Awaitable[tuple[list[str], Stat]]:
        """The names of the children, in no order, and the Stat of the parent. With NoNode no watch is set."""

    def delete(self, path: str, version: int = -1) -> Awaitable[None]: ...

    def close(self) -> Awaitable[None]:
        """Ends the session for good (its ephemeral znodes go at once) and stops the driver.

        Later calls raise NotConnected.
        """

    def figures(self) -> Mapping[str, int | float | str]:
        """The driver's lines of `stats cluster`: server, session_id, outstanding, reconnects, client_rebuilds, loop_lag_ms, and
        its own writes as writes_sessions.
        """


# Time and tasks -------------------------------------------------------------------------------------------------------


class Future(Protocol[T]):
    """The part of asyncio.Future that the machines use."""

    def __await__(self) -> Generator[Any, None, T]: ...
    def done(self) -> bool: ...
    def set_result(self, result: T, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Handle(Protocol):
    """A timer or a task that can be stopped. Stopping one that is done does nothing."""

    def cancel(self) -> object: ...


class Runtime(Protocol):
    """Clock, timers, tasks and chance."""

    random: random.Random

    def now(self) -> int:
        """CLOCK_BOOTTIME in nanoseconds: it runs on while the machine sleeps, and knows no jumps of the wall clock."""

    def future(self) -> Future[Any]:
        """A failure that nobody awaits is dropped in silence."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Handle: ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Handle:
        """Starts a task at the next turn, not within the call. An error that escapes from the coroutine is logged."""


# The cache ------------------------------------------------------------------------------------------------------------


class Cache(Protocol):
    """What coordination does to the cache; `mcserver.core.Engine` implements it. ttl in seconds."""

    def delete(self, key: bytes) -> bool: ...
    def mark_stale(self, key: bytes, ttl: int) -> bool: ...
    def flush(self) -> None: ...
    def flush_prefix(self, prefix: bytes) -> None: ...
    def refresh_prefix(self, prefix: bytes, ttl: int) -> None: ...
    def set_gate(self, policy: str | None, fresh_until: int = 0) -> None: ...


# The public face ------------------------------------------------------------------------------------------------------


class Level(Enum):
    """What a confirmation means: queued here; in the log for ever; out of every cache that serves."""

    ASYNC = "async"
    COMMITTED = "committed"
    APPLIED = "applied"


class Change(NamedTuple):
    """One thing to tell the peers. What it does here has been done already by the one who submits it.

    kind: `delete` (key), `stale` (key, ttl in s), `flush` (ttl: a delay in s, 0 for now), `prefix` (key: the prefix to
    flush), `refresh` (key: the prefix to mark stale, ttl in s).
    """

    kind: str
    key: bytes = b""
    ttl: int = 0


class NotConfirmed(Exception):
    """The level asked for was not reached within the deadline; the change stays queued (or stands in the log)."""


class LockLost(Exception):
    """The lock was not obtained in time, or was lost before the commit: the write must have no effect."""


class Member(NamedTuple):
    """One live server. `state` is joining, ready or draining; `applied` its last known version of the log."""

    name: str
    address: str
    state: str
    applied: int
    is_self: bool


class MemberFigures(NamedTuple):
    """One live server as it was when its record was written, `age_ms` ago (-1: not known). `figures` by name: `lag` in
    entries, `queue_keys`, `queue_age_ms`, and a second: `writes`, `reads`, `unlogged`. Empty for the first release.
    """

    name: str
    address: str
    state: str
    applied: int
    age_ms: int
    figures: Mapping[str, float]


class Coordinator(Protocol):
    """What the server and `cluster ...` use; `coordination.node.Node` is it, over any ZooKeeper and Runtime."""

    def place(self) -> dict[str, Any] | None:
        """Where the cache stands in the fleet's log, in terms of JSON, for the process that serves it next; None: nowhere."""

    def resume(self, place: Mapping[str, Any] | None) -> None:
        """Before start: the cache has what another process left at that place. Served when the log was replayed from there;
        without a place, or when the log does not reach back to it, the cache is flushed. `--join serve` opens nothing then.
        """

    def start(self) -> None:
        """Joins in the background. The gate closes at once, unless the settings say to serve until the join."""

    def level(self, key: bytes) -> Level:
        """The level configured for a key (`--ack`, with its overrides by prefix; the longest prefix wins)."""

    def submit(self, changes: Sequence[Change], level: Level) -> Awaitable[int] | None:
        """Queues the changes for the peers. ASYNC: None. Else an awaitable of the version, which raises NotConfirmed.

        After `leave` nothing is queued, and that raises it at every level. Never blocks. The awaitable may be dropped.
        """

    def locked(self, key: bytes, write: Callable[[], None]) -> Awaitable[None]:
        """One write of a key under `--lock-writes`: takes the lock, commits the invalidation, calls `write`.

        `write` is called at most once, at the moment when all of that is true. Raises LockLost when it was not called.
        """

    def flush(self, prefix: bytes = b"") -> Awaitable[int]:
        """`cluster flush [PREFIX]`: empties this cache now and the others through the log; confirmed as `applied`."""

    def refresh(self, prefix: bytes, ttl: int) -> Awaitable[int]:
        """`cluster refresh PREFIX [TTL]`: marks a prefix stale everywhere (ttl in s, 0: no limit); as `applied`."""

    def leave(self, seconds: float) -> Awaitable[None]:
        """Announces `draining`, drains the queue in that time (else appends one flush), closes the gate, signs off."""

    def members(self) -> tuple[int, list[Member]]:
        """The membership's version (rises with each change, the same at every server), and the live servers by name.

        Reads nothing: states and applied versions are as `figures` has found them last, and somebody may have been seen
        to come or go before the list of a new version is told.
        """

    def discovery(self) -> tuple[int, list[str]]:
        """The membership's version, and the addresses of its list, by name: the same at every server that tells this version."""

    def figures(self) -> tuple[float, list[MemberFigures]]:
        """How many seconds ago everybody's figures were read here (-1: not yet), and those figures, by name.

        Has them read again, unless that was within the last second: whoever asks twice has what is new.
        """

    def leader(self) -> str | None:
        """The name of the leader, as last seen."""

    def stats(self) -> dict[str, int | float | str]:
        """All lines of `stats cluster`."""

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Calls back after a change worth showing: `members`, `leader`, `state`, `stale`, `fresh`, `alarm`."""
