"""Clients with ElastiCache's auto discovery on a real fleet: they find the members, and follow a join and a failure."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import emcache
import pytest
from emcache import MemcachedHostAddress

from conformance.clients.runner import run_client
from conformance.clients.servers import Target
from tests.cluster.ensemble import Ensemble
from tests.cluster.fleet import Fleet
from tests.cluster.servers import CacheServer

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

POLL_SECONDS = 0.2
FOLLOWED_WITHIN = 20.0  # s: a session has to end, and the client to poll


def ports_of(client: Any) -> set[int]:
    """The ports of the nodes that the client uses."""
    return {node.port for node in client.cluster_managment().nodes()}


async def wait_until_used(client: Any, *servers: CacheServer) -> None:
    """Until the client's nodes are these servers."""
    wanted = {server.port for server in servers}
    for _ in range(int(FOLLOWED_WITHIN / POLL_SECONDS)):
        if ports_of(client) == wanted:
            return
        await asyncio.sleep(POLL_SECONDS)
    assert ports_of(client) == wanted


async def test_emcache_follows_a_join_and_a_failure(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=3) as fleet:
        first, second, third = fleet.servers
        third.end()
        address = MemcachedHostAddress("127.0.0.1", first.port)
        client = await emcache.create_client(
            [address], timeout=5, autodiscovery=True, autodiscovery_poll_interval=POLL_SECONDS
        )
        await wait_until_used(client, first, second)

        await asyncio.to_thread(third.start)
        await wait_until_used(client, first, second, third)
        keys = [b"key%d" % number for number in range(60)]
        for key in keys:
            await client.set(key, key)
        assert [(await client.get(key)).value for key in keys] == keys

        second.end()
        await wait_until_used(client, first, third)
        for key in keys:
            await client.set(key, b"again")
        assert {(await client.get(key)).value for key in keys} == {b"again"}
        await client.close()


async def test_the_scenarios_of_discovery(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=2) as fleet:
        target = Target("mcserver", "127.0.0.1", fleet.servers[0].port, "1.6.45")
        report = await run_client("emcache-autodiscovery", target, Path("build/clients"))
        assert report.failures() == []
        assert report.passed == 3
