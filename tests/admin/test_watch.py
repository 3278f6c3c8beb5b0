"""`watch`: lines for each kind, order, bounds, and what a slow watcher is told."""

from __future__ import annotations

import re

import pytest

from tests.admin.harness import Wire
from tests.core.harness import Client

HEAD = re.compile(r"ts=\d+\.\d+ gid=(\d+) (type=.*)\n")


class Watching:
    """A connection that watches, and another that works."""

    def __init__(self, line: bytes, **settings: object) -> None:
        self.wire = Wire(**settings)
        self.watcher = self.wire.another()
        assert self.watcher.send(line + b"\r\n") == b"OK\r\n"

    def lines(self) -> list[str]:
        """What has come since, without time and number."""
        self.wire.timers.run()
        lines = self.watcher.session.drain().decode().splitlines(keepends=True)
        return [found[2] if (found := HEAD.fullmatch(line)) else line for line in lines]


def test_fetchers_are_the_default() -> None:
    watching = Watching(b"watch")
    watching.wire.ask(b"get a")
    watching.wire.set(b"a", b"xyz")
    watching.wire.ask(b"get a")
    missed, looked_up, hit = watching.lines()
    assert re.fullmatch(r"type=item_get key=a status=not_found clsid=0 cfd=-?\d+ size=0", missed)
    assert re.fullmatch(r"type=item_get key=a status=not_found clsid=\d+ cfd=-?\d+ size=0", looked_up)
    assert re.fullmatch(r"type=item_get key=a status=found clsid=1 cfd=-?\d+ size=3", hit)


def test_mutations_tell_stores_and_refusals() -> None:
    watching = Watching(b"watch mutations")
    watching.wire.set(b"a", b"xyz", exptime=100)
    watching.wire.send(b"add a 0 0 1\r\nx\r\n")
    stored, refused = watching.lines()
    assert re.fullmatch(r"type=item_store key=a status=stored cmd=set ttl=\d+ clsid=1 cfd=-?\d+ size=3", stored)
    assert re.fullmatch(r"type=item_store key=a status=not_stored cmd=add ttl=\d+ clsid=1 cfd=-?\d+ size=\d+", refused)


def test_deletions_tell_only_what_went() -> None:
    watching = Watching(b"watch deletions")
    for key in (b"a", b"b", b"c"):
        watching.wire.set(key, b"x")
    watching.wire.ask(b"delete a")
    watching.wire.ask(b"md b")
    watching.wire.ask(b"md c I T30")
    watching.wire.ask(b"delete nothing")
    first, second = watching.lines()
    assert re.fullmatch(r"type=deleted key=a cmd=delete clsid=1 size=\d+", first)
    assert re.fullmatch(r"type=deleted key=b cmd=md clsid=1 size=\d+", second)


def test_a_value_that_is_dropped_is_stored_anew() -> None:
    watching = Watching(b"watch mutations deletions")
    watching.wire.set(b"a", b"xyz")
    watching.wire.ask(b"md a x")
    watching.wire.ask(b"md a x I T30")
    _, dropped, deleted, stale = watching.lines()
    assert re.fullmatch(r"type=item_store key=a status=stored cmd=set ttl=0 clsid=1 cfd=-?\d+ size=0", dropped)
    assert re.fullmatch(r"type=deleted key=a cmd=md clsid=1 size=0", deleted)
    assert re.fullmatch(r"type=item_store key=a status=stored cmd=set ttl=30 clsid=1 cfd=-?\d+ size=0", stale)


@pytest.mark.slow
def test_evictions_tell_what_left_or_how_many_lines_were_lost() -> None:
    watching = Watching(b"watch evictions", maxbytes=4 << 20, item_size_max=1 << 19)
    for number in range(20000):
        watching.wire.set(b"key%d" % number, b"x" * 500)
    lines = watching.lines()
    assert lines
    pattern = re.compile(r"type=eviction key=key\d+ fetch=(yes|no) ttl=-?\d+ la=\d+ clsid=\d+ size=\d+|skipped=\d+\n")
    assert all(pattern.fullmatch(line) for line in lines)


def test_connections_are_told_when_they_open_and_close() -> None:
    watching = Watching(b"watch connevents")
    watching.wire.watchers.connection_event("conn_new", "127.0.0.1", 40000, "tcp", 9)
    watching.wire.watchers.connection_event("conn_close", "unix", 0, "local", 9, "normal")
    assert watching.lines() == [
        "type=conn_new rip=127.0.0.1 rport=40000 transport=tcp cfd=9",
        "type=conn_close rip=unix rport=0 transport=local reason=normal cfd=9",
    ]


def test_keys_are_escaped() -> None:
    watching = Watching(b"watch deletions")
    watching.wire.set(b'a:"\xff', b"x")
    watching.wire.ask(b'delete a:"\xff')
    assert " key=a%3A%22%FF " in watching.lines()[0]


@pytest.mark.parametrize("kind", [b"rawcmds", b"sysevents", b"proxyreqs", b"proxyevents", b"proxyuser"])
def test_other_kinds_are_accepted_and_silent(kind: bytes) -> None:
    watching = Watching(b"watch " + kind)
    watching.wire.set(b"a", b"x")
    watching.wire.ask(b"get a")
    assert watching.lines() == []


def test_several_kinds_keep_their_order() -> None:
    watching = Watching(b"watch fetch mut del")
    watching.wire.set(b"a", b"x")
    watching.wire.ask(b"delete a")
    kinds = [line.split()[0] for line in watching.lines()]
    assert kinds[:2] == ["type=item_get", "type=item_store"]
    assert kinds[-1] == "type=deleted"


def test_the_lines_numbers_rise_by_one() -> None:
    watching = Watching(b"watch")
    watching.wire.ask(b"get a b c")
    watching.wire.timers.run()
    found = [HEAD.fullmatch(line) for line in watching.watcher.session.drain().decode().splitlines(keepends=True)]
    assert [int(each[1]) for each in found if each] == [1, 2, 3]


def test_a_watcher_ignores_input() -> None:
    watching = Watching(b"watch")
    assert watching.watcher.send(b"mn\r\n") == b""


def test_twenty_watchers_and_no_more() -> None:
    wire = Wire()
    watchers = [wire.another() for _ in range(20)]
    assert all(each.send(b"watch\r\n") == b"OK\r\n" for each in watchers)
    late = wire.another()
    assert late.send(b"watch\r\n") == b"WATCHER_TOO_MANY log watcher limit reached\r\n"
    assert late.send(b"mn\r\n") == b"MN\r\n"
    assert wire.stats()["log_watchers"] == "20"
    wire.watchers.remove(watchers[0].session)
    assert late.send(b"watch\r\n") == b"OK\r\n"


def test_cannot_be_pipelined() -> None:
    assert Wire().send(b"mn\r\nwatch\r\n") == b"MN\r\nERROR cannot pipeline other commands before watch\r\n"


def test_a_slow_watcher_loses_lines_and_is_told() -> None:
    watching = Watching(b"watch", watcher_logbuf_size=1024)
    for _ in range(100):
        watching.wire.ask(b"get " + b"k" * 100)
    stats = watching.wire.stats()
    skipped = int(stats["log_watcher_skipped"])
    assert skipped > 0
    assert skipped + int(stats["log_watcher_sent"]) == int(stats["log_worker_written"]) == 100
    assert len("".join(watching.lines())) <= 1024
    watching.wire.ask(b"get x")
    told, line = watching.lines()
    assert told == f"skipped={skipped}\n"
    assert line.startswith("type=item_get key=x ")


def test_a_watcher_that_does_not_read_costs_its_buffer_only() -> None:
    watching = Watching(b"watch", watcher_logbuf_size=4096)
    watching.watcher.session.limit(0)
    for _ in range(20):
        watching.wire.ask(b"get " + b" ".join([b"k" * 200] * 100))
        watching.wire.timers.run()
    assert watching.watcher.session.unsent <= 1 << 20
    assert int(watching.wire.stats()["log_watcher_skipped"]) > 0


def test_nothing_is_observed_without_a_watcher() -> None:
    wire = Wire()
    assert wire.watchers.mask == 0
    watcher = Client(wire.engine, wire.owner)
    watcher.send(b"watch fetchers\r\n")
    assert wire.watchers.mask != 0
    wire.watchers.remove(watcher.session)
    assert wire.watchers.mask == 0
