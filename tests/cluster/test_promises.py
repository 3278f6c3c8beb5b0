"""Promises that were once broken, on real servers and a real ensemble: delayed flushes, locked writes at `applied`, strangers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import CacheServer, until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_one_bad_entry_costs_a_fleet_one_flush(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=2) as fleet:
        with ensemble.client() as client:
            root = f"/{name}/cache"
            log = json.loads(client.get(f"{root}/invalidation/meta")[0])["log"]
            before = [int(server.stats()["flushes"]) for server in fleet.servers]
            client.create(f"{root}/invalidation/{log}/e-", b"MI1 evil 0\ns 99999999999 k", sequence=True)
            client.create(
                f"{root}/nodes/evil", b'{"address": "a:1\\r\\nEND", "state": "ready", "applied": [1, 1], "boot": "x"}'
            )
        for server, was in zip(fleet.servers, before, strict=True):
            until(lambda server=server, was=was: int(server.stats()["flushes"]) == was + 1)
        first, second = fleet.servers
        assert second.set(b"k", b"old") == b"STORED"
        assert first.delete(b"k") == b"NOT_FOUND"
        until(lambda: second.get(b"k") is None)
        time.sleep(1)
        for server, was in zip(fleet.servers, before, strict=True):
            assert int(server.stats()["flushes"]) == was + 1
            assert server.log.count("of an unknown format") == 1
            with server.client() as session:
                assert len(session.lines(b"cluster members")) == 3
                assert session.stats()["members"] == "2"


def test_a_locked_write_at_applied_takes_effect_when_the_others_have_lost_the_key(
    ensemble: Ensemble, name: str
) -> None:
    with Fleet(ensemble, name, "--ack", "applied", "--lock-writes", "lk:", count=2) as fleet:
        first, second = fleet.servers
        with first.client() as one, second.client() as two:
            for number in range(40):
                assert two.set(b"lk:1", b"old %d" % number) == b"STORED"
                assert one.set(b"lk:1", b"new %d" % number) == b"STORED"
                assert two.get(b"lk:1") is None
        assert first.stats()["writes_locks"] != "0"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_delayed_flush_comes_after_other_flushes_and_to_those_who_join(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=2) as fleet:
        first, second = fleet.servers
        for delay in (10, 60):  # a machine that is too busy for the first has more time the second time
            assert first.ask(b"flush_all %d" % delay) == b"OK"
            due = time.monotonic() + delay - 2  # memcached's clock ticks in seconds
            assert second.ask(b"cluster flush") == b"OK"
            with CacheServer(f"{ensemble.hosts}/{name}", name=f"late{delay}") as late:
                until(lambda late=late: late.is_fresh)
                servers = (*fleet.servers, late)
                for server in servers:
                    assert server.set(b"k", b"old") == b"STORED"
                held = [server.get(b"k") for server in servers]
                if time.monotonic() > due:
                    continue
                assert held == [b"old"] * 3
                until(lambda servers=servers: all(server.get(b"k") is None for server in servers), 90)
                assert time.monotonic() > due
                return
        pytest.fail("this machine is too slow for this test")


@contextmanager
def speaker(answer: bytes | None) -> Iterator[int]:
    """Something that listens and is not ZooKeeper: says `answer` to whatever it is told, or nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            kept.append(link)
            if answer is not None:
                with suppress(OSError):  # it may be gone already
                    link.sendall(answer)
                link.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for link in kept:
            link.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"-ERR unknown command\r\n", "is not ZooKeeper"), (None, "says nothing"), (b"", "closes the connection")],
)
def test_what_is_not_zookeeper_is_named(answer: bytes | None, words: str) -> None:
    with speaker(answer) as port, CacheServer(f"127.0.0.1:{port}") as server:
        until(lambda: words in server.log)
        until(lambda: words in next(line for line in _cluster(server) if line.startswith("STAT why ")))
        assert "quorum" not in server.log


def _cluster(server: CacheServer) -> list[str]:
    with server.client() as client:
        return [line.decode() for line in client.lines(b"stats cluster")]


def test_the_session_and_its_risks_are_in_the_log(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=2) as fleet:
        first, second = fleet.servers
        until(lambda: "whoever reaches ZooKeeper may empty these caches" in first.log)  # a thread of its own writes it
        until(lambda: "which ends 2 s after the last contact" in first.log)
        assert first.stats()["session_timeout_ms"] == "2000"
        with CacheServer(
            f"{ensemble.hosts}/{name}", name="late"
        ) as late:  # both may have seen each other at their first look
            until(lambda: f"joined: 127.0.0.1:{late.port}" in first.log)
        assert second.ask(b"cluster leave") == b"OK"
        until(lambda: f"left: 127.0.0.1:{second.port}" in first.log)
        until(lambda: "this server has left the fleet" in second.log)
        with second.client() as client:
            assert client.ask(b"cluster leader") == b"LEADER none"
            assert not any(b" self" in line for line in client.lines(b"cluster members"))
            size = int(client.ask(b"config get cluster").split()[-1])
            assert b"|%d" % second.port not in client.read(size)
