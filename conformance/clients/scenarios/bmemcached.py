"""python-binary-memcached: the binary protocol only, under django-bmemcached, too."""

from __future__ import annotations

import time
from typing import Any

import bmemcached

from ..harness import Client, Run, check, equal, everything, raises

LIMIT = 1024 * 1024

CLIENT = Client(
    "python-binary-memcached",
    title="python-binary-memcached (binary)",
    surface={"Client": bmemcached.Client},
    not_operations={
        "set_servers": "talks to no server",
        "enable_retry_delay": "talks to no server",
    },
)


def connect(run: Run, *, several: bool = False, **options: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    servers = (run.server.address, run.server.second_address) if several else (run.server.address,)
    return run.count(bmemcached.Client(servers, **options), "Client")


@CLIENT.scenario
def storage(run: Run) -> None:
    client = connect(run)
    key = run.key()
    equal(client.get(key), None)
    equal(client.get(key, "default"), "default")
    equal(client.replace(key, "no"), False)
    equal(client.add(key, "one"), True)
    equal(client.add(key, "two"), False)
    equal(client.get(key), "one")
    equal(client.replace(key, "three"), True)
    equal(client.set(key, "four"), True)
    equal(client.get(key), "four")
    equal(client.delete(key), True)
    equal(client.delete(key), True, "it says so of a key that is not there, too")
    equal(client.get(key), None)
    client.disconnect_all()


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "one")
    value, unique = client.gets(run.key())
    equal(value, "one")
    equal(client.cas(run.key(), "two", unique), True)
    equal(client.cas(run.key(), "three", unique), False)
    equal(client.delete(run.key(), cas=unique), False)
    equal(client.get(run.key()), "two")
    equal(client.gets(run.key("none")), (None, None))
    client.disconnect_all()


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    client = connect(run)
    equal(client.incr(run.key(), 5, default=10), 10)
    equal(client.incr(run.key(), 5), 15)
    equal(client.decr(run.key(), 6), 9)
    equal(client.decr(run.key(), 60), 0)
    client.disconnect_all()


@CLIENT.scenario
def many_keys(run: Run) -> None:
    """By getkq and setq, and a noop behind them."""
    for several in (False, True):
        client = connect(run, several=several)
        values = {key: key * 5 for key in run.keys(1000)}
        equal(client.set_multi(values), [])
        equal(client.get_multi([*values, run.key("none")]), values)
        if several:
            client.disconnect_all()
            continue
        pairs = client.get_multi(run.keys(10), get_cas=True)
        equal({key: value for key, (value, _) in pairs.items()}, {key: values[key] for key in run.keys(10)})
        stored = client.set_multi_cas({(key, unique): "new" for key, (_, unique) in pairs.items()})
        equal(sorted(stored), sorted(run.keys(10)), "keys that have a new unique")
        equal(client.get_multi(run.keys(10)), dict.fromkeys(run.keys(10), "new"))
        equal(client.delete_multi(run.keys(1000)), True)
        equal(client.get_multi(run.keys(1000)), {})
        client.disconnect_all()


@CLIENT.scenario
def values_of_all_kinds_and_sizes(run: Run) -> None:
    client = connect(run)
    for value in ("naïve ☃", 12, 2**40, True, None, 1.5, [1, {"a": b"b"}], everything()):
        client.set(run.key(), value)
        equal(client.get(run.key()), value)
    for size in (0, 1, 100, 2048, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(client.set(run.key(), value, compress_level=0), True)
        equal(client.get(run.key()), value)
    compressible = "ab" * LIMIT
    equal(client.set(run.key(), compressible), True)
    equal(client.get(run.key()), compressible)
    client.disconnect_all()


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "old")
    for size in (LIMIT, 3 * LIMIT):
        with raises(bmemcached.exceptions.MemcachedException, text="Too large"):
            client.set(run.key(), b"x" * size, compress_level=0)
        equal(client.set(run.key("after"), "after"), True)
        equal(client.get(run.key("after")), "after")
    equal(client.get(run.key()), None)
    client.disconnect_all()


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    client.set(run.key("second"), "v", time=3)
    client.set(run.key("absolute"), "v", time=int(time.time()) + 100)
    time.sleep(4.2)
    equal(client.get_multi([run.key("second"), run.key("absolute")]), {run.key("absolute"): "v"})
    client.disconnect_all()


@CLIENT.scenario
def administration(run: Run) -> None:
    client = connect(run)
    (figures,) = client.stats().values()
    check(int(figures["pid"]) > 0, "pid")
    (settings,) = client.stats("settings").values()
    check(int(settings["item_size_max"]) == LIMIT, "stats settings")
    client.set(run.key(), "v")
    equal(client.flush_all(), True)
    equal(client.get(run.key()), None)
    client.set(run.key(), "v")
    equal(client.flush_all(100), True)
    equal(client.get(run.key()), "v", "a delayed flush keeps the item for now")
    client.flush_all()
    client.disconnect_all()
