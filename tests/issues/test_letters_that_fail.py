"""What Python can't answer, for want of memory, ends its connection: the client had waited for ever, and kept a place of `-c`.

A long reply that breaks off ends it, too: the next one was taken for the rest of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from mcserver.core import Engine
from mcserver.server.connections import Connections
from tests.core.harness import Client, RecordingOwner
from tests.core.threaded import Owner
from tests.serving import eventually


def refuse(*_: object) -> NoReturn:
    raise MemoryError


@pytest.mark.parametrize(("asked", "line"), [("lock", b"delete lk:1"), ("later", b"dump")])
def test_the_letter_goes_back_as_the_end(monkeypatch: pytest.MonkeyPatch, asked: str, line: bytes) -> None:
    engine = Engine(memory_limit=8 << 20)
    engine.lock_prefixes((b"lk:",))
    with Owner(engine, 2) as owner:
        owner.commands[b"dump"] = lambda _session, _line: iter([b"piece\r\n"] * 100)
        monkeypatch.setattr(owner, asked, refuse)
        peer, other = owner.connect(), owner.connect()
        peer.send(line + b"\r\n")
        while peer.sock.recv(1000):
            pass
        assert other.ask(b"mn") == b"MN\r\n"
        eventually(lambda: owner.closes == ["error"])


def test_a_long_reply_that_breaks_off() -> None:
    engine = Engine(manual_clock=True)
    owner = RecordingOwner(engine)

    def pieces() -> Iterator[bytes]:
        yield b"one\r\n"
        raise MemoryError

    owner.commands[b"dump"] = lambda _session, _line: pieces()
    client = Client(engine, owner)
    assert client.send(b"dump\r\nmn\r\n") == b"one\r\n"
    assert client.is_closed


class Fine:
    """A session that can go on."""

    went_on = False

    def proceed(self) -> None:
        self.went_on = True


class Reluctant:
    """One that can't, and can't be closed at once."""

    left, reason = 2, ""

    def proceed(self) -> NoReturn:
        raise MemoryError

    def close(self, reason: str) -> None:
        self.left -= 1
        if self.left >= 0:
            raise MemoryError
        self.reason = reason


class Loop:
    """Calls at once what is to be called later."""

    def call_soon(self, function: Any) -> None:
        function()

    def call_later(self, _seconds: float, function: Any, *arguments: object) -> None:
        function(*arguments)


def test_who_can_not_be_closed_yet_is_closed_later() -> None:
    connections = Connections.__new__(Connections)
    connections._loop, connections._proceeding = Loop(), False  # type: ignore[assignment]  # all that is used of one
    reluctant, fine = Reluctant(), Fine()
    connections._waiting = deque([reluctant, fine])  # type: ignore[list-item]  # as little of sessions
    connections._proceed_soon()
    assert reluctant.reason == "error"
    assert fine.went_on
