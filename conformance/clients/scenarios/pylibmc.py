"""pylibmc: libmemcached for Python, with its behaviours, compression and pools. Text protocol only."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pylibmc

from ..harness import Client, Run, check, equal, everything, raises, soon

LIMIT = 1024 * 1024

CLIENT = Client(
    "pylibmc",
    surface={"Client": pylibmc.Client},
    not_operations=dict.fromkeys(
        ("clone", "deserialize", "serialize", "get_behaviors", "set_behaviors", "hash"), "talks to no server"
    ),
)


def connect(run: Run, *, several: bool = False, **behaviors: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    servers = [run.server.address, run.server.second_address] if several else [run.server.address]
    return run.count(pylibmc.Client(servers, behaviors={"cas": True, "tcp_nodelay": True, **behaviors}))


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate((connect(run), connect(run, several=True, ketama=True))):
        key = run.key(number)
        equal(client.get(key), None)
        equal(client.get(key, "default"), "default")
        equal(client.replace(key, "no"), False)
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
        equal(client.prepend(key, b"no"), False)


@CLIENT.scenario
def items_of_a_dictionary(run: Run) -> None:
    client = connect(run)
    client[run.key()] = "value"
    equal(client[run.key()], "value")
    check(run.key() in client, "in")
    del client[run.key()]
    check(run.key() not in client, "not in")
    with raises(KeyError):
        client[run.key()]


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "one")
    value, unique = client.gets(run.key())
    equal(value, "one")
    equal(client.cas(run.key(), "two", unique), True)
    equal(client.cas(run.key(), "three", unique), False)
    equal(client.get(run.key()), "two")
    equal(client.gets(run.key("none")), (None, None))


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
    client.set(run.key(), "letters")
    with raises(pylibmc.Error):
        client.incr(run.key())
    equal(client.get(run.key()), "letters")


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for client in (connect(run), connect(run, several=True, ketama=True), connect(run, no_block=True)):
        values = {key: key * 5 for key in run.keys(1000)}
        equal(client.set_multi(values), [])
        equal(client.get_multi([*values, run.key("none")]), values)
        equal(client.delete_multi(run.keys(999)), True)
        equal(client.get_multi(list(values)), {run.key(999): run.key(999) * 5})
        client.delete(run.key(999))
        equal(client.set_multi({"a": 1, "b": 2}, key_prefix=run.key()), [])
        equal(client.get_multi(["a", "b", "c"], key_prefix=run.key()), {"a": 1, "b": 2})
        client.delete_multi(["a", "b"], key_prefix=run.key())
        client.add_multi(values)
        equal(client.get_multi(list(values)), values)
        client.delete_multi(list(values))


@CLIENT.scenario
def binary_and_large_values(run: Run) -> None:
    client = connect(run)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(client.set(run.key(), value), True)
        equal(client.get(run.key()), value)
    compressible = b"ab" * LIMIT
    equal(client.set(run.key(), compressible, min_compress_len=1000), True)
    equal(client.get(run.key()), compressible)


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "old")
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        with raises(pylibmc.TooBig):
            client.set(run.key(), b"x" * size)
        equal(client.set(run.key("after"), "after"), True)
        equal(client.get(run.key("after")), "after")
    equal(client.get(run.key()), None)


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    longest = run.key("k").ljust(250, "k")
    equal(client.set(longest, "250"), True)
    equal(client.get(longest), "250")
    equal(client.set(run.key("clé-鍵"), "unicode"), True)
    equal(client.get_multi([run.key("clé-鍵"), longest]), {run.key("clé-鍵"): "unicode", longest: "250"})
    with raises(ValueError):
        client.set(longest + "k", "251")


@CLIENT.scenario
def serializers(run: Run) -> None:
    client = connect(run)
    for value in ("naïve ☃", 12, -(2**70), True, None, 1.5, [1, {"a": b"b"}], b"\0\1"):
        client.set(run.key(), value)
        equal(client.get(run.key()), value)


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    client.set(run.key("second"), "v", time=3)
    client.set(run.key("touched"), "v", time=3)
    client.set(run.key("absolute"), "v", time=int(time.time()) + 100)
    equal(client.touch(run.key("touched"), 100), True)
    equal(client.touch(run.key("none"), 100), False)
    time.sleep(4.2)
    expected = {run.key("touched"): "v", run.key("absolute"): "v"}
    equal(client.get_multi([*expected, run.key("second")]), expected)


@CLIENT.scenario
def commands_without_waiting(run: Run) -> None:
    """Writes whose answers nobody waits for; a read then takes all that are due, in order."""
    client = connect(run, no_block=True)
    for number in range(300):
        client.set(run.key(), str(number).encode())
        client.set(run.key(number), b"x" * number)
    client.append(run.key(), b"0")
    client.prepend(run.key(), b"1")
    equal(client.get(run.key()), b"12990")
    equal(client.get_multi(run.keys(300)), {run.key(number): b"x" * number for number in range(300)})


@CLIENT.scenario
def administration(run: Run) -> None:
    client = connect(run)
    ((name, general),) = client.get_stats()
    check(str(run.server.port) in (name if isinstance(name, str) else name.decode()), "the server's name")
    figures = {str(key): value for key, value in general.items()}
    check(figures, "stats")
    ((_, settings),) = client.get_stats("settings")
    check(settings, "stats settings")
    client.set(run.key(), "v")
    equal(client.flush_all(), True)
    equal(client.get(run.key()), None)
    client.set(run.key(), "v")
    client.disconnect_all()
    equal(client.get(run.key()), "v")
    equal(client.flush_all(time=100), True)
    equal(client.get(run.key()), "v", "a delayed flush keeps the item for now")
    client.flush_all()


@CLIENT.scenario
def pools(run: Run) -> None:
    client = pylibmc.Client([run.server.address])
    pool = pylibmc.ClientPool(client, 4)
    mapped = pylibmc.ThreadMappedPool(client)

    def work(thread: int) -> int:
        wrong = 0
        for number in range(60):
            key = run.key(f"{thread}-{number}")
            with pool.reserve(block=True) as one:
                counted = run.count(one)
                counted.set(key, key * 9)
                wrong += counted.get(key) != key * 9
            with mapped.reserve() as one:
                wrong += run.count(one).get(key) != key * 9
        mapped.relinquish()
        return wrong

    with ThreadPoolExecutor(8) as threads:
        equal(sum(threads.map(work, range(8))), 0, "values of another thread")


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    silent = run.count(
        pylibmc.Client([run.server.mute_address], behaviors={"receive_timeout": 300, "_poll_timeout": 300})
    )
    with raises(pylibmc.Error):
        silent.set(run.key(), "sent")
    client = connect(run)
    soon(lambda: client.get(run.key()), "sent")
