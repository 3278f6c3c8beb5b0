"""Django's PyMemcacheCache and PyLibMCCache, through django.core.cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.cache.backends.memcached import PyLibMCCache, PyMemcacheCache

from ..harness import Client, Run, check, equal, everything, raises, soon

LIMIT = 1024 * 1024
BACKENDS = ("PyMemcacheCache", "PyLibMCCache")

CLIENT = Client(
    "Django",
    title="Django's PyMemcacheCache and PyLibMCCache",
    surface={"PyMemcacheCache": PyMemcacheCache, "PyLibMCCache": PyLibMCCache},
    not_operations={
        "get_backend_timeout": "talks to no server",
        "make_and_validate_key": "talks to no server",
        "make_key": "talks to no server",
        "validate_key": "talks to no server",
        "PyLibMCCache.close": "does nothing",
        "PyLibMCCache.aclose": "does nothing",
    },
)


def backends(run: Run) -> Iterator[Any]:
    """Each backend in turn, counted, over two addresses of the server."""
    if not settings.configured:
        module = "django.core.cache.backends.memcached"
        location = [run.server.address, run.server.second_address]
        silent = {"LOCATION": run.server.mute_address, "OPTIONS": {"timeout": 0.3}}
        configured: dict[str, Any] = {name: {"BACKEND": f"{module}.{name}", "LOCATION": location} for name in BACKENDS}
        configured["silent"] = {"BACKEND": f"{module}.PyMemcacheCache", **silent}
        configured["default"] = configured[BACKENDS[0]]
        settings.configure(CACHES=configured)
        django.setup()
    for name in BACKENDS:
        yield run.count(caches[name], name)


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, cache in enumerate(backends(run)):
        key = run.key(number)
        equal(cache.get(key), None)
        equal(cache.get(key, "default"), "default")
        equal(cache.add(key, "one"), True)
        equal(cache.add(key, "two"), False)
        equal(cache.get(key), "one")
        cache.set(key, ["two", None, {"a": 1}])
        equal(cache.get(key), ["two", None, {"a": 1}])
        equal(cache.has_key(key), True)  # the operation itself, not `in`
        check(key in cache, "in")
        equal(cache.get_or_set(key, "other"), ["two", None, {"a": 1}])
        equal(cache.get_or_set(run.key(f"made-{number}"), lambda: "made"), "made")
        equal(cache.delete(key), True)
        equal(cache.delete(key), False)
        equal(cache.has_key(key), False)


@CLIENT.scenario
def counters(run: Run) -> None:
    for number, cache in enumerate(backends(run)):
        key = run.key(number)
        with raises(ValueError):
            cache.incr(key)
        with raises(ValueError):
            cache.decr(key)
        cache.set(key, 41)
        equal(cache.incr(key), 42)
        equal(cache.incr(key, 10), 52)
        equal(cache.decr(key, 50), 2)
        equal(cache.incr(key, -1), 1)
        equal(cache.get(key), 1)


@CLIENT.scenario
def versions_of_a_key(run: Run) -> None:
    for number, cache in enumerate(backends(run)):
        key = run.key(number)
        cache.set(key, "first")
        cache.set(key, "second", version=2)
        equal((cache.get(key), cache.get(key, version=2)), ("first", "second"))
        equal(cache.incr_version(key, version=2), 3)
        equal((cache.get(key, version=2), cache.get(key, version=3)), (None, "second"))
        equal(cache.decr_version(key, version=3), 2)
        equal(cache.get(key, version=2), "second")


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for cache in backends(run):
        values = {key: {"key": key} for key in run.keys(500)}
        equal(cache.set_many(values), [])
        equal(cache.get_many([*values, run.key("none")]), values)
        cache.delete_many(run.keys(499))
        equal(cache.get_many(values), {run.key(499): {"key": run.key(499)}})


@CLIENT.scenario
def binary_and_large_values(run: Run) -> None:
    for cache in backends(run):
        for size in (0, 1, 2048, 65_536, LIMIT - 512):
            value = (everything() * (size // 500 + 1))[:size]
            cache.set(run.key(), value)
            equal(cache.get(run.key()), value)


@CLIENT.scenario
def too_large_a_value_deletes_the_old_one(run: Run) -> None:
    for cache in backends(run):
        cache.set(run.key(), "old")
        try:
            cache.set(run.key(), everything() * 3000)
        except Exception as error:  # noqa: BLE001 - the backends differ in what they raise, and whether
            check("too large" in str(error).lower() or "big" in repr(error).lower(), f"another error: {error!r}")
        equal(cache.get(run.key()), None)
        cache.set(run.key(), "new")
        equal(cache.get(run.key()), "new")


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    for cache in backends(run):
        longest = run.key("k").ljust(247, "k")  # ":1:" comes before it
        cache.set(longest, "250")
        equal(cache.get(longest), "250")
        for bad in (longest + "k", "with space", "line\n"):
            with raises(InvalidCacheKey):
                cache.set(bad, "")
        cache.set(run.key("clé-鍵"), "unicode")
        equal(cache.get(run.key("clé-鍵")), "unicode")


@CLIENT.scenario
def time_outs(run: Run) -> None:
    for cache in backends(run):
        for name, timeout in (("second", 3), ("touched", 3), ("never", None), ("month", 40 * 86_400), ("zero", 0)):
            cache.set(run.key(name), name, timeout=timeout)
        equal(cache.get(run.key("zero")), None)
        equal(cache.touch(run.key("touched"), 100), True)
        equal(cache.touch(run.key("none"), 100), False)
        time.sleep(4.2)
        wanted = [run.key(name) for name in ("second", "touched", "never", "month")]
        equal(set(cache.get_many(wanted)), set(wanted[1:]))
        cache.touch(run.key("never"), 0)
        equal(cache.get(run.key("never")), None)


@CLIENT.scenario
async def asynchronous(run: Run) -> None:
    for number, cache in enumerate(backends(run)):
        key = run.key(number)
        equal(await cache.aget(key), None)
        equal(await cache.aadd(key, 1), True)
        equal(await cache.aincr(key, 4), 5)
        equal(await cache.adecr(key, 2), 3)
        equal(await cache.atouch(key, 100), True)
        equal(await cache.ahas_key(key), True)
        equal(await cache.aget_or_set(key, 7), 3)
        equal(await cache.aincr_version(key), 2)
        equal(await cache.adecr_version(key, version=2), 1)
        equal(await cache.aset_many({run.key("a"): 1, run.key("b"): 2}), [])
        equal(await cache.aget_many([run.key("a"), run.key("b")]), {run.key("a"): 1, run.key("b"): 2})
        await cache.adelete_many([run.key("a"), run.key("b")])
        await cache.aset(key, "new")
        equal(await cache.adelete(key), True)
        await cache.aset(key, "new")
        await cache.aclear()
        equal(await cache.aget(key), None)
        await cache.aclose()


@CLIENT.scenario
def clear_and_close(run: Run) -> None:
    for cache in backends(run):
        cache.set_many(dict.fromkeys(run.keys(20), 1))
        cache.clear()
        equal(cache.get_many(run.keys(20)), {})
        cache.set(run.key(), "v")
        cache.close()
        equal(cache.get(run.key()), "v")


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    first, second = backends(run)
    silent = run.count(caches["silent"], "PyMemcacheCache")
    with raises(TimeoutError):
        silent.set(run.key(), "sent")
    soon(lambda: "sent" in (first.get(run.key()), second.get(run.key())), True)
