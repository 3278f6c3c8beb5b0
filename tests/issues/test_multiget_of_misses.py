"""A multiget that finds nothing fills no output, and must give the others their turn all the same."""

from mcserver.core import Engine
from tests.core.harness import Client

KEYS = 1_000_000


def test_a_long_multiget_of_misses_gives_way() -> None:
    engine = Engine(manual_clock=True)
    client = Client(engine)
    client.session.feed(b"get" + b" k" * KEYS + b"\r\nmn\r\n")
    assert client.session in client.owner.waiting
    assert engine.stats()["cmd_get"] < KEYS
    assert client.settle() == b"END\r\nMN\r\n"
    assert engine.stats()["get_misses"] == KEYS


def test_a_key_that_is_too_long_is_found_before_anything_is_sent() -> None:
    engine = Engine(manual_clock=True)
    client = Client(engine)
    client.send(b"set k 0 0 1\r\nv\r\n")
    answer = client.send(b"get k" + b" x" * 100_000 + b" " + b"y" * 251 + b"\r\nmn\r\n")
    assert answer == b"CLIENT_ERROR bad command line format\r\n\r\nMN\r\n"
