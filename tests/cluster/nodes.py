"""Nodes in the test's own process, over kazoo and a real ensemble: for settings that a server fixes, made small.

The cache is a dict, so that a test sees at once what an invalidation did. Everything runs on the test's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from mcserver.coordination.kazoo_driver import KazooDriver
from mcserver.coordination.kazoo_terms import Target
from mcserver.coordination.node import Node
from mcserver.coordination.ports import Change, Level
from mcserver.coordination.runtime import AsyncioRuntime
from mcserver.coordination.settings import Settings

SMALL = Settings(max_stale=2.0, reply_deadline=1.0, join="wait")


class DictCache:
    """The few verbs that coordination uses, on a dict; `flushes` counts."""

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}
        self.flushes = 0

    def delete(self, key: bytes) -> bool:
        return self.items.pop(key, None) is not None

    def mark_stale(self, key: bytes, ttl: int) -> bool:
        return self.delete(key)

    def flush(self) -> None:
        self.items.clear()
        self.flushes += 1

    def flush_prefix(self, prefix: bytes) -> None:
        for key in [key for key in self.items if key.startswith(prefix)]:
            del self.items[key]

    def refresh_prefix(self, prefix: bytes, ttl: int) -> None:
        self.flush_prefix(prefix)

    def set_gate(self, policy: str | None, fresh_until: int = 0) -> None: ...


class Peer:
    """One node with its cache."""

    def __init__(self, hosts: str, name: str, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self.cache = DictCache()
        self.zk = KazooDriver(loop, Target(hosts, session_timeout=10.0, reply_deadline=settings.reply_deadline))
        self.runtime = AsyncioRuntime(loop)
        self.node = Node(self.zk, self.runtime, self.cache, replace(settings, node_name=name, address=f"{name}:1"))

    @property
    def is_settled(self) -> bool:
        stats = self.node.stats()
        return stats["stale"] == 0 and stats["lag_entries"] == 0 and stats["session"] == "connected"

    async def delete(self, key: bytes, level: Level = Level.COMMITTED) -> None:
        """Confirmed at the level, here and at the others."""
        self.cache.delete(key)
        confirmed = self.node.submit([Change("delete", key)], level)
        if confirmed is not None:
            await confirmed


class Peers:
    """Several nodes; use it as an asynchronous context manager."""

    def __init__(self, hosts: list[str], settings: Settings = SMALL) -> None:
        self.peers = [Peer(each, f"p{number}", settings) for number, each in enumerate(hosts)]

    async def __aenter__(self) -> list[Peer]:
        for peer in self.peers:
            peer.node.start()
        await eventually(lambda: all(peer.is_settled for peer in self.peers))
        return self.peers

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for peer in self.peers:
            await asyncio.wait_for(peer.node.leave(1.0), 10)


async def eventually(condition: Callable[[], object], seconds: float = 60.0) -> float:
    """Waits until the condition holds; the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited in vain"
        await asyncio.sleep(0.01)
    return time.monotonic() - started
