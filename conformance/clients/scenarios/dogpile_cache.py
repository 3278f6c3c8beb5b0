"""dogpile.cache's regions over its pymemcache, pylibmc and python-memcached backends, with the lock in the cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dogpile.cache import CacheRegion, make_region
from dogpile.cache.api import NO_VALUE

from ..harness import Client, Run, check, equal, everything, module_of

module_of("python-memcached", "memcache.py")  # the backend imports `memcache`, whichever package owns that name

LIMIT = 1024 * 1024
BACKENDS = ("pymemcache", "pylibmc", "memcached")

CLIENT = Client(
    "dogpile.cache",
    title="dogpile.cache (pymemcache, pylibmc, python-memcached)",
    surface={"CacheRegion": CacheRegion},
    not_operations={
        "actual_backend": "talks to no server",
        "cache_multi_on_arguments": "a decorator around get_or_create_multi",
        "configure": "talks to no server",
        "configure_from_config": "talks to no server",
        "invalidate": "notes a time in this process",
        "wrap": "talks to no server",
    },
)


def regions(run: Run, **arguments: Any) -> Iterator[Any]:
    """A counted region of each backend; their keys differ, for each has its own way to pickle."""
    for name in BACKENDS:
        region = make_region(key_mangler=lambda key, name=name: f"{name}-{key.replace(' ', '_')}")
        url = [(run.server.host, run.server.port)] if name == "pymemcache" else [run.server.address]
        region.configure(f"dogpile.cache.{name}", arguments={"url": url, **arguments})
        yield run.count(region)


@CLIENT.scenario
def storage(run: Run) -> None:
    for region in regions(run):
        key = run.key()
        equal(region.get(key), NO_VALUE)
        region.set(key, {"a": [1, None]})
        equal(region.get(key), {"a": [1, None]})
        check(region.get_value_metadata(key).cached_time > 0, "the time it was stored")
        region.delete(key)
        region.delete(key)
        equal(region.get(key), NO_VALUE)


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for region in regions(run):
        region.set_multi({key: key * 4 for key in run.keys(300)})
        equal(region.get_multi([*run.keys(300), run.key("none")]), [*(key * 4 for key in run.keys(300)), NO_VALUE])
        region.delete_multi(run.keys(299))
        equal(region.get_multi(run.keys(300)), [NO_VALUE] * 299 + [run.key(299) * 4])


@CLIENT.scenario
def binary_and_large_values(run: Run) -> None:
    for region in regions(run):
        for size in (0, 1, 2048, 65_536, LIMIT // 2 - 512):
            value = (everything() * (size // 500 + 1))[:size]
            region.set(run.key(), value)
            equal(region.get(run.key()), value)


@CLIENT.scenario
def values_are_made_once(run: Run) -> None:
    """Ten threads ask for one missing value: with the lock in the cache, one makes it and nine take it."""
    for region in regions(run, distributed_lock=True, lock_timeout=30):
        made: list[int] = []
        lock = threading.Lock()

        def make(made: list[int] = made, lock: threading.Lock = lock) -> str:
            with lock:
                made.append(1)
            time.sleep(0.1)
            return "made"

        with ThreadPoolExecutor(10) as threads:
            answers = [threads.submit(region.get_or_create, run.key(), make) for _ in range(10)]
        equal(([answer.result() for answer in answers], len(made)), (["made"] * 10, 1))
        equal(region.key_is_locked(run.key()), False)


@CLIENT.scenario
def several_values_are_made(run: Run) -> None:
    for region in regions(run, distributed_lock=True, lock_timeout=30):
        region.set(run.key(3), "there")
        made = region.get_or_create_multi(run.keys(5), lambda *keys: [key.upper() for key in keys])
        equal(made, [run.key(n).upper() if n != 3 else "there" for n in range(5)])
        equal(region.get_multi(run.keys(5)), made)


@CLIENT.scenario
def a_decorated_function(run: Run) -> None:
    for region in regions(run):
        calls: list[int] = []
        record = calls.append

        @region.cache_on_arguments(namespace=run.prefix)  # type: ignore[untyped-decorator]  # it has no types
        def double(number: int) -> int:
            record(number)  # noqa: B023 - called in this turn of the loop only
            return number * 2

        equal([double(4), double(4), double(5)], [8, 8, 10])
        equal(calls, [4, 5])
        double.invalidate(4)
        equal((double(4), calls), (8, [4, 5, 4]))
        double.set(99, 5)
        equal((double(5), double.get(5)), (99, 99))
        equal(double.refresh(5), 10)


@CLIENT.scenario
def expiry(run: Run) -> None:
    """In the cache by memcached_expire_time, which the pymemcache backend does not take."""
    for region in list(regions(run, memcached_expire_time=3))[1:]:
        region.set(run.key(), "v")
        equal(region.get(run.key()), "v")
        time.sleep(4.2)
        equal(region.get(run.key()), NO_VALUE)


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    behaviors = {"receive_timeout": 300, "_poll_timeout": 300}
    region = make_region().configure(
        "dogpile.cache.pylibmc", arguments={"url": [run.server.mute_address], "behaviors": behaviors}
    )
    equal(run.count(region).get(run.key()), NO_VALUE)
