"""Faults of the invalidation log itself, on a real ensemble: rotation, trimming past a laggard, an unknown format."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from mcserver.coordination.ports import Level, NotConfirmed

from .ensemble import Ensemble
from .nodes import SMALL, Peer, Peers, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@pytest.mark.parametrize("rotate_at", [200, 5])
async def test_12_and_19_rotate(ensemble: Ensemble, name: str, rotate_at: int) -> None:
    """A new log every so many entries, under deletes from all sides: nothing is lost and no version falls."""
    settings = replace(SMALL, rotate_at=rotate_at, trim_every=0.1, write_rate=3000.0)
    async with Peers([f"{ensemble.hosts}/{name}"] * 3, settings) as peers:
        flushes = [peer.cache.flushes for peer in peers]
        first = peers[0].node.stats()["log"]
        versions = [0, 0, 0]

        async def work(number: int) -> None:
            for turn in range(110):
                key = b"%d:%d" % (number, turn)
                for peer in peers:
                    peer.cache.items[key] = b"old"
                await peers[number].delete(key, Level.APPLIED if turn % 10 == 0 else Level.COMMITTED)
                if turn % 10 == 0:
                    assert not any(key in peer.cache.items for peer in peers), "confirmed as applied"
                applied = peers[number].node.reader.applied
                assert applied >= versions[number], "an applied version fell"
                versions[number] = applied

        await asyncio.gather(*(work(number) for number in range(3)))
        await eventually(lambda: not any(peer.cache.items for peer in peers))
        assert peers[0].node.stats()["log"] != first
        if rotate_at == 200:  # with 5 a whole log may pass between two looks, and that is a gap
            assert [peer.cache.flushes for peer in peers] == flushes
            assert sum(peer.node.context.figures.gaps for peer in peers) == 0


async def delete_at_last(peer: Peer, key: bytes) -> None:
    """`applied`, though the other one's client may have been cut off so that it begins anew: then nothing is confirmed yet."""
    for _ in range(20):
        with contextlib.suppress(NotConfirmed):
            await peer.delete(key, Level.APPLIED)
            return
    await peer.delete(key, Level.APPLIED)


async def test_11_a_server_that_lags_past_the_hard_cap_flushes_once(ensemble: Ensemble, name: str) -> None:
    settings = replace(SMALL, trim_every=0.1, keep_seconds=0.2, keep_entries=20, cap_entries=60, write_rate=3000.0)
    hosts = [f"{ensemble.hosts_for(f'{name}-{number}')}/{name}" for number in range(2)]
    async with Peers(hosts, settings) as peers:
        await eventually(lambda: any(peer.node.stats()["is_leader"] for peer in peers))
        lagging = next(peer for peer in peers if not peer.node.stats()["is_leader"])
        working = next(peer for peer in peers if peer is not lagging)
        links = ensemble.peer_links[f"{name}-{peers.index(lagging)}"]
        flushes = lagging.cache.flushes
        lagging.cache.items[b"old"] = b"value"
        for link in links:
            link.blackhole()
        for number in range(150):
            await working.delete(b"key:%d" % number)
        await eventually(lambda: working.node.stats()["head"] == "1:149")
        await asyncio.sleep(1.0)
        for link in links:
            link.heal()
        await eventually(lambda: lagging.is_settled and lagging.node.stats()["applied"] == "1:149")
        assert lagging.cache.flushes == flushes + 1, "exactly once"
        assert lagging.node.context.figures.gaps == 1
        assert lagging.cache.items == {}
        lagging.cache.items[b"new"] = b"value"
        await delete_at_last(working, b"other")
        assert lagging.cache.items == {b"new": b"value"}


@pytest.mark.parametrize("entry", [b"MI2 future 0\nd key", b"MI1 bench 0\nz what", b"", b"\xff\xfe"])
async def test_an_entry_that_nobody_understands_flushes(ensemble: Ensemble, name: str, entry: bytes) -> None:
    async with Peers([f"{ensemble.hosts}/{name}"] * 2) as (one, other):
        one.cache.items[b"key"] = other.cache.items[b"key"] = b"value"
        with ensemble.client() as client:
            client.create(f"/{name}/cache/invalidation/{one.node.stats()['log']}/e-", entry, sequence=True)
        await eventually(lambda: not one.cache.items and not other.cache.items)
        await one.delete(b"key", Level.APPLIED)
