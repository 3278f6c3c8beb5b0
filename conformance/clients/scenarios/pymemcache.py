"""pymemcache: Client, PooledClient, HashClient, RetryingClient and FallbackClient, with and without serializers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymemcache import serde
from pymemcache.client.base import Client as PlainClient
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)
from pymemcache.fallback import FallbackClient

from ..harness import Client, Run, check, equal, everything, raises, soon

LIMIT = 1024 * 1024

CLIENT = Client(
    "pymemcache",
    surface={
        "Client": PlainClient,
        "PooledClient": PooledClient,
        "HashClient": HashClient,
        "FallbackClient": FallbackClient,
    },
    not_operations={
        "check_key": "looks at the key only",
        "client_class": "a class, not a call",
        "disconnect_all": "another name of close",
        "get_multi": "another name of get_many",
        "set_multi": "another name of set_many",
        "delete_multi": "another name of delete_many",
        "HashClient.gets_multi": "another name of gets_many",
        "HashClient.remove_server": "talks to no server",
        "FallbackClient.stats": "does nothing in this version",
        "FallbackClient.quit": "does nothing in this version",
    },
)


def single(run: Run, **options: Any) -> Any:
    """A counted Client that waits for each reply."""
    options = {"default_noreply": False, "timeout": 10, "connect_timeout": 10, **options}
    return run.count(PlainClient((run.server.host, run.server.port), **options))


def pooled(run: Run, **options: Any) -> Any:
    """A counted PooledClient."""
    options = {"default_noreply": False, "timeout": 10, "max_pool_size": 8, **options}
    return run.count(PooledClient((run.server.host, run.server.port), **options))


def hashed(run: Run, **options: Any) -> Any:
    """A counted HashClient over two addresses of the one server."""
    options = {"default_noreply": False, "timeout": 10, **options}
    client = run.count(HashClient([(run.server.host, run.server.port)], **options))
    client.add_server(run.server.second)
    return client


def kinds(run: Run, **options: Any) -> Iterator[Any]:
    """Each kind of client in turn, closed afterwards."""
    for make in (single, pooled, hashed):
        client = make(run, **options)
        yield client
        client.close()


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate(kinds(run)):
        key = run.key(number)
        equal(client.get(key), None)
        equal(client.replace(key, b"no"), False)
        equal(client.append(key, b"no"), False)
        equal(client.prepend(key, b"no"), False)
        equal(client.add(key, b"one"), True)
        equal(client.add(key, b"two"), False)
        equal(client.get(key), b"one")
        equal(client.append(key, b">"), True)
        equal(client.prepend(key, b"<"), True)
        equal(client.get(key), b"<one>")
        equal(client.replace(key, b"three"), True)
        equal(client.set(key, b"four"), True)
        equal(client.get(key, default=b"none"), b"four")
        equal(client.delete(key), True)
        equal(client.delete(key), False)
        equal(client.get(key, default=b"none"), b"none")


@CLIENT.scenario
def items_of_a_dictionary(run: Run) -> None:
    for client in (single(run), pooled(run)):
        client[run.key()] = b"value"
        equal(client[run.key()], b"value")
        del client[run.key()]
        with raises(KeyError):
            client[run.key()]


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    for number, client in enumerate(kinds(run)):
        key = run.key(number)
        equal(client.cas(key, b"x", b"1"), None)
        client.set(key, b"one")
        value, unique = client.gets(key)
        equal(value, b"one")
        equal(client.cas(key, b"two", unique), True)
        equal(client.cas(key, b"three", unique), False)
        client.touch(key, 100)
        value, unique = client.gets(key)
        equal(value, b"two")
        client.append(key, b"!")
        equal(client.cas(key, b"four", unique), False)
        both = client.gets_many([key, run.key("none")])
        equal(list(both), [key])
        equal(client.cas(key, b"five", both[key][1]), True)


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    for number, client in enumerate(kinds(run)):
        key = run.key(number)
        equal(client.incr(key, 1), None)
        equal(client.decr(key, 1), None)
        client.set(key, b"10")
        equal(client.incr(key, 5), 15)
        equal(client.decr(key, 6), 9)
        equal(client.get(key).rstrip(), b"9")
        equal(client.decr(key, 100), 0)
        client.set(key, str(2**64 - 1).encode())
        equal(client.incr(key, 2), 1)
        client.set(key, b"not a number")
        with raises(MemcacheClientError, text="non-numeric"):
            client.incr(key, 1)
        equal(client.get(key), b"not a number")


@CLIENT.scenario
def many_keys(run: Run) -> None:
    values = {key: key.encode() * 3 for key in run.keys(2000)}
    for client in kinds(run):
        equal(client.set_many(values), [])
        equal(client.get_many(values), values)
        equal(client.get_many([*run.keys(10), run.key("none")]), {key: values[key] for key in run.keys(10)})
        equal(len(client.gets_many(values)), len(values))
        equal(client.delete_many(run.keys(1999)), True)
        equal(list(client.get_many(values)), [run.key(1999)])


@CLIENT.scenario
def binary_and_empty_values(run: Run) -> None:
    for client in kinds(run):
        for value in (b"", b"\r\n", b"\0", everything(), everything() * 100):
            equal(client.set(run.key(), value), True)
            equal(client.get(run.key()), value)


@CLIENT.scenario
def large_values(run: Run) -> None:
    client = single(run)
    for size in (1, 2047, 2048, 16_384, 65_536, 524_288, 600_000, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        equal(client.set(run.key(size), value), True)
        equal(client.get(run.key(size)), value)
    equal(sum(map(len, client.get_many([run.key(size) for size in (65_536, 524_288, 600_000)]).values())), 1_189_824)


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    for client in kinds(run):
        client.set(run.key(), b"old")
        for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
            with raises(MemcacheServerError, text="too large"):
                client.set(run.key(), b"x" * size)
        client.set(run.key("after"), b"after")
        equal(client.get(run.key("after")), b"after")
        equal(client.get(run.key()), None, "the old value of a refused set is gone")


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    for client in kinds(run, allow_unicode_keys=True):
        longest = run.key("k").ljust(250, "k")
        equal(client.set(longest, b"250"), True)
        equal(client.get(longest), b"250")
        accented = run.key("clé-ключ-鍵")
        equal(client.set(accented, b"unicode"), True)
        equal(client.get_many([accented, longest]), {accented: b"unicode", longest: b"250"})
        with raises(MemcacheIllegalInputError):
            client.set(longest + "k", b"251")
        with raises(MemcacheIllegalInputError):
            client.get("with space")
    prefixed = single(run, key_prefix=b"prefix:")
    prefixed.set(run.key(), b"1")
    equal(single(run).get("prefix:" + run.key()), b"1")


@CLIENT.scenario
def flags(run: Run) -> None:
    seen = []

    class Recorder:
        @staticmethod
        def serialize(_key: object, value: tuple[bytes, int]) -> tuple[bytes, int]:
            return value

        @staticmethod
        def deserialize(_key: object, value: bytes, flags: int) -> bytes:
            seen.append(flags)
            return value

    client = single(run, serde=Recorder())
    for number in (0, 1, 65_535, 2**32 - 1):
        client.set(run.key(), (b"v", number))
        equal(client.get(run.key()), b"v")
    equal(seen, [0, 1, 65_535, 2**32 - 1])


@CLIENT.scenario
def serializers(run: Run) -> None:
    values = {
        "text": "naïve ☃",
        "int": 2**70,
        "list": [1, None, {"a": b"b"}],
        "bytes": everything(),
        "long": "ab" * 5000,
    }
    for codec in (serde.pickle_serde, serde.compressed_serde):
        for client in kinds(run, serde=codec):
            for name, value in values.items():
                equal(client.set(run.key(name), value), True)
                equal(client.get(run.key(name)), value)
            names = {run.key(name): value for name, value in values.items()}
            client.set_many(names)
            equal(client.get_many(names), names)


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = single(run)
    client.set(run.key("past"), b"v", expire=-1)
    equal(client.get(run.key("past")), None)
    client.set(run.key("absolute"), b"v", expire=int(time.time()) + 100)
    client.set(run.key("long-ago"), b"v", expire=int(time.time()) - 100)
    client.set(run.key("second"), b"v", expire=3)
    client.set(run.key("touched"), b"v", expire=3)
    equal(client.touch(run.key("touched"), 100), True)
    equal(client.touch(run.key("none"), 100), False)
    time.sleep(4.2)
    equal(client.get(run.key("second")), None)
    equal(client.get(run.key("touched")), b"v")
    equal(client.get(run.key("absolute")), b"v")
    equal(client.get(run.key("long-ago")), None)
    for other in (pooled(run), hashed(run)):
        equal(other.touch(run.key("absolute"), -1), True)
        equal(other.get(run.key("absolute")), None)
        client.set(run.key("absolute"), b"v")


@CLIENT.scenario
def silent_commands_in_a_pipeline(run: Run) -> None:
    for number, client in enumerate(kinds(run, default_noreply=True)):
        names = [run.key(f"{number}-{n}") for n in range(500)]
        for name in names:
            client.set(name, b"1")
        key = names[0]
        client.add(key, b"no")
        client.replace(key, b"5")
        client.append(key, b"0")
        client.prepend(key, b"1")
        client.incr(key, 1, noreply=True)
        client.decr(key, 2, noreply=True)
        client.touch(key, 100)
        client.cas(key, b"no", b"1", noreply=True)
        client.set_many(dict.fromkeys(names[1:], b"2"))
        client.delete(names[1])
        client.delete_many(names[2:4])
        client.incr(names[1], 1, noreply=True)
        equal(client.get(key), b"149", "all silent commands, in their order")
        equal(len(client.get_many(names)), 497)


@CLIENT.scenario
def errors_leave_the_connection_in_step(run: Run) -> None:
    client = single(run)
    client.set(run.key(), b"v")
    with raises(MemcacheUnknownCommandError):
        client.raw_command("no_such_command")
    with raises(MemcacheClientError):
        client.raw_command(f"set {run.key()} abc 0 1")
    equal(client.raw_command(f"mg {run.key()} v"), b"VA 1")


@CLIENT.scenario
def raw_commands(run: Run) -> None:
    for client in (single(run), pooled(run)):
        client.set(run.key(), b"value")
        equal(client.raw_command(f"get {run.key()}", "END\r\n"), f"VALUE {run.key()} 0 5\r\nvalue\r\n".encode())
        equal(client.raw_command(f"gat 100 {run.key()}", "END\r\n"), f"VALUE {run.key()} 0 5\r\nvalue\r\n".encode())
        check(b" 0 5 " in client.raw_command(f"gats 100 {run.key()}", "END\r\n"), "gats gives the cas unique")
        equal(client.raw_command("verbosity 0"), b"OK")
        equal(client.raw_command(f"mg {run.key()} s v", "value\r\n"), b"VA 5 s5\r\n")


@CLIENT.scenario
def administration(run: Run) -> None:
    for client in (single(run), pooled(run)):
        number = client.version()
        check(all(part.isdigit() for part in number.split(b".")), f"version {number!r} is not n.n.n")
        figures = client.stats()
        equal(figures[b"version"], number)
        check(figures[b"curr_connections"] >= 1, "curr_connections")
        check(figures[b"cmd_get"] >= 0, "cmd_get")
        client.set(run.key(), b"v")
        check(client.stats("items"), "stats items tells of the item")
        check(b"active_slabs" in client.stats("slabs"), "stats slabs")
        equal(client.stats("settings")[b"item_size_max"], LIMIT)
        client.quit()
        equal(client.get(run.key()), b"v")
    equal(single(run).cache_memlimit(64), True)
    for client in kinds(run):
        client.set(run.key(), b"v")
        client.flush_all(100)
        equal(client.get(run.key()), b"v", "a delayed flush keeps the item for now")
        client.flush_all()
        equal(client.get(run.key()), None)
    several = hashed(run)
    several.quit()
    equal(several.get(run.key()), None)


@CLIENT.scenario
def shutdown_is_refused(run: Run) -> None:
    """A server that was not started with -A says so, and goes on."""
    for client in (single(run), pooled(run)):
        for graceful in (False, True):
            with raises(MemcacheClientError, MemcacheServerError, text="shutdown"):
                client.shutdown(graceful=graceful)
        check(client.version(), "the server goes on")


@CLIENT.scenario
def pooled_threads(run: Run) -> None:
    client = pooled(run, max_pool_size=16)

    def work(thread: int) -> int:
        wrong = 0
        for number in range(60):
            key, value = run.key(f"{thread}-{number}"), f"{thread}:{number}".encode() * 50
            client.set(key, value)
            wrong += client.get(key) != value
            client.incr(run.key("shared"), 1)
        return wrong

    client.set(run.key("shared"), b"0")
    with ThreadPoolExecutor(16) as threads:
        equal(sum(threads.map(work, range(16))), 0, "values of another thread")
    equal(client.get(run.key("shared")), b"960")


@CLIENT.scenario
def a_dead_server_beside_a_living_one(run: Run) -> None:
    """The hash client gives up the port where nobody listens, and serves all keys from the other."""
    servers = [(run.server.host, run.server.port), (run.server.host, 1)]
    client = run.count(HashClient(servers, default_noreply=False, ignore_exc=True, retry_attempts=0, dead_timeout=600))
    for key in run.keys(50):
        client.set(key, b"first")
    equal(client.set_many(dict.fromkeys(run.keys(50), b"second")), [])
    equal(client.get_many(run.keys(50)), dict.fromkeys(run.keys(50), b"second"))


@CLIENT.scenario
def retries(run: Run) -> None:
    base = PlainClient((run.server.host, run.server.port), serde=serde.pickle_serde, timeout=10)
    client = run.count(RetryingClient(base, attempts=3, retry_delay=0.01, retry_for=[MemcacheServerError, OSError]))
    client.set(run.key(), {"a": 1})
    base.sock.close()  # as if the connection had broken
    equal(client.get(run.key()), {"a": 1})


@CLIENT.scenario
def a_time_out_in_the_middle(run: Run) -> None:
    """A client that hears nothing gives up and reconnects; what it sent counts, and nothing is out of step."""
    silent = run.count(PlainClient(run.server.mute, timeout=0.3, default_noreply=False))
    with raises(TimeoutError):
        silent.set(run.key(), b"sent")
    with raises(TimeoutError):
        silent.get(run.key())
    client = single(run)
    soon(lambda: client.get(run.key()), b"sent")


@CLIENT.scenario
def fallback(run: Run) -> None:
    old, new = single(run, key_prefix=b"old:"), single(run, key_prefix=b"new:")
    client = run.count(FallbackClient([new, old]))
    key = run.key()
    old.set(key, b"old")
    equal(client.get(key), b"old")
    equal(client.gets(key)[0], None)
    client.add(key, b"1", noreply=False)
    client.incr(key, 4, noreply=False)
    client.decr(key, 2, noreply=False)
    client.append(key, b"0", noreply=False)
    client.prepend(key, b"1", noreply=False)
    client.touch(key, 100, noreply=False)
    equal(client.get_many([key]), {key: b"130"})
    client.replace(key, b"2", noreply=False)
    client.cas(key, b"3", client.gets_many([key])[key][1], noreply=False)
    equal(client.get(key), b"3")
    client.delete(key, noreply=False)
    client.set(key, b"4", noreply=False)
    client.flush_all(noreply=False)
    equal(client.get(key), None)
    client.close()
