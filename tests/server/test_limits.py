"""Limits of connections: refusing, pausing, idle ones; and that nobody's bad manners hurt the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import select
import socket
import time
from pathlib import Path

import pytest

from mcserver.core import Engine
from mcserver.server.connections import Connections
from mcserver.settings.config import Config
from tests.conftest import Start
from tests.serving import Client, Server, eventually

REFUSAL = b"ERROR Too many open connections\r\n"


def test_connection_over_the_limit_is_refused(start: Start) -> None:
    server = start("-c", "3")
    clients = [server.connect() for _ in range(3)]
    assert [client.command(b"mn") for client in clients] == [b"MN\r\n"] * 3
    assert server.connect().to_end() == REFUSAL
    stats = clients[0].stats()
    assert stats["rejected_connections"] == "1"
    assert stats["curr_connections"] == "3"
    assert stats["max_connections"] == "3"
    clients[2].close()
    eventually(lambda: clients[0].stats()["curr_connections"] == "2")
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_listener_pauses_without_maxconns_fast(start: Start) -> None:
    server = start("-c", "2", "-o", "no_maxconns_fast")
    first, second = server.connect(), server.connect()
    assert [first.command(b"mn"), second.command(b"mn")] == [b"MN\r\n"] * 2
    waiting = server.connect()
    waiting.send(b"mn\r\n")
    eventually(lambda: first.stats()["accepting_conns"] == "0")
    stats = first.stats()
    assert stats["listen_disabled_num"] == "1"
    assert "rejected_connections" not in stats
    assert select.select([waiting.socket], [], [], 0.1)[0] == []
    second.close()
    assert waiting.until(b"\r\n") == b"MN\r\n"
    assert int(first.stats()["time_in_listen_disabled_us"]) > 0


@pytest.mark.slow
def test_many_connections_come_and_go(start: Start) -> None:
    server = start("-c", "400")
    witness = server.connect()
    for _ in range(3):
        clients = [server.connect() for _ in range(300)]
        for client in clients:
            client.send(b"mn\r\n")
        assert all(client.until(b"\r\n") == b"MN\r\n" for client in clients)
        for client in clients:
            client.close()
        eventually(lambda: witness.stats()["curr_connections"] == "1")
    stats = witness.stats()
    assert stats["total_connections"] == "902"
    assert int(stats["connection_structures"]) == 302
    assert stats["rejected_connections"] == "0"


@pytest.mark.slow
def test_more_connections_than_the_soft_limit_of_files(start: Start) -> None:
    server = start("-c", "1500")
    clients = [server.connect() for _ in range(1200)]
    assert clients[-1].command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_idle_timeout(start: Start) -> None:
    server = start("-o", "idle_timeout=4")  # long enough for a busy machine to keep the other one busy
    idle, busy, watcher = server.connect(), server.connect(), server.connect()
    assert watcher.command(b"watch connevents") == b"OK\r\n"
    idle.socket.setblocking(False)
    closed = False
    while not closed:
        assert busy.command(b"mn") == b"MN\r\n"
        with contextlib.suppress(BlockingIOError):
            closed = idle.socket.recv(1) == b""
        time.sleep(0.05)
    assert busy.stats()["idle_kicks"] == "1"
    assert b"reason=idle_timeout" in watcher.until(b"\n")


@pytest.mark.slow
def test_idle_timeout_spares_unix_sockets(start: Start, tmp_path: Path) -> None:
    client = start("-s", str(tmp_path / "socket"), "-o", "idle_timeout=1").connect()
    time.sleep(2.5)
    assert client.command(b"mn") == b"MN\r\n"


def test_long_line_without_an_end_is_closed(server: Server, client: Client) -> None:
    liar = server.connect()
    liar.send(b"x" * 3000)
    assert liar.is_closed()
    assert client.command(b"mn") == b"MN\r\n"


def test_client_that_dribbles(client: Client) -> None:
    for byte in b"set a 0 0 5\r\nhello\r\nget a\r\n":
        client.send(bytes([byte]))
        time.sleep(0.001)
    assert client.until(b"END\r\n") == b"STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n"


def test_connection_that_is_reset(server: Server, client: Client) -> None:
    for _ in range(20):
        rude = server.connect()
        rude.send(b"set a 0 0 100000\r\nhalf")
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        rude.close()
    eventually(lambda: client.stats()["curr_connections"] == "1")


def test_client_that_never_reads_is_paused(start: Start) -> None:
    server = start("-m", "64")
    witness = server.connect()
    assert witness.command(b"set big 0 0 200000\r\n" + b"x" * 200000) == b"STORED\r\n"
    assert witness.command(b"set small 0 0 1000\r\n" + b"x" * 1000) == b"STORED\r\n"
    before = server.resident()
    greedy = [server.connect() for _ in range(10)]
    for client in greedy:
        client.socket.setblocking(False)
        request = b"get small big\r\n" * 500
        for _ in range(400):  # far more than the kernel and the server together would take in
            with contextlib.suppress(BlockingIOError):
                client.socket.send(request)
    eventually(lambda: witness.command(b"mn") == b"MN\r\n")
    assert server.resident() - before < 10 * (1 << 20)
    for _ in range(100):
        assert witness.command(b"mn") == b"MN\r\n"


def test_greedy_reader_gets_all_of_it_later(server: Server, client: Client) -> None:
    assert client.command(b"set a 0 0 1000\r\n" + b"x" * 1000) == b"STORED\r\n"
    count = 3000
    sent = b"get a\r\n" * count
    reply = b"VALUE a 0 1000\r\n" + b"x" * 1000 + b"\r\nEND\r\n"
    client.socket.setblocking(False)
    received = 0
    deadline = time.monotonic() + 120
    while received < len(reply) * count:
        assert time.monotonic() < deadline
        readable, writable, _ = select.select([client.socket], [client.socket] if sent else [], [], 5)
        if writable:
            sent = sent[client.socket.send(sent) :]
        if readable:
            received += len(client.socket.recv(1 << 20))
    assert received == len(reply) * count


@pytest.mark.slow
def test_metadump_to_a_slow_reader(server: Server, client: Client) -> None:
    batch = b"".join(b"set key-%d-%s 0 0 1 noreply\r\nx\r\n" % (i, b"k" * 200) for i in range(20000))
    client.send(batch)
    assert client.command(b"mn") == b"MN\r\n"
    slow = server.connect()
    before = server.resident()
    slow.send(b"lru_crawler metadump all\r\n")
    time.sleep(0.2)
    assert client.command(b"mn") == b"MN\r\n"
    assert server.resident() - before < 4 << 20
    assert slow.until(b"END\r\n").count(b"key=") == 20000


def test_refusals_do_not_read(start: Start) -> None:
    server = start("-c", "1")
    client = server.connect()
    assert client.command(b"mn") == b"MN\r\n"
    for _ in range(50):
        assert server.connect().to_end() == REFUSAL
    assert client.stats()["rejected_connections"] == "50"


WORDS = [
    *(
        b"get",
        b"set",
        b"ms",
        b"mg",
        b"md",
        b"ma",
        b"me",
        b"incr",
        b"cas",
        b"stats",
        b"watch",
        b"lru_crawler metadump all",
    ),
    *(b"a", b"k" * 250, b"k" * 251, b"-1", b"0", b"99999999999999999999", b"4294967296", b"2147483645", b"noreply"),
    *(b"\r\n", b"\n", b"\r", b" ", b"\x00", b"\x80", b"\xff" * 10, b"x" * 3000, b"T0", b"N30", b"q", b"v", b"HTTP/1.1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_garbage_harms_nobody(server: Server, client: Client, seed: int) -> None:
    chance = random.Random(seed)
    assert client.command(b"set precious 0 0 5\r\nvalue") == b"STORED\r\n"
    before = server.resident()
    for _ in range(60):
        liar = server.connect()
        liar.socket.setblocking(False)
        for _ in range(20):
            garbage = b" ".join(chance.choices(WORDS, k=12)) if chance.random() < 0.8 else chance.randbytes(500)
            try:
                liar.socket.send(garbage + chance.choice([b"", b"\r\n"]))
            except (BlockingIOError, ConnectionError):
                break
        if chance.random() < 0.5:
            liar.close()
    assert client.command(b"get precious", b"END\r\n") == b"VALUE precious 0 5\r\nvalue\r\nEND\r\n"
    assert server.resident() - before < 20 << 20
    assert "Traceback" not in server.log()


@pytest.mark.slow
def test_a_long_batch_gives_others_their_turn(server: Server, client: Client) -> None:
    greedy = server.connect()
    count = 20_000
    greedy.send(b"set a 0 0 1\r\nx\r\n" + b"get a\r\n" * count)
    assert greedy.until(b"STORED\r\n")
    received = 0
    while received < count * len(b"VALUE a 0 1\r\nx\r\nEND\r\n"):
        received += len(greedy.unread) + len(greedy.socket.recv(1 << 20))
        greedy.unread = b""
    assert int(client.stats()["conn_yields"]) > 0


@pytest.mark.slow
def test_no_descriptors_left(start: Start) -> None:
    """One line and one count while it lasts; the next that closes makes room at once."""
    server = start("-c", "400")
    witness = server.connect()
    assert witness.command(b"mn") == b"MN\r\n"
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (40, hard))
    clients = []
    for _ in range(60):  # a listener that rests leaves them waiting
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", server.port))
        clients.append(client)
    eventually(lambda: witness.stats()["accepting_conns"] == "0")
    time.sleep(0.5)
    assert witness.stats()["listen_disabled_num"] == "1"
    eventually(lambda: server.log().count("can't accept connections: Too many open files") == 1)
    for client in clients:
        client.close()
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.slow
async def test_a_connection_that_can_not_be_watched_is_closed_and_counted(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A file stands in for a socket for which epoll has no room, which a test can't bring about without harming the machine."""
    connections = Connections(Config(), Engine(), [])
    connections.attach(asyncio.get_running_loop(), lambda graceful: None)
    connections.listen()
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    assert not connections.workers.open(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert connections.clients == 0
    await asyncio.sleep(0.1)
    assert connections.figures.rejected_connections == 1
    assert "can't watch a connection, which is closed" in caplog.text
    connections.close_all()


@pytest.mark.slow
def test_lines_without_an_end_are_bounded_together(start: Start) -> None:
    server = start("-o", "read_buf_mem_limit=8")
    witness = server.connect()
    before = server.resident()
    clients = [server.connect() for _ in range(20)]
    refused = set()
    for client in clients:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.send(b"get " + b"k " * 1_000_000)
        client.socket.setblocking(False)

    def all_is_settled() -> bool:
        """As many were refused as the server counts; the others have their place."""
        for client in clients:
            try:
                if client not in refused and client.to_end() == b"SERVER_ERROR out of memory reading request\r\n":
                    refused.add(client)
            except BlockingIOError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                refused.add(client)
        return 15 <= len(refused) == int(witness.stats()["read_buf_oom"])

    eventually(all_is_settled)
    assert 1 << 20 < int(witness.stats()["read_buf_bytes"]) <= 8 << 20
    assert server.resident() - before < 24 << 20
    for client in clients:
        client.close()
    eventually(lambda: witness.stats()["read_buf_bytes"] == "0")
    long = server.connect()
    assert long.command(b"get " + b"k " * 1_000_000, b"END\r\n") == b"END\r\n"


@pytest.mark.slow
def test_multigets_that_are_not_read_are_bounded_together(start: Start) -> None:
    """What is left of a long one's keys waits until its client reads: it counts as a line without an end does."""
    server = start("-o", "read_buf_mem_limit=8")
    witness = server.connect()
    assert witness.command(b"set k 0 0 1000\r\n" + b"v" * 1000) == b"STORED\r\n"
    keys = 700_000
    for _ in range(12):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            server.connect().send(b"get" + b" k" * keys + b"\r\n")
    eventually(
        lambda: (
            int((stats := witness.stats())["read_buf_oom"]) + int(stats["read_buf_bytes"]) // (2 * keys - 50_000) >= 12
        )
    )
    assert 1 << 20 < int(witness.stats()["read_buf_bytes"]) <= 9 << 20
    for client in server.clients[1:]:
        client.close()
    eventually(lambda: witness.stats()["read_buf_bytes"] == "0")
    reader = server.connect()
    reader.send(b"get" + b" k" * 100_000 + b"\r\n")
    got = 0
    while got < len(b"VALUE k 0 1000\r\n\r\n") * 100_000 + 100_000_000 + len(b"END\r\n"):
        got += len(reader.socket.recv(1 << 20))
    assert reader.command(b"mn") == b"MN\r\n"
