"""The commands of a fleet, over a fleet of the test's own: their text on the wire."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from mcserver.admin import cluster
from mcserver.coordination.ports import Member, MemberFigures
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import Config

V = (1 << 32) | 7  # the entry after 1:6


class Fleet:
    """Three members, one of them twice: its old session has not ended yet."""

    listed: ClassVar = [
        Member("a.1", "10.0.0.1:11211", "ready", V, True),
        Member("b.1", "[::1]:11212", "joining", -1, False),
        Member("b.2", "[::1]:11212", "ready", V, False),
        Member("c.1", "cache.example:11213", "draining", V, False),
        Member("d.1", "", "ready", V, False),
    ]

    def members(self) -> tuple[int, list[Member]]:
        return 9, self.listed

    def discovery(self) -> tuple[int, list[str]]:
        return 9, [member.address for member in self.listed if member.address]

    def figures(self) -> tuple[float, list[MemberFigures]]:
        named = {"lag": 3, "queue_keys": 0, "queue_age_ms": 0, "writes": 0.4, "reads": 12.5, "unlogged": 0.0}
        row = MemberFigures("a.1", "10.0.0.1:11211", "ready", V, 350, named)
        return self.read, [] if self.read < 0 else [row, MemberFigures("d.1", "", "joining", -1, -1, {})]

    read = 0.25

    def leader(self) -> str | None:
        return "b.2"

    def stats(self) -> dict[str, int | float | str]:
        return {"state": "ready", "log": "", "append_ms_p50": 1.5}


class Session:
    """Hears the events that a reply is tied to."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def event(self, *event: Any) -> None:
        self.events.append(event)


def ask(line: str, *, flush: bool = True, **switches: Any) -> tuple[bytes | None, list[tuple[Any, ...]]]:
    session: Any = Session()
    words = line.encode().split()
    command = {b"cluster": cluster.cluster, b"config": cluster.config}[words[0]]
    config = Config(flush_enabled=flush, cluster=ClusterConfig("zk:2181", **switches))
    context: Any = SimpleNamespace(cluster=Fleet(), config=config)
    reply = command(context, session, words)
    assert reply is None or isinstance(reply, bytes)
    return reply, session.events


def test_members_have_an_address_a_state_and_what_they_applied() -> None:
    reply, _ = ask("cluster members")
    assert reply is not None
    assert reply.decode().split("\r\n") == [
        "VERSION 9",
        "MEMBER 10.0.0.1:11211 ready 1:7 a.1 self",
        "MEMBER [::1]:11212 joining none b.1",
        "MEMBER [::1]:11212 ready 1:7 b.2 leader",
        "MEMBER cache.example:11213 draining 1:7 c.1",
        "MEMBER none ready 1:7 d.1",
        "END",
        "",
    ]
    assert ask("cluster leader")[0] == b"LEADER b.2\r\n"


def test_long_lists_go_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many members there are, or somebody has made: turns are given up in between, and no piece is long."""
    many = [Member(f"m.{n}", f"host{n % 9000}.example:11211", "ready", V, False) for n in range(10_000)]
    rows = [MemberFigures(each.name, each.address, "ready", V, 1, {"lag": 3}) for each in many]
    monkeypatch.setattr(Fleet, "members", lambda _: (9, many))
    monkeypatch.setattr(Fleet, "discovery", lambda _: (9, [member.address for member in many]))
    monkeypatch.setattr(Fleet, "figures", lambda _: (0.1, rows))
    fleet: Any = Fleet()
    session: Any = None
    context: Any = SimpleNamespace(cluster=fleet, config=Config(cluster=ClusterConfig("zk:2181")))
    for reply, first, last, lines in [
        (cluster.members(fleet), b"VERSION 9\r\nMEMBER ", b"\r\nEND\r\n", 10_002),
        (cluster.figures(fleet), b"READ 100\r\nFIGURES ", b"\r\nEND\r\n", 10_002),
        (cluster.config(context, session, [b"config", b"get", b"cluster"]), b"CONFIG cluster 0 ", b"\n\r\nEND\r\n", 3),
    ]:
        assert reply is not None
        assert not isinstance(reply, bytes)
        pieces = list(reply)
        whole = b"".join(pieces)
        assert max(map(len, pieces)) <= 1 << 16
        assert pieces.count(b"") >= 49, "turns"
        assert whole.startswith(first)
        assert whole.endswith(last)
        assert whole.count(b"\r\n") == lines
    head, _, body = whole.partition(b"\r\n")
    assert int(head.split()[-1]) == len(body) - len(b"\r\nEND\r\n")
    assert body.split(b"\n")[1].count(b" ") == 8999, "each once"


def test_figures_of_each_member_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = ask("cluster figures")
    assert reply is not None
    assert reply.decode().split("\r\n") == [
        "READ 250",
        "FIGURES 10.0.0.1:11211 a.1 state ready applied 1:7 age_ms 350 lag 3 queue_keys 0 queue_age_ms 0 writes 0.4"
        " reads 12.5 unlogged 0",
        "FIGURES none d.1 state joining applied none age_ms -1",
        "END",
        "",
    ]
    monkeypatch.setattr(Fleet, "read", -1.0)
    assert ask("cluster figures")[0] == b"READ -1\r\nEND\r\n"


def test_config_get_cluster_as_elasticache_writes_it() -> None:
    body = b"9\n10.0.0.1|10.0.0.1|11211 ::1|::1|11212 cache.example||11213\n"
    assert ask("config get cluster")[0] == b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(body), body)
    assert ask("config set cluster")[0] == b"ERROR\r\n"


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("cluster flush", ("cluster flush",)),
        ("cluster flush p:", ("cluster flush", b"p:")),
        ("cluster refresh p:", ("cluster refresh", b"p:", 0)),
        ("cluster refresh p: 30", ("cluster refresh", b"p:", 30)),
        ("cluster leave", ("cluster leave",)),
    ],
)
def test_what_waits_for_the_others(line: str, event: tuple[Any, ...]) -> None:
    assert ask(line) == (b"OK\r\n", [event])


@pytest.mark.parametrize(
    "line", ["cluster", "cluster what", "cluster flush a b", "cluster refresh", "cluster members x"]
)
def test_what_is_no_cluster_command_is_answered_with_the_usage(line: str) -> None:
    assert ask(line) == (cluster.USAGE, [])


@pytest.mark.parametrize("ttl", ["x", "-1", "99999999999"])
def test_a_bad_ttl(ttl: str) -> None:
    assert ask(f"cluster refresh p: {ttl}") == (b"CLIENT_ERROR bad command line format\r\n", [])


def test_stats_have_no_empty_value() -> None:
    fleet: Any = Fleet()
    assert cluster.stats(fleet) == b"STAT state ready\r\nSTAT log none\r\nSTAT append_ms_p50 1.5\r\nEND\r\n"


def test_commands_that_harm_the_fleet_have_switches() -> None:
    for line in ("cluster flush", "cluster flush p:"):
        assert ask(line, flush=False) == (b"CLIENT_ERROR cluster flush not allowed\r\n", [])
    assert ask("cluster leave", leave_enabled=False) == (b"CLIENT_ERROR cluster leave not allowed\r\n", [])
    assert ask("cluster refresh p: 3", refresh_enabled=False) == (b"CLIENT_ERROR cluster refresh not allowed\r\n", [])
    assert ask("cluster leader", flush=False, leave_enabled=False)[0] == b"LEADER b.2\r\n"


def test_a_prefix_longer_than_any_key() -> None:
    assert ask("cluster flush " + "p" * 251) == (b"CLIENT_ERROR bad command line format\r\n", [])
