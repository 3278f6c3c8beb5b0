"""What another engine serves of a memory that was kept: all of it as it was, or nothing, and never a wrong value."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from mcserver.core import Engine
from tests.core.harness import MIB, Client, crawl

HEAD = 2 << 20  # where page 1 lies in the file


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("kept")
    yield fd
    os.close(fd)


def engine_on(memory: int, **settings: Any) -> Engine:
    return Engine(**{"memory_limit": 8 * MIB, "memory_fd": os.dup(memory), "manual_clock": True, **settings})


def value_of(client: Client, key: bytes) -> bytes:
    return client.send(b"mg %s v t f c\r\n" % key)


def filled(
    memory: int, chance: random.Random, count: int = 3000, **settings: object
) -> tuple[Engine, Client, dict[bytes, bytes]]:
    """An engine after sets, deletes, appends, touches and gets of all sizes; and what each key that is left is answered with."""
    engine = engine_on(memory, **settings)
    client = Client(engine)
    for n in range(count):
        key, size = b"key-%d" % chance.randrange(count // 2), chance.choice((0, 10, 100, 1000, 5000, 40000, 200000))
        what = chance.random()
        if what < 0.6:
            value = chance.randbytes(size)
            client.send(b"ms %s %d F%d T%d\r\n%s\r\n" % (key, size, n, chance.choice((0, 50, 5000)), value))
        elif what < 0.7:
            client.send(b"append %s 0 0 4\r\nmore\r\n" % key)
        elif what < 0.8:
            client.send(b"delete %s\r\n" % key)
        else:
            client.send(b"get %s\r\n" % key)
    client.session.close()
    keys = [item.key for items in engine.walk() for item in items]
    return engine, client, {key: value_of(Client(engine), key) for key in keys}


def order(engine: Engine) -> dict[int, list[bytes]]:
    """The keys of each class from the LRU's head."""
    return {
        cls: [key for keys in engine.cachedump(cls, 0) for key, _, _ in keys] for cls in range(1, engine.classes + 1)
    }


def settled(engine: Engine) -> None:
    for _ in range(50):
        engine.maintain()


def test_everything_is_there_as_it_was(memory: int) -> None:
    engine, _, values = filled(memory, random.Random(1))
    assert len(values) > 200
    was, figures, items = order(engine), engine.stats(), engine.item_stats()
    record = engine.keep()
    later = engine_on(memory)
    later.resume(record, 0)
    assert order(later) == was
    for name in ("bytes", "curr_items", "slab_global_page_pool", "ghost_bytes"):
        assert later.stats()[name] == figures[name], name
    for cls, row in items.items():
        for name in ("number", "number_hot", "number_warm", "number_cold", "number_temp", "mem_requested"):
            assert later.item_stats()[cls][name] == row[name], (cls, name)
    client = Client(later)
    assert {key: value_of(client, key) for key in values} == values
    settled(later)
    assert {key: value_of(client, key) for key in values} == values


def test_a_cas_unique_goes_on(memory: int) -> None:
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"set a 0 0 1\r\na\r\nset b 0 0 1\r\nb\r\n")
    unique = client.send(b"mg a c\r\n")
    client.session.close()
    later = engine_on(memory)
    later.resume(engine.keep(), 1)
    client = Client(later)
    assert client.send(b"mg a c\r\n") == unique
    assert client.send(b"cas a 0 0 1 %s\r\nx\r\n" % unique[4:-2]) == b"STORED\r\n"
    assert int(client.send(b"mg a c\r\n")[4:-2]) > int(client.send(b"mg b c\r\n")[4:-2])


def test_time_went_on_meanwhile(memory: int) -> None:
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"set short 0 10 1\r\na\r\nset long 0 100 1\r\nb\r\nset ever 0 0 1\r\nc\r\n")
    client.session.close()
    later = engine_on(memory)
    later.resume(engine.keep(), 30)
    client = Client(later)
    assert client.send(b"mg short v\r\nmg long t\r\nmg ever t\r\n") == b"EN\r\nHD t70\r\nHD t-1\r\n"
    later.advance(70)
    assert client.send(b"mg long t\r\n") == b"EN\r\n"


@pytest.mark.parametrize(("away", "left"), [(5, b"HD\r\n"), (20, b"EN\r\n")])
def test_a_flush_that_is_due(memory: int, away: int, left: bytes) -> None:
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"set a 0 0 1\r\na\r\nflush_all 15\r\n")
    client.session.close()
    later = engine_on(memory)
    later.resume(engine.keep(), away)
    client = Client(later)
    assert client.send(b"mg a\r\n") == left
    later.advance(20)
    assert client.send(b"mg a\r\n") == b"EN\r\n"


def test_a_flush_that_is_due_where_nothing_was_stored_yet(memory: int) -> None:
    """There is no page, so the file has no byte; what was to come comes nevertheless."""
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"flush_all 15\r\n")
    client.session.close()
    assert os.fstat(memory).st_size == 0
    later = engine_on(memory)
    later.resume(engine.keep(), 5)
    client = Client(later)
    assert client.send(b"set a 0 0 1\r\na\r\nmg a\r\n") == b"STORED\r\nHD\r\n"
    later.advance(10)
    assert client.send(b"mg a\r\n") == b"EN\r\n"


def test_flushes_that_were(memory: int) -> None:
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"set a:1 0 0 1\r\na\r\nset b:1 0 0 1\r\nb\r\nset c:1 0 0 1\r\nb\r\n")
    engine.flush_prefix(b"a:")
    engine.refresh_prefix(b"c:", 30)
    client.send(b"set a:2 0 0 1\r\na\r\n")
    client.session.close()
    later = engine_on(memory)
    later.resume(engine.keep(), 0)
    client = Client(later)
    answers = client.send(b"mg a:1 v\r\nmg a:2 v\r\nmg b:1 v\r\nmg c:1 v t\r\n")
    assert answers == b"EN\r\nVA 1\r\na\r\nVA 1\r\nb\r\nVA 1 t30 X W\r\nb\r\n"
    later.flush()
    assert client.send(b"mg a:2 v\r\nmg b:1\r\n") == b"EN\r\nEN\r\n"


@pytest.mark.slow
def test_many_prefix_flushes_and_a_pass_that_was_under_way(memory: int) -> None:
    """More than one table holds, of both ages; the next passes forget them all."""
    engine = engine_on(memory)
    client = Client(engine)
    client.send(
        b"".join(
            b"set p%d:old 0 0 1 noreply\r\nx\r\nset q%d:old 0 0 1 noreply\r\nx\r\n" % (n, n)
            for n in range(0, 60_000, 10)
        )
    )
    client.send(b"set stays 0 0 1\r\nx\r\n")
    for n in range(60_000):
        engine.flush_prefix(b"p%d:" % n)
    engine.maintain(1)  # a pass has begun
    for n in range(60_000):
        engine.flush_prefix(b"q%d:" % n)
    client.send(b"".join(b"set p%d:new 0 0 1 noreply\r\nx\r\n" % n for n in range(0, 60_000, 10)))
    client.session.close()
    later = engine_on(memory)
    later.resume(engine.keep(), 0)
    client = Client(later)
    for _ in range(2):
        for what, count in ((b"p%d:old", 0), (b"q%d:old", 0), (b"p%d:new", 6000)):
            names = b" ".join(what % n for n in range(0, 60_000, 10))
            assert client.send(b"get %s stays\r\n" % names).count(b"VALUE") == count + 1, what
        for _ in range(2):
            crawl(later)


@pytest.mark.slow
def test_it_lives_on(memory: int) -> None:
    """Sets, evictions, page moves and a second time around, with every value right."""
    chance = random.Random(2)
    engine, _, values = filled(memory, chance)
    for _ in range(3):
        later = engine_on(memory)
        later.resume(engine.keep(), 0)
        client = Client(later)
        for n in range(500):
            value = chance.randbytes(chance.choice((10, 3000, 60000)))
            client.send(b"set new-%d 0 0 %d\r\n%s\r\n" % (n, len(value), value))
            found = value_of(client, b"new-%d" % n)
            assert value in found
            values[b"new-%d" % n] = found
        settled(later)
        for key, found in values.items():
            assert value_of(client, key) in (found, b"EN\r\n"), key
        client.session.close()
        engine = later
    assert engine.stats()["evictions"] > 0
    assert engine.mrc_faults() == ""


def test_a_page_on_its_way_and_the_rest_of_a_large_value(memory: int) -> None:
    engine = engine_on(memory, memory_limit=32 * MIB, item_size_max=12 * MIB)
    client = Client(engine)
    client.send(b"set big 0 0 %d\r\n%s\r\n" % (10 * MIB, b"x" * 10 * MIB))
    client.send(b"".join(b"set k%d 0 0 100\r\n%s\r\n" % (n, b"y" * 100) for n in range(5000)))
    client.send(b"delete big\r\n")  # more pieces than are freed at once
    engine.reassign_page(2, 5)
    client.session.close()
    later = engine_on(memory, memory_limit=32 * MIB, item_size_max=12 * MIB)
    later.resume(engine.keep(), 0)
    assert later.stats()["curr_items"] == 5000
    assert later.stats()["slab_reassign_running"] == 0


def test_a_page_that_has_come_to_its_class_and_was_not_used_yet(memory: int) -> None:
    engine = engine_on(memory)
    client = Client(engine)
    client.send(b"".join(b"set k%d 0 0 100\r\n%s\r\n" % (n, b"y" * 100) for n in range(5000)))
    client.send(b"set large 0 0 1000\r\n%s\r\n" % (b"z" * 1000))
    pages = {cls: figures["total_pages"] for cls, figures in engine.slab_stats()[0].items()}
    source, taker = max(pages, key=lambda cls: pages[cls]), max(cls for cls in pages if pages[cls])
    assert engine.reassign_page(source, taker) == "OK"
    settled(engine)
    client.session.close()
    assert engine.slab_stats()[0][taker]["total_pages"] == 2
    later = engine_on(memory)
    later.resume(engine.keep(), 0)
    assert later.slab_stats()[0][taker]["total_pages"] == 2
    assert value_of(Client(later), b"large").endswith(b"z" * 1000 + b"\r\n")


def test_more_memory_and_less(memory: int) -> None:
    settings = {"item_size_max": MIB, "memory_limit": 128 * MIB}
    engine = engine_on(memory, **settings)
    client = Client(engine)
    for n in range(90):
        client.send(b"set k%d 0 0 %d\r\n%s\r\n" % (n, 900000, b"%02d" % n * 450000))
    client.session.close()
    record = engine.keep()
    larger = engine_on(memory, **settings | {"memory_limit": 256 * MIB, "like": record})
    larger.resume(record, 0)
    assert larger.stats()["curr_items"] == 90
    record = larger.keep()
    smaller = engine_on(memory, **settings | {"memory_limit": 64 * MIB, "like": record})
    smaller.resume(record, 0)
    for _ in range(2000):
        smaller.maintain()
    client = Client(smaller)
    left = [
        n for n in range(90) if client.send(b"mg k%d v\r\n" % n) == b"VA 900000\r\n" + b"%02d" % n * 450000 + b"\r\n"
    ]
    assert 40 < len(left) < 76
    assert smaller.slab_stats()[2] <= 64 * MIB


@pytest.mark.parametrize(
    ("before", "after", "goes_on"), [(16, 64, True), (64, 16, True), (16, 256, False), (256, 32, False)]
)
def test_pages_are_those_of_the_record(memory: int, before: int, after: int, *, goes_on: bool) -> None:
    engine = engine_on(memory, memory_limit=before * MIB)
    client = Client(engine)
    client.send(b"set k 0 0 5\r\nvalue\r\n")
    client.session.close()
    record = engine.keep()
    later = engine_on(memory, memory_limit=after * MIB, like=record)
    assert (later.differs(record[: len(engine.layout())]) == "") is goes_on
    if goes_on:
        later.resume(record, 0)
        assert value_of(Client(later), b"k").endswith(b"value\r\n")
    else:
        with pytest.raises(ValueError, match="-m differs too much"):
            later.resume(record, 0)


def test_what_is_no_record_decides_nothing(memory: int) -> None:
    usual = engine_on(memory).layout()
    record = engine_on(memory, memory_limit=16 * MIB).keep()
    for wrong in (b"", record[:20], bytes(len(record)), b"\xff" * len(record)):
        assert engine_on(memory, like=wrong).layout() == usual
    with pytest.raises(TypeError):
        engine_on(memory, like="text")


def test_a_flat_lru(memory: int) -> None:
    engine, _, values = filled(memory, random.Random(3))
    later = engine_on(memory, segmented=False)
    later.resume(engine.keep(), 0)
    client = Client(later)
    assert {key: value_of(client, key) for key in values} == values
    assert {row["number_hot"] for row in later.item_stats().values()} == {0}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"cas": False}, "-C differs"),
        ({"item_size_max": 2 * MIB}, "-I differs"),
        ({"growth_factor": 1.3}, "slab classes differ"),
        ({"chunk_size": 96}, "slab classes differ"),
        ({"memory_limit": 128 * MIB}, "-m differs too much"),
        ({"slab_chunk_max": 4 << 10}, "slab classes differ"),
    ],
)
def test_settings_that_do_not_fit(memory: int, settings: dict[str, object], why: str) -> None:
    engine, _, _ = filled(memory, random.Random(4), 200)
    record = engine.keep()
    with pytest.raises(ValueError, match=why):
        engine_on(memory, **settings).resume(record, 0)


def test_a_file_that_is_too_short(memory: int) -> None:
    engine, _, _ = filled(memory, random.Random(5), 500)
    record = engine.keep()
    os.ftruncate(memory, os.fstat(memory).st_size // 2)
    with pytest.raises(ValueError, match="the file is too short"):
        engine_on(memory).resume(record, 0)


def test_only_a_new_engine(memory: int) -> None:
    engine, _, _ = filled(memory, random.Random(5), 100)
    with pytest.raises(ValueError, match="has items already"):
        engine.resume(engine.keep(), 0)


@pytest.mark.slow
def test_a_changed_byte_of_the_memory(memory: int) -> None:
    engine, _, _ = filled(memory, random.Random(6))
    record = engine.keep()
    os.pwrite(memory, bytes([os.pread(memory, 1, HEAD + 1000)[0] ^ 1]), HEAD + 1000)
    with pytest.raises(ValueError, match="the memory is not what was kept"):
        engine_on(memory).resume(record, 0)


def test_a_full_file_system_is_no_crash() -> None:
    """A file that can't grow: stores make do with the pages that are there."""
    import resource
    import signal

    fd = os.memfd_create("kept")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEAD + 4 * MIB, before[1]))
    try:
        engine = Engine(memory_limit=64 * MIB, memory_fd=fd)
        client = Client(engine)
        for n in range(100):
            assert client.send(b"set k%d 0 0 100000\r\n%s\r\n" % (n, b"x" * 100000)) == b"STORED\r\n"
        assert client.send(b"mg k99 s\r\n") == b"HD s100000\r\n"
        assert engine.stats()["evictions"] > 50
        values = {key: value_of(client, key) for key in [b"k%d" % n for n in range(100)]}
        client.session.close()
        later = Engine(memory_limit=64 * MIB, memory_fd=os.dup(fd))
        later.resume(engine.keep(), 0)
        assert {key: value_of(Client(later), key) for key in values} == values
        assert later.stats()["curr_items"] > 20
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.slow
@pytest.mark.parametrize("sums", [True, False])
def test_whatever_stands_there_it_is_no_crash(memory: int, sums: bool) -> None:
    """Bytes of the record, and, without checksums, of the memory are changed: it is refused, or what it serves holds together."""
    chance = random.Random(7)
    engine, _, values = filled(memory, chance, 1500)
    record = engine.keep(sums)
    copy = os.pread(memory, os.fstat(memory).st_size, 0)
    refused = 0
    for _ in range(100):
        changed, fd = bytearray(record), os.memfd_create("changed")
        os.pwrite(fd, copy, 0)
        for _ in range(chance.randrange(1, 4)):
            if sums or chance.random() < 0.3:
                at = chance.randrange(len(changed) if chance.random() < 0.5 else 12000)
                changed[at] = chance.choice((0, 1, 255, chance.randrange(256)))
            else:
                at = HEAD + chance.randrange(len(copy) - HEAD) // 8 * 8
                os.pwrite(fd, chance.choice((b"\0", b"\xff", chance.randbytes(8))), at + chance.randrange(8))
        later = Engine(memory_limit=8 * MIB, memory_fd=fd, manual_clock=True)
        try:
            later.resume(bytes(changed), 0)
        except ValueError:
            refused += 1
            continue
        client = Client(later)
        for key in values:
            value_of(client, key)
        for n in range(200):
            client.send(b"set n%d 0 0 3000\r\n%s\r\n" % (n, b"x" * 3000))
        settled(later)
    assert refused > 3
