"""emcache: an asyncio client in Cython, with autobatching, gat and gats, and a cluster of nodes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import emcache
from emcache import CommandError, MemcachedHostAddress, NotFoundCommandError, NotStoredStorageCommandError
from emcache.client import _Client

from ..harness import Client, Run, check, equal, everything, raises, soon_read

LIMIT = 1024 * 1024

CLIENT = Client(
    "emcache",
    surface={"Client": _Client},
    not_operations={"cluster_managment": "talks to no server"},
)


async def connect(run: Run, *, several: bool = False, **options: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    nodes = [MemcachedHostAddress(run.server.host, run.server.port)]
    if several:
        nodes.append(MemcachedHostAddress(*run.server.second))
    return run.count(await emcache.create_client(nodes, **{"timeout": 10.0, **options}), "Client")


def name(run: Run, part: object = "k") -> bytes:
    """A key as bytes."""
    return run.key(part).encode()


def node(run: Run) -> MemcachedHostAddress:
    """The server under test as commands to one node name it."""
    return MemcachedHostAddress(run.server.host, run.server.port)


@CLIENT.scenario
async def storage(run: Run) -> None:
    client = await connect(run)
    key = name(run)
    equal(await client.get(key), None)
    for operation in (client.replace, client.append, client.prepend):
        with raises(NotStoredStorageCommandError):
            await operation(key, b"no")
    await client.add(key, b"one", flags=7)
    with raises(NotStoredStorageCommandError):
        await client.add(key, b"two")
    await client.append(key, b">")
    await client.prepend(key, b"<")
    item = await client.get(key, return_flags=True)
    equal((item.value, item.flags, item.cas), (b"<one>", 7, None))
    await client.replace(key, b"three")
    await client.set(key, b"four", flags=65_535)
    equal((await client.get(key, return_flags=True)).flags, 65_535)
    await client.delete(key)
    with raises(NotFoundCommandError):
        await client.delete(key)
    await client.close()


@CLIENT.scenario
async def compare_and_swap(run: Run) -> None:
    client = await connect(run)
    key = name(run)
    with raises(CommandError):
        await client.cas(key, b"x", 1)
    await client.set(key, b"one")
    item = await client.gets(key)
    await client.cas(key, b"two", item.cas)
    with raises(CommandError):
        await client.cas(key, b"three", item.cas)
    items = await client.gets_many([key, name(run, "none")])
    equal(list(items), [key])
    await client.cas(key, b"four", items[key].cas, flags=3)
    item = await client.gets(key, return_flags=True)
    equal((item.value, item.flags), (b"four", 3))
    await client.close()


@CLIENT.scenario
async def get_and_touch(run: Run) -> None:
    client = await connect(run)
    keys = [key.encode() for key in run.keys(50)]
    for key in keys:
        await client.set(key, key, flags=5, exptime=3)
    equal((await client.gat(100, keys[0])).value, keys[0])
    item = await client.gats(100, keys[1], return_flags=True)
    equal((item.value, item.flags), (keys[1], 5))
    check(item.cas > 0, "gats gives the cas unique")
    equal(set(await client.gat_many(100, keys[2:20])), set(keys[2:20]))
    equal({item.value for item in (await client.gats_many(100, keys[20:40])).values()}, set(keys[20:40]))
    equal(await client.gat(100, name(run, "none")), None)
    await asyncio.sleep(4.2)
    equal(set(await client.get_many(keys)), set(keys[:40]), "what was touched lives on")
    await client.close()


@CLIENT.scenario
async def arithmetic(run: Run) -> None:
    client = await connect(run)
    key = name(run)
    for operation in (client.increment, client.decrement):
        with raises(NotFoundCommandError):
            await operation(key, 1)
    await client.set(key, b"10")
    equal(await client.increment(key, 5), 15)
    equal(await client.decrement(key, 6), 9)
    equal(await client.decrement(key, 60), 0)
    await client.set(key, b"letters")
    with raises(ValueError, text="non-numeric"):
        await client.increment(key, 1)
    equal((await client.get(key)).value, b"letters")
    await client.close()


@CLIENT.scenario
async def many_keys(run: Run) -> None:
    for options in ({}, {"several": True}):
        client = await connect(run, **options)
        keys = [key.encode() for key in run.keys(1000)]
        await asyncio.gather(*(client.set(key, key * 4) for key in keys))
        equal({key: item.value for key, item in (await client.get_many(keys)).items()}, {key: key * 4 for key in keys})
        equal(list(await client.get_many([name(run, "none"), keys[3]])), [keys[3]])
        await client.close()


@CLIENT.scenario
async def automatic_batches(run: Run) -> None:
    """Of values alone: this version's batches with flags or cas uniques fail in the client itself."""
    client = await connect(run, autobatching=True)
    keys = [key.encode() for key in run.keys(300)]
    for key in keys[:200]:
        await client.set(key, key)
    items = await asyncio.gather(*(client.get(key) for key in keys))
    equal([item and item.value for item in items], keys[:200] + [None] * 100)
    await client.close()


@CLIENT.scenario
async def binary_and_large_values(run: Run) -> None:
    client = await connect(run)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        await client.set(name(run), value)
        equal((await client.get(name(run))).value, value)
    await client.close()


@CLIENT.scenario
async def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = await connect(run, max_connections=1)
    await client.set(name(run), b"old")
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        with raises(CommandError, text="object too large for cache"):
            await client.set(name(run), b"x" * size)
        await client.set(name(run, "after"), b"after")
        equal(await client.get(name(run)), None)
    await client.close()


@CLIENT.scenario
async def keys_at_their_limits(run: Run) -> None:
    client = await connect(run)
    longest = name(run).ljust(250, b"k")
    await client.set(longest, b"250")
    equal((await client.get(longest)).value, b"250")
    with raises(ValueError):
        await client.set(longest + b"k", b"251")
    await client.close()


@CLIENT.scenario
async def expiry(run: Run) -> None:
    client = await connect(run)
    for key, exptime in (("second", 3), ("touched", 3), ("absolute", int(time.time()) + 100), ("past", -1)):
        await client.set(name(run, key), b"v", exptime=exptime)
    equal(await client.get(name(run, "past")), None)
    await client.touch(name(run, "touched"), 100)
    with raises(NotFoundCommandError):
        await client.touch(name(run, "none"), 100)
    await asyncio.sleep(4.2)
    keys = [name(run, key) for key in ("second", "touched", "absolute")]
    equal(set(await client.get_many(keys)), set(keys[1:]))
    await client.close()


@CLIENT.scenario
async def silent_commands_in_a_pipeline(run: Run) -> None:
    client = await connect(run, max_connections=1)
    key = name(run)
    for number in range(300):
        await client.set(key, str(number).encode(), noreply=True)
    await client.append(key, b"0", noreply=True)
    await client.prepend(key, b"1", noreply=True)
    await client.increment(key, 5, noreply=True)
    await client.decrement(key, 1, noreply=True)
    await client.add(key, b"no", noreply=True)
    await client.touch(key, 100, noreply=True)
    await client.cas(key, b"no", 1, noreply=True)
    await client.verbosity(node(run), 0, noreply=True)
    equal((await client.get(key)).value, b"12994")
    await client.replace(key, b"r", noreply=True)
    await client.delete(key, noreply=True)
    await client.increment(key, 1, noreply=True)
    equal(await client.get(key), None)
    await client.close()


@CLIENT.scenario
async def administration(run: Run) -> None:
    client = await connect(run)
    version = await client.version(node(run))
    equal((await client.stats(node(run)))["version"], version)
    equal((await client.stats(node(run), "settings"))["item_size_max"], str(LIMIT))
    await client.set(name(run), b"v")
    check(await client.stats(node(run), "items"), "stats items tells of the item")
    check("active_slabs" in await client.stats(node(run), "slabs"), "stats slabs")
    equal((await client.stats(node(run), "settings", "items"))["item_size_max"], str(LIMIT), "words beyond the first")
    await client.verbosity(node(run), 0)
    await client.cache_memlimit(node(run), 64)
    await client.cache_memlimit(node(run), 64, noreply=True)
    await client.flush_all(node(run), 100)
    equal((await client.get(name(run))).value, b"v", "a delayed flush keeps the item for now")
    await client.flush_all(node(run))
    equal(await client.get(name(run)), None)
    await client.set(name(run), b"v")
    await client.flush_all(node(run), noreply=True)
    await client.version(node(run))
    equal(await client.get(name(run)), None)
    await client.close()


@CLIENT.scenario
async def a_time_out_in_the_middle(run: Run) -> None:
    nodes = [MemcachedHostAddress(*run.server.mute)]
    silent = run.count(await emcache.create_client(nodes, timeout=0.3), "Client")
    with raises(TimeoutError):
        await silent.set(name(run), b"sent")
    await silent.close()
    client = await connect(run)

    async def value() -> object:
        item = await client.get(name(run))
        return item and item.value

    await soon_read(value, b"sent")
    await client.close()
