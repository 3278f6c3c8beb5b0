"""The server in a test's process: where it is, what is in it, what it received, and that it leaves no trace."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pymemcache.exceptions import MemcacheServerError

from mcserver.settings.rules import ConfigError
from mcserver.testing import Command, Server
from mcserver.testing.commands import Framing
from tests.serving import eventually
from tests.testing.clients import Client, Plain

MEBIBYTE = 1 << 20


@pytest.fixture
def client(memcached: Server) -> Client:
    return Client(memcached.address, timeout=5)


# Where it is -----------------------------------------------------------------------------------------------------------


def test_it_listens_on_a_port_of_its_own(memcached: Server) -> None:
    host, port = memcached.address
    assert (host, port) == (memcached.host, memcached.port)
    assert memcached.url == f"memcached://127.0.0.1:{port}"
    assert Plain(memcached.address).command(b"version").startswith(b"VERSION 1.6.")


def test_a_unix_socket_is_there_when_it_is_asked_for(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory()
    path = server.socket_path
    assert Plain(path).command(b"mn") == b"MN\r\n"
    assert server.socket_path == path
    assert f"unix:{path}" in Plain(path).stats("conns").values()
    server.stop()
    assert not Path(path).exists()


def test_it_can_be_started_once_and_stopped_often() -> None:
    server = Server()
    with pytest.raises(RuntimeError):
        _ = server.port
    server.start()
    with pytest.raises(RuntimeError):
        server.start()
    address = server.address
    server.stop()
    server.stop()
    with pytest.raises(RuntimeError, match="make another"):
        server.start()
    uses = (
        lambda: server["a"],
        lambda: list(server),
        server.reset,
        lambda: server.clock.now,
        lambda: server.clock.advance(1),
    )
    for use in (*uses, server.clock.pause, server.clock.resume, server.clock.follow):
        with pytest.raises(RuntimeError, match="has ended"):
            use()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize("flags", [[], ["-c", "1"]])
def test_who_has_gone_before_he_was_accepted_is_no_error(flags: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with Server(*flags) as server:
        stays = socket.create_connection(server.address)
        stays.sendall(b"version\r\n")
        stays.recv(100)
        with server.lock:  # nobody is accepted meanwhile
            server._loop.call_soon_threadsafe(server.lock.acquire)
            server._loop.call_soon_threadsafe(server.lock.release)
            for _ in range(20):
                gone = socket.create_connection(server.address)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends with a reset
                gone.close()
        eventually(lambda: len(server.lines) == 1)
        stays.sendall(b"version\r\n")
        assert stays.recv(100).startswith(b"VERSION ")
        stays.close()
        assert not caplog.records


def test_a_port_that_is_taken_is_an_error_and_nothing_stays() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            Server().start(taken.getsockname()[1])


async def test_the_asyncio_form() -> None:
    async with Server() as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"set a 0 0 1\r\n1\r\n")
        assert await reader.readline() == b"STORED\r\n"
        writer.close()
        await writer.wait_closed()


def test_it_runs_in_any_thread() -> None:
    found: list[bytes] = []

    def work() -> None:
        with Server() as server:
            Client(server.address).set("a", "1", noreply=False)
            found.append(server["a"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert found == [b"1"]


@pytest.mark.memcached("-m", "2", "-I", "4k")
def test_flags_are_memcacheds(memcached: Server, client: Client) -> None:
    assert memcached.stats("settings")["item_size_max"] == "4096"
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set("a", b"x" * 5000, noreply=False)


@pytest.mark.parametrize(
    "flags",
    [("-p", "1"), ("-l", "::1"), ("-s", "/x"), ("-d",), ("-P", "/x"), ("--zookeeper", "zk:1"), ("-z",), ("-c", "0")],
)
def test_flags_of_a_process_and_wrong_ones_are_refused(flags: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Server(*flags)


# What is in it ---------------------------------------------------------------------------------------------------------


def test_it_is_a_mapping(memcached: Server, client: Client) -> None:
    client.set("a", "1", noreply=False)
    memcached["b"] = b"2"
    memcached[b"\xff"] = "three"
    assert (memcached["a"], client.get("b"), memcached[b"\xff"]) == (b"1", b"2", b"three")
    assert set(memcached) == {"a", "b", "\udcff"}
    assert (len(memcached), "a" in memcached, "z" in memcached, bool(memcached)) == (3, True, False, True)
    assert memcached.get("z") is None
    del memcached["a"]
    assert client.get("a") is None
    for missing in ("a", "never"):
        with pytest.raises(KeyError):
            memcached[missing]
        with pytest.raises(KeyError):
            del memcached[missing]
    for bad in ("", "a b", "x" * 251, "a\r\n"):
        with pytest.raises(ValueError, match="no key"):
            memcached[bad] = "1"
    memcached.clear()
    assert not list(memcached)


def test_put_with_a_time_to_live_and_flags(memcached: Server) -> None:
    memcached.put("a", "1", ttl=60, flags=7)
    assert memcached.ask(b"mg a v f t\r\n") == b"VA 1 f7 t60\r\n1\r\n"
    memcached.clock.advance(60)
    assert "a" not in memcached
    assert not list(memcached)
    with pytest.raises(ValueError, match="too large"):
        memcached.put("a", b"x" * (2 * MEBIBYTE))


def test_values_with_line_ends_and_of_no_length(memcached: Server, client: Client) -> None:
    for value in (b"", b"\r\nEND\r\n", os.urandom(MEBIBYTE - 200)):
        client.set("a", value, noreply=False)
        assert memcached["a"] == value == client.get("a")


def test_looking_in_is_no_command_of_a_client(memcached: Server) -> None:
    memcached["a"] = "1"
    assert memcached["a"] == b"1"
    assert memcached.commands == []


def test_looking_in_leaves_no_trace(memcached: Server) -> None:
    """Whoever looked first would have won the lease of a stale item, and been counted as a hit."""
    watcher = Plain(memcached.address)
    assert watcher.command(b"watch fetchers") == b"OK\r\n"
    for size in (0, 1, MEBIBYTE - 200):
        memcached["a"] = value = os.urandom(size)
        memcached.put("short", "1", ttl=5)
        memcached.ask(b"md a I\r\n")
        before = memcached.stats()
        memcached.clock.advance(6)
        for _ in range(2):
            assert memcached["a"] == value
            assert "a" in memcached
            assert memcached.get("short") is None
            assert memcached.get("none") is None
            assert "none" not in memcached
        after = memcached.stats()
        for name in ("cmd_get", "get_hits", "get_misses", "get_expired", "cmd_meta", "cmd_touch"):
            assert after[name] == before[name], name
        assert memcached.ask(b"mg a h t\r\n") == b"HD h0 t-1 X W\r\n"
    memcached.ask(b"get last\r\n")
    seen = watcher.until(b"key=last")
    assert (seen.count(b"key=short"), seen.count(b"key=none")) == (3, 0), "storing looks for what is there"


# What was received -----------------------------------------------------------------------------------------------------


def test_commands_are_remembered_in_order(memcached: Server, client: Client) -> None:
    client.set("user:1", "Ada", expire=60, noreply=False)
    client.get_many(["user:1", "page:1"])
    client.delete("page:1", noreply=True)
    client.version()
    assert [str(command) for command in memcached.commands] == [
        "set user:1 0 60 3",
        "get user:1 page:1",
        "delete page:1 noreply",
        "version",
    ]
    first, second, third, last = memcached.commands
    assert first == Command("set", ("user:1",), b"set user:1 0 60 3", b"Ada")
    assert (second.keys, third.noreply) == (("user:1", "page:1"), True)
    assert memcached.commands.of("get", "user:*") == [second]
    assert memcached.commands.of(key="page:*") == [second, third]
    assert memcached.commands[-1:] == [last]
    memcached.commands.clear()
    assert len(memcached.commands) == 0


@pytest.mark.parametrize(
    ("data", "commands"),
    [
        (b"get a\r\nget b\n", ["get a", "get b"]),
        (b"ms a 2 T9\r\nhi\r\nmg a v\r\nmn\r\n", ["ms a 2 T9", "mg a v", "mn"]),
        (b"set a 0 0 x\r\nget a\r\n", ["set a 0 0 x", "get a"]),
        (b"set a 0 0 -1\r\nget a\r\n", ["set a 0 0 -1", "get a"]),
        (b"\r\n\r\nget a\r\n", ["", "", "get a"]),
        (b"cas a 1 2 3 4\r\nabc\r\n", ["cas a 1 2 3 4"]),
        (b"gat 10 a b\r\n", ["gat 10 a b"]),
    ],
)
def test_commands_are_told_apart_however_they_arrive(data: bytes, commands: list[str]) -> None:
    for size in (1, 3, len(data)):
        framing, found, passed = Framing(), [], b""
        for at in range(0, len(data), size):
            framing.receive(data[at : at + size])
            while (each := framing.next()) is not None:
                passed += each[0]
                found.append(str(each[1]))
        assert (found, passed) == (commands, data)


def test_what_is_no_protocol_goes_through_unchanged() -> None:
    framing = Framing()
    framing.receive(b"x" * (MEBIBYTE + 1))
    assert framing.next() == (b"x" * (MEBIBYTE + 1), None)
    binary = Framing()
    header = bytes([0x80, 1, 0, 3, 8, 0, 0, 0, 0, 0, 0, 13]) + bytes(12)
    binary.receive(header + bytes(8) + b"ke")
    assert binary.next() is None
    binary.receive(b"yva")
    _, command = binary.next() or (b"", None)
    assert command == Command("set", ("key",), b"set key", b"va")


def test_any_stream_gets_what_the_engine_answers(memcached: Server) -> None:
    stream = (
        b"set a 0 0 3\r\nabcdef\r\nget a\r\nset b 0 0 1 noreply\r\nx\r\nincr b 1\r\nfoo\r\nset "
        + b"k" * 300
        + b" 0 0 2\r\nhi\r\n"
        b"mg b v\r\nget\r\nmn\r\n"
    )
    plain = Plain(memcached.address)
    plain.send(stream)
    reply = plain.until(b"MN\r\n")
    memcached.reset()
    for at in range(len(stream)):
        plain.send(stream[at : at + 1])
    assert plain.until(b"MN\r\n") == reply
    memcached.reset()
    assert memcached.ask(stream) == reply


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"set a abc 0 1", b"CLIENT_ERROR bad command line format\r\n"),
        (b"set a 0 0 9999999", b"SERVER_ERROR object too large for cache\r\n"),
        (b"ms a 5 FX", b"CLIENT_ERROR bad command line format\r\n"),
    ],
)
def test_a_line_that_is_wrong_is_answered_before_its_value(memcached: Server, line: bytes, reply: bytes) -> None:
    assert Plain(memcached.address).command(line) == reply


def test_what_follows_a_value_in_pieces_is_answered(memcached: Server) -> None:
    plain = Plain(memcached.address)
    for size in (200_000, 2 * MEBIBYTE):
        plain.send(b"set a 0 0 %d\r\n%s\r\nmn\r\n" % (size, b"x" * size))
        assert plain.until(b"MN\r\n").startswith((b"STORED", b"SERVER_ERROR object too large"))


def test_a_value_that_comes_later_is_remembered_whole(memcached: Server) -> None:
    plain = Plain(memcached.address)
    for piece in (b"set a 0 0 4\r\n", b"ab", b"cd\r\nget a\r", b"\n"):
        plain.send(piece)
        Plain(memcached.address).command(b"mn")
    assert plain.until(b"END\r\n") == b"STORED\r\nVALUE a 0 4\r\nabcd\r\nEND\r\n"
    assert [(str(each), each.value) for each in memcached.commands if each.verb != "mn"] == [
        ("set a 0 0 4", b"abcd"),
        ("get a", None),
    ]


# The cold commands -----------------------------------------------------------------------------------------------------


def test_the_cold_commands_work(memcached: Server) -> None:
    plain = Plain(memcached.address)
    plain.command(b"set a 0 0 1\r\n1")
    assert plain.stats()["curr_items"] == "1"
    assert plain.stats("settings")["tcpport"] == str(memcached.port)
    assert plain.command(b"lru_crawler metadump all", b"END\r\n").startswith(b"OK\r\nkey=a ")
    assert any("conn_parse_cmd" in value for value in plain.stats("conns").values())
    watcher = Plain(memcached.address)
    assert watcher.command(b"watch fetchers mutations") == b"OK\r\n"
    plain.command(b"get a", b"END\r\n")
    assert b"type=item_get key=a status=found" in watcher.until(b"\n")


def test_a_large_dump_arrives_whole(memcached: Server) -> None:
    for number in range(3000):
        memcached[f"key:{number}"] = "x"
    dump = Plain(memcached.address).command(b"lru_crawler metadump all", b"\nEND\r\n")
    assert dump.count(b"key=key") == 3000


def test_the_limit_of_connections(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory("-c", "2")
    kept = [Plain(server.address) for _ in range(2)]
    for each in kept:
        each.command(b"mn")
    assert Plain(server.address).to_end() == b"ERROR Too many open connections\r\n"
    kept[0].close()
    eventually(lambda: server.connections == 2)
    assert Plain(server.address).command(b"mn") == b"MN\r\n"


def test_shutdown_is_the_end_of_the_connections(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory("-A")
    other = Plain(server.address)
    other.command(b"mn")
    one = Plain(server.address)
    one.send(b"shutdown\r\n")
    assert one.is_closed()
    assert other.is_closed()
    with pytest.raises(OSError, match="refused"):
        Plain(server.address)
    server.reset()
    assert Plain(server.address).command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_a_client_that_does_not_read_disturbs_nobody(memcached: Server) -> None:
    memcached["big"] = bytes(MEBIBYTE - 100)
    greedy = Plain(memcached.address)
    greedy.send(b"get big\r\n" * 50)
    assert Plain(memcached.address).command(b"mn") == b"MN\r\n"
    for _ in range(50):
        greedy.until(b"END\r\n")


# Between tests, and the process ----------------------------------------------------------------------------------------


def test_a_reset_leaves_connections_and_nothing_else(memcached: Server, client: Client) -> None:
    client.set("a", "1", noreply=False)
    client.stats("detail", "on")
    memcached.clock.advance(1000)
    memcached.clock.pause()
    memcached.faults.error("get")
    memcached.reset()
    assert client.get("a") is None
    assert not memcached.faults.planted
    assert [str(command) for command in memcached.commands] == ["get a"]
    assert memcached.stats()["cmd_set"] == "0"
    assert memcached.stats()["curr_connections"] != "0"


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_begins_with_an_empty_server(memcached: Server, number: int) -> None:
    assert len(memcached) == 0
    assert memcached.commands == []
    assert not memcached.faults.planted
    memcached["left"] = "over"
    memcached.faults.error(None).refuse()


def test_after_years_of_moved_time_a_reset_begins_anew(memcached_factory: Callable[..., Server]) -> None:
    server = memcached_factory()
    plain = Plain(server.address)
    plain.command(b"mn")
    server.clock.advance(1 << 27)
    server.reset()
    assert plain.is_closed()
    assert server.engine.now() < 1 << 20
    assert Plain(server.address).command(b"mn") == b"MN\r\n"


def test_the_process_is_left_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        handlers = [
            signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        ]
        logs = [(each.level, list(each.handlers)) for each in (logging.getLogger(), logging.getLogger("mcserver"))]
        return (
            handlers, logs, gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(), sys.unraisablehook,
            sys.getswitchinterval(),
            asyncio.get_event_loop_policy().__class__, logging.raiseExceptions, Path.cwd(),
            [thread for thread in threading.enumerate() if thread.name == "mcserver.testing"] if not running else None,
        )  # fmt: skip

    running = any(thread.name == "mcserver.testing" for thread in threading.enumerate())  # another test's
    gc.unfreeze()  # tests/conftest.py freezes, and what is frozen may end meanwhile
    before = state()
    with Server() as server, Server():
        Client(server.address).set("a", "1")
        during = state()
    assert state() == before
    assert during[:-1] == before[:-1]


SIZES = """
import os, re, sys
from mcserver.testing import Server
Server().start().stop()
def size():
    return int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
before = size()
servers = [Server().start() for _ in range(10)]
for server in servers:
    for number in range(64):
        server[f"key:{number}"] = bytes(900_000)
full = size()
used = sum(int(server.stats()["bytes"]) for server in servers) >> 20
descriptors = len(os.listdir("/proc/self/fd"))
for server in servers:
    server.stop()
print(full - before, used, size() - before, len(os.listdir("/proc/self/fd")) - 4 < descriptors)
"""


@pytest.mark.slow
def test_ten_servers_reserve_no_more_than_twice_what_they_use_and_give_it_back() -> None:
    result = subprocess.run([sys.executable, "-c", SIZES], capture_output=True, text=True, timeout=60, check=True)
    reserved, used, left, _ = result.stdout.split()
    assert int(used) > 500
    assert int(reserved) <= 2 * int(used)
    assert int(left) <= 96  # the C library keeps an arena of 64 MiB for a thread that ended


def test_stats_of_what_a_test_did(memcached: Server, client: Client) -> None:
    client.get("a")
    assert (memcached.stats()["cmd_get"], memcached.stats()["get_misses"]) == ("1", "1")
    assert re.fullmatch(r"<mcserver.testing.Server 127.0.0.1:\d+>", repr(memcached))
