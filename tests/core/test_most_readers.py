"""How many may read one value at once: its count of users is of 16 bits, and never wraps."""

import pytest

from tests.core.harness import Client, fresh

REFUSED = b"SERVER_ERROR refcount overflow during fetch\r\n"
VALUE = b"x" * 100_000  # sent from where it is kept
COUNTS = 1 << 16
UNASKED = 64 * 3 + 500  # each worker once more while it sends, and commands and dumps that need the item


@pytest.mark.slow
def test_readers_are_refused_before_the_count_is_full() -> None:
    client = fresh()
    assert client.set(b"a", VALUE) == b"STORED\r\n"
    readers: list[Client] = []
    while True:
        reader = Client(client.engine, client.owner)
        reader.session.limit(0)
        reader.session.feed(b"get a\r\n")
        if not reader.session.unsent > len(VALUE):
            break
        readers.append(reader)
        assert len(readers) < COUNTS
    assert 25_000 < len(readers) <= COUNTS - UNASKED
    reader.session.limit(None)
    assert reader.session.drain() == REFUSED
    assert client.send(b"incr a 1\r\n").startswith(b"CLIENT_ERROR"), "other commands go on"
    assert client.send(b"delete a\r\n") == b"DELETED\r\n"
    last = readers.pop()
    readers.clear()
    last.session.limit(None)
    assert last.session.drain() == b"VALUE a 0 100000\r\n" + VALUE + b"\r\nEND\r\n"
    assert client.get(b"a") is None
