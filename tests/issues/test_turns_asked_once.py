"""A session whose turn was cut short asks for one more, however often its socket says meanwhile that input is there."""

import socket

from mcserver.core import Engine, Session
from tests.core.harness import RecordingOwner


def test_a_long_reply_with_more_input_behind_it() -> None:
    engine = Engine(manual_clock=True)
    owner = RecordingOwner(engine)
    owner.commands[b"dump"] = lambda _session, _line: iter([b"line\n"] * 100)
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        session = Session(engine, owner, ours.fileno())
        client.sendall(b"dump\r\n")
        session.readable()
        client.sendall(b"mn\r\n")
        for _ in range(10):
            session.readable()
        assert owner.waiting == [session]
        owner.waiting.clear()
        session.proceed()
        assert owner.waiting == [session]
        session.close()
