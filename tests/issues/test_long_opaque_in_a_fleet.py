"""An opaque that is too long must be refused, not echoed: it may be longer than the room that a reply may take."""

from collections.abc import Callable

import pytest

from mcserver.core import Engine
from tests.core.harness import Client

REFUSED = b"CLIENT_ERROR opaque token too long\r\n"


def behind_a_long_multiget(engine: Engine, command: bytes) -> bytes:
    """What a command answers that comes in one piece with the end of a multiget, in the same large buffer."""
    client = Client(engine)
    client.send(b"get " + b"k " * 500_000)
    return client.send(b"k\r\n" + command).removeprefix(b"END\r\n")


def closed_gate(engine: Engine) -> None:
    engine.set_gate("miss")


def hold_off(engine: Engine) -> None:
    engine.hold_off(60_000)
    engine.flush()


@pytest.mark.parametrize(
    ("prepare", "command", "after"),
    [
        (closed_gate, b"ms k 2 %s\r\n", b"hi\r\n"),
        (hold_off, b"ma k N0 %s\r\n", b""),
    ],
)
def test_a_long_opaque_is_refused_behind_a_long_multiget(
    prepare: Callable[[Engine], None], command: bytes, after: bytes
) -> None:
    engine = Engine(manual_clock=True)
    prepare(engine)
    answer = behind_a_long_multiget(engine, command % (b"O" + b"x" * 60_000) + after + b"mn\r\n")
    assert answer == REFUSED + b"MN\r\n"
