"""python-memcached: the oldest Python client. It answers 0 or None where others raise."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from ..harness import Client, Run, check, equal, everything, module_of, raises, soon

memcache = module_of("python-memcached", "memcache.py")

LIMIT = 1024 * 1024

CLIENT = Client(
    "python-memcached",
    surface={"Client": memcache.Client},
    not_operations={
        "check_key": "looks at the key only",
        "debuglog": "prints",
        "get_slabs": "splits bytes with a str: broken in the client under Python 3",
        "forget_dead_hosts": "talks to no server",
        "reset_cas": "talks to no server",
        "set_servers": "talks to no server",
    },
)


def connect(run: Run, *, several: bool = False, **options: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    servers = [run.server.address, run.server.second_address] if several else [run.server.address]
    return run.count(memcache.Client(servers, socket_timeout=10, **options))


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate((connect(run), connect(run, several=True))):
        key = run.key(number)
        equal(client.get(key), None)
        equal(client.get(key, "default"), "default")
        check(not client.replace(key, "no"), "replace of a missing key")
        check(not client.append(key, "no"), "append to a missing key")
        check(not client.prepend(key, "no"), "prepend to a missing key")
        check(client.add(key, "one"), "add")
        check(not client.add(key, "two"), "add of a key that is there")
        check(client.append(key, ">"), "append")
        check(client.prepend(key, "<"), "prepend")
        equal(client.get(key), "<one>")
        check(client.replace(key, "three"), "replace")
        check(client.set(key, "four"), "set")
        equal(client.get(key), "four")
        check(client.delete(key), "delete")
        check(not client.delete(key), "delete of a missing key")


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client, other = connect(run, cache_cas=True), connect(run, cache_cas=True)
    client.set(run.key(), "one")
    equal(client.gets(run.key()), "one")
    equal(other.gets(run.key()), "one")
    check(client.cas(run.key(), "two"), "cas with the right unique")
    check(not other.cas(run.key(), "three"), "cas with an old unique")
    equal(client.get(run.key()), "two")
    equal(client.gets(run.key("none")), None)


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    client = connect(run)
    equal(client.incr(run.key()), None)
    equal(client.decr(run.key()), None)
    client.set(run.key(), 10)
    equal(client.incr(run.key()), 11)
    equal(client.incr(run.key(), 9), 20)
    equal(client.decr(run.key(), 15), 5)
    equal(client.get(run.key()), 5)
    equal(client.decr(run.key(), 6), 0)
    client.set(run.key(), "letters")
    with raises(ValueError, text="non-numeric"):
        client.incr(run.key())
    equal(client.get(run.key()), "letters")


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for client in (connect(run), connect(run, several=True)):
        values = {key: key * 5 for key in run.keys(1000)}
        equal(client.set_multi(values), [])
        equal(client.get_multi([*values, run.key("none")]), values)
        check(client.delete_multi(run.keys(999)), "delete_multi")
        equal(client.get_multi(values), {run.key(999): run.key(999) * 5})
        equal(client.set_multi({1: "a", 2: "b"}, key_prefix=run.key()), [])
        equal(client.get_multi([1, 2, 3], key_prefix=run.key()), {1: "a", 2: "b"})
        check(client.delete_multi([1, 2], key_prefix=run.key()), "delete_multi with a prefix")


@CLIENT.scenario
def binary_and_large_values(run: Run) -> None:
    client = connect(run)
    for size in (0, 1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        check(client.set(run.key(), value), f"set of {size} bytes")
        equal(client.get(run.key()), value)


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run, server_max_value_length=10 * LIMIT)
    client.set(run.key(), "old")
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        check(not client.set(run.key(), b"x" * size), f"set of {size} bytes")
        check(client.set(run.key("after"), size), "set after a refused one")
        equal(client.get(run.key("after")), size)
    equal(client.get(run.key()), None)
    values = {run.key(1): "a", run.key(2): b"x" * 2 * LIMIT, run.key(3): "c"}
    equal(client.set_multi(values), [run.key(2)])
    equal(client.get_multi(values), {run.key(1): "a", run.key(3): "c"})


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    longest = run.key("k").ljust(250, "k")
    check(client.set(longest, "250"), "set of a key of 250 bytes")
    equal(client.get(longest), "250")
    with raises(memcache.Client.MemcachedKeyLengthError):
        client.set(longest + "k", "251")
    with raises(memcache.Client.MemcachedKeyCharacterError):
        client.set("with space", "")
    check(client.set(run.key("clé-鍵"), "unicode"), "set of a unicode key")
    equal(client.get_multi([run.key("clé-鍵")]), {run.key("clé-鍵"): "unicode"})
    unchecked = connect(run, check_keys=False)
    check(not unchecked.set(longest + "k", "251"), "the server refuses a key of 251 bytes")


@CLIENT.scenario
def serializers(run: Run) -> None:
    client = connect(run, pickleProtocol=4)
    for value in ("naïve ☃", 12, 2**70, True, None, [1, {"a": b"b"}], b"\0\1", "ab" * 5000):
        check(client.set(run.key(), value, min_compress_len=100), f"set of {value!r}")
        equal(client.get(run.key()), value)
    client.set_multi({run.key("a"): "x" * 9999, run.key("b"): [1]}, min_compress_len=100)
    equal(client.get_multi([run.key("a"), run.key("b")]), {run.key("a"): "x" * 9999, run.key("b"): [1]})


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    client.set(run.key("second"), "v", time=3)
    client.set(run.key("delta"), "v", time=timedelta(seconds=100))
    client.set(run.key("absolute"), "v", time=int(time.time()) + 100)
    client.set(run.key("touched"), "v", time=3)
    check(client.touch(run.key("touched"), 100), "touch")
    check(not client.touch(run.key("none"), 100), "touch of a missing key")
    client.set(run.key("past"), "v", time=-1)
    equal(client.get(run.key("past")), None)
    time.sleep(4.2)
    expected = {run.key(name): "v" for name in ("delta", "absolute", "touched")}
    equal(client.get_multi([*expected, run.key("second")]), expected)


@CLIENT.scenario
def silent_commands_in_a_pipeline(run: Run) -> None:
    client = connect(run)
    key = run.key()
    for number in range(300):
        client.set(key, str(number), noreply=True)
    client.append(key, "0", noreply=True)
    client.prepend(key, "1", noreply=True)
    client.incr(key, 5, noreply=True)
    client.decr(key, 1, noreply=True)
    client.add(key, "no", noreply=True)
    client.touch(key, 100, noreply=True)
    equal(client.get(key), "12994")
    client.replace(key, "r", noreply=True)
    client.delete(key, noreply=True)
    client.incr(key, noreply=True)
    client.append(key, "no", noreply=True)
    client.set_multi(dict.fromkeys(run.keys(500), "v"), noreply=True)
    equal(len(client.get_multi([key, *run.keys(500)])), 500)
    client.delete_multi(run.keys(499), noreply=True)
    equal(client.get_multi(run.keys(500)), {run.key(499): "v"})


@CLIENT.scenario
def statistics(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "v")
    ((name, general),) = client.get_stats()
    check(str(run.server.port) in name, "the server's name")
    check(int(general["curr_items"]) >= 1, "curr_items")
    ((_, settings),) = client.get_stats("settings")
    equal(settings["item_size_max"], str(LIMIT))
    ((_, slabs),) = client.get_slab_stats()
    check(int(slabs["active_slabs"]) >= 1, "active_slabs")
    check(any(int(one["used_chunks"]) for one in slabs.values() if isinstance(one, dict)), "used_chunks")


@CLIENT.scenario
def flush(run: Run) -> None:
    client = connect(run, several=True)
    client.set_multi(dict.fromkeys(run.keys(20), "v"))
    client.flush_all()
    equal(client.get_multi(run.keys(20)), {})
    client.quit_all()
    check(client.set(run.key(), "after quit"), "set after quit")
    client.disconnect_all()
    equal(client.get(run.key()), "after quit")


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    silent = run.count(memcache.Client([run.server.mute_address], socket_timeout=0.3))
    check(not silent.set(run.key(), "sent"), "a set that is never answered")
    equal(silent.get(run.key()), None, "the server counts as dead")
    client = connect(run)
    soon(lambda: client.get(run.key()), "sent")
