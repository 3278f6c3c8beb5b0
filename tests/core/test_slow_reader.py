"""Clients that read slowly, or not at all: what they pin is small, and what they get is whole."""

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.harness import MIB, Client, fresh

PINNED_MOST = MIB  # what one connection may make the process keep, besides one value in the arena


def resident() -> int:
    """Bytes of memory that this process really has."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def read_slowly(client: Client, first: bytes, steps: tuple[int, ...]) -> bytes:
    """Takes the rest of the replies in steps of these sizes, over and over."""
    out, count = first, 0
    while client.session.unsent or client.session in client.owner.waiting:
        client.session.limit(steps[count % len(steps)])
        out += client.session.drain() + client.settle()
        count += 1
        assert count < 2_000_000
    return out


@pytest.mark.parametrize("steps", [(1,), (7, 1, 100), (4096,), (100_000, 1)])
def test_replies_survive_any_rhythm(steps: tuple[int, ...]) -> None:
    client, fast = fresh(), fresh()
    size = 3000 if steps == (1,) else 90_000
    for each in (client, fast):
        each.set(b"a", random.Random(1).randbytes(size))
        each.set(b"b", b"small")
    request = b"get a b\r\nmg b v k\r\nget b\r\nmn\r\nmg a v s\r\ngets a\r\nbogus\r\n"
    client.session.limit(0)
    first = client.send(request)
    assert first == b""
    out = read_slowly(client, first, steps)
    client.session.limit(None)
    out += client.session.drain() + client.settle()
    assert out == fast.send(request)


def test_a_client_that_never_reads_is_paused() -> None:
    client = fresh(memory_limit=64 * MIB)
    for i in range(50):
        client.set(b"k%d" % i, b"x" * 50_000)
    client.session.limit(0)
    batch = b"get k0 k1 k2 k3 k4 k5 k6 k7 k8 k9\r\n" * 100
    before = resident()
    for _ in range(50):
        client.session.feed(batch)
        client.settle()
    assert client.session.unsent <= PINNED_MOST
    assert resident() - before < 8 * MIB, "25 GB of replies were asked for"
    assert client.session.state == "conn_mwrite"
    other = Client(client.engine)
    assert other.get(b"k7") == b"x" * 50_000


def test_many_clients_that_never_read_pin_little_each() -> None:
    first = fresh(memory_limit=64 * MIB)
    first.set(b"large", b"x" * 1_000_000)
    tracemalloc.start()
    before = resident()
    clients = [Client(first.engine) for _ in range(200)]
    for client in clients:
        client.session.limit(0)
        client.session.feed(b"get large large large\r\n" * 50)
    tracemalloc.stop()
    assert resident() - before < 200 * 400_000


def test_a_multiget_goes_on_where_it_stopped() -> None:
    client, fast = fresh(memory_limit=64 * MIB), fresh(memory_limit=64 * MIB)
    for each in (client, fast):
        for i in range(300):
            each.set(b"k%d" % i, b"%d" % i * (i * 7))
    request = b"gets " + b" ".join(b"k%d" % i for i in range(400)) + b"\r\nmn\r\n"
    client.session.limit(10)
    out = read_slowly(client, client.send(request), (50_000, 3, 1000))
    client.session.limit(None)
    assert out + client.session.drain() + client.settle() == fast.send(request)


@pytest.mark.parametrize("size", [200, 50_000, 70_000, 700_000])
@pytest.mark.parametrize(
    "change",
    [
        b"set a 0 0 3\r\nnew\r\n",
        b"delete a\r\n",
        b"append a 0 0 3\r\nnew\r\n",
        b"flush_all\r\n",
        b"md a x\r\n",
        b"incr a 1\r\n",
    ],
)
def test_a_value_replaced_while_it_is_sent_goes_out_whole_and_old(size: int, change: bytes) -> None:
    client = fresh(memory_limit=16 * MIB)
    old = b"12 " + b" " * (size - 3) if change.startswith(b"incr") else random.Random(size).randbytes(size)
    client.set(b"a", old)
    other = Client(client.engine)
    client.session.limit(100)
    out = client.send(b"get a\r\n")
    assert len(out) == 100
    other.send(change)
    for i in range(40):
        other.set(b"fill%d" % i, b"z" * 900_000)
    client.session.limit(None)
    out += client.session.drain() + client.settle()
    assert out == b"VALUE a 0 %d\r\n%b\r\nEND\r\n" % (size, old)


def test_a_reader_that_goes_away_frees_the_value_it_pinned() -> None:
    client = fresh(memory_limit=8 * MIB)
    for _ in range(50):
        reader = Client(client.engine)
        client.set(b"a", b"x" * 1_000_000)
        reader.session.limit(10)
        reader.send(b"get a\r\n")
        client.send(b"delete a\r\n")
        reader.session.close()
    assert client.set(b"b", b"x" * 1_000_000) == b"STORED\r\n"
    used = sum(figures["used_chunks"] * figures["chunk_size"] for figures in client.engine.slab_stats()[0].values())
    assert used < 2 * MIB


def test_a_slow_reader_does_not_stop_pages_from_moving_for_ever() -> None:
    client = fresh(memory_limit=8 * MIB)
    client.set(b"a", b"x" * 700_000)
    reader = Client(client.engine)
    reader.session.limit(10)
    out = reader.send(b"get a\r\n")
    for i in range(3000):
        assert client.set(b"k%d" % i, b"z" * 5000) == b"STORED\r\n"
    reader.session.limit(None)
    assert out + reader.session.drain() + reader.settle() == b"VALUE a 0 700000\r\n" + b"x" * 700_000 + b"\r\nEND\r\n"


def test_a_pushed_line_that_does_not_fit_is_not_taken() -> None:
    client = fresh()
    client.session.watch()
    assert client.session.push(b"line\n") == 5
    assert client.session.drain() == b"line\n"
    client.session.limit(0)
    taken = 0
    for _ in range(10_000):
        taken += client.session.push(b"x" * 1000)
    assert taken < PINNED_MOST
    client.session.limit(None)
    assert len(client.session.drain()) == taken


def test_a_long_administrative_reply_is_pulled_as_it_is_read() -> None:
    client = fresh()
    pulled = 0

    def pieces() -> Iterator[bytes]:
        nonlocal pulled
        for i in range(1000):
            pulled += 1
            yield b"%05d" % i + b"x" * 10_000

    client.owner.commands[b"dump"] = lambda _session, _line: pieces()
    client.session.limit(0)
    assert client.send(b"dump\r\nmn\r\n") == b""
    assert pulled < 30
    assert client.session.state != "conn_new_cmd"
    out = read_slowly(client, b"", (100_000,))
    client.session.limit(None)
    out += client.session.drain() + client.settle()
    assert out == b"".join(b"%05d" % i + b"x" * 10_000 for i in range(1000)) + b"MN\r\n"
