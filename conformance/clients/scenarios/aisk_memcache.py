"""aisk's memcache: the meta protocol by threads and by asyncio; its execute_meta_command sends any meta command.

Its parser takes the first token after any return code for a size, so a reply with flags and no value is read by
`exchange`, on the client's own connection.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from memcache import AsyncMemcache, Memcache, MemcacheError, MetaCommand, MetaResult

from ..harness import Client, Run, check, equal, everything, raises, soon_read

LIMIT = 1024 * 1024

CLIENT = Client("memcache", title="aisk's memcache", surface={"Memcache": Memcache, "AsyncMemcache": AsyncMemcache})


def connect(run: Run, *, several: bool = False, **options: Any) -> Any:
    """A counted client, of one address or of two of the same server."""
    here = (run.server.host, run.server.port)
    return run.count(Memcache([here, run.server.second] if several else here, **options))


def meta(client: Any, verb: bytes, key: str | bytes, *flags: bytes, value: bytes | None = None) -> MetaResult:
    """Send one meta command."""
    size = None if value is None else len(value)
    result: MetaResult = client.execute_meta_command(MetaCommand(verb, key, size, list(flags), value))
    return result


def exchange(client: Any, key: str, sent: bytes, replies: int) -> list[bytes]:
    """Send bytes on the client's connection for a key and read so many lines."""
    with client._get_connection(key) as connection:
        connection.stream.write(sent)
        connection.stream.flush()
        return [connection.stream.readline().rstrip() for _ in range(replies)]


def flagged(result: MetaResult, letter: str) -> bytes | None:
    """The token of one flag in a reply; empty where the flag has none, None where it isn't there."""
    return next((flag[1:] for flag in result.flags if flag[:1] == letter.encode()), None)


def codes(results: Sequence[MetaResult]) -> list[bytes]:
    """The return codes of several replies."""
    return [result.rc for result in results]


@CLIENT.scenario
def storage(run: Run) -> None:
    for number, client in enumerate((connect(run), connect(run, several=True))):
        key = run.key(number)
        equal(client.get(key), None)
        client.set(key, b"one")
        equal(client.get(key), b"one")
        client.set(key, b"two", expire=100)
        equal(client.get(key), b"two")
        client.delete(key)
        equal(client.get(key), None)
        client.delete(key)


@CLIENT.scenario
def compare_and_swap(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "one")
    value, unique = client.gets(run.key())
    equal(value, "one")
    client.cas(run.key(), "two", unique, expire=100)
    with raises(MemcacheError, text="CAS"):
        client.cas(run.key(), "three", unique)
    equal(client.get(run.key()), "two")
    equal(client.gets(run.key("none")), None)
    with raises(MemcacheError):
        client.cas(run.key("none"), "x", unique)


@CLIENT.scenario
def arithmetic(run: Run) -> None:
    client = connect(run)
    for operation in (client.incr, client.decr):
        with raises(MemcacheError, text="NF"):
            operation(run.key())
    client.set(run.key(), 10)
    equal(client.incr(run.key()), 11)
    equal(client.incr(run.key(), 9), 20)
    equal(client.decr(run.key(), 15), 5)
    equal(client.decr(run.key(), 6), 0)
    client.set(run.key(), "letters")
    with raises(MemcacheError):
        client.incr(run.key())
    equal(client.get(run.key()), "letters")
    client.set(run.key(), 2**64 - 1)
    equal(client.incr(run.key(), 2), 1)


@CLIENT.scenario
def values(run: Run) -> None:
    client = connect(run)
    for size in (1, 100, 2048, 16_384, 65_536, 524_288, LIMIT - 512):
        value = (everything() * (size // 500 + 1))[:size]
        client.set(run.key(), value)
        equal(client.get(run.key()), value)
    for other in ("naïve ☃", 12, 2**70, None, [1, {"a": b"b"}]):
        client.set(run.key(), other)
        equal(client.get(run.key()), other)


@CLIENT.scenario
def too_large_a_value_leaves_the_connection_in_step(run: Run) -> None:
    client = connect(run, pool_size=1)
    client.set(run.key(), "old")
    for size in (LIMIT, LIMIT + 1, 3 * LIMIT):
        command = b"ms %s %d\r\n%s\r\n" % (run.key().encode(), size, b"x" * size)
        equal(exchange(client, run.key(), command, 1), [b"SERVER_ERROR object too large for cache"])
        client.set(run.key("after"), size)
        equal(client.get(run.key("after")), size)
    equal(client.get(run.key()), None)


@CLIENT.scenario
def many_keys(run: Run) -> None:
    for client in (connect(run), connect(run, several=True)):
        for key in run.keys(500):
            client.set(key, key * 4)
        equal([client.get(key) for key in run.keys(500)], [key * 4 for key in run.keys(500)])


@CLIENT.scenario
def keys_at_their_limits(run: Run) -> None:
    client = connect(run)
    longest = run.key("k").ljust(250, "k")
    client.set(longest, "250")
    equal(client.get(longest), "250")
    with raises(MemcacheError):
        client.get(longest + "k")
    client = connect(run)
    client.set(run.key("clé-鍵"), "unicode")
    equal(client.get(run.key("clé-鍵")), "unicode")


@CLIENT.scenario
def keys_in_base64(run: Run) -> None:
    client = connect(run)
    raw = run.key("with space and \0 and \r\n").encode()
    key = base64.b64encode(raw)
    equal(meta(client, b"ms", key, b"b", b"T100", value=b"v").rc, b"HD")
    result = meta(client, b"mg", key, b"b", b"k", b"v")
    equal((result.rc, result.value), (b"VA", b"v"))
    equal(flagged(result, "k"), key)
    equal(flagged(result, "b"), b"")
    plain = base64.b64encode(run.key("plain").encode())
    meta(client, b"ms", plain, b"b", value=b"same")
    equal(meta(client, b"mg", run.key("plain"), b"v").value, b"same", "one key in two writings")
    equal(meta(client, b"md", key, b"b").rc, b"HD")


@CLIENT.scenario
def flags_of_mg(run: Run) -> None:
    client = connect(run)
    key = run.key()
    equal(meta(client, b"mg", key, b"v").rc, b"EN")
    (stored,) = exchange(client, key, b"ms %s 5 T100 F65535 c\r\nvalue\r\n" % key.encode(), 1)
    check(stored.startswith(b"HD c"), f"ms with c: {stored!r}")
    unique = stored[4:]
    equal(exchange(client, key, b"mg %s h\r\n" % key.encode(), 1), [b"HD h0"], "not fetched before")
    result = meta(client, b"mg", key, b"s", b"t", b"c", b"f", b"h", b"l", b"k", b"Oopaque", b"v")
    equal((result.rc, result.datalen, result.value), (b"VA", 5, b"value"))
    equal(
        [flag[:1] for flag in result.flags], [b"s", b"t", b"c", b"f", b"h", b"l", b"k", b"O"], "in the order asked for"
    )
    equal((flagged(result, "s"), flagged(result, "c"), flagged(result, "f")), (b"5", unique, b"65535"))
    equal((flagged(result, "h"), flagged(result, "k"), flagged(result, "O")), (b"1", key.encode(), b"opaque"))
    check(90 <= int(flagged(result, "t") or 0) <= 100, f"remaining time {flagged(result, 't')!r}")
    equal(flagged(meta(client, b"mg", key, b"T500", b"t", b"v"), "t"), b"500", "T touches")
    equal(flagged(meta(client, b"mg", key, b"T0", b"t", b"v"), "t"), b"-1", "no expiry")
    equal(meta(client, b"mg", key).rc, b"HD")


@CLIENT.scenario
def modes_of_ms(run: Run) -> None:
    client = connect(run)
    key = run.key()
    refused = [meta(client, b"ms", key, mode, value=b"x") for mode in (b"MA", b"MP", b"MR")]
    equal(codes(refused), [b"NS"] * 3)
    equal(meta(client, b"ms", key, b"ME", value=b"one").rc, b"HD")
    equal(meta(client, b"ms", key, b"ME", value=b"two").rc, b"NS")
    done = [meta(client, b"ms", key, mode, value=value) for mode, value in ((b"MA", b">"), (b"MP", b"<"))]
    equal(codes(done), [b"HD"] * 2)
    equal(client.get(key), b"<one>")
    equal(meta(client, b"ms", key, b"MR", value=b"three").rc, b"HD")
    equal(meta(client, b"ms", key, b"C1", value=b"no").rc, b"EX")
    equal(meta(client, b"ms", run.key("none"), b"C1", value=b"no").rc, b"NF")
    with raises(MemcacheError):
        meta(client, b"ms", key, b"MX", value=b"no such mode")
    client = connect(run)
    equal(client.get(key), b"three")


@CLIENT.scenario
def arithmetic_with_ma(run: Run) -> None:
    client = connect(run)
    key = run.key()
    equal(meta(client, b"ma", key).rc, b"NF")
    made = meta(client, b"ma", key, b"N100", b"J13", b"v", b"t", b"c", b"Oo")
    equal((made.rc, made.value, flagged(made, "t"), flagged(made, "O")), (b"VA", b"13", b"100", b"o"))
    equal(meta(client, b"ma", key, b"D7", b"v").value, b"20")
    equal(meta(client, b"ma", key, b"MD", b"D5", b"v").value, b"15")
    equal(meta(client, b"ma", key, b"M-", b"D50", b"v").value, b"0")
    equal(meta(client, b"ma", key, b"C1").rc, b"EX")
    equal(meta(client, b"ma", key, b"T300", b"t", b"v").flags, [b"t300"])
    with raises(MemcacheError):
        meta(client, b"ma", key, b"Dletters")


@CLIENT.scenario
def stale_and_win(run: Run) -> None:
    client = connect(run)
    key = run.key()
    client.set(key, b"old")
    equal(meta(client, b"md", key, b"I", b"T30").rc, b"HD")
    first, second = (meta(client, b"mg", key, b"v", b"t", b"c") for _ in range(2))
    equal((first.value, flagged(first, "W"), flagged(first, "X")), (b"old", b"", b""), "the first wins")
    equal((second.value, flagged(second, "W"), flagged(second, "X"), flagged(second, "Z")), (b"old", None, b"", b""))
    token = b"C" + (flagged(first, "c") or b"")
    equal(meta(client, b"ms", key, token, value=b"new").rc, b"HD")
    equal([flag[:1] for flag in meta(client, b"mg", key, b"v", b"c").flags], [b"c"], "no marks on the new value")
    missing = meta(client, b"mg", run.key("miss"), b"N30", b"v", b"c")
    equal((missing.rc, missing.value, flagged(missing, "W")), (b"VA", b"", b""))
    equal(flagged(meta(client, b"mg", run.key("miss"), b"N30", b"v"), "Z"), b"")
    client.set(run.key("soon"), b"v", expire=20)
    equal(flagged(meta(client, b"mg", run.key("soon"), b"R30", b"v"), "W"), b"", "R: one client recaches early")
    equal(flagged(meta(client, b"mg", run.key("soon"), b"R30", b"v"), "Z"), b"")


@CLIENT.scenario
def quiet_commands_before_mn(run: Run) -> None:
    """Quiet successes and quiet misses stay silent: the next line is the no-op's."""
    client = connect(run, pool_size=1)
    key = run.key()
    name = key.encode()
    sent = b"mg %s-none v q\r\n" % name * 3 + b"ms %s 1 q\r\nx\r\nmd %s q\r\nmg %s v q\r\nmn\r\n" % (name, name, name)
    equal(exchange(client, key, sent, 1), [b"MN"])
    sent = b"ms %s 1 q MR\r\nx\r\nms %s 1 q\r\nx\r\nmn\r\nmg %s k v q\r\nmn\r\n" % (name, name, name)
    equal(exchange(client, key, sent, 5), [b"NS", b"MN", b"VA 1 k" + name, b"x", b"MN"], "failures and hits speak")
    equal(meta(client, b"mn", b"").rc, b"MN")


@CLIENT.scenario
def debugging_with_me(run: Run) -> None:
    client = connect(run)
    equal(meta(client, b"me", run.key()).rc, b"EN")
    client.set(run.key(), b"value", expire=100)
    (answer,) = exchange(client, run.key(), b"me %s\r\n" % run.key().encode(), 1)
    check(answer.startswith(b"ME " + run.key().encode()) and b" exp=" in answer, f"me tells of the item: {answer!r}")


@CLIENT.scenario
def expiry(run: Run) -> None:
    client = connect(run)
    client.set(run.key("second"), "v", expire=3)
    client.set(run.key("touched"), "v", expire=3)
    equal(meta(client, b"mg", run.key("touched"), b"T100").rc, b"HD")
    meta(client, b"ms", run.key("past"), b"T-1", value=b"v")
    equal(client.get(run.key("past")), None)
    time.sleep(4.2)
    equal((client.get(run.key("second")), client.get(run.key("touched"))), (None, "v"))


@CLIENT.scenario
def flush(run: Run) -> None:
    client = connect(run)
    client.set(run.key(), "v")
    client.flush_all()
    equal(client.get(run.key()), None)


@CLIENT.scenario
def many_threads(run: Run) -> None:
    client = connect(run, pool_size=8, pool_timeout=20)
    client.set(run.key("shared"), 0)

    def work(thread: int) -> int:
        wrong = 0
        for number in range(60):
            key = run.key(f"{thread}-{number}")
            client.set(key, key * 9)
            wrong += client.get(key) != key * 9
            client.incr(run.key("shared"))
        return wrong

    with ThreadPoolExecutor(8) as threads:
        equal(sum(threads.map(work, range(8))), 0, "values of another thread")
    equal(client.get(run.key("shared")), 480)


@CLIENT.scenario
async def asynchronous(run: Run) -> None:
    client = run.count(AsyncMemcache((run.server.host, run.server.port)))
    equal(await client.get(run.key()), None)
    await client.set(run.key(), {"a": 1}, expire=100)
    value, unique = await client.gets(run.key())
    equal(value, {"a": 1})
    await client.cas(run.key(), 5, unique)
    with raises(MemcacheError):
        await client.cas(run.key(), 6, unique)
    equal(await client.incr(run.key(), 3), 8)
    equal(await client.decr(run.key(), 2), 6)
    result = await client.execute_meta_command(MetaCommand(b"mg", run.key(), None, [b"v", b"s"]))
    equal((result.value, result.flags), (b"6", [b"s1"]))

    async def work(task: int) -> None:
        for number in range(10):
            key = run.key(f"{task}-{number}")
            await client.set(key, key * 9)
            equal(await client.get(key), key * 9)

    await asyncio.gather(*(work(task) for task in range(20)))
    await client.delete(run.key())
    equal(await client.get(run.key()), None)
    await client.set(run.key(), everything() * 1000)
    equal(await client.get(run.key()), everything() * 1000)
    await client.flush_all()
    equal(await client.get(run.key()), None)


@CLIENT.scenario
async def a_time_out_in_the_middle(run: Run) -> None:
    silent = run.count(AsyncMemcache(run.server.mute))
    with raises(TimeoutError):
        await asyncio.wait_for(silent.set(run.key(), "sent"), 0.3)
    client = run.count(AsyncMemcache((run.server.host, run.server.port)))
    await soon_read(lambda: client.get(run.key()), "sent")
