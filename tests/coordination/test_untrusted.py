"""What strangers write into ZooKeeper: every decoder takes it or leaves it, and one bad entry costs one flush."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from mcserver.coordination import ports
from mcserver.coordination.cells import Line, Sheet
from mcserver.coordination.context import UNREADABLE_MAX
from mcserver.coordination.entry import TEXT_MAX, decode, encode
from mcserver.coordination.layout import GEN_MAX, Floor, MemberRecord, Meta, NodeRecord, version
from mcserver.coordination.ports import Level, Malformed
from mcserver.coordination.roll import Change, Listing, News, Row
from mcserver.testing.tree import Delta

from .quiet import META, Quiet, tell
from .simulator.ensemble import Session

RECORDS: list[Any] = [
    Meta(3, "log-3-0a1b", "log-2-0a1b", 17),
    Floor(7, 17, True, (1_700_000_000_000, 1_700_000_001_000)),
    NodeRecord("[::1]:11211", "ready", version(3, 9), "n.0a1b"),
    MemberRecord(10.0, "miss"),
    Sheet(
        {
            "n.0a1b.1.0": Line(version(3, 9), "ready", 17, (1, 2, 3, 4, 5, 6)),
            "n.2c": Line(version(0, -1), "joining", 0, ()),
        }
    ),
    Listing("0a1b", 7, {"n.0a1b.1.0": Row(MemberRecord(10.0, "miss", "n:11211", 2), "ready")}),
    News(
        "0a1b",
        "n.0a1b.1.0",
        9,
        6,
        (Change("n.0a1b.1.0", Row(MemberRecord(2.5, "serve"), "joining")), Change("n.2c", None)),
    ),
]
ENTRY = b"MI1 n1.0a1b.1f.0 1\nd k\nb YSBi\ns 30 k\nt -1 YSBi\nF\nF 30\nP user:\nR 30 user:\nR 0"
ODD: list[Any] = [
    None,
    True,
    -1,
    1 << 64,
    1e999,
    "",
    "a b",
    "x\r\nVERSION 9",
    "\x00",
    "é",
    [],
    {},
    [[]],
    "a" * 5000,
    0.5,
]


def mutations(data: bytes, seed: int, count: int) -> list[bytes]:
    """The bytes with some of them changed, taken out, doubled."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        bad = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(bad) + 1)
            how = chance.randrange(4)
            if how == 0:
                bad[at:at] = bytes([chance.randrange(256)]) * chance.choice([1, 1, 1, 300])
            elif how == 1:
                del bad[at : at + chance.randint(1, 9)]
            elif how == 2:
                bad[at:at] = bad[: chance.randrange(30)]
            elif at < len(bad):
                bad[at] = chance.choice(b'\x00\r\n\t 09-_.:[]{}",eEF\xff')
        found.append(bytes(bad))
    return found


def texts(value: Any) -> Iterator[str]:
    """Every text in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts([*value, *value.values()])
    elif isinstance(value, tuple | list):
        for each in value:
            yield from texts(each)


def test_entries_are_what_they_say_or_unknown() -> None:
    assert decode(ENTRY) is not None
    known = 0
    for data in mutations(ENTRY, 1, 20_000):
        entry = decode(data)
        if entry is None:
            continue
        known += 1
        assert all(33 <= ord(letter) < 127 for letter in entry.name)
        for kind, key, ttl in entry.changes:
            assert kind in {"delete", "stale", "flush", "prefix", "refresh"}
            assert len(key) <= 250
            assert -1 <= ttl < 1 << 31
    assert known > 500, "some must be known, else this tests nothing"


@pytest.mark.slow
def test_compressed_entries_are_what_they_say_or_unknown() -> None:
    lines = [b"d k%d" % number for number in range(200)]
    good = encode("n1.0a1b.1f.0", True, lines, 2)
    assert decode(good) == decode(encode("n1.0a1b.1f.0", True, lines, 1))
    head = good[: good.index(b"\n") + 1]
    for data in mutations(good, 3, 5_000):
        entry = decode(data)
        assert entry is None or len(entry.changes) <= TEXT_MAX
    for text in (b"d k\n" * TEXT_MAX, b"x" * (1 << 26)):  # small on the wire, and large in memory
        assert decode(head + zlib.compress(text, 9)) is None
    assert decode(good + b"x") is None
    assert decode(good[:-1]) is None


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_in_their_ranges_or_malformed(record: Any) -> None:
    kind, good = type(record), record.encode()
    assert kind.decode(good) == record
    bad = mutations(good, 2, 10_000)
    fields = json.loads(good)
    for field in fields:
        bad += [json.dumps({**fields, field: value}).encode() for value in ODD]
        bad.append(json.dumps({name: value for name, value in fields.items() if name != field}).encode())
    bad += [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, good + b" " * 20_000, b"", b"null", b"\xff"]
    refused = 0
    for data in bad:
        try:
            read = kind.decode(data)
        except Malformed:
            refused += 1
            continue
        text = "".join(texts(read))
        assert text.isprintable()
        assert " " not in text
        assert kind.decode(read.encode()) == read
    assert refused > 1000


def test_strange_records_without_end_are_remembered_up_to_a_bound() -> None:
    context = Quiet(1).hosts[0].node.context
    for number in range(3 * UNREADABLE_MAX):
        assert context.unreadable(f"/cache/nodes/{number}", b"x", "no record")
        assert not context.unreadable(f"/cache/nodes/{number}", b"x", "no record"), "the same bytes: no second line"
        assert len(context._unreadable) <= UNREADABLE_MAX
    assert context.figures.malformed == 3 * UNREADABLE_MAX


def append(fleet: Quiet, data: bytes) -> None:
    path = f"/cache/invalidation/{fleet.meta()['log']}/e-"
    fleet.ensemble.write([ports.Create(path, data, sequence=True)], Session(-1, fleet.hosts[0].zk, 0))


@pytest.mark.parametrize(
    "line",
    [
        b"s 99999999999 k", b"s 2147483648 k", b"s -2 k", b"t 99999999999 YSBi", b"R 99999999999 p", b"R -1 p", b"F -1",
        b"F 99999999999", b"F 1_0", b"d " + b"k" * 251, b"d a b", b"d a\x00", b"P " + b"p" * 251, b"b " + b"YSBi" * 100,
        b"s \xd9\xa3 k", b"x", b"",
    ],
)  # fmt: skip
def test_one_bad_entry_costs_each_server_one_flush(line: bytes) -> None:
    fleet = Quiet(2)
    append(fleet, b"MI1 evil 0\n" + line)
    before = [host.cache.flush_count for host in fleet.hosts]
    fleet.run(100)
    for host in fleet.hosts:
        host.cache.put(b"kept")
    fleet.run(1000)
    one, two = fleet.hosts
    tell(one, b"k")
    fleet.run(100)
    assert [host.cache.flush_count - was for host, was in zip(fleet.hosts, before, strict=True)] == [1, 1]
    assert [host.node.stats()["malformed"] for host in fleet.hosts] == [1, 1]
    assert all(host.cache.get(b"kept") for host in fleet.hosts)
    assert two.node.reader.applied == one.node.reader.applied
    assert not two.cache.is_closed


def test_a_change_that_raises_is_a_flush_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Quiet(2)
    one, two = fleet.hosts

    def fails(key: bytes) -> bool:
        raise OverflowError(key)

    monkeypatch.setattr(two.node.context.cache, "delete", fails)
    flushes = two.cache.flush_count
    tell(one, b"k")
    fleet.run(1000)
    assert two.cache.flush_count == flushes + 1
    assert two.node.reader.applied == one.node.reader.applied


@pytest.mark.parametrize("what", ["meta", "log"])
@pytest.mark.parametrize("data", [b"nonsense", b"{}", b"[" * 50_000])
def test_the_leader_mends_a_record_of_the_log_with_a_new_log(
    what: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Quiet(3)
    path = META if what == "meta" else f"/cache/invalidation/{fleet.meta()['log']}"
    before = [host.cache.flush_count for host in fleet.hosts]
    fleet.ensemble.change_by_hand([Delta("set", path, data)])
    fleet.run(1500)
    # At once when the log is found to be another, and once more behind a look at that one's end: as for any lost log.
    assert [host.cache.flush_count - was for host, was in zip(fleet.hosts, before, strict=True)] == [2, 2, 2]
    assert not any(host.cache.is_closed for host in fleet.hosts)
    assert len([line for line in caplog.messages if "is left out" in line]) <= 3, "one line a server"
    answer = tell(fleet.hosts[0], b"k")
    fleet.run(200)
    assert answer.result


@pytest.mark.parametrize("change", [{"gen": 2}, {"gen": GEN_MAX}, {"gen": 0}, {"log": ""}, {"gen": 0, "log": ""}])
def test_a_generation_that_is_not_its_logs(change: dict[str, Any]) -> None:
    """Appends got versions of a generation that nobody ever applied: no delete was confirmed as applied any more."""
    fleet = Quiet(3)
    fleet.ensemble.change_by_hand([Delta("set", META, json.dumps({**fleet.meta(), **change}).encode())])
    fleet.run(3000)
    meta = fleet.meta()
    assert meta["log"].split("-")[1] == str(meta["gen"])
    assert not any(host.cache.is_closed for host in fleet.hosts)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(3000)
    assert answer.result


def test_the_last_generation_is_a_strangers() -> None:
    """There is none above it: when the fleet needed one, it had no log for ever."""
    fleet = Quiet(3)
    forged = Meta(GEN_MAX, f"log-{GEN_MAX}-bad", fleet.meta()["log"], 0)
    path = f"/cache/invalidation/{forged.log}"
    fleet.ensemble.change_by_hand([Delta("create", path, Floor(0, 0).encode()), Delta("set", META, forged.encode())])
    fleet.run(3000)
    assert fleet.meta()["gen"] == GEN_MAX
    for _ in range(2):
        fleet.ensemble.change_by_hand([Delta("set", META, b"nonsense")])
        fleet.run(5000)
        meta = fleet.meta()
        assert 0 < meta["gen"] < 100
        assert not any(host.cache.is_closed for host in fleet.hosts)
        answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
        fleet.run(3000)
        assert answer.result
        assert {host.node.reader.gen for host in fleet.hosts} == {meta["gen"]}


def test_the_meta_record_of_a_newer_release_is_left_alone() -> None:
    fleet = Quiet(1)
    fleet.ensemble.change_by_hand([Delta("set", META, b'{"format": 3}')])
    fleet.run(1500)
    assert fleet.ensemble.tree.nodes[META].data == b'{"format": 3}'
    assert "newer release" in str(fleet.hosts[0].node.stats()["why"])
    assert fleet.hosts[0].cache.is_closed


def test_strange_members_candidates_and_locks_are_left_out() -> None:
    fleet = Quiet(2)
    forged = {"address": "a:1\r\nMEMBER b:2", "state": "ready", "applied": [1, 0], "boot": "x"}
    for path, data in [
        ("/cache/nodes/evil", json.dumps(forged).encode()), ("/cache/nodes/e v\nil", b"{}"), ("/cache/members/evil", b"x"),
        ("/cache/leader/evil", b"x"), ("/cache/invalidation/evil", b"x"), ("/cache/locks/00", b""), ("/cache/locks/00/evil", b""),
    ]:  # fmt: skip
        fleet.ensemble.change_by_hand([Delta("create", path, data)])
    fleet.run(1500)
    one, two = fleet.hosts
    assert [member.name for member in one.node.members()[1]] == sorted(
        [one.node.membership.name, two.node.membership.name]
    )
    assert len([host for host in fleet.hosts if host.node.election.is_leader]) == 1
    assert not any(host.cache.is_closed for host in fleet.hosts)
    for n in range(64):
        one.node.locked(b"%d" % n, lambda: None)
    fleet.run(600)
    assert int(one.node.stats()["locks_held"]) > 20
