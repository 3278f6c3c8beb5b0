"""A reply of some hundred lines is made in slices and still goes out in one write: clients exist that read once (emcache)."""

from collections.abc import Callable

import pytest

from mcserver.admin.words import LINES_A_PIECE, WRITE_MOST, pieces
from tests.serving import Server


def test_some_hundred_lines_are_one_write() -> None:
    lines = [b"STAT line%d 1\r\n" % number for number in range(5 * LINES_A_PIECE)]
    made = list(pieces(lines))
    assert made.count(b"") == 4, "a turn is given up after each slice"
    assert [piece for piece in made if piece] == [b"".join(lines) + b"END\r\n"]


def test_more_than_a_write_takes_goes_out_in_several() -> None:
    lines = [b"STAT line%d 1\r\n" % number for number in range(20 * LINES_A_PIECE)]
    several = pieces(lines)
    assert not isinstance(several, bytes)
    made = [piece for piece in several if piece]
    assert len(made) > 1
    assert max(map(len, made)) <= WRITE_MOST + len(b"END\r\n")
    assert b"".join(made) == b"".join(lines) + b"END\r\n"


@pytest.mark.slow
def test_the_figures_of_many_classes_come_at_once(start: Callable[..., Server]) -> None:
    client = start().connect()
    for number in range(20):
        size = 50 * 2 ** (number // 2) + 20 * number
        assert client.command(b"set k%d 0 0 %d\r\n%b" % (number, size, b"x" * size)) == b"STORED\r\n"
    client.socket.sendall(b"stats items\r\n")
    reply = client.socket.recv(1 << 20)
    assert reply.count(b"\r\n") > LINES_A_PIECE
    assert reply.endswith(b"END\r\n")
