"""meta-memcache: the meta protocol with leases, stale values, recaching and quiet writes followed by mn."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from meta_memcache import (
    CacheClient,
    Key,
    LeasePolicy,
    MemcacheError,
    Miss,
    RecachePolicy,
    RequestFlags,
    ServerAddress,
    SetMode,
    StalePolicy,
    Success,
    Value,
    connection_pool_factory_builder,
)
from meta_memcache.errors import MemcacheServerError

from ..harness import Client, Run, check, equal, everything, raises, soon

LIMIT = 1024 * 1024
STALE = StalePolicy(mark_stale_on_deletion_ttl=30, mark_stale_on_cas_mismatch=True)
LEASE = LeasePolicy(ttl=30, miss_retries=2, miss_retry_wait=0.01)

CLIENT = Client(
    "meta-memcache",
    surface={"CacheClient": CacheClient},
    not_operations={
        "cache_client_from_servers": "makes a client",
        "cache_client_with_gutter_from_servers": "makes a client",
        "ephemeral_cache_client_from_servers": "makes a client",
        "get_counters": "talks to no server",
    },
)


def connect(run: Run, *, several: bool = False, raises: bool = True, **options: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    servers = [ServerAddress(run.server.host, run.server.port)]
    if several:
        servers.append(ServerAddress(*run.server.second))
    factory = connection_pool_factory_builder(**{"recv_timeout": 10, "connection_timeout": 10, **options})
    return run.count(CacheClient.cache_client_from_servers(servers, factory, raise_on_server_error=raises))


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate((connect(run), connect(run, several=True))):
        key = run.key(number)
        equal(client.get(key), None)
        equal(client.set(key, b"no", ttl=100, set_mode=SetMode.REPLACE), False)
        equal(client.set(key, b"no", ttl=100, set_mode=SetMode.APPEND), False)
        equal(client.set(key, b"no", ttl=100, set_mode=SetMode.PREPEND), False)
        equal(client.refill(key, b"one", ttl=100), True)
        equal(client.refill(key, b"two", ttl=100), False)
        equal(client.set(key, b"two", ttl=100, set_mode=SetMode.ADD), False)
        equal(client.set(key, b">", ttl=100, set_mode=SetMode.APPEND), True)
        equal(client.set(key, b"<", ttl=100, set_mode=SetMode.PREPEND), True)
        equal(client.get(key), b"<one>")
        equal(client.set(key, b"three", ttl=100, set_mode=SetMode.REPLACE), True)
        equal(client.set(key, b"four", ttl=100), True)
        equal(client.get_typed(key, bytes), b"four")
        equal(client.get_typed(key, int), None)
        equal(client.delete(key), True)
        equal(client.delete(key), False)
        equal(client.invalidate(key), True)


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client = connect(run)
    key = run.key()
    equal(client.get_cas(key), (None, None))
    unique = client.set_cas(key, "one", ttl=100)
    equal(client.get_cas(key), ("one", unique))
    equal(client.get_cas_typed(key, str), ("one", unique))
    equal(client.set(key, "two", ttl=100, cas_token=unique), True)
    equal(client.set(key, "three", ttl=100, cas_token=unique), False)
    equal(client.delete(key, cas_token=unique), False)
    equal(client.get(key), "two")
    equal(client.delete(key, cas_token=client.get_cas(key)[1]), True)
    equal(client.set(key, "four", ttl=100, cas_token=unique), False, "cas of a missing key")


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    client = connect(run)
    key = run.key()
    equal(client.delta(key, 1), False)
    equal(client.delta_and_get(key, 1), None)
    equal(client.delta_initialize(key, 1, initial_value=10, initial_ttl=100), True)
    equal(client.delta_initialize_and_get(key, 5, initial_value=10, initial_ttl=100), 15)
    equal(client.delta_initialize_and_get(run.key("new"), 5, initial_value=10, initial_ttl=100), 10)
    equal(client.delta(key, 1, refresh_ttl=200), True)
    equal(client.delta_and_get(key, -6), 10)
    equal(client.delta_and_get(key, -60), 0)
    unique = client.get_cas(key)[1]
    equal(client.delta_and_get(key, 3, cas_token=unique), 3)
    equal(client.delta_and_get(key, 3, cas_token=unique), None)
    client.set(key, "letters", ttl=100)
    with raises(MemcacheError):
        client.delta(key, 1)
    equal(client.get(key), "letters")


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for client in (connect(run), connect(run, several=True)):
        for key in run.keys(500):
            client.set(key, key * 4, ttl=100)
        wanted = [*run.keys(500), run.key("none")]
        found = {key.key: value for key, value in client.multi_get(wanted).items()}
        equal(found, {**{key: key * 4 for key in run.keys(500)}, run.key("none"): None})
        with_cas = client.multi_get_cas(run.keys(500))
        check(all(value is not None and unique for value, unique in with_cas.values()), "a cas unique for each")


@CLIENT.scenario
def binary_and_large_values(run: Run) -> None:
    client = connect(run)
    key = Key(run.key(), disabled_compression=True)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(client.set(key, value, ttl=100), True)
        equal(client.get(key), value)
    for other in ("naïve ☃", 12, True, None, [1, {"a": b"b"}], "compressible" * 9999):
        client.set(run.key("any"), other, ttl=100)
        equal(client.get(run.key("any")), other)


@CLIENT.scenario
def too_large_a_value_is_refused(run: Run) -> None:
    """This client compresses on its own, so the values are noise; and it gives up a connection that told of an error."""
    client = connect(run, max_pool_size=1)
    key = Key(run.key(), disabled_compression=True)
    client.set(key, b"old", ttl=100)
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        with raises(MemcacheServerError):
            client.set(key, random.Random(size).randbytes(size), ttl=100)
        client.set(run.key("after"), size, ttl=100)
        equal(client.get(run.key("after")), size)
    equal(client.get(key), None)


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    longest = run.key("k").ljust(250, "k")
    equal(client.set(longest, "250", ttl=100), True)
    equal(client.get(longest), "250")
    for odd in (longest + "k" * 200, run.key("clé-鍵"), run.key("with space"), run.key("line\r\nend")):
        equal(client.set(odd, odd, ttl=100), True, "hashed or base64")
        equal(client.get(odd), odd)
        equal({key.key: value for key, value in client.multi_get([odd, longest]).items()}, {odd: odd, longest: "250"})
        equal(client.delete(odd), True)


@CLIENT.scenario
def stale_values(run: Run) -> None:
    """A key that is deleted softly: one client wins and refills it, the others go on with the old value."""
    winner, other = connect(run), connect(run)
    key = run.key()
    winner.set(key, "old", ttl=100)
    equal(winner.delete(key, stale_policy=STALE), True)
    equal(winner.get(key), None, "the winner is told to refill")
    equal(other.get(key), "old")
    equal(other.get(key), "old")
    equal(winner.set(key, "new", ttl=100), True)
    equal(other.get(key), "new")
    equal(winner.invalidate(key, stale_policy=STALE), True)
    equal(other.get(key), None)
    equal(winner.get(key), "new")
    value, unique = winner.get_cas(key)
    equal(value, "new")
    winner.invalidate(key, stale_policy=STALE)
    equal(other.set(key, "late", ttl=100, cas_token=unique, stale_policy=STALE), True, "an older cas stores as stale")
    equal([client.get(key) for client in (winner, other)].count(None), 1, "one of two wins again")


@CLIENT.scenario
def leases(run: Run) -> None:
    first, second = connect(run), connect(run)
    key = run.key()
    value, unique = first.get_or_lease_cas(key, lease_policy=LEASE)
    equal(value, None)
    check(unique, "the lease has a cas unique")
    waits: list[float] = []
    equal(second.get_or_lease(key, lease_policy=LEASE, lease_wait_fn=waits.append), None, "the lease is taken")
    equal(len(waits), 1, "a wait before the second try")
    equal(first.set(key, "filled", ttl=100, cas_token=unique), True)
    equal(second.get_or_lease(key, lease_policy=LEASE), "filled")
    equal(first.get_or_lease(run.key("gone"), lease_policy=LEASE), None)
    first.delete(run.key("gone"))
    equal(second.get_or_lease(run.key("gone"), lease_policy=LEASE), None, "a deleted lease can be taken again")


@CLIENT.scenario
def recaching(run: Run) -> None:
    client = connect(run)
    key = run.key()
    client.set(key, "v", ttl=20)
    equal(client.get(key, recache_policy=RecachePolicy(ttl=10)), "v", "far from its end")
    answers = [client.get(key, recache_policy=RecachePolicy(ttl=30)) for _ in range(3)]
    equal(answers, [None, "v", "v"], "one client wins, the others go on")
    equal(client.get(key, touch_ttl=500), "v")


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    for name in ("second", "touched", "read"):
        client.set(run.key(name), "v", ttl=3)
    equal(client.touch(run.key("touched"), ttl=100), True)
    equal(client.touch(run.key("none"), ttl=100), False)
    equal(client.get(run.key("read"), touch_ttl=100), "v")
    time.sleep(4.2)
    equal([client.get(run.key(name)) for name in ("second", "touched", "read")], [None, "v", "v"])


@CLIENT.scenario
def quiet_writes_in_a_pipeline(run: Run) -> None:
    client = connect(run, max_pool_size=1)
    key = run.key()
    for number in range(300):
        client.set(key, number, ttl=100, no_reply=True)
    client.refill(key, "no", ttl=100, no_reply=True)
    client.touch(key, ttl=200, no_reply=True)
    client.delta(key, 5, no_reply=True)
    client.delta_initialize(key, -4, initial_value=1, initial_ttl=100, no_reply=True)
    client.delta(run.key("none"), 1, no_reply=True)
    client.set(key, "no", ttl=100, cas_token=1, no_reply=True)
    equal(client.get(key), 300)
    client.delete(key, no_reply=True)
    client.invalidate(run.key("none"), no_reply=True)
    equal(client.get(key), None)


@CLIENT.scenario
def meta_commands_and_their_flags(run: Run) -> None:
    client = connect(run)
    key = Key(run.key())
    result = client.meta_set(
        key, b"value", flags=RequestFlags(cache_ttl=100, return_cas_token=True, opaque=b"op1", client_flag=16)
    )
    check(isinstance(result, Success), f"meta_set: {result}")
    unique = result.flags.cas_token
    equal(result.flags.opaque, b"op1")
    flags = RequestFlags(
        return_value=True,
        return_client_flag=True,
        return_cas_token=True,
        return_ttl=True,
        return_size=True,
        return_last_access=True,
        return_fetched=True,
        return_key=True,
        opaque=b"op2",
    )
    first, second = client.meta_get(key, flags=flags), client.meta_get(key, flags=flags)
    check(isinstance(first, Value) and isinstance(second, Value), f"meta_get: {first}, {second}")
    equal((first.value, first.flags.cas_token, first.flags.opaque, first.flags.size), (b"value", unique, b"op2", 5))
    check(90 <= first.flags.ttl <= 100, f"ttl {first.flags.ttl}")
    equal((first.flags.fetched, second.flags.fetched), (False, True))
    check(0 <= second.flags.last_access <= 10, "last access in seconds")
    check(isinstance(client.meta_get(Key(run.key("none"))), Miss), "meta_get of a missing key")
    found = client.meta_multiget([key, Key(run.key("none"))], flags=flags)
    equal([type(found[one]).__name__ for one in (key, Key(run.key("none")))], ["Value", "Miss"])
    check(isinstance(client.meta_delete(key, flags=RequestFlags(cas_token=unique)), Success), "meta_delete")
    counted = client.meta_arithmetic(
        key, flags=RequestFlags(return_value=True, ma_initial_value=7, vivify_on_miss_ttl=100)
    )
    equal(counted.value, b"7" if isinstance(counted.value, bytes) else "7")


@CLIENT.scenario
def many_threads(run: Run) -> None:
    client = connect(run, max_pool_size=8)
    client.set(run.key("shared"), 0, ttl=100)

    def work(thread: int) -> int:
        wrong = 0
        for number in range(60):
            key = run.key(f"{thread}-{number}")
            client.set(key, key * 9, ttl=100)
            wrong += client.get(key) != key * 9
            client.delta(run.key("shared"), 1)
        return wrong

    with ThreadPoolExecutor(8) as threads:
        equal(sum(threads.map(work, range(8))), 0, "values of another thread")
    equal(client.get(run.key("shared")), 480)


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    factory = connection_pool_factory_builder(recv_timeout=0.3)
    silent = run.count(CacheClient.cache_client_from_servers([ServerAddress(*run.server.mute)], factory))
    with raises(MemcacheServerError):
        silent.set(run.key(), "sent", ttl=100)
    client = connect(run)
    soon(lambda: client.get(run.key()), "sent")
    quiet = run.count(
        CacheClient.cache_client_from_servers([ServerAddress("127.0.0.1", 1)], factory, raise_on_server_error=False)
    )
    equal(quiet.get(run.key()), None, "a server that is not there is a miss")
