"""When memory is short, a client that has taken its large value must not be dropped in the middle of its next command."""

from mcserver.core import Engine
from tests.core.harness import MIB, Client

SIZE = 700_000


def test_who_has_read_its_value_is_not_dropped() -> None:
    engine = Engine(memory_limit=4 * MIB, item_size_max=MIB, manual_clock=True, evictions=False)
    reader = Client(engine)
    stored = 0
    while reader.send(b"set k%d 0 0 %d\r\n%s\r\n" % (stored, SIZE, b"x" * SIZE)) == b"STORED\r\n":
        stored += 1
    reader.session.limit(0)
    reader.send(b"get k0\r\nset more 0 0 %d\r\n" % SIZE)
    reader.session.limit(None)  # the value goes out; the store that waited behind it finds no memory for its data
    assert reader.session.drain().endswith(b"END\r\n")
    assert reader.send(b"x" * SIZE + b"\r\nmn\r\n") == b"SERVER_ERROR out of memory storing object\r\nMN\r\n"
    assert not reader.is_closed
    assert engine.stats()["slow_readers_dropped"] == 0
