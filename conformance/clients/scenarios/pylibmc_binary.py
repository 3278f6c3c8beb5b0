"""pylibmc with `binary=True`: libmemcached's binary protocol, quiet forms included."""

from __future__ import annotations

import time
from typing import Any

import pylibmc

from ..harness import Client, Run, check, equal, everything, raises

LIMIT = 1024 * 1024
ELSEWHERE = "the text protocol's file calls it"

CLIENT = Client(
    "pylibmc",
    title="pylibmc (binary)",
    surface={"Client": pylibmc.Client},
    not_operations={
        **dict.fromkeys(
            ("clone", "deserialize", "serialize", "get_behaviors", "set_behaviors", "hash"), "talks to no server"
        ),
        **dict.fromkeys(("__getitem__", "__setitem__", "__delitem__", "__contains__", "add_multi"), ELSEWHERE),
    },
)


def connect(run: Run, *, several: bool = False, **behaviors: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    servers = [run.server.address, run.server.second_address] if several else [run.server.address]
    client = pylibmc.Client(servers, binary=True, behaviors={"cas": True, "tcp_nodelay": True, **behaviors})
    return run.count(client, "Client")


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate((connect(run), connect(run, several=True, ketama=True))):
        key = run.key(number)
        equal(client.get(key), None)
        with raises(pylibmc.NotFound):
            client.replace(key, "no")
        equal(client.add(key, b"one"), True)
        equal(client.add(key, b"two"), False)
        equal(client.append(key, b">"), True)
        equal(client.prepend(key, b"<"), True)
        equal(client.get(key), b"<one>")
        equal(client.replace(key, "three"), True)
        equal(client.set(key, "four"), True)
        equal(client.get(key), "four")
        equal(client.delete(key), True)
        equal(client.delete(key), False)
        equal(client.append(key, b"no"), False)


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "one")
    value, unique = client.gets(run.key())
    equal(value, "one")
    equal(client.cas(run.key(), "two", unique), True)
    equal(client.cas(run.key(), "three", unique), False)
    equal(client.get(run.key()), "two")


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    client = connect(run)
    with raises(pylibmc.NotFound):
        client.incr(run.key())
    client.set(run.key(), 10)
    equal(client.incr(run.key()), 11)
    equal(client.incr(run.key(), 9), 20)
    equal(client.decr(run.key(), 15), 5)
    equal(client.decr(run.key(), 6), 0)
    client.set_multi(dict.fromkeys(run.keys(50), 1))
    client.incr_multi(run.keys(50), delta=4)
    equal(client.get_multi(run.keys(50)), dict.fromkeys(run.keys(50), 5))


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for client in (connect(run), connect(run, several=True, ketama=True), connect(run, no_block=True)):
        values = {key: key * 5 for key in run.keys(1000)}
        equal(client.set_multi(values), [])
        equal(client.get_multi([*values, run.key("none")]), values)
        equal(client.delete_multi(run.keys(999)), True)
        equal(client.get_multi(list(values)), {run.key(999): run.key(999) * 5})
        client.delete(run.key(999))


@CLIENT.scenario
def values_and_keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(client.set(run.key(), value), True)
        equal(client.get(run.key()), value)
    longest = run.key("k").ljust(250, "k")
    equal(client.set(longest, "250"), True)
    equal(client.get(longest), "250")
    equal(client.set(run.key("a key with spaces"), "v"), True)
    equal(client.get(run.key("a key with spaces")), "v")


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "old")
    for size in (LIMIT, 3 * LIMIT):
        with raises(pylibmc.Error):
            client.set(run.key(), b"x" * size)
        equal(client.set(run.key("after"), "after"), True)
        equal(client.get(run.key("after")), "after")


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    client.set(run.key("second"), "v", time=3)
    client.set(run.key("touched"), "v", time=3)
    equal(client.touch(run.key("touched"), 100), True)
    equal(client.touch(run.key("none"), 100), False)
    time.sleep(4.2)
    equal(client.get_multi([run.key("touched"), run.key("second")]), {run.key("touched"): "v"})


@CLIENT.scenario
def administration(run: Run) -> None:
    client = connect(run)
    ((_, general),) = client.get_stats()
    check(general, "stats")
    ((_, settings),) = client.get_stats("settings")
    check(settings, "stats settings")
    client.set(run.key(), "v")
    equal(client.flush_all(), True)
    equal(client.get(run.key()), None)
    client.set(run.key(), "v")
    client.disconnect_all()
    equal(client.get(run.key()), "v")
