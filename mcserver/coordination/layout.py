"""Where things are in ZooKeeper, and the small records kept there. Pure: no calls, no clock.

/cache/nodes/<name>                       ephemeral: address, state, the last version applied
/cache/members/<name>                     persistent: how long the server may serve without a certificate
/cache/roll/news, /cache/roll/list        who is there: the last changes, and all (roll.py)
/cache/cells/<number>                     what the members of a cell have applied, and their figures (cells.py)
/cache/leader/<guid>-n-<sequence>         ephemeral: the lowest leads; its czxid is the fencing token
/cache/locks/<bucket>/<guid>-l-<sequence> ephemeral: the lowest holds the lock
/cache/invalidation/meta                  which log is current, and which one it follows
/cache/invalidation/<log>                 the floor (lowest sequence kept); its Stat gives the head
/cache/invalidation/<log>/e-<sequence>    one batch of invalidations each
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, NamedTuple

from .ports import Malformed, Stat

META_FORMATS = (1, 2)  # of the log; 1: the first release's, 2: with MI2 entries, the roll and the cells
UNKNOWN = -1  # the version of a server that has applied nothing yet
GEN_MAX = (1 << 31) - 1  # the last generation of a log
RECORD_MAX = 16384  # bytes of a record; ours have some hundred
LATER_MAX = 64  # delayed flushes that are remembered; memcached remembers one
STATES = ("joining", "ready", "draining")
POLICIES = ("miss", "error", "serve")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_LOG = re.compile(r"log-[0-9]{1,10}-[0-9a-f]{1,16}")
_CANDIDATE = re.compile(r"[0-9a-f]{16}-[nl]-[0-9]{10}")
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%]{1,100}\]|[A-Za-z0-9._-]{1,255}):[0-9]{1,5}")


def is_name(name: str) -> bool:
    """Whether a name may be a member's: nothing that could end or forge a line."""
    return _NAME.fullmatch(name) is not None


def boot_of(name: str) -> str:
    """What a member's name has in all sessions of one boot of its server: NODE.BOOT of NODE.BOOT.SESSION.NUMBER."""
    return name.rsplit(".", 2)[0]


def is_log(name: str) -> bool:
    """Whether a znode's name is that of a log."""
    return _LOG.fullmatch(name) is not None


def is_candidate(name: str) -> bool:
    """Whether a znode stands for somebody who wants to lead, or wants a lock."""
    return _CANDIDATE.fullmatch(name) is not None


def is_address(address: str) -> bool:
    """HOST:PORT as clients can dial it: a name, an IPv4 address, or an IPv6 address in brackets; a port above 0."""
    return _ADDRESS.fullmatch(address) is not None and 0 < int(address.rpartition(":")[2]) <= 65535


class Layout:
    """The paths below one root."""

    def __init__(self, root: str) -> None:
        self.root = "/" + root.strip("/")
        self.nodes = self.root + "/nodes"
        self.members = self.root + "/members"
        self.roll = self.root + "/roll"
        self.news = self.roll + "/news"
        self.list = self.roll + "/list"
        self.cells = self.root + "/cells"
        self.leader = self.root + "/leader"
        self.locks = self.root + "/locks"
        self.invalidation = self.root + "/invalidation"
        self.meta = self.invalidation + "/meta"

    def skeleton(self) -> list[str]:
        """The persistent znodes that every server makes sure of, parents first."""
        parts = self.root.strip("/").split("/")
        above = ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
        return [*above, self.nodes, self.members, self.roll, self.cells, self.leader, self.locks, self.invalidation]

    def node(self, name: str) -> str:
        return f"{self.nodes}/{name}"

    def member(self, name: str) -> str:
        return f"{self.members}/{name}"

    def cell(self, number: int) -> str:
        return f"{self.cells}/{number:03x}"

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


def parts(number: int) -> tuple[int, int]:
    """Generation and sequence (-1: none) of a version: the way back."""
    gen, sequence = divmod(number + 1, 1 << 32)
    return gen, sequence - 1


def read_record(data: bytes, what: str, most: int = RECORD_MAX) -> dict[str, Any]:
    """A JSON object of at most `most` bytes. Malformed for anything else, the nested included."""
    try:
        if len(data) > most:
            raise ValueError(f"{len(data)} bytes")
        record = json.loads(data)
        if not isinstance(record, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"{what} is not readable ({error}): {data[:80]!r}") from None
    return record


def _int(record: dict[str, Any], field: str, least: int, most: int) -> int:
    value = record.get(field)
    if type(value) is not int or not least <= value <= most:
        raise Malformed(f"{field} is {value!r:.80}")
    return value


def _text(record: dict[str, Any], field: str, valid: Any) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not valid(value):
        raise Malformed(f"{field} is {value!r:.80}")
    return value


class Meta(NamedTuple):
    """`/invalidation/meta`: the current log, the one it continues (or none), the token of the leader that wrote it, and
    the format: the highest that every member reads. An append checks the version of this record, so that an entry always has
    the format that is here.
    """

    gen: int
    log: str
    previous: str | None
    token: int
    format: int = 1

    def encode(self) -> bytes:
        return json.dumps({"format": self.format, **self._asdict()}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Meta:
        """Malformed when it is not ours; `newer_meta` tells whether a newer release wrote it."""
        record = read_record(data, "the log's meta record")
        form = record.get("format")
        if type(form) is not int or form not in META_FORMATS:
            raise Malformed(f"unknown format of the log's meta record: {data[:80]!r}")
        previous = None if record.get("previous") is None else _text(record, "previous", is_log)
        gen = _int(record, "gen", 0, GEN_MAX)
        # Versions are made of the generation: with another one than its log's, nothing would ever count as applied.
        log = _text(record, "log", lambda name: not name or (is_log(name) and int(name.split("-")[1]) == gen))
        return cls(gen, log, previous, _int(record, "token", 0, (1 << 63) - 1), form)


def newer_meta(data: bytes) -> bool:
    """Whether a meta record that is not readable here may be that of a newer release, and so must be left alone."""
    try:
        number = read_record(data, "").get("format")
    except Malformed:
        return False
    return type(number) is int and number > META_FORMATS[-1]


class Floor(NamedTuple):
    """The data of a log: the lowest sequence kept, the leader that wrote it, whether a hard cap forced it, when delayed
    flushes are due (ms of the clock of ZooKeeper's leader): whoever joins, or has missed the entry, reads them here; and the
    writes a second of the fleet that the log does not show.
    """

    floor: int
    token: int
    capped: bool = False
    later: tuple[int, ...] = ()
    unlogged: int = 0

    def encode(self) -> bytes:
        record = self._asdict()
        for field in ("later", "unlogged"):
            if not record[field]:
                del record[field]
        return json.dumps(record).encode()

    @classmethod
    def decode(cls, data: bytes) -> Floor:
        record = read_record(data, "the log's record")
        capped, later = record.get("capped", False), record.get("later", [])
        if type(capped) is not bool or not isinstance(later, list) or len(later) > LATER_MAX:
            raise Malformed(f"the log's record is not readable: {data[:80]!r}")
        if any(type(due) is not int or not 0 <= due < 1 << 53 for due in later):
            raise Malformed(f"the log's record is not readable: {data[:80]!r}")
        floor = _int(record, "floor", -1, (1 << 32) - 1)
        unlogged = _int(record, "unlogged", 0, 1 << 31) if "unlogged" in record else 0
        return cls(floor, _int(record, "token", 0, (1 << 63) - 1), capped, tuple(later), unlogged)


def read_figures(figures: object) -> tuple[int, ...]:
    """At most 16 numbers of 63 bits."""
    if not isinstance(figures, list) or len(figures) > 16 or any(type(each) is not int for each in figures):
        raise Malformed(f"figures are {figures!r:.80}")
    if any(not -1 <= each < 1 << 63 for each in figures):
        raise Malformed(f"figures are {figures!r:.80}")
    return tuple(figures)


class NodeRecord(NamedTuple):
    """`/nodes/<name>`. `joining` until the first certificate of the session: until then `applied` proves nothing."""

    address: str
    state: str
    applied: int
    boot: str
    figures: tuple[int, ...] = ()  # as cells.FIGURES names them; none from the first release

    def encode(self) -> bytes:
        return json.dumps({**self._asdict(), "applied": parts(self.applied)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> NodeRecord:
        record = read_record(data, "a server's record")
        applied = record.get("applied")
        if not isinstance(applied, list) or len(applied) != 2 or any(type(part) is not int for part in applied):
            raise Malformed(f"applied is {applied!r:.80}")
        gen, sequence = applied
        if not 0 <= gen <= GEN_MAX or not -1 <= sequence < 1 << 32:
            raise Malformed(f"applied is {applied!r:.80}")
        address = _text(record, "address", lambda text: not text or is_address(text))
        state = _text(record, "state", STATES.__contains__)
        boot, figures = _text(record, "boot", is_name), record.get("figures", [])
        return cls(address, state, version(gen, sequence), boot, read_figures(figures))


class MemberRecord(NamedTuple):
    """`/members/<name>`: how long the server may go on serving after its last certificate, in seconds; where clients reach
    it; the highest format of the log that it reads.
    """

    max_stale: float
    on_stale: str
    address: str = ""
    reads: int = 1

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> MemberRecord:
        return cls.of(read_record(data, "a member's record"))

    @classmethod
    def of(cls, record: dict[str, Any]) -> MemberRecord:
        max_stale = record.get("max_stale")
        if type(max_stale) is bool or not isinstance(max_stale, int | float) or not 0 < max_stale <= 86400:
            raise Malformed(f"max_stale is {max_stale!r:.80}")
        address = record.get("address", "")
        if not isinstance(address, str) or (address and not is_address(address)):
            raise Malformed(f"address is {address!r:.80}")
        reads = _int(record, "reads", 1, 1 << 31) if "reads" in record else 1
        return cls(float(max_stale), _text(record, "on_stale", POLICIES.__contains__), address, reads)
