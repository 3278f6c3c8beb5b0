"""Planted faults, as clients see them: over sockets and without a network."""

from __future__ import annotations

import time

import pytest
from pymemcache.exceptions import MemcacheServerError, MemcacheUnexpectedCloseError

from mcserver.testing import FakeSocket, Server
from tests.testing.clients import Client, Plain


@pytest.fixture(params=["sockets", "no network"])
def client(request: pytest.FixtureRequest, memcached: Server) -> Client:
    if request.param == "sockets":
        return Client(memcached.address, timeout=0.3)
    return Client("anywhere", socket_module=memcached.socket_module, timeout=0.3)


def test_a_delay_is_a_timeout_or_only_late(memcached: Server, client: Client) -> None:
    memcached.faults.delay("get", 10)
    with pytest.raises(TimeoutError):
        client.get("a")
    assert client.set("a", "1", noreply=False)
    memcached.faults.clear()
    memcached.faults.delay("get", 0.01)
    assert client.get("a") == b"1"


def test_others_go_on_during_a_delay(memcached: Server) -> None:
    memcached.faults.delay("get", 30)
    one, other = Plain(memcached.address), Plain(memcached.address)
    one.send(b"get a\r\n")
    began = time.monotonic()
    assert other.command(b"mn") == b"MN\r\n"
    assert time.monotonic() - began < 20


def test_an_error_is_the_answer_and_the_command_has_no_effect(memcached: Server, client: Client) -> None:
    memcached.faults.error("set", b"SERVER_ERROR out of memory", times=1)
    with pytest.raises(MemcacheServerError, match="out of memory"):
        client.set("a", "1", noreply=False)
    assert "a" not in memcached
    assert client.set("a", "1", noreply=False)
    memcached.faults.error("set", "SERVER_ERROR busy")
    client.set("b", "1", noreply=True)
    assert client.get("a") == b"1"  # in step: nothing was answered
    assert "b" not in memcached


def test_a_pattern_of_keys_after_and_times(memcached: Server, client: Client) -> None:
    memcached.faults.error("get", key="user:*", after=1, times=2)
    assert client.get("page:1") is None
    assert client.get("user:1") is None
    for _ in range(2):
        with pytest.raises(MemcacheServerError):
            client.get("user:1")
    assert client.get("user:1") is None
    assert not memcached.faults.planted


def test_a_drop_is_a_reset_connection(memcached: Server, client: Client) -> None:
    memcached.faults.drop(after=2)
    client.set("a", "1", noreply=False)
    assert client.get("a") == b"1"
    with pytest.raises((ConnectionResetError, MemcacheUnexpectedCloseError)):
        client.set("a", "2", noreply=False)
    assert memcached["a"] == b"1"


def test_half_a_reply(memcached: Server, client: Client) -> None:
    memcached["a"] = "x" * 1000
    memcached.faults.half_reply("get", times=1)
    with pytest.raises(MemcacheUnexpectedCloseError):
        client.get("a")
    assert client.get("a") == b"x" * 1000


def test_half_of_a_reply_is_half_of_it(memcached: Server) -> None:
    memcached["a"] = "x" * 100
    memcached.faults.half_reply()
    plain = Plain(memcached.address)
    plain.send(b"get a\r\n")
    whole = memcached.ask(b"get a\r\n")
    assert plain.to_end() == whole[: (len(whole) + 1) // 2]


def test_a_blackhole_answers_nothing_more_on_its_connection(memcached: Server) -> None:
    memcached.faults.blackhole("get", times=1)
    swallowed, other = Client(memcached.address, timeout=0.1), Client(memcached.address, timeout=5)
    with pytest.raises(TimeoutError):
        swallowed.get("a")
    assert other.get("a") is None
    plain = Plain(memcached.address)
    memcached.faults.blackhole("get", times=1)
    plain.send(b"get a\r\nmn\r\n")
    plain.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        plain.socket.recv(1)
    plain.socket.settimeout(5)
    memcached.faults.clear()
    assert plain.is_closed()


@pytest.mark.slow
def test_a_slow_reply_comes_in_drops(memcached: Server) -> None:
    memcached["a"] = "x" * 90
    memcached.faults.slow("get", bytes_a_second=300)
    plain = Plain(memcached.address)
    plain.send(b"get a\r\n")
    first = plain.socket.recv(1000)
    assert 0 < len(first) <= 60
    plain.unread = first
    assert plain.until(b"END\r\n") == memcached.ask(b"get a\r\n")


def test_refused_connections(memcached: Server, client: Client) -> None:
    client.get("a")
    memcached.faults.refuse()
    assert client.get("a") is None  # it is connected
    client.close()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            client.get("a")
    port = memcached.port
    memcached.faults.clear()
    assert memcached.port == port
    assert client.get("a") is None


def test_chained_faults_meet_in_their_order(memcached: Server, client: Client) -> None:
    memcached.faults.error("set", "SERVER_ERROR one", times=1).delay("set", 0.001).error(
        "set", "SERVER_ERROR two", times=1
    )
    for text in ("one", "two"):
        with pytest.raises(MemcacheServerError, match=text):
            client.set("a", "1", noreply=False)
    assert client.set("a", "1", noreply=False)


def test_faults_of_pipelined_commands_stay_in_order(memcached: Server) -> None:
    memcached["a"] = "1"
    memcached.faults.delay("mg", 0.05).error("delete")
    plain = Plain(memcached.address)
    plain.send(b"mg a v\r\ndelete a\r\nget a\r\nmn\r\n")
    assert plain.until(b"MN\r\n") == (
        b"VA 1\r\n1\r\nSERVER_ERROR out of memory storing object\r\nVALUE a 0 1\r\n1\r\nEND\r\nMN\r\n"
    )


def test_a_fake_socket_by_itself(memcached: Server) -> None:
    sock = FakeSocket(memcached)
    with pytest.raises(OSError, match="not connected"):
        sock.sendall(b"x")
    sock.connect(("x", 1))
    sock.settimeout(1)
    with pytest.raises(TimeoutError):
        sock.recv(10)
    sock.sendall(b"mn\r\nversion\r\n")
    buffer = bytearray(4)
    assert (sock.recv_into(buffer), bytes(buffer)) == (4, b"MN\r\n")
    assert sock.recv(7) == b"VERSION"
    sock.sendall(b"set a 0 0 1 noreply\r\n1\r\n")
    sock.close()
    assert memcached["a"] == b"1"
    ended = memcached.socket_module.create_connection(("x", 1), 1)
    ended.sendall(b"quit\r\n")
    assert ended.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        ended.sendall(b"mn\r\n")
