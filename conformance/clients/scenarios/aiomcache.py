"""aiomcache: the minimal asyncio client, and its FlagClient."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiomcache
from aiomcache import ClientException, FlagClient, ValidationException

from ..harness import Client, Run, check, equal, everything, raises, soon_read

LIMIT = 1024 * 1024

CLIENT = Client("aiomcache", surface={"Client": aiomcache.Client})


def connect(run: Run, **options: Any) -> Any:
    """A counted client of the server under test."""
    return run.count(aiomcache.Client(run.server.host, run.server.port, **options))


def name(run: Run, part: object = "k") -> bytes:
    """A key as bytes."""
    return run.key(part).encode()


@CLIENT.scenario
async def storage(run: Run) -> None:
    client = connect(run)
    key = name(run)
    equal(await client.get(key), None)
    equal(await client.get(key, b"default"), b"default")
    equal(await client.replace(key, b"no"), False)
    equal(await client.append(key, b"no"), False)
    equal(await client.prepend(key, b"no"), False)
    equal(await client.add(key, b"one"), True)
    equal(await client.add(key, b"two"), False)
    equal(await client.append(key, b">"), True)
    equal(await client.prepend(key, b"<"), True)
    equal(await client.get(key), b"<one>")
    equal(await client.replace(key, b"three"), True)
    equal(await client.set(key, b"four"), True)
    equal(await client.get(key), b"four")
    equal(await client.delete(key), True)
    equal(await client.delete(key), False)
    await client.close()


@CLIENT.scenario
async def compare_and_swap(run: Run) -> None:
    client = connect(run)
    key = name(run)
    equal(await client.gets(key), (None, None))
    equal(await client.cas(key, b"x", 1), False)
    await client.set(key, b"one")
    value, unique = await client.gets(key)
    equal(value, b"one")
    equal(await client.cas(key, b"two", unique), True)
    equal(await client.cas(key, b"three", unique), False)
    equal(await client.get(key), b"two")


@CLIENT.scenario
async def arithmetic(run: Run) -> None:
    client = connect(run)
    key = name(run)
    for operation in (client.incr, client.decr):
        with raises(ClientException, text="NOT_FOUND"):
            await operation(key)
    await client.set(key, b"10")
    equal(await client.incr(key), 11)
    equal(await client.incr(key, 9), 20)
    equal(await client.decr(key, 15), 5)
    equal(await client.decr(key, 6), 0)
    await client.set(key, b"letters")
    with raises(ClientException, text="cannot increment or decrement non-numeric value"):
        await client.incr(key)
    equal(await client.get(key), b"letters")


@CLIENT.scenario
async def many_keys(run: Run) -> None:
    client = connect(run, pool_size=4)
    keys = [key.encode() for key in run.keys(1000)]
    for key in keys:
        await client.set(key, key * 4)
    equal(await client.multi_get(*keys), tuple(key * 4 for key in keys))
    equal(await client.multi_get(name(run, "none"), keys[3]), (None, keys[3] * 4))


@CLIENT.scenario
async def binary_and_large_values(run: Run) -> None:
    client = connect(run)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(await client.set(name(run), value), True)
        equal(await client.get(name(run)), value)


@CLIENT.scenario
async def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run, pool_size=1)
    await client.set(name(run), b"old")
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        with raises(ClientException, text="SERVER_ERROR object too large for cache"):
            await client.set(name(run), b"x" * size)
        equal(await client.set(name(run, "after"), b"after"), True)
        equal(await client.get(name(run)), None)


@CLIENT.scenario
async def keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    longest = name(run).ljust(250, b"k")
    equal(await client.set(longest, b"250"), True)
    equal(await client.get(longest), b"250")
    equal(await client.set(name(run, "clé-鍵"), b"unicode"), True)
    equal(await client.get(name(run, "clé-鍵")), b"unicode")
    for key in (longest + b"k", b"with space", b"line\n", b""):
        with raises(ValidationException):
            await client.set(key, b"")


@CLIENT.scenario
async def expiry(run: Run) -> None:
    client = connect(run)
    for key in ("second", "touched"):
        await client.set(name(run, key), b"v", exptime=3)
    equal(await client.touch(name(run, "touched"), 100), True)
    equal(await client.touch(name(run, "none"), 100), False)
    await client.set(name(run, "past"), b"v")
    equal(await client.touch(name(run, "past"), -1), True)
    equal(await client.get(name(run, "past")), None)
    await asyncio.sleep(4.2)
    equal(await client.get(name(run, "second")), None)
    equal(await client.get(name(run, "touched")), b"v")


@CLIENT.scenario
async def administration(run: Run) -> None:
    client = connect(run)
    version = await client.version()
    figures = await client.stats()
    equal(figures[b"version"], version, "`stats ` with a trailing space")
    equal((await client.stats(b"settings"))[b"item_size_max"], str(LIMIT).encode())
    await client.set(name(run), b"v")
    check(await client.stats(b"items"), "stats items tells of the item")
    check(await client.stats(b"slabs"), "stats slabs")
    await client.flush_all()
    equal(await client.get(name(run)), None)


@CLIENT.scenario
async def flags(run: Run) -> None:
    async def load(value: bytes, flags: int) -> Any:
        equal(flags, 77)
        return json.loads(value)

    async def dump(value: Any) -> tuple[bytes, int]:
        return json.dumps(value).encode(), 77

    client = run.count(
        FlagClient(run.server.host, run.server.port, get_flag_handler=load, set_flag_handler=dump), "Client"
    )
    await client.set(name(run), {"a": [1, None]})
    equal(await client.get(name(run)), {"a": [1, None]})


@CLIENT.scenario
async def many_tasks_at_once(run: Run) -> None:
    client = connect(run, pool_size=8)
    await client.set(name(run, "shared"), b"0")

    async def work(task: int) -> None:
        for number in range(30):
            key, value = name(run, f"{task}-{number}"), f"{task}:{number}".encode() * 40
            await client.set(key, value)
            equal(await client.get(key), value)
            await client.incr(name(run, "shared"))

    await asyncio.gather(*(work(task) for task in range(20)))
    equal(await client.get(name(run, "shared")), b"600")
    await client.close()


@CLIENT.scenario
async def a_time_out_in_the_middle(run: Run) -> None:
    silent = run.count(aiomcache.Client(*run.server.mute))
    with raises(TimeoutError):
        await asyncio.wait_for(silent.set(name(run), b"sent"), 0.3)
    await silent.close()
    client = connect(run)
    await soon_read(lambda: client.get(name(run)), b"sent")
