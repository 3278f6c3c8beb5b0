"""The gate (what a cache answers that can't prove that it is fresh), and the hold-off after a remote invalidation."""

import time

import pytest

from tests.core.harness import Client, fresh
from tests.serving import eventually

STALE = b"SERVER_ERROR stale\r\n"
DATA = [
    b"get a\r\n", b"gets a b\r\n", b"gat 0 a\r\n", b"set a 0 0 1\r\ny\r\n", b"add n 0 0 1\r\ny\r\n", b"replace a 0 0 1\r\ny\r\n",
    b"append a 0 0 1\r\ny\r\n", b"prepend a 0 0 1\r\ny\r\n", b"cas a 0 0 1 2\r\ny\r\n", b"incr a 1\r\n", b"decr a 1\r\n",
    b"touch a 0\r\n", b"mg a v\r\n", b"mg n N30 v\r\n", b"ms a 1\r\ny\r\n", b"ma a\r\n", b"ma n N30 J5\r\n", b"me a\r\n",
]  # fmt: skip
EMPTY = {
    b"set": b"NOT_STORED\r\n", b"add": b"NOT_STORED\r\n", b"ms": b"NS\r\n", b"cas": b"NOT_FOUND\r\n",
}  # fmt: skip


def stocked(*, manual_clock: bool = True, broadcast: bool = False) -> Client:
    client = fresh(manual_clock=manual_clock)
    client.engine.broadcast(broadcast, [])
    client.set(b"a", b"1")
    return client


@pytest.mark.parametrize("command", DATA)
def test_policy_miss_answers_as_an_empty_cache_that_stores_nothing(command: bytes) -> None:
    client, empty = stocked(), fresh()
    client.engine.set_gate("miss", 0)
    expected = EMPTY.get(command.split()[0])
    if expected is None:
        expected = {b"mg n N30 v\r\n": b"EN\r\n", b"ma n N30 J5\r\n": b"NF\r\n"}.get(command) or empty.send(command)
    assert client.send(command + b"mn\r\n") == expected + b"MN\r\n"
    client.engine.set_gate(None)
    assert client.send(b"get a n\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n", "what it holds is there again, unchanged"


@pytest.mark.parametrize("command", DATA)
def test_policy_error_says_so_to_every_data_command(command: bytes) -> None:
    client = stocked()
    client.engine.set_gate("error", 0)
    assert client.send(command + b"mn\r\n") == STALE + b"MN\r\n"
    client.engine.set_gate(None)
    assert client.send(b"get a n\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n", "a refused command has no effect"


@pytest.mark.parametrize("command", DATA)
def test_policy_serve_changes_nothing(command: bytes) -> None:
    client, free = stocked(), stocked()
    client.engine.set_gate("serve", 0)
    assert client.send(command + b"get a n\r\n") == free.send(command + b"get a n\r\n")


@pytest.mark.parametrize(("policy", "reply"), [("miss", b"NOT_FOUND\r\n"), ("error", b"DELETED\r\n")])
def test_deletes_still_work_behind_a_closed_gate(policy: str, reply: bytes) -> None:
    client = stocked(broadcast=True)
    client.engine.set_gate(policy, 0)
    assert client.send(b"delete a\r\n") == reply
    assert [event[:2] for batch in client.owner.batches for event in batch] == [("delete", b"a")]
    client.engine.set_gate(None)
    assert client.get(b"a") is None


def test_the_time_is_looked_at_for_each_batch() -> None:
    client = stocked(manual_clock=False)
    minute = 60_000_000_000
    client.engine.set_gate("miss", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + minute)
    assert client.get(b"a") == b"1"
    client.engine.set_gate("miss", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10_000_000)
    eventually(lambda: client.get(b"a") is None)
    client.engine.set_gate("miss", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + minute)
    assert client.get(b"a") == b"1"


def test_administration_is_never_gated() -> None:
    client = stocked()
    client.owner.commands[b"stats"] = lambda _session, _line: b"END\r\n"
    client.engine.set_gate("error", 0)
    assert client.send(b"stats\r\nversion\r\nmn\r\n") == b"END\r\nVERSION 1.6.45\r\nMN\r\n"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\w"):
        stocked().engine.set_gate("perhaps", 0)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"set a 0 0 1\r\ny\r\n", b"NOT_STORED\r\n"),
        (b"add a 0 0 1\r\ny\r\n", b"NOT_STORED\r\n"),
        (b"ms a 1\r\ny\r\n", b"NS\r\n"),
        (b"ms a 1 ME\r\ny\r\n", b"NS\r\n"),
        (b"ms a 1 MA N30\r\ny\r\n", b"NS\r\n"),
    ],
)
def test_a_remote_delete_holds_off_plain_stores(command: bytes, reply: bytes) -> None:
    client = stocked()
    client.engine.hold_off(60_000)
    client.engine.delete(b"a")
    assert client.send(command) == reply
    assert client.get(b"a") is None
    client.engine.hold_off(0)
    assert client.set(b"a", b"y") == b"STORED\r\n"


def test_a_lease_taken_after_the_delete_may_store() -> None:
    client = stocked()
    client.engine.hold_off(60_000)
    client.engine.delete(b"a")
    reply = client.send(b"mg a N30 c v\r\n")
    assert reply.startswith(b"VA 0 c")
    assert client.send(b"ms a 1 C%d\r\ny\r\n" % int(reply.split()[2][1:])) == b"HD\r\n"
    assert client.get(b"a") == b"y"


@pytest.mark.parametrize("what", ["flush", "flush_prefix"])
def test_flushes_hold_off_too(what: str) -> None:
    client = stocked()
    client.engine.hold_off(60_000)
    if what == "flush":
        client.engine.flush()
    else:
        client.engine.flush_prefix(b"a")
    assert client.set(b"a", b"y") == b"NOT_STORED\r\n"


def test_own_deletes_do_not_hold_off_and_it_passes() -> None:
    client = stocked(manual_clock=False)
    client.engine.hold_off(60_000)
    client.send(b"delete a\r\n")
    assert client.set(b"a", b"y") == b"STORED\r\n"
    client.engine.delete(b"a")
    assert client.set(b"a", b"y") == b"NOT_STORED\r\n"
    client.engine.hold_off(10)
    client.engine.delete(b"a")
    eventually(lambda: client.set(b"a", b"y") == b"STORED\r\n")


def test_a_delete_kills_the_lease() -> None:
    client = fresh()
    cas = int(client.send(b"mg a N30 c v\r\n").split()[2][1:])
    assert client.engine.delete(b"a")
    assert client.send(b"ms a 3 C%d\r\nold\r\n" % cas) == b"NF\r\n"
    cas = int(client.send(b"mg a N30 c v\r\n").split()[2][1:])
    client.engine.flush_prefix(b"")
    assert client.send(b"ms a 3 C%d\r\nold\r\n" % cas) == b"NF\r\n"
    cas = int(client.send(b"mg a N30 c v\r\n").split()[2][1:])
    assert client.engine.mark_stale(b"a", 30)
    assert client.send(b"ms a 3 C%d\r\nold\r\n" % cas) == b"NF\r\n"
    client.set(b"a", b"old")
    cas = int(client.send(b"mg a R30 c\r\n").split()[1][1:])
    assert client.engine.mark_stale(b"a", 30)
    assert client.send(b"ms a 3 C%d\r\nold\r\n" % cas) == b"EX\r\n"


def test_mark_stale_lets_one_refresh() -> None:
    client = stocked()
    assert client.engine.mark_stale(b"a", 30)
    assert not client.engine.mark_stale(b"none", 30)
    assert client.send(b"mg a v t\r\nmg a v\r\n") == b"VA 1 t30 X W\r\n1\r\nVA 1 Z X\r\n1\r\n"


def test_md_is_done_and_told_behind_a_gate_that_answers_errors() -> None:
    client = stocked(broadcast=True)
    client.engine.set_gate("error", 0)
    assert client.send(b"md a\r\n") == b"HD\r\n"
    assert [event[:2] for batch in client.owner.batches for event in batch] == [("delete", b"a")]
    client.engine.set_gate(None)
    assert client.get(b"a") is None
