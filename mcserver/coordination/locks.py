"""Locked writes: one server at a time changes a key, in every cache.

A key belongs to one of a few buckets; a bucket's lock is an ephemeral sequential znode, held by the lowest. A locked write
commits its invalidation in one transaction with a check of that znode, at level `applied` waits for the others and checks
again, then writes here, then answers. So the invalidations of a key are in the order of its lock, and whoever lost the lock
has written nothing to the log and must write nothing here. A lock is kept until somebody else wants it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .acks import Acks
from .context import Context, Signal
from .entry import line
from .layout import is_candidate, sequence_of
from .log import Log, Text
from .membership import Membership
from .ports import SECOND, Change, Check, Future, Handle, Level, LockLost, NodeExists, NoNode, ZooKeeperError

TURN = 64  # locked writes in a row while another server waits


class Request(NamedTuple):
    """One write that waits for its bucket's lock."""

    key: bytes
    write: Callable[[], None]
    future: Future[None]
    overdue: list[Callable[[], None]]  # called when its time is over


class Locks:
    """All buckets of this server; a bucket has a task for as long as it is wanted or held."""

    def __init__(
        self, context: Context, membership: Membership, log: Log, acks: Acks, level: Callable[[bytes], Level]
    ) -> None:
        """`level` is that of a key: one at `applied` is written when the others have lost it."""
        self.acks, self.level = acks, level
        self.context = context
        self.membership = membership
        self.log = log
        self._buckets: dict[str, Bucket] = {}

    @property
    def held(self) -> int:
        return sum(bucket.is_held for bucket in self._buckets.values())

    def session_changed(self) -> None:
        for bucket in self._buckets.values():
            bucket.is_held = False
            bucket.wake.set()

    def locked(self, key: bytes, write: Callable[[], None]) -> Future[None]:
        """See Coordinator.locked."""
        context = self.context
        future: Future[None] = context.runtime.future()
        path = context.layout.bucket(key, context.settings.lock_buckets)
        bucket = self._buckets.get(path)
        if bucket is None:
            bucket = self._buckets[path] = Bucket(self, path)
            bucket.task = context.runtime.spawn(bucket.run(), f"lock {path}")
        request = Request(key, write, future, [])
        bucket.requests.append(request)
        bucket.wake.set()

        def overdue() -> None:
            if not future.done():
                future.set_exception(LockLost("lock not obtained, or others not reached, in time"))
            for stop in request.overdue:
                stop()

        context.runtime.call_later(context.settings.ack_timeout, overdue)
        return future

    def ended(self, bucket: Bucket) -> None:
        del self._buckets[bucket.path]

    def stop(self) -> None:
        """Gives up every request; the locks go with the session."""
        for bucket in self._buckets.values():
            bucket.stop()
        self._buckets.clear()


class Bucket:
    """One lock: wanted, waited for, held, given up."""

    def __init__(self, locks: Locks, path: str) -> None:
        self._locks = locks
        self._context = locks.context
        self.path = path
        self.requests: deque[Request] = deque()
        self.wake = Signal(locks.context.runtime)
        self.task: Handle | None = None
        self.is_held = False
        self._guid = ""
        self._session = 0
        self._entered = False  # our znode may exist
        self._waits = False  # for another server

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
        for request in list(self.requests):
            self._finish(request, LockLost("this server leaves the fleet"))

    async def run(self) -> None:
        """Until nobody here wants the lock and it is given up."""
        failures = 0
        while self.requests or self._entered:
            await self._context.connected()
            try:
                await self._step()
                failures = 0
            except ZooKeeperError:
                failures += 1
                await self._context.sleep(self._context.backoff(failures))
        self._locks.ended(self)

    async def _step(self) -> None:
        zk = self._context.zk
        if self._session != zk.session:
            self._session, self._guid, self._entered = zk.session, self._context.guid(), False
        self._drop_overdue()
        if not self._entered:
            if self.requests:
                await self._enter()
            return
        try:
            found, _ = await zk.children(self.path)
            names = list(filter(is_candidate, found))
        except NoNode:
            names = []  # nobody has wanted this lock yet, or somebody has deleted it by hand
        mine = sorted((name for name in names if name.startswith(self._guid)), key=sequence_of)
        order = sorted(names, key=sequence_of)
        if not mine:
            self._entered = self.is_held = False
        elif not self.requests and order[0] != mine[0]:
            await self._give_up(mine)
        elif order[0] == mine[0]:
            await self._hold(mine)
        else:
            self.is_held = False
            self._context.figures.lock_waits += not self._waits
            self._waits = True
            before = order[order.index(mine[0]) - 1]
            if await zk.exists(f"{self.path}/{before}", self.wake.set) is not None:
                await self.wake.wait(self._context.settings.ack_timeout)

    async def _enter(self) -> None:
        """Queues up. Without an answer the guid tells whether we are in the queue."""
        zk = self._context.zk
        self._entered = True
        self._context.budget.wrote("locks", self._context.now())
        try:
            await zk.create(f"{self.path}/{self._guid}-l-", ephemeral=True, sequence=True)
        except NoNode:
            await self._make_bucket()

    async def _make_bucket(self) -> None:
        self._entered = False
        self._context.budget.wrote("locks", self._context.now())
        try:
            await self._context.zk.create(self.path)
        except NodeExists:
            pass
        except NoNode:
            await self._locks.membership.make_skeleton()

    async def _hold(self, mine: list[str]) -> None:
        """Serves the requests; then keeps the lock while nobody else waits for it."""
        self.is_held, self._waits = True, False
        for _ in range(TURN):
            self._drop_overdue()
            if not self.requests:
                break
            await self._serve(f"{self.path}/{mine[0]}")
        found, _ = await self._context.zk.children(self.path, self.wake.set)  # NoNode: the next step sees it
        names = list(filter(is_candidate, found))
        if len(names) > len(mine):
            await self._give_up(mine)
        elif not self.requests:
            await self.wake.wait()

    async def _serve(self, candidate: str) -> None:
        """Commits the first request's invalidation under the lock, then writes."""
        context, membership = self._context, self._locks.membership
        request = self.requests[0]
        applied = self._locks.level(request.key) is Level.APPLIED
        entry = Text(membership.name, applied, [line(Change("delete", request.key))])
        sent = context.now()
        context.budget.wrote("appends", sent)
        try:
            version = await self._locks.log.append(entry, Check(candidate))
            if applied:
                await self._everywhere(version, request)
                context.budget.wrote("locks", context.now())
                sent = context.now()  # the commit's proof of the lock may be old by now
                await context.zk.multi([Check(candidate)])
        except NoNode as error:
            if error.index == 0:
                self.is_held = self._entered = False
                self._finish(request, LockLost("lock lost"))
            raise
        in_time = context.now() - sent <= context.settings.lock_window * SECOND
        if in_time and self._session == context.zk.session and not request.future.done():
            request.write()
            self._finish(request, None)
        else:
            self._finish(request, LockLost("lock lost"))

    async def _everywhere(self, version: int, request: Request) -> None:
        """Until no other server serves what the entry invalidated, or the request's time is over."""
        reached: Future[int] = self._context.runtime.future()

        def overdue() -> None:
            if not reached.done():
                reached.set_result(version)

        request.overdue.append(overdue)
        if request.future.done():
            return
        self._locks.acks.add(version, reached)
        await reached

    def _finish(self, request: Request, error: LockLost | None) -> None:
        self.requests.remove(request)
        if request.future.done():
            return
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)

    def _drop_overdue(self) -> None:
        while self.requests and self.requests[0].future.done():
            self.requests.popleft()

    async def _give_up(self, mine: list[str]) -> None:
        """Leaves the queue, or passes the lock on; whoever is wanted here again queues up anew."""
        self.is_held = False
        for name in mine:
            self._context.budget.wrote("locks", self._context.now())
            try:
                await self._context.zk.delete(f"{self.path}/{name}")
            except NoNode:
                pass
        self._entered, self._guid = False, self._context.guid()
