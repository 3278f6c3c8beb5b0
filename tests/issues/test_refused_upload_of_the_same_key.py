"""A half-sent set that is refused for want of memory takes along what stands under its key. That may be what another client's
command is just making a new item of: it must not be unlinked, counted and freed twice.
"""

import pytest

from tests.core.harness import MIB, Client, crawl, fresh
from tests.stateful.invariants import check_figures


def use_up(client: Client, size: int) -> None:
    """Takes what is free in the class of a value of so many bytes, so that the next one needs a page."""
    engine = client.engine
    before = {cls: figures["used_chunks"] for cls, figures in engine.slab_stats()[0].items()}
    client.set(b"use0", b"u" * size)
    after = engine.slab_stats()[0]
    (cls,) = (cls for cls, figures in after.items() if figures["used_chunks"] > before.get(cls, 0))
    for i in range(after[cls]["free_chunks"]):
        client.set(b"use%d" % (i + 1), b"u" * size)
    assert engine.slab_stats()[0][cls]["free_chunks"] == 0


@pytest.mark.parametrize(
    ("value", "command", "reply"),
    [
        (b"v" * 3000, b"append k 0 0 3000\r\n" + b"a" * 3000 + b"\r\n", b"NOT_STORED\r\n"),
        (b"v" * 3000, b"prepend k 0 0 3000\r\n" + b"a" * 3000 + b"\r\n", b"NOT_STORED\r\n"),
        (b"v" * 33_136, b"append k 0 0 1500\r\n" + b"a" * 1500 + b"\r\n", b"NOT_STORED\r\n"),  # a short last piece
        (b"v" * 40_000, b"prepend k 0 0 552\r\n" + b"a" * 552 + b"\r\n", b"NOT_STORED\r\n"),
        (b"9", b"incr k 1\r\n", b"SERVER_ERROR out of memory\r\n"),
        (b"9", b"ma k\r\n", b"SERVER_ERROR out of memory\r\n"),
        (b"9", b"md k x\r\n", b"SERVER_ERROR out of memory\r\n"),
    ],
)
def test_a_command_whose_item_is_taken_away(value: bytes, command: bytes, reply: bytes) -> None:
    client = fresh(memory_limit=4 * MIB, item_size_max=2 * MIB, evictions=False)
    engine = client.engine
    other = Client(engine)
    client.set(b"k", value)
    for size in (0, 540, 600, 900):  # classes that have a page
        client.set(b"small%d" % size, b"s" * size)
    count = 0
    while client.set(b"fill%d" % count, b"f" * 15_000) == b"STORED\r\n":
        count += 1
    for i in range(4):
        client.send(b"delete fill%d\r\n" % i)
    other.send(b"set k 0 0 1900000\r\n" + b"o" * 60_000)
    if len(command) < 20:
        use_up(client, 2)
    elif command.startswith(b"prepend"):
        use_up(client, 540)  # the class of a piece of 552 bytes; the value that is sent needs the next larger one
    refused = engine.stats()["unfinished_refused"]
    assert refused == 0
    got = client.send(command)
    assert engine.stats()["unfinished_refused"] == refused + 1
    check_figures(engine)
    assert got == reply
    assert client.get(b"k") is None
    assert other.send(b"o" * 1_840_000 + b"\r\nmn\r\n") == b"SERVER_ERROR out of memory storing object\r\nMN\r\n"
    for each in (client, other):
        each.session.close()
    engine.flush()
    crawl(engine)
    check_figures(engine)
    assert not any(figures["used_chunks"] for figures in engine.slab_stats()[0].values()), "chunks that nobody frees"
