"""Clients of Amazon ElastiCache's auto discovery find a fleet's members, and follow them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import emcache
import pytest
from emcache import MemcachedHostAddress

from conformance.clients.runner import run_client
from conformance.clients.servers import Target

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import ROOT, until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

PACKAGES = ROOT / "build" / "clients"


def listing(fleet: Fleet) -> tuple[int, set[int]]:
    """Version and ports of `config get cluster`, which are soon the same at every server that runs."""
    until(lambda: len(answers(fleet)) == 1)
    (body,) = answers(fleet)
    version, nodes, end = body.split(b"\n")
    assert end == b""
    ports = set()
    for node in nodes.split():
        host, ip, port = node.split(b"|")
        assert (host, ip) == (b"127.0.0.1", b"127.0.0.1")
        ports.add(int(port))
    return int(version), ports


def answers(fleet: Fleet) -> set[bytes]:
    """The different lists that are told at the moment."""
    bodies = set()
    for server in fleet.servers:
        if server.process is None:
            continue
        with server.client() as client:
            client.send(b"config get cluster\r\n")
            head = client.line()
            body = client.read(int(head.split()[3]))
            assert client.line() == b""
            assert client.line() == b"END"
            bodies.add(body)
    return bodies


def wait_for_all(fleet: Fleet) -> int:
    """Until each server's list names them all: a little later than it has seen them. Returns the list's version."""
    ports = {server.port for server in fleet.servers}
    until(lambda: listing(fleet)[1] == ports)
    return listing(fleet)[0]


async def eventually(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


async def test_emcache_follows_a_join_and_a_failure(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet:
        version = wait_for_all(fleet)
        ports = {server.port for server in fleet.servers}
        first, second, third = fleet.servers
        client = await emcache.create_client(
            [MemcachedHostAddress("127.0.0.1", first.port)], autodiscovery=True, autodiscovery_poll_interval=0.2
        )

        def nodes() -> set[int]:
            nodes = client.cluster_managment().nodes()
            return {node.port for node in nodes if isinstance(node, MemcachedHostAddress)}

        assert nodes() == ports
        third.end()
        await eventually(lambda: nodes() == {first.port, second.port})
        await eventually(lambda: [server.stats()["members"] for server in (first, second)] == ["2", "2"])
        fewer, ports = listing(fleet)
        assert fewer > version, "the version rises with each change"
        assert ports == nodes()
        keys = [b"key%d" % number for number in range(60)]
        for key in keys:
            await client.set(key, b"value")
        assert {item.value if (item := await client.get(key)) else None for key in keys} == {b"value"}
        third.start()
        await eventually(lambda: nodes() == {first.port, second.port, third.port})
        await eventually(lambda: all(server.stats()["members"] == "3" for server in fleet.servers))
        assert listing(fleet)[0] > fewer
        await client.close()


async def test_clients_find_the_members(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, quick=False) as fleet:  # what the clients store must be there for seconds
        wait_for_all(fleet)
        target = Target("fleet", "127.0.0.1", fleet.servers[0].port, "1.6.45")
        for client in ("emcache-autodiscovery", "npm-memcache-plus"):
            report = await run_client(client, target, PACKAGES)
            assert report.failures() == []
            assert report.passed >= 2
