"""A value on its way in whose next piece needs memory that nobody can give must not look for it for ever.

Readers hold large values, whose heads lie in two pages of small items: neither page can leave, though its other items can.
"""

from tests.core.harness import MIB, Client, fresh
from tests.stateful.invariants import check_figures


def test_the_search_ends_and_a_reader_gives_way() -> None:
    client = fresh(memory_limit=2 * MIB, item_size_max=MIB)
    readers = []
    for i in range(2):
        for j in range(600):
            client.set(b"%d-%d" % (i, j), b"")
        assert client.set(b"big%d" % i, b"b" * 500_000) == b"STORED\r\n"
        reader = Client(client.engine, client.owner)
        reader.session.limit(10)
        reader.send(b"get big%d\r\n" % i)
        readers.append(reader)
    for i in range(2):
        for j in range(0, 600, 2):
            client.send(b"delete %d-%d\r\n" % (i, j))
    sender = Client(client.engine, client.owner)
    sender.session.feed(b"set new 0 0 1000000\r\n" + b"n" * 1_000_000 + b"\r\n")
    turns = 0
    while sender.session in client.owner.waiting:
        client.owner.waiting.remove(sender.session)
        sender.session.proceed()
        turns += 1
        assert turns < 3000, "it asks for another turn for ever"
    assert sender.session.drain() == b"STORED\r\n"
    assert sum(reader.is_closed for reader in readers) == 1
    check_figures(client.engine)
