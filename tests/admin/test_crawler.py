"""`lru_crawler`: what a crawl reclaims, and the two dumps."""

from __future__ import annotations

import re

from tests.admin.harness import Wire
from tests.core.harness import crawl

LINE = re.compile(
    rb"key=(\S+) exp=(-1|\d+) la=\d+ cas=\d+ fetch=(yes|no) cls=\d+ size=\d+ flags=\d+ \n",
)


def test_crawl_reclaims_expired_items() -> None:
    wire = Wire(debug_clock=True)
    wire.set(b"a", b"x", exptime=5)
    wire.set(b"b", b"x")
    wire.engine.advance(10)
    crawl(wire.engine)
    assert wire.stats()["curr_items"] == "1"


def test_metadump_has_a_line_for_each_item() -> None:
    wire = Wire()
    wire.set(b"a" + b':"\xff', b"x", flags=3)
    wire.set(b"b", b"yy", exptime=100)
    wire.ask(b"get b")
    reply = wire.ask(b"lru_crawler metadump all")
    assert reply.startswith(b"OK\r\n")
    assert reply.endswith(b"\nEND\r\n")
    lines = reply[len(b"OK\r\n") : -len(b"END\r\n")].splitlines(keepends=True)
    found = {match[1]: match for match in map(LINE.fullmatch, lines) if match}
    assert len(lines) == 2
    assert set(found) == {b"a%3A%22%FF", b"b"}
    assert found[b"a%3A%22%FF"][0].split()[1] == b"exp=-1"
    assert found[b"a%3A%22%FF"][0].endswith(b"size=%d flags=3 \n" % (48 + 4 + 1 + 4 + 1 + 2 + 8))
    assert found[b"b"][3] == b"yes"
    assert abs(int(found[b"b"][2]) - int(wire.stats()["time"]) - 100) <= 2


def test_dumps_of_nothing() -> None:
    wire = Wire()
    assert wire.ask(b"lru_crawler metadump all") == b"OK\r\nEND\r\n"
    assert wire.ask(b"lru_crawler mgdump all") == b"OK\r\nEN\r\n"
    assert wire.ask(b"lru_crawler metadump hash") == b"OK\r\nEND\r\n"


def test_mgdump_can_be_sent_back() -> None:
    wire = Wire()
    wire.set(b'a:"q"', b"x")
    wire.send(b"ms AAEC 2 b\r\nhi\r\n")
    reply = wire.ask(b"lru_crawler mgdump all")
    assert reply.startswith(b"OK\r\n")
    assert reply.endswith(b"EN\r\n")
    commands = reply[4:-4].splitlines(keepends=True)
    assert sorted(commands) == [b"mg AAEC b\r\n", b'mg a:"q"\r\n']
    assert [wire.send(command) for command in commands] == [b"HD\r\n", b"HD\r\n"]


def test_a_dump_of_one_class() -> None:
    wire = Wire()
    wire.set(b"small", b"x")
    wire.set(b"large", b"x" * 5000)
    assert wire.ask(b"lru_crawler mgdump 1") == b"OK\r\nmg small\r\nEN\r\n"


def test_a_dump_of_many_items_is_complete() -> None:
    wire = Wire()
    keys = {b"key-%d-%s" % (i, b"z" * 200) for i in range(3000)}
    for key in keys:
        wire.set(key, b"x")
    reply = wire.ask(b"lru_crawler mgdump all")
    assert {line[3:] for line in reply.splitlines()[1:-1]} == keys


def test_cannot_be_pipelined() -> None:
    wire = Wire()
    assert wire.send(b"mn\r\nlru_crawler metadump all\r\n") == (
        b"MN\r\nERROR cannot pipeline other commands before metadump\r\n"
    )
    assert wire.send(b"mn\r\nlru_crawler mgdump all\r\n") == (
        b"MN\r\nERROR cannot pipeline other commands before mgdump\r\n"
    )


def test_what_follows_a_dump_waits_for_it() -> None:
    wire = Wire()
    wire.set(b"a", b"x")
    assert wire.send(b"lru_crawler mgdump all\r\nmn\r\n") == b"OK\r\nmg a\r\nEN\r\nMN\r\n"
