"""Where things are in ZooKeeper, and the small records kept there. Pure: no calls, no clock.

/cache/nodes/<name>                       ephemeral: address, state, the last version applied
/cache/members/<name>                     persistent: how long the server may serve without a certificate
/cache/leader/<guid>-n-<sequence>         ephemeral: the lowest leads; its czxid is the fencing token
/cache/locks/<bucket>/<guid>-l-<sequence> ephemeral: the lowest holds the lock
/cache/invalidation/meta                  which log is current, and which one it follows
/cache/invalidation/<log>                 the floor (lowest sequence kept); its Stat gives the head
/cache/invalidation/<log>/e-<sequence>    one batch of invalidations each
"""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

from .ports import Stat

META_FORMAT = 1
UNKNOWN = -1  # the version of a server that has applied nothing yet


class Layout:
    """The paths below one root."""

    def __init__(self, root: str) -> None:
        self.root = "/" + root.strip("/")
        self.nodes = self.root + "/nodes"
        self.members = self.root + "/members"
        self.leader = self.root + "/leader"
        self.locks = self.root + "/locks"
        self.invalidation = self.root + "/invalidation"
        self.meta = self.invalidation + "/meta"

    def skeleton(self) -> list[str]:
        """The persistent znodes that every server makes sure of, parents first."""
        parts = self.root.strip("/").split("/")
        above = ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
        return [*above, self.nodes, self.members, self.leader, self.locks, self.invalidation]

    def node(self, name: str) -> str:
        return f"{self.nodes}/{name}"

    def member(self, name: str) -> str:
        return f"{self.members}/{name}"

    def log(self, log: str) -> str:
        return f"{self.invalidation}/{log}"

    def entry(self, log: str, sequence: int) -> str:
        return f"{self.invalidation}/{log}/e-{sequence:010d}"

    def entries(self, log: str) -> str:
        """The path that a sequential create completes to an entry's."""
        return f"{self.invalidation}/{log}/e-"

    def bucket(self, key: bytes, buckets: int) -> str:
        return f"{self.locks}/{zlib.crc32(key) % buckets:02x}"


def sequence_of(path: str) -> int:
    """The number that ZooKeeper appended to a sequential path."""
    return int(path[-10:])


def head_of(stat: Stat) -> int:
    """The last sequence created below a znode (-1: none): its cversion is twice the creates less the children left."""
    return (stat.cversion + stat.num_children) // 2 - 1


def version(gen: int, sequence: int) -> int:
    """The version of an entry: totally ordered over the logs."""
    return (gen << 32) | sequence if sequence >= 0 else (gen << 32) - 1


class Meta(NamedTuple):
    """`/invalidation/meta`: the current log, the one it continues (or none), the token of the leader that wrote it."""

    gen: int
    log: str
    previous: str | None
    token: int

    def encode(self) -> bytes:
        return json.dumps({"format": META_FORMAT, **self._asdict()}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Meta:
        """ValueError when the format is not ours: a newer release wrote it."""
        record = json.loads(data)
        if not isinstance(record, dict) or record.get("format") != META_FORMAT:
            raise ValueError(f"unknown format of the log's meta record: {data[:80]!r}")
        return cls(int(record["gen"]), str(record["log"]), record["previous"], int(record["token"]))


class Floor(NamedTuple):
    """The data of a log: the lowest sequence kept, the leader that wrote it, whether a hard cap forced it."""

    floor: int
    token: int
    capped: bool = False

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> Floor:
        record = json.loads(data)
        return cls(int(record["floor"]), int(record["token"]), bool(record["capped"]))


class NodeRecord(NamedTuple):
    """`/nodes/<name>`. `joining` until the first certificate of the session: until then `applied` proves nothing."""

    address: str
    state: str
    applied: int
    boot: str

    def encode(self) -> bytes:
        gen, sequence = divmod(self.applied + 1, 1 << 32)
        return json.dumps({**self._asdict(), "applied": [gen, sequence - 1]}).encode()

    @classmethod
    def decode(cls, data: bytes) -> NodeRecord:
        record = json.loads(data)
        gen, sequence = record["applied"]
        return cls(record["address"], record["state"], version(gen, sequence), record["boot"])


class MemberRecord(NamedTuple):
    """`/members/<name>`: how long the server may go on serving after its last certificate, in seconds."""

    max_stale: float
    on_stale: str

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> MemberRecord:
        record = json.loads(data)
        return cls(float(record["max_stale"]), str(record["on_stale"]))
