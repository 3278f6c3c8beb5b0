"""The properties, checked as the world runs. A violation names its property.

P1 bounded staleness, P2 `applied`, P3 nothing committed is lost, P4 leases, P5 a gap flushes at once, P6 versions only rise,
P7 one effective leader, P8 trimming spares the living, P9 flushes and prefixes obey P1 to P3, P10 nothing survives a boot,
P11 the view of the fleet is true in the end, P12 the queue is bounded, P13 duplicates are applied like anything else,
P14 all is fresh soon after the last fault, LOCK locked writes of a key do not overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mcserver.coordination.entry import decode
from mcserver.coordination.layout import Floor, Meta, NodeRecord, parts, sequence_of, version
from mcserver.coordination.ports import Change, Check, Create, Malformed, Set
from tests.released import FIRST

from .cache import Item
from .ensemble import Transaction
from .scheduler import MS, SECOND

if TYPE_CHECKING:
    from .fleet import Fleet, Host


class Violation(AssertionError):  # noqa: N818 - the word of the trade
    """A property does not hold."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.property = name


class Committed(NamedTuple):
    """An invalidation in the log: what, by whom, when."""

    change: Change
    boot: str
    time: int
    stamp: int


class Acked(NamedTuple):
    """A change confirmed as `applied`: invoked at a stamp, confirmed at another."""

    change: Change
    invoked: int


def concerns(change: Change, key: bytes) -> bool:
    if change.kind in ("delete", "stale"):
        return change.key == key
    return change.kind == "flush" or key.startswith(change.key)


def _ms(time: int) -> int:
    """A time of the world as a Stat shows it."""
    return 1_700_000_000_000 + time // 1_000_000


def is_delayed(change: Change) -> bool:
    return change.kind == "flush" and change.ttl > 0


def softly(change: Change) -> bool:
    """Whether an item may go on being served if it is marked stale."""
    return change.kind in ("stale", "refresh")


class Checkers:
    """Told of everything; raises at the first violation."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.committed: dict[bytes, list[Committed]] = {key: [] for key in fleet.keys}
        self.acked: dict[bytes, list[Acked]] = {key: [] for key in fleet.keys}
        self.entries: dict[int, tuple[str, str, bytes, int]] = {}  # version: log, boot, data, time
        self.capped = False
        self.last_token = 0
        self.restored = 0  # true time of the last loss of data by the ensemble
        self.doubtful_until = 0  # somebody has put another log in the place of the fleet's: so long `applied` is void
        self.locked: dict[bytes, str] = {}  # key: the boot that committed its last locked write
        self.slack = 1.05  # clocks run at different rates
        self.forgotten: set[str] = set()  # boots for which `applied` can't wait
        self.went_back = (
            False  # generations were used again: who comes back and knew them sees versions fall, and joins anew
        )
        self.newest = 0  # generation
        self._due: list[int] = []  # delayed flushes: when they are due, in ns of the clock of ZooKeeper's leader
        self._seen = 0  # when that was looked at last: a clock may have jumped since
        self._floors: dict[str, int] = {}  # path of a log: its floor
        self._born: dict[str, int] = {}  # path below /nodes: when it was made

    # The log -------------------------------------------------------------------------------------------------------------

    def on_commit(self, transaction: Transaction) -> None:
        operations = transaction.operations
        if not operations:
            self._forgotten(transaction)
            return
        for delta in transaction.deltas:
            if delta.kind != "create":
                continue
            if "/e-" in delta.path:
                self._entry(delta.path, delta.data, transaction)
            elif delta.path.startswith("/cache/nodes/"):
                self._born[delta.path] = transaction.time
        for operation in operations:
            if isinstance(operation, Set | Create) and operation.path.startswith("/cache/invalidation/"):
                if operation.path.endswith("/meta"):
                    self._leads(Meta.decode(operation.data).token, transaction)
                elif "/e-" not in operation.path and not self._is_append(operations):
                    floor = Floor.decode(operation.data)
                    if isinstance(operation, Create):
                        self._log_begins(operation.path.rsplit("/", 1)[1])
                        # With a log that was deleted goes what it said of delayed flushes.
                        self._due = [
                            due for due in self._due if any(abs(each - _ms(due)) < 1500 for each in floor.later)
                        ]
                    self._floor(operation.path, floor, transaction)

    def _forgotten(self, transaction: Transaction) -> None:
        """A server that goes while the record that outlives it was deleted by hand: nobody can know that it may be serving."""
        for delta in transaction.deltas:
            name = delta.path.rpartition("/")[2]
            if delta.path == f"/cache/nodes/{name}" and f"/cache/members/{name}" not in self.fleet.ensemble.tree.nodes:
                self.forgotten.add(name.rsplit(".", 2)[0])

    @staticmethod
    def _is_append(operations: list[Any]) -> bool:
        """An append may note a delayed flush in the log's record; all else there is the leader's."""
        return isinstance(operations[-1], Create) and "/e-" in operations[-1].path

    def _log_begins(self, log: str) -> None:
        """A generation is used again, or one below it, only when logs and meta were deleted while nobody lived who knew them (for
        one who did, P6 would tell): whoever is there now joined later and flushed (P10), so the old logs' entries are void.
        """
        generation = int(log.split("-")[1])
        for name, node in self.fleet.ensemble.tree.nodes.items():
            if not name.startswith("/cache/nodes/"):
                continue
            try:
                record = NodeRecord.decode(node.data)
            except Malformed:
                continue
            doubtful = self.fleet.world.now < self.doubtful_until
            if record.state != "joining" and parts(record.applied)[0] >= generation and not doubtful:
                raise Violation("P6", f"{log} begins though {name} says that it has applied {record.applied:x}")
        for number, (other, *_) in list(self.entries.items()):
            if other != log and int(other.split("-")[1]) >= generation:
                self.went_back = True
                del self.entries[number]
        self.went_back |= generation <= self.newest
        self.newest = max(self.newest, generation)

    def _entry(self, path: str, data: bytes, transaction: Transaction) -> None:
        entry = decode(data)
        if entry is None:
            return
        boot = entry.name.rsplit(".", 2)[0]
        log = path.split("/")[-2]
        self.entries[version(int(log.split("-")[1]), sequence_of(path))] = (log, boot, data, transaction.time)
        for change in entry.changes:
            if is_delayed(change):
                self._due.append(transaction.dated + change.ttl * SECOND)
                continue
            for key in self.fleet.keys:
                if concerns(change, key):
                    self.committed[key].append(Committed(change, boot, transaction.time, transaction.stamp))
        first = transaction.operations[0]
        if isinstance(first, Check) and "/locks/" in first.path:
            self.locked[entry.changes[0].key] = boot

    def _leads(self, token: int, transaction: Transaction) -> None:
        """A leader's write: its candidate must be the lowest there is, and tokens only rise."""
        tree = self.fleet.ensemble.tree
        candidates = tree.nodes["/cache/leader"].children
        standing = {tree.nodes[f"/cache/leader/{name}"].czxid for name in candidates}
        if token not in standing or token != min(standing) or token < self.last_token:
            raise Violation("P7", f"token {token} wrote; standing {sorted(standing)}, last {self.last_token}")
        self.last_token = token

    def _floor(self, path: str, floor: Floor, transaction: Transaction) -> None:
        self._leads(floor.token, transaction)
        self.capped |= floor.capped
        before, self._floors[path] = self._floors.get(path, 0), floor.floor
        doubtful = self.fleet.world.now < self.doubtful_until  # members may stand in another log of the same generation
        if floor.capped or floor.floor <= before or doubtful:
            return
        tree = self.fleet.ensemble.tree
        gen = int(path.rsplit("/", 1)[1].split("-")[1])
        settled = transaction.time - 400 * MS
        for name in tree.nodes["/cache/nodes"].children:
            node = tree.nodes[f"/cache/nodes/{name}"]
            try:
                applied = NodeRecord.decode(node.data).applied
            except Malformed:
                continue  # somebody has written over it
            if not node.owner:
                continue  # and made this one
            young = self._born.get(f"/cache/nodes/{name}", 0) > settled  # the leader may not have seen it yet
            if not young and 0 <= applied < version(gen, floor.floor) - 1:
                raise Violation("P8", f"floor {floor.floor} though {name} has applied {applied & 0xFFFFFFFF}")

    # Reads ---------------------------------------------------------------------------------------------------------------

    def see_what_is_due(self) -> None:
        """A delayed flush is as one that is committed when it is due, for its own server, too; an earlier release may be late."""
        now, clock = self.fleet.world.now, self.fleet.ensemble.clock
        for due in [due for due in self._due if due <= now + clock]:
            self._due.remove(due)
            if not any(host.released for host in self.fleet.hosts):
                flush = Committed(Change("flush", b"", 1), "", max(due - clock, self._seen), self.fleet.world.stamp())
                for done in self.committed.values():
                    done.append(flush)
        self._seen = now

    def on_read(self, host: Host, key: bytes, item: Item) -> None:
        """An item is served: is that allowed?"""
        self.see_what_is_due()
        now, cache = self.fleet.world.now, host.cache
        what = f"{host.process.name} serves {key!r} of {item.time / SECOND:.4f}"
        if host.in_gap:
            raise Violation("P5", f"{what} between a gap and its flush")
        serves = host.node.context.settings.on_stale == "serve"  # outside of all promises but these
        if item.boot != host.process.name and not serves:
            raise Violation("P10", f"{what} from an earlier boot")
        if item.lease and not item.stale and item.lease < cache.last_kill(key):
            raise Violation("P4", f"{what}, stored with a lease granted before an invalidation")
        if serves:
            return
        bound = int(host.node.context.settings.max_stale * self.slack * SECOND)
        for done in reversed(self.committed[key]):
            if done.time >= now - bound:
                continue
            if done.stamp < item.since:
                break
            if is_delayed(done.change) and item.time >= done.time - int(
                host.node.context.settings.reply_deadline * SECOND
            ):
                continue  # no server knows the clock of ZooKeeper's leader better
            if done.boot in host.told or (item.stale and softly(done.change)):
                continue
            if not self._forgiven(done.time):
                name = "P1" if done.change.kind in ("delete", "stale") else "P9"
                raise Violation(name, f"{what}, {(now - done.time) / SECOND:.3f} s after {done.change} was committed")
        for ack in self.acked[key] if host.node.membership.boot not in self.forgotten else ():
            if item.since < ack.invoked and not (item.stale and softly(ack.change)):
                name = "P2" if ack.change.kind in ("delete", "stale") else "P9"
                raise Violation(name, f"{what} after {ack.change} was confirmed as applied")

    def _forgiven(self, time: int) -> bool:
        """Committed before the ensemble itself lost data."""
        return time <= self.restored

    def on_confirmed(self, host: Host, change: Change, invoked: int, applied: bool) -> None:
        """A change was confirmed: it is in the log, and perhaps applied everywhere."""
        if self.restored and self.fleet.world.now < self.restored + 1.5 * SECOND:
            return  # with its members' records lost, an ensemble cannot know who serves
        self.must_be_in_the_log(host, change, invoked)
        if self.fleet.world.now < self.doubtful_until:
            return
        if applied and not is_delayed(change):
            for key in self.fleet.keys:
                if concerns(change, key):
                    self.acked[key].append(Acked(change, invoked))

    def must_be_in_the_log(self, host: Host, change: Change, invoked: int) -> None:
        """The log holds, from this server and since then, what covers a change."""
        if is_delayed(change):
            return
        for key in self.fleet.keys:
            if not concerns(change, key):
                continue
            for done in reversed(self.committed[key]):
                if done.stamp < invoked:
                    name = "P3" if change.kind in ("delete", "stale") else "P9"
                    raise Violation(name, f"{host.process.name} confirmed {change}, which is not in the log")
                if done.boot == host.node.membership.boot and (softly(change) or not softly(done.change)):
                    break

    # The end -------------------------------------------------------------------------------------------------------------

    def on_restore(self) -> None:
        """The ensemble has lost data: what it had confirmed is void."""
        self.restored = self.fleet.world.now
        self.last_token = 0
        self.entries.clear()
        self._due.clear()
        for held in self.acked.values():
            held.clear()
        for committed in self.committed.values():
            committed.clear()
        for host in self.fleet.hosts:
            host.trace_applied.clear()
            host.last_applied = -1

    def on_replaced(self) -> None:
        """Somebody has put another log in the place of the fleet's. Who comes to it flushes."""
        self.went_back = True
        self.entries.clear()
        self._due.clear()
        for host in self.fleet.hosts:
            host.trace_applied.clear()
        longest = max((host.node.context.settings.max_stale for host in self.fleet.hosts), default=0.0)
        self.doubtful_until = self.fleet.world.now + int(2 * longest * self.slack * SECOND)

    def at_the_end(self) -> None:
        """Every server is up and connected, and has had time."""
        fleet = self.fleet
        live = [host for host in fleet.hosts if host.is_live]
        if live and all(host.released == FIRST for host in live):
            meta = fleet.ensemble.tree.nodes.get("/cache/invalidation/meta")
            if meta is not None and Meta.decode(meta.data).format > 1:
                return  # the first release can't take over a log of a newer format: docs/coherence.md says what to do
        for host in live:
            name, node = host.process.name, host.node
            if node.gate.is_stale:
                raise Violation("P14", f"{name} is still stale; state {node.membership.state}")
            if len(node.publisher.queue) or host.unanswered:
                raise Violation("P14", f"{name} has {len(node.publisher.queue)} queued, {host.unanswered} unanswered")
            # A backup may hold the lock of somebody who gave it up; the first release keeps one when it can't read the log.
            if host.locks_wanted and not (self.restored or any(other.released == FIRST for other in fleet.hosts)):
                raise Violation("P14", f"{name} waits for {host.locks_wanted} locks")
            self._complete(host)
            if not self.restored:
                for change, invoked in host.submitted:
                    self.must_be_in_the_log(host, change, invoked)
            for key, item in host.cache.items.items():
                for done in self.committed[key]:
                    foreign = done.boot not in host.told and not is_delayed(done.change)
                    if foreign and item.since < done.stamp and not (item.stale and softly(done.change)):
                        raise Violation("P3", f"{name} still holds {key!r}, deleted at {done.time / SECOND:.3f}")
        seen = {tuple(sorted(name.rsplit(".", 2)[0] for name in host.node.membership.nodes)) for host in live}
        true = tuple(sorted(host.node.membership.boot for host in live))
        if seen - {true}:
            raise Violation("P11", f"the fleet is {true}, but seen as {seen}")
        leaders = [host for host in live if host.node.election.is_leader]
        if live and len(leaders) != 1:
            raise Violation("P11", f"{len(leaders)} leaders at the end")

    def _complete(self, host: Host) -> None:
        """Each entry of the log was applied here, or a flush covered it."""
        covered = set(host.trace_applied)
        for number, (log, _, data, _) in self.entries.items():
            if number > host.flushed_to and number not in covered:
                before = [other for other, entry in self.entries.items() if other < number and entry[2] == data]
                name = "P13" if before else "P3"
                raise Violation(name, f"{host.process.name} has never applied entry {number & 0xFFFFFFFF} of {log}")
