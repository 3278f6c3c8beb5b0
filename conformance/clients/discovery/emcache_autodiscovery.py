"""emcache with autodiscovery: it polls `config get cluster` and follows the members."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import emcache
from emcache import MemcachedHostAddress

from ..harness import Client, Run, check, equal

CLIENT = Client(
    "emcache",
    title="emcache, autodiscovery",
    programs=frozenset({"autodiscovery", "Client.get", "Client.set", "Client.version"}),
)


async def connect(run: Run) -> Any:
    """A counted client that knows one address and asks it for the others."""
    run.called("autodiscovery")
    address = MemcachedHostAddress(run.server.host, run.server.port)
    client = await emcache.create_client([address], timeout=3, autodiscovery=True, autodiscovery_poll_interval=0.2)
    return run.count(client, "Client")


async def members_of(run: Run) -> set[tuple[str, int]]:
    """The members that the server tells on a plain socket: host and port of each `host|ip|port`."""
    reader, writer = await asyncio.open_connection(run.server.host, run.server.port)
    writer.write(b"config get cluster\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\n\r\nEND\r\n"), 10)
    writer.close()
    head, version, nodes, *_ = answer.decode().split("\n")
    check(head.startswith("CONFIG cluster 0 "), f"the first line {head!r}")
    check(version.isdigit(), f"the version {version!r}")
    split = [node.split("|") for node in nodes.split()]
    return {(host, int(port)) for host, _ip, port in split}


def nodes_of(client: Any) -> set[tuple[str, int]]:
    """The nodes that the client uses."""
    return {(node.address, node.port) for node in client.cluster_managment().nodes()}


@CLIENT.scenario
async def all_members_are_found(run: Run) -> None:
    client = await connect(run)
    members = await members_of(run)
    check(members, "the cluster has members")
    equal(nodes_of(client), members)
    for host, port in members:
        check(await client.version(MemcachedHostAddress(host, port)), f"{host}:{port} answers")
    await client.close()


@CLIENT.scenario
async def keys_are_spread_over_all_members(run: Run) -> None:
    client = await connect(run)
    keys = [key.encode() for key in run.keys(100)]
    for key in keys:
        await client.set(key, key * 3)
    equal([(await client.get(key)).value for key in keys], [key * 3 for key in keys])
    await client.close()


@CLIENT.scenario
async def the_list_is_asked_for_again(run: Run) -> None:
    """The client's nodes stay those that the cluster tells, poll after poll."""
    client = await connect(run)
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        equal(nodes_of(client), await members_of(run))
        await asyncio.sleep(0.3)
    await client.close()
