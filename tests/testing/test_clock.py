"""The server's time: moved by hand, or following the process's, which freezegun and time-machine move."""

from __future__ import annotations

import time

import freezegun
import pytest
import time_machine

from mcserver.testing import Server
from tests.testing.clients import Client

MONTH = 30 * 86400


@pytest.fixture
def client(memcached: Server) -> Client:
    return Client(memcached.address, timeout=5)


def test_what_was_to_live_for_less_is_gone_exactly(memcached: Server, client: Client) -> None:
    memcached.clock.pause()
    client.set("a", "1", expire=60, noreply=False)
    memcached.clock.advance(59)
    assert client.get("a") == b"1"
    memcached.clock.advance(1)
    assert client.get("a") is None


def test_time_does_not_go_back(memcached: Server) -> None:
    with pytest.raises(ValueError, match="back"):
        memcached.clock.advance(-1)
    now = memcached.clock.now
    memcached.clock.advance(100)
    assert 100 <= memcached.clock.now - now < 160


def test_a_paused_clock_stands(memcached: Server) -> None:
    memcached.clock.pause()
    now = memcached.clock.now
    time.sleep(0.002)
    assert memcached.clock.now == now
    memcached.clock.advance(3)
    assert memcached.clock.now == pytest.approx(now + 3, rel=0, abs=1e-6)
    memcached.clock.resume()
    assert memcached.clock.now >= now + 3 - 1e-6  # a double of today's date has steps of 2.4e-7


@pytest.mark.parametrize("start", ["2001-01-01", "2030-01-01"])
def test_it_follows_freezegun(memcached: Server, client: Client, start: str) -> None:
    with freezegun.freeze_time(start) as frozen:
        memcached.clock.follow()
        client.set("a", "1", expire=60, noreply=False)
        client.set("date", "1", expire=int(time.time()) + 2 * MONTH, noreply=False)  # a date, as Django gives it
        frozen.tick(59)
        assert client.get("a") == b"1"
        frozen.tick(1)
        assert client.get("a") is None
        frozen.tick(2 * MONTH - 61)
        assert client.get("date") == b"1"
        assert "date" in memcached
        frozen.tick(1)
        assert client.get("date") is None
        assert "date" not in memcached


@pytest.mark.parametrize("start", ["2001-01-01T00:00Z", "2030-01-01T00:00Z"])
def test_it_follows_time_machine(memcached: Server, client: Client, start: str) -> None:
    with time_machine.travel(start, tick=False) as traveller:
        memcached.clock.follow()
        client.set("a", "1", expire=60, noreply=False)
        client.set("date", "1", expire=int(time.time()) + 2 * MONTH, noreply=False)
        traveller.shift(59)
        assert client.get("a") == b"1"
        traveller.shift(1)
        assert client.get("a") is None
        assert client.get("date") == b"1"
        traveller.shift(2 * MONTH)
        assert client.get("date") is None


def test_following_begins_before_time_is_frozen(memcached: Server, client: Client) -> None:
    memcached.clock.follow()
    client.set("a", "1", expire=60, noreply=False)
    with freezegun.freeze_time("2001-01-01"):  # back: what is stored ages no less and no more
        assert client.get("a") == b"1"
    with time_machine.travel("2001-01-01T00:00Z", tick=False) as traveller:
        client.set("a", "1", expire=60, noreply=False)
        traveller.shift(61)
        assert client.get("a") is None


def test_delays_and_fleets_go_on_while_time_is_frozen(memcached: Server, client: Client) -> None:
    with freezegun.freeze_time("2030-01-01"):
        memcached.faults.delay("get", 0.02)
        assert client.get("a") is None


def test_the_next_test_has_its_own_time(memcached: Server, client: Client) -> None:
    with freezegun.freeze_time("2001-01-01"):
        memcached.clock.follow()
    memcached.reset()
    assert abs(memcached.clock.now - time.time()) < 3
    memcached.clock.advance(1000)
    memcached.reset()
    client.set("a", "1", expire=int(time.time()) + 60, noreply=False)  # some clients give dates
    assert client.get("a") == b"1"
    assert abs(memcached.clock.now - time.time()) < 3
