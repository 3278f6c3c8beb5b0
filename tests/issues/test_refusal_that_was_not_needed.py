"""The refusal of a locked write must not be given to a later write, when the first one was answered otherwise."""

from mcserver.core import Engine
from tests.core.harness import Client


def test_a_refusal_ends_with_its_command() -> None:
    engine = Engine(manual_clock=True)
    engine.lock_prefixes((b"locked/",))
    client = Client(engine)
    assert client.send(b"incr locked/a 1\r\n") == b""
    engine.set_gate("error")  # what is asked now is answered with the gate's error
    client.session.refuse(b"SERVER_ERROR lock lost")
    assert client.session.drain() == b"SERVER_ERROR stale\r\n"
    engine.set_gate(None)
    assert client.send(b"delete locked/b\r\n") == b""
    assert client.owner.locks == [b"locked/a", b"locked/b"]
    client.session.grant()
    assert client.session.drain() == b"NOT_FOUND\r\n"
