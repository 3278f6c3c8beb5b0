"""Of a line's words memcached tells 23 apart: what stands behind them is neither `noreply` nor a web browser's farewell, and the
23rd is the last. A longer line was silent when it must not be, or answered when it must not be.
"""

from __future__ import annotations

import pytest

from tests.admin.harness import Wire

LAST = 23
LINES = [
    (b"set a 0 0 1", b"\r\nx", b"STORED\r\n"),
    (b"cas none 0 0 1 9", b"\r\nx", b"NOT_FOUND\r\n"),
    (b"delete none", b"", b"NOT_FOUND\r\n"),
    (b"touch none 0", b"", b"NOT_FOUND\r\n"),
    (b"incr none 1", b"", b"NOT_FOUND\r\n"),
    (b"flush_all 0", b"", b"OK\r\n"),
    (b" flush_all 0", b"", b"OK\r\n"),
    (b"verbosity 0", b"", b"OK\r\n"),
    (b"bogus", b"", b"ERROR\r\n"),
    (b"set a x 0 1", b"\r\nx", b"CLIENT_ERROR bad command line format\r\n"),
]


def padded(line: bytes, place: int, word: bytes, behind: int) -> bytes:
    """The line with the word in this place, and so many more words behind it."""
    return line + b" x" * (place - 1 - len(line.split())) + b" " + word + b" x" * behind


@pytest.mark.parametrize(("line", "data", "reply"), LINES)
def test_noreply_is_the_last_of_them(line: bytes, data: bytes, reply: bytes) -> None:
    wire = Wire()
    for place, behind, silent in (
        (LAST - 1, 0, True),
        (LAST - 1, 1, False),
        (LAST, 0, True),
        (LAST, 1, True),
        (LAST, 30, True),
        (LAST + 1, 0, False),
        (LAST + 1, 1, False),
        (LAST + 30, 0, False),
    ):
        got = wire.send(padded(line, place, b"noreply", behind) + data + b"\r\nmn\r\n")
        assert got == (b"" if silent else reply) + b"MN\r\n", (place, behind)


def test_a_browser_is_known_by_the_last_of_them() -> None:
    for place, behind, closed in ((LAST, 0, True), (LAST, 1, True), (LAST + 1, 0, False)):
        wire = Wire()
        assert wire.ask(padded(b"bogus", place, b"HTTP/1.1", behind)) == (b"" if closed else b"ERROR\r\n")
        assert wire.is_closed == closed
