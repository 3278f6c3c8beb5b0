"""`config get cluster` of a thousand members, with a client that follows it: all of them at addresses of the loopback net."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import emcache
import pytest
from emcache import MemcachedHostAddress

from mcserver.admin import cluster
from mcserver.coordination.ports import Member

MEMBERS = 1000


def address(number: int, port: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}:{port}"


class Stub:
    """One listener that is all of the members; it answers what auto discovery asks, and misses."""

    def __init__(self) -> None:
        self.there = MEMBERS
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    def members(self) -> tuple[int, list[Member]]:
        return 7 + MEMBERS - self.there, [
            Member(f"h{number}.b.1.0", address(number, self.port), "ready", 1, number == 0)
            for number in range(self.there)
        ]

    def discovery(self) -> tuple[int, list[str]]:
        version, listed = self.members()
        return version, [member.address for member in listed]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):  # how a client leaves is its own affair
            while line := await reader.readline():
                words = line.split()
                if words[:1] == [b"config"]:
                    context: Any = SimpleNamespace(cluster=self)
                    session: Any = None
                    reply = cluster.config(context, session, words)
                else:
                    reply = b"END\r\n"
                assert reply is not None
                writer.writelines([reply] if isinstance(reply, bytes) else reply)


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_emcache_follows_a_thousand_members() -> None:
    stub = Stub()
    server = await asyncio.start_server(stub.answer, "0.0.0.0", 0, backlog=2 * MEMBERS)
    stub.port = server.sockets[0].getsockname()[1]
    client = await emcache.create_client(
        [MemcachedHostAddress("127.0.0.1", stub.port)],
        autodiscovery=True,
        autodiscovery_poll_interval=0.5,
        min_connections=0,
    )
    try:
        nodes = client.cluster_managment().nodes()
        assert len(nodes) == MEMBERS
        assert {node.address for node in nodes if isinstance(node, MemcachedHostAddress)} == {
            address(number, 0).split(":")[0] for number in range(MEMBERS)
        }
        assert [await client.get(b"k%d" % number) for number in range(20)] == [None] * 20
        stub.there -= 300
        for _ in range(100):
            if len(client.cluster_managment().nodes()) == MEMBERS - 300:
                break
            await asyncio.sleep(0.1)
        assert len(client.cluster_managment().nodes()) == MEMBERS - 300
    finally:
        await client.close()
        server.close()
        for writer in stub.writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in stub.writers), return_exceptions=True)
        await asyncio.sleep(0.1)
