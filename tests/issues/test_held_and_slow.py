"""A client that reads slowly gets the replies before a held one as it reads, and does not keep the loop awake meanwhile."""

from mcserver.core import Engine
from tests.core.harness import Client, RecordingOwner


def test_what_stands_before_the_held_reply_is_sent() -> None:
    engine = Engine(manual_clock=True)
    engine.broadcast(deletes=True)
    owner = RecordingOwner(engine)
    owner.hold = True
    client = Client(engine, owner)
    client.session.limit(5)
    assert client.send(b"mn\r\n" * 4 + b"delete k\r\nmn\r\n") == b"MN\r\nM"
    assert client.session.state == "conn_mwrite"
    client.session.limit(None)
    assert client.session.drain() == b"N\r\nMN\r\nMN\r\n"
    assert client.session.state != "conn_mwrite"  # it waits for nothing but the confirmation
    client.session.release()
    assert client.session.drain() == b"NOT_FOUND\r\nMN\r\n"
