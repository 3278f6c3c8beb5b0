"""What an item has left whose end has passed is a number without a sign, as in memcached: `mg a N-1 t` said `t-1`, for ever."""

from __future__ import annotations

import re

import pytest

from tests.admin.harness import Wire
from tests.core.harness import Client, fresh

PAST = 2**32


def left(reply: bytes) -> int:
    found = re.search(rb"\bt(-?\d+)", reply)
    assert found, reply
    return int(found[1])


@pytest.mark.parametrize("uptime", [0, 1, 1000])
@pytest.mark.parametrize(
    "line", [b"mg new N-1 t", b"mg new N-1 T-1 v t", b"mg a T-1 t", b"ma a T-1 t", b"ma new N-1 t v"]
)
def test_it_is_not_shown_as_for_ever(line: bytes, uptime: int) -> None:
    client = fresh()
    client.engine.advance(uptime)
    client.set(b"a", b"1")
    assert PAST - uptime - 10 < left(client.send(line + b"\r\n")) < PAST
    assert client.send(b"mg a t\r\nmg new t\r\n").count(b"HD t-1\r\n") == (b"new" in line)


def test_other_times_are_as_they_were() -> None:
    client = fresh()
    client.engine.advance(10)
    for line, seconds in ((b"mg a N0 t", -1), (b"mg b N100 t", 100), (b"ma n N2592000 t", 2592000)):
        assert left(client.send(line + b"\r\n")) == seconds


def test_a_watcher_is_told_the_same() -> None:
    wire = Wire()
    watcher: Client = wire.another()
    assert watcher.send(b"watch mutations\r\n") == b"OK\r\n"
    wire.set(b"a", b"x", exptime=-1)
    wire.set(b"b", b"x", exptime=5)
    wire.set(b"c", b"x")
    wire.timers.run()
    told = [int(ttl) for ttl in re.findall(r" ttl=(-?\d+) ", watcher.session.drain().decode())]
    assert PAST - 10 < told[0] < PAST
    assert told[1:] == [5, 0]
