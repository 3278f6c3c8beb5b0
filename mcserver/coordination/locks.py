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
from .ports import (
    SECOND,
    Ambiguous,
    Change,
    Check,
    Future,
    Handle,
    Level,
    LockLost,
    NodeExists,
    NoNode,
    NotEmpty,
    Stat,
    ZooKeeperError,
)

TURN = 64  # locked writes in a row while another server waits
RENEW = 1 << 30  # of the 2^31 numbers that ZooKeeper has for the candidates of one bucket


class Request(NamedTuple):
    """One write that waits for its bucket's lock."""

    key: bytes
    write: Callable[[], None]
    future: Future[None]
    overdue: list[Callable[[], None]]  # called when its time is over
    timer: list[Handle]  # ... by this


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
            bucket.is_held = bucket.is_watched = False
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
        request = Request(key, write, future, [], [])
        bucket.requests.append(request)
        bucket.wake.set()

        def overdue() -> None:
            if not future.done():
                future.set_exception(LockLost("lock not obtained, or others not reached, in time"))
            for stop in request.overdue:
                stop()
            bucket.drop_overdue()

        request.timer.append(context.runtime.call_later(context.settings.ack_timeout, overdue))
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
        self.is_watched = False  # a watch on the queue has not fired
        self._guid = ""
        self._session = 0
        self._entered = False  # our znode may exist
        self._is_doubtful = False  # it may come to be, and what is read may not show it yet
        self._served: Request | None = None
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
            self._is_doubtful = False
        self.drop_overdue()
        if not self._entered:
            if self.requests:
                await self._enter()
            return
        if self._is_doubtful:
            await self._make_sure()
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
            before = f"{self.path}/{order[order.index(mine[0]) - 1]}"
            stat = await zk.exists(before, self.wake.set)
            if stat is not None and not await self._context.remove_copy(before, stat):
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
        except Ambiguous:
            self._is_doubtful = True
            raise

    async def _make_sure(self) -> None:
        """What is read behind a write shows whether we are in the queue: the next server may be late, and a znode that nobody
        knows of would keep the lock for as long as this session lives.
        """
        self._context.budget.wrote("locks", self._context.now())
        try:
            await self._context.zk.set(self.path, b"")
        except NoNode:
            pass  # then there is no queue
        self._is_doubtful = False

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
            self.drop_overdue()
            if not self.requests:
                break
            self._served = self.requests[0]
            try:
                await self._serve(self._served, f"{self.path}/{mine[0]}")
            finally:
                self._served = None
        if not self.is_watched:
            found, _ = await self._watch()
            names = list(filter(is_candidate, found))
            if len(names) > len(mine):
                await self._give_up(mine)
                return
            if sequence_of(mine[0]) >= RENEW:
                await self._begin_anew(mine)
                return
        if not self.requests:
            await self.wake.wait()

    async def _begin_anew(self, mine: list[str]) -> None:
        """The bucket counts its candidates; behind the last number nobody would find his own any more."""
        await self._give_up(mine)
        self._context.budget.wrote("locks", self._context.now())
        try:
            await self._context.zk.delete(self.path)
        except (NoNode, NotEmpty):
            pass  # somebody wants it just now

    async def _watch(self) -> tuple[list[str], Stat]:
        """Who is in the queue; wakes us when that changes. One watch at a time: each costs memory until it fires."""

        def fired() -> None:
            self.is_watched = False
            self.wake.set()

        self.is_watched = True
        try:
            return await self._context.zk.children(self.path, fired)
        except ZooKeeperError:
            self.is_watched = False  # NoNode: the next step sees it
            raise

    async def _serve(self, request: Request, candidate: str) -> None:
        """Commits a request's invalidation under the lock, then writes."""
        context, membership = self._context, self._locks.membership
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
        for timer in request.timer:
            timer.cancel()
        if request.future.done():
            return
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)

    def drop_overdue(self) -> None:
        """All but the one that is being served."""
        while self.requests and self.requests[0].future.done() and self.requests[0] is not self._served:
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
