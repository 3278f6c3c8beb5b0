"""A delete was answered and never told: the owner raised when it heard of it. Whatever the reason, the answer is an error."""

from __future__ import annotations

from typing import Any

from tests.core.harness import Client, RecordingOwner, fresh

NOT_TOLD = b"SERVER_ERROR invalidation not confirmed\r\n"


class Deaf(RecordingOwner):
    def events(self, _session: Any, events: Any) -> bool:
        raise RuntimeError("deaf")


def test_every_reply_of_the_batch_becomes_an_error() -> None:
    engine = fresh().engine
    engine.broadcast(True, [])
    client = Client(engine, Deaf(engine))
    client.set(b"a", b"1")
    assert client.send(b"get x\r\ndelete a\r\nget x\r\nmd b\r\nmn\r\n") == (
        b"END\r\n" + NOT_TOLD + b"END\r\n" + NOT_TOLD + b"MN\r\n"
    )
    assert client.send(b"delete a noreply\r\nget a\r\n") == b"END\r\n"
    assert client.send(b"get a\r\n") == b"END\r\n"
