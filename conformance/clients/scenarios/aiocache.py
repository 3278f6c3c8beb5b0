"""aiocache's MemcachedCache: one interface over several caches, here over aiomcache."""

from __future__ import annotations

import asyncio
from typing import Any

from aiocache import MemcachedCache
from aiocache.lock import OptimisticLock, OptimisticLockError, RedLock
from aiocache.serializers import PickleSerializer

from ..harness import Client, Run, check, equal, everything, raises, soon_read

CLIENT = Client(
    "aiocache",
    title="aiocache's MemcachedCache",
    surface={"MemcachedCache": MemcachedCache},
    not_operations={
        "acquire_conn": "talks to no server",
        "build_key": "talks to no server",
        "get_connection": "talks to no server",
        "parse_uri_path": "talks to no server",
        "release_conn": "talks to no server",
    },
)


def connect(run: Run, **options: Any) -> Any:
    """A counted cache of pickled values."""
    options = {"serializer": PickleSerializer(encoding=None), "namespace": "", "timeout": 10, **options}
    return run.count(MemcachedCache(endpoint=run.server.host, port=run.server.port, **options))


@CLIENT.scenario
async def storage(run: Run) -> None:
    cache = connect(run)
    key = run.key()
    equal(await cache.get(key), None)
    equal(await cache.get(key, default="default"), "default")
    equal(await cache.add(key, {"a": [1, None]}), True)
    with raises(ValueError):
        await cache.add(key, "other")
    equal(await cache.get(key), {"a": [1, None]})
    equal(await cache.exists(key), True)
    equal(await cache.set(key, "new"), True)
    equal(await cache.get(key), "new")
    equal(await cache.delete(key), 1)
    equal(await cache.delete(key), 0)
    equal(await cache.exists(key), False)
    await cache.close()


@CLIENT.scenario
async def many_keys(run: Run) -> None:
    cache = connect(run)
    await cache.multi_set([(key, key * 4) for key in run.keys(200)])
    equal(await cache.multi_get([*run.keys(200), run.key("none")]), [*(key * 4 for key in run.keys(200)), None])
    await cache.close()


@CLIENT.scenario
async def counters(run: Run) -> None:
    cache = connect(run, serializer=None)
    equal(await cache.increment(run.key()), 1)
    equal(await cache.increment(run.key(), 9), 10)
    equal(await cache.increment(run.key(), -4), 6)
    await cache.set(run.key(), "letters")
    with raises(TypeError):
        await cache.increment(run.key())
    await cache.close()


@CLIENT.scenario
async def large_and_binary_values(run: Run) -> None:
    cache = connect(run)
    for size in (0, 1, 2048, 65_536, 1_000_000):
        value = (everything() * (size // 500 + 1))[:size]
        await cache.set(run.key(), value)
        equal(await cache.get(run.key()), value)
    await cache.close()


@CLIENT.scenario
async def expiry(run: Run) -> None:
    cache = connect(run)
    for name in ("second", "prolonged"):
        await cache.set(run.key(name), "v", ttl=3)
    equal(await cache.expire(run.key("prolonged"), 100), True)
    await asyncio.sleep(4.2)
    equal([await cache.get(run.key(name)) for name in ("second", "prolonged")], [None, "v"])
    await cache.close()


@CLIENT.scenario
async def locks(run: Run) -> None:
    """RedLock by add, OptimisticLock by gets and cas."""
    cache = connect(run)
    order: list[str] = []

    async def work(name: str) -> None:
        async with RedLock(cache, run.key("lock"), lease=5):
            order.append(name)
            await asyncio.sleep(0.05)
            order.append(name)

    await asyncio.gather(work("a"), work("b"))
    check(order in (["a", "a", "b", "b"], ["b", "b", "a", "a"]), f"one after the other: {order}")
    await cache.set(run.key(), "one")
    async with OptimisticLock(cache, run.key()) as lock:
        await cache.set(run.key(), "two")
        with raises(OptimisticLockError):
            await lock.cas("three")
    async with OptimisticLock(cache, run.key()) as lock:
        equal(await lock.cas("four"), True)
    equal(await cache.get(run.key()), "four")
    await cache.close()


@CLIENT.scenario
async def raw_commands_and_clear(run: Run) -> None:
    cache = connect(run)
    await cache.raw("set", run.key().encode(), b"raw")
    equal(await cache.raw("get", run.key().encode()), b"raw")
    equal(await cache.clear(), True)
    equal(await cache.exists(run.key()), False)
    await cache.close()


@CLIENT.scenario
async def a_time_out_in_the_middle(run: Run) -> None:
    host, port = run.server.mute
    silent = run.count(MemcachedCache(endpoint=host, port=port, timeout=0.3))
    with raises(TimeoutError):
        await silent.set(run.key(), "sent")
    cache = connect(run, serializer=None)
    await soon_read(lambda: cache.get(run.key()), "sent")
