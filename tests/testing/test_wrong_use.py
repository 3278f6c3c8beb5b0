"""What a test does wrong is an error that says so: never silence, never a wait without an end."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pymemcache
import pytest

from mcserver.settings.rules import ConfigError
from mcserver.testing import Fleet, Server
from tests.testing.clients import Client, Plain

HANDLES: dict[str, Callable[[Server], object]] = {
    "a value": lambda server: server["a"],
    "keys": list,
    "stats": lambda server: server.stats(),
    "advance": lambda server: server.clock.advance(1),
    "now": lambda server: server.clock.now,
    "pause": lambda server: server.clock.pause(),
    "resume": lambda server: server.clock.resume(),
    "follow": lambda server: server.clock.follow(),
    "a fault": lambda server: server.faults.error("get"),
    "refuse": lambda server: server.faults.refuse(),
    "clear": lambda server: server.faults.clear(),
    "reset": lambda server: server.reset(),
}


def without_network(server: Server) -> Client:
    return Client("anywhere", socket_module=server.socket_module)


# A server that has ended, or is another process's -----------------------------------------------------------------------


@pytest.mark.parametrize("handle", HANDLES)
def test_a_server_that_has_ended_says_so(handle: str) -> None:
    with Server() as server:
        Client(server.address).get("a")
    with pytest.raises(RuntimeError, match="has ended"):
        HANDLES[handle](server)
    assert [str(command) for command in server.commands] == ["get a"], "what it received stays known"


def test_sockets_without_a_network_find_no_server_that_has_ended() -> None:
    with Server() as server:
        client, kept = without_network(server), without_network(server)
        assert client.get("a") is None
        assert kept.get("a") is None
    with pytest.raises(ConnectionResetError):
        client.get("a")
    with pytest.raises(ConnectionRefusedError):
        client.get("a")
    kept.close()


def test_sockets_without_a_network_lose_a_server_that_begins_anew(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory()
    client = without_network(server)
    client.set("a", "old", noreply=False)
    server.clock.advance(1 << 27)
    server.reset()
    server["a"] = "new"
    with pytest.raises(ConnectionResetError):
        client.get("a")
    assert client.get("a") == b"new"


def test_a_forked_process_is_told_so_and_never_waits(memcached_fleet: Callable[..., Fleet]) -> None:
    fleet = memcached_fleet(2)
    server = fleet[0]
    handles: dict[str, Callable[[], object]] = {
        **{name: partial(handle, server) for name, handle in HANDLES.items()},
        "commands": lambda: list(server.commands),
        "commands.clear": server.commands.clear,
        "socket_path": lambda: server.socket_path,
        "partition": lambda: fleet.partition(0),
        "heal": fleet.heal,
        "settle": fleet.settle,
        "stats of a member": lambda: fleet.stats(0),
    }
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a wait without an end
        wrong = 0
        for handle in handles.values():
            try:
                handle()
            except RuntimeError as error:
                wrong += "forked from" not in str(error)
            else:
                wrong += 1
        fleet.stop()
        os._exit(wrong)
    assert os.waitpid(child, 0)[1] == 0
    assert server.faults.planted == []


def test_a_forked_process_has_no_copy_to_speak_with(memcached: Server) -> None:
    child = os.fork()
    if child == 0:
        try:
            pymemcache.Client("anywhere", socket_module=memcached.socket_module).set("a", "1")
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


# Arguments --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((0,), ValueError, "at least one member"),
        (("3",), TypeError, "begins with the number of its members"),
        ((2, "-m 5"), ConfigError, "several words"),
        ((2, "loose"), ConfigError, "'loose' is no option: flags are memcached's"),
        ((2, "-h"), ConfigError, "--help is a page to read"),
        ((2, "--node-name", "x"), ConfigError, "--node-name is not for a fleet within a process"),
        ((2, "--advertise", "a:1"), ConfigError, "--advertise is not for a fleet within a process"),
        ((2, "--zk-acl", "open"), ConfigError, "--zk-acl is not for a fleet within a process"),
    ],
)
def test_a_fleet_that_cannot_be(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Fleet(*arguments)


@pytest.mark.parametrize("flags", [(64,), (["-m", "2"],), ("-m", "2", "")])
def test_a_loose_word_is_no_flag(flags: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="is no option: flags are memcached's, each word an argument of its own"):
        Server(*flags)


def test_members_are_named_by_number_or_as_themselves(memcached: Server, memcached_fleet: Callable[..., Fleet]) -> None:
    fleet = memcached_fleet(2)
    for stranger in (2, -3, "n1", memcached):
        with pytest.raises(ValueError, match="is no member of this fleet: they are 0 to 1"):
            fleet.partition(stranger)  # type: ignore[arg-type]  # wrong on purpose
    fleet.partition(-1)
    fleet.heal(fleet[1])
    fleet.settle()
    with pytest.raises(RuntimeError, match="started before"):
        fleet.start()
    with pytest.raises(RuntimeError, match="does not run"):
        Fleet(2).partition()


def test_a_fleet_that_does_not_join_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_time(*_: object) -> None:
        raise TimeoutError("the fleet did not join")

    monkeypatch.setattr(Fleet, "_until", no_time)
    fleet = Fleet(2)
    with pytest.raises(TimeoutError):
        fleet.start()
    for server in fleet:
        with pytest.raises(RuntimeError, match="has ended"):
            server.stats()
    with pytest.raises(RuntimeError, match="started before"):
        fleet.start()


def test_faults_that_make_no_sense(memcached: Server) -> None:
    faults = memcached.faults
    wrong: list[Callable[[], object]] = [
        lambda: faults.error("get", 5),  # type: ignore[arg-type]  # wrong on purpose
        lambda: faults.delay("get", "1"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: faults.slow(bytes_a_second="1"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: faults.drop(after="1"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: faults.drop(times=1.5),  # type: ignore[arg-type]  # wrong on purpose
    ]
    for plant in wrong:
        with pytest.raises(TypeError, match=r"of a fault is bytes or str|is a number|is a whole number"):
            plant()
    assert not faults.planted


def test_time_advances_by_seconds(memcached: Server) -> None:
    for wrong in ("60", None):
        with pytest.raises(TypeError, match="a number of seconds or a timedelta"):
            memcached.clock.advance(wrong)  # type: ignore[arg-type]  # wrong on purpose
    memcached.put("a", "1", ttl=60)
    memcached.clock.advance(dt.timedelta(minutes=1))
    assert "a" not in memcached


@pytest.mark.parametrize("days", [29, 30, 31, 400])
def test_a_time_to_live_is_seconds_however_many(memcached: Server, days: int) -> None:
    memcached.clock.pause()
    memcached.put("a", "1", ttl=days * 86400)
    assert memcached.ask(b"mg a t\r\n") == b"HD t%d\r\n" % (days * 86400)
    memcached.clock.advance(days * 86400 - 1)
    assert memcached["a"] == b"1"
    memcached.clock.advance(1)
    assert "a" not in memcached


def test_what_cannot_be_put(memcached: Server) -> None:
    with pytest.raises(ValueError, match="ttl is 0 seconds or more"):
        memcached.put("a", "1", ttl=-1)
    for flags in (-1, 1 << 32):
        with pytest.raises(ValueError, match="client flags are a number from 0 to 4294967295"):
            memcached.put("a", "1", flags=flags)
    with pytest.raises(TypeError, match="client flags are a number"):
        memcached.put("a", "1", flags="x")  # type: ignore[arg-type]  # wrong on purpose
    assert len(memcached) == 0


def test_what_is_asked_is_whole(memcached: Server) -> None:
    for part in (b"version", b"get a", b"set a 0 0 5\r\n", b"set a 0 0 5\r\nab"):
        with pytest.raises(ValueError, match="is cut off"):
            memcached.ask(part)
    assert memcached.ask(b"set a 0 0 9999999\r\nab").startswith(b"SERVER_ERROR"), "it is answered"
    with pytest.raises(TypeError, match="bytes of the protocol"):
        memcached.ask("version\r\n")  # type: ignore[arg-type]  # wrong on purpose
    assert memcached.ask(b"set a 0 0 1 noreply\r\n1\r\n") == b""
    assert memcached.ask(b"get a\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"


def test_a_verb_that_nobody_has_is_not_looked_for(memcached: Server) -> None:
    with pytest.raises(ValueError, match="no command is named 'sett'"):
        memcached.commands.of("sett")
    assert Plain(memcached.address).command(b"sett x") == b"ERROR\r\n"
    assert [str(command) for command in memcached.commands.of("sett")] == ["sett x"], "somebody has sent it"
    assert memcached.commands.of("set") == []
