"""The clients that discover a cluster, against a server that answers `config get cluster` in front of a memcached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conformance.clients.runner import Report, run_client
from conformance.clients.servers import Target


@asynccontextmanager
async def discovered(member: Target, members: list[tuple[str, int]]) -> AsyncIterator[Target]:
    """A server that passes lines on to a member, and answers `config get cluster` itself with these members."""
    nodes = " ".join(f"{host}|127.0.0.1|{port}" for host, port in members)
    body = f"12\n{nodes}\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(member.host, member.port)
        back = asyncio.create_task(pump(up_reader, writer))
        while line := await reader.readline():
            if line == b"config get cluster\r\n":
                writer.write(b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(body), body))
            else:
                up_writer.write(line)
        up_writer.close()
        await back

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Target("cluster", "127.0.0.1", server.sockets[0].getsockname()[1], member.version)


async def run_emcache(memcached: Target, members: list[tuple[str, int]], *only: str) -> Report:
    async with discovered(memcached, members) as target:
        return await run_client("emcache-autodiscovery", target, Path("build/clients"), only)


@pytest.mark.slow
async def test_emcache_finds_the_members(memcached: Target) -> None:
    report = await run_emcache(memcached, [("127.0.0.1", memcached.port), ("localhost", memcached.port)])
    assert report.failures() == []
    assert len(report.scenarios) == 3


@pytest.mark.slow
async def test_a_member_that_is_not_there_is_a_failure(memcached: Target) -> None:
    report = await run_emcache(memcached, [("127.0.0.1", memcached.port), ("127.0.0.1", 1)], "all_members_are_found")
    assert report.failures()


@pytest.mark.slow
async def test_a_server_without_a_cluster_is_a_failure(memcached: Target) -> None:
    report = await run_client("emcache-autodiscovery", memcached, Path("build/clients"), ["all_members_are_found"])
    assert report.scenarios
    assert report.passed == 0
