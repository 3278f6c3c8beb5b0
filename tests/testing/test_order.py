"""What a client has sent has taken effect before a test looks in, moves the clock, plants a fault or empties the server."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import time
from collections.abc import Callable

import pytest
from pymemcache.exceptions import MemcacheServerError

from mcserver.settings.rules import ConfigError
from mcserver.testing import Fleet, Server
from mcserver.testing.host import Host
from tests.serving import eventually
from tests.testing.clients import Client, Plain

TIMES = 20
"""A race that is lost is lost nearly always: the server's thread has to wake first."""


@pytest.fixture(params=["sockets", "no network"])
def client(request: pytest.FixtureRequest, memcached: Server) -> Client:
    """Whose set, delete and incr ask for no reply unless they are told to, as pymemcache's do by default."""
    if request.param == "sockets":
        return Client(memcached.address, timeout=5)
    return Client("anywhere", socket_module=memcached.socket_module, timeout=5)


def test_looking_in_sees_what_was_sent_without_reply(memcached: Server, client: Client) -> None:
    for number in range(TIMES):
        client.set(f"key:{number}", "1")
        assert memcached[f"key:{number}"] == b"1"
        client.set("other", str(number))
        assert "other" in memcached
        client.delete("other")
        assert len(memcached) == number + 1
        client.set("other", "1")
        assert memcached.commands[-1].verb == "set"
        assert memcached.stats()["curr_items"] == str(number + 2)
        client.delete("other")


def test_a_large_value_is_there_whole(memcached: Server, client: Client) -> None:
    value = bytes(1_000_000)
    for _ in range(3):
        client.set("large", value)
        assert memcached["large"] == value


def test_the_clock_moves_after_what_was_sent(memcached: Server, client: Client) -> None:
    for _ in range(TIMES):
        client.set("a", "1", expire=60)
        memcached.clock.advance(61)
        assert client.get("a") is None


def test_a_reset_takes_what_the_last_test_has_sent(memcached: Server, client: Client) -> None:
    for _ in range(TIMES):
        client.set("left", "over")
        memcached.reset()
        assert client.get("left") is None
        assert [command.verb for command in memcached.commands] == ["get"]


def test_a_connection_that_was_not_accepted_yet_counts(memcached: Server) -> None:
    for number in range(TIMES):
        with socket.create_connection(memcached.address) as one:
            one.sendall(b"set key:%d 0 0 1 noreply\r\n1\r\n" % number)
        assert f"key:{number}" in memcached


def test_a_fault_comes_after_what_was_sent(memcached: Server, client: Client) -> None:
    for number in range(TIMES):
        client.set(f"key:{number}", "1")
        memcached.faults.error("set")
        with pytest.raises(MemcacheServerError):
            client.set("never", "1", noreply=False)
        assert f"key:{number}" in memcached
        client.set("never", "1")
        memcached.faults.clear()
        assert "never" not in memcached


def test_what_a_fault_holds_up_is_not_waited_for(memcached: Server, client: Client) -> None:
    memcached.faults.delay("set", 600)
    client.set("a", "1")
    assert "a" not in memcached
    memcached.faults.blackhole(None)
    Plain(memcached.address).send(b"set b 0 0 1 noreply\r\n1\r\n")
    assert "b" not in memcached


def test_a_client_that_sends_without_end_holds_nobody_up(memcached: Server) -> None:
    greedy = Plain(memcached.address)
    memcached.faults.blackhole("get", times=1)
    greedy.send(b"get a\r\n" + b"x" * 3_000_000)
    assert len(memcached) == 0


# What a test can get wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"watch\r\n", b"quit\r\n", b"set a 0 0 10\r\nab", b"get", bytes([0x80, 0x0A]) + bytes(22), b"shutdown\r\n"],
)
def test_what_was_asked_before_disturbs_nobody(memcached: Server, data: bytes) -> None:
    with contextlib.suppress(ValueError):  # what is cut off is an error
        memcached.ask(data)
    memcached["a"] = "1"
    assert memcached["a"] == b"1"
    assert memcached.ask(b"mn\r\n") == b"MN\r\n"
    memcached.reset()
    assert list(memcached) == []


def test_values_and_keys_are_what_a_client_would_send(memcached: Server) -> None:
    wrong: list[Callable[[], object]] = [
        lambda: memcached.put("a", 5),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.put("a", [1]),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.put("a", "1", ttl=0.5),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.put(5, "1"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.ask("mn\r\n"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.faults.drop(3),  # type: ignore[arg-type]  # wrong on purpose
        lambda: memcached.faults.error("get", key=b"a"),  # type: ignore[arg-type]  # wrong on purpose
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    assert len(memcached) == 0


def test_a_fault_that_could_hit_nothing_is_refused(memcached: Server) -> None:
    faults = memcached.faults
    wrong: tuple[Callable[[], object], ...] = (
        lambda: faults.error("gett"),
        lambda: faults.delay("get", -1),
        lambda: faults.delay("get", float("nan")),
        lambda: faults.error("get", times=0),
        lambda: faults.error("get", after=-1),
        lambda: faults.error("get", "SERVER_ERROR a\r\nEND"),
        lambda: faults.error("get", ""),
        lambda: faults.slow("get", 0),
    )
    for call in wrong:
        with pytest.raises(ValueError, match=r"fault|no command|no? ?t? one line"):
            call()
    assert not faults.planted


def test_the_clock_takes_timedeltas_and_no_nonsense(memcached: Server) -> None:
    memcached.put("a", "1", ttl=60)
    memcached.clock.advance(dt.timedelta(minutes=1))
    assert "a" not in memcached
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="time"):
            memcached.clock.advance(seconds)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("-m 2 -I 4k",), "argument of its own: -m, 2, -I, 4k"),
        (("foo",), "'foo' is no option"),
        (("-V",), "page"),
        (("-U", "1"), "-U"),
        (("-e", "/x"), "-e"),
        (("-Y", "/x"), "-Y"),
        (("-B", "binary"), "-B"),
        (("--metrics", "127.0.0.1:0"), "--metrics"),
        (("--take-over", "/x"), "--take-over"),
        (("--ephemeral",), "--ephemeral"),
        (("-o", "idle_timeout=5"), "idle_timeout"),
        (("-a", "0777"), "-a"),
    ],
)
def test_no_flag_is_taken_without_effect(flags: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Server(*flags)


def test_flags_may_be_numbers(memcached_factory: Callable[..., Server]) -> None:
    assert memcached_factory("-m", 2).stats()["limit_maxbytes"] == str(2 << 20)


def test_an_option_without_effect_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="-L is accepted, but has no effect"):
        Server("-L")


def test_a_server_is_itself(memcached_factory: Callable[..., Server]) -> None:
    """Two empty servers are equal mappings, and not one server."""
    one, other = memcached_factory(), memcached_factory()
    assert one != other
    assert [one, other].index(other) == 1
    assert len({one, other}) == 2
    one["a"] = "1"
    assert one == {"a": b"1"}


def test_the_member_that_is_named_is_cut_off(memcached_fleet: Callable[..., Fleet]) -> None:
    fleet = memcached_fleet(3)
    fleet.partition(fleet[2])
    fleet.until_stale(2)
    fleet[0]["a"] = "1"
    assert Plain(fleet[0].address).command(b"get a", b"END\r\n").startswith(b"VALUE a")
    with pytest.raises(ValueError, match="no member of this fleet"):
        fleet.partition(Server())


def test_a_fleet_settles_after_what_was_sent(memcached_fleet: Callable[..., Fleet]) -> None:
    fleet = memcached_fleet(2)
    here = Client(fleet[0].address)
    for _ in range(TIMES):
        fleet[1]["a"] = "1"
        here.delete("a")
        fleet.settle()
        assert "a" not in fleet[1]


def test_clients_may_come_until_it_has_ended(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server, real = Server().start(), Host.call

    def call(host: Host, function: Callable[..., object], *arguments: object) -> object:
        if function == server._detach:
            with socket.create_connection(server.address):
                eventually(lambda: server.figures.total_connections == 1)
                return real(host, function, *arguments)
        return real(host, function, *arguments)

    monkeypatch.setattr(Host, "call", call)
    server.stop()
    assert not caplog.records


def test_a_forked_process_leaves_it_alone(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory()
    path = server.socket_path
    server["a"] = "1"
    child = os.fork()
    if not child:
        code = 1
        try:
            for use in (lambda: server["a"], lambda: server.clock.advance(1)):
                with pytest.raises(RuntimeError, match="forked"):
                    use()
            server.stop()
            with Server() as another, socket.create_connection(another.address) as one:
                one.sendall(b"mn\r\n")
                code = 0 if one.recv(10) == b"MN\r\n" else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    assert ended[1] == 0
    assert Plain(path).command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
