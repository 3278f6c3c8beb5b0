"""The roll: who is in the fleet, kept by the leader so that a change costs everybody else one short read. Pure: no calls.

`/roll/list` names everybody, as of a serial; `/roll/news` the last changes, each with the serial behind it. Whoever knows the
roll up to a serial that the news reach back to needs the news alone; who joins, or was away for long, reads both. Serials of
one roll only rise; a roll that was made anew has another mark, and is read from its list.

The leader is the only one that writes them. `version` is that of `config get cluster`: the cversion of /nodes, or higher.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .layout import STATES, MemberRecord, is_name, read_record
from .ports import Malformed

NEWS = 100  # changes in the news; more than that make a new list
KEPT = 50  # of them stay when there is a new list
MOST = 1_000_000  # bytes of a list: some ten thousand members


class Row(NamedTuple):
    """A live member: what its record under /members says, and its state when the leader read it last."""

    record: MemberRecord
    state: str

    def encode(self) -> list[Any]:
        return [*self.record, self.state]

    @classmethod
    def decode(cls, fields: object) -> Row:
        if not isinstance(fields, list) or len(fields) != 5 or fields[4] not in STATES:
            raise Malformed(f"a row of the roll is {fields!r:.80}")
        max_stale, on_stale, address, reads, state = fields
        record = MemberRecord.of({"max_stale": max_stale, "on_stale": on_stale, "address": address, "reads": reads})
        return cls(record, state)


class Change(NamedTuple):
    """A member is there, or there in another state (`row`), or has gone (None)."""

    name: str
    row: Row | None

    @classmethod
    def decode(cls, fields: object) -> Change:
        if not isinstance(fields, list) or len(fields) != 2 or not isinstance(fields[0], str) or not is_name(fields[0]):
            raise Malformed(f"a change of the roll is {fields!r:.80}")
        return cls(fields[0], None if fields[1] is None else Row.decode(fields[1]))


def _serial(record: Mapping[str, Any], field: str) -> int:
    value = record.get(field)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise Malformed(f"{field} is {value!r:.80}")
    return value


def _mark(record: Mapping[str, Any]) -> str:
    mark = record.get("mark")
    if not isinstance(mark, str) or not is_name(mark):
        raise Malformed(f"mark is {mark!r:.80}")
    return mark


class News(NamedTuple):
    """`/roll/news`: the changes behind serial `base`; who leads."""

    mark: str
    leader: str
    version: int
    base: int
    changes: tuple[Change, ...]

    @property
    def serial(self) -> int:
        """The serial of the roll when all of them are made."""
        return self.base + len(self.changes)

    def encode(self) -> bytes:
        changes = [[name, row and row.encode()] for name, row in self.changes]
        record = {**self._asdict(), "changes": changes}
        return json.dumps(record, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> News:
        record = read_record(data, "the news of the roll", MOST)
        changes = record.get("changes")
        if not isinstance(changes, list):
            raise Malformed(f"changes are {changes!r:.80}")
        made = tuple(map(Change.decode, changes))
        leader = record.get("leader")
        if not isinstance(leader, str) or not is_name(leader):
            raise Malformed(f"leader is {leader!r:.80}")
        return cls(_mark(record), leader, _serial(record, "version"), _serial(record, "base"), made)


class Listing(NamedTuple):
    """`/roll/list`: everybody, as of a serial."""

    mark: str
    serial: int
    rows: dict[str, Row]

    def encode(self) -> bytes:
        rows = {name: row.encode() for name, row in self.rows.items()}
        return json.dumps({"mark": self.mark, "serial": self.serial, "rows": rows}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Listing:
        record = read_record(data, "the list of the roll", MOST)
        rows = record.get("rows")
        if not isinstance(rows, dict) or not all(map(is_name, rows)):
            raise Malformed(f"rows are {rows!r:.80}")
        return cls(_mark(record), _serial(record, "serial"), {name: Row.decode(row) for name, row in rows.items()})


class Roll:
    """The roll as far as somebody knows it."""

    def __init__(self) -> None:
        self.mark, self.leader, self.serial, self.version = "", "", 0, 0
        self.rows: dict[str, Row] = {}

    def start(self, listing: Listing) -> None:
        self.mark, self.serial, self.rows = listing.mark, listing.serial, dict(listing.rows)

    def follow(self, news: News) -> bool:
        """Makes the changes that are new; False when the news do not reach back to what is known: the list is needed."""
        if news.mark != self.mark or not news.base <= self.serial <= news.serial:
            return False
        for name, row in news.changes[self.serial - news.base :]:
            if row is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = row
        self.serial, self.version, self.leader = news.serial, news.version, news.leader
        return True

    def differences(self, rows: Mapping[str, Row]) -> list[Change]:
        """The changes that lead from here to `rows`."""
        gone = [Change(name, None) for name in self.rows if name not in rows]
        return gone + [Change(name, row) for name, row in rows.items() if self.rows.get(name) != row]


def next_news(news: News, changes: Sequence[Change], rows: dict[str, Row]) -> tuple[News, Listing | None]:
    """The news with more changes, which lead to `rows`; and a new list when they have become many."""
    made = news._replace(changes=(*news.changes, *changes))
    if len(made.changes) <= NEWS:
        return made, None
    kept = made.changes[-KEPT:]
    return made._replace(base=made.serial - len(kept), changes=kept), Listing(news.mark, made.serial, rows)
