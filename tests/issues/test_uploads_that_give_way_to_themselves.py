"""A value that is read straight into its item must not be given up while pieces are taken ahead for it."""

import contextlib
import socket

import pytest

from mcserver.core import Engine, Session
from tests.core.harness import MIB, Client, RecordingOwner, crawl
from tests.stateful.invariants import check_figures


@pytest.mark.parametrize("room", [4, 10, 16, 18])  # pieces; for the last three memory ends while pieces are taken ahead
def test_the_connection_stays_in_step_and_no_piece_is_lost(room: int) -> None:
    engine = Engine(manual_clock=True, memory_limit=4 * MIB, item_size_max=2 * MIB, evictions=False)
    owner, client = RecordingOwner(engine), Client(engine)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        session = Session(engine, owner, ours.fileno())
        count = 0
        while client.set(b"k%d" % count, b"x" * 15_000) == b"STORED\r\n":
            count += 1
        for i in range(room):
            client.send(b"delete k%d\r\n" % i)
        theirs.setblocking(False)
        theirs.send(b"set slow 0 0 1792000\r\n")
        session.readable()
        rest, at = b"y" * 1_792_000 + b"\r\nmn\r\n", 0
        while at < len(rest):  # each read fills what was taken ahead, so that the next takes more
            with contextlib.suppress(BlockingIOError):
                while at < len(rest):
                    at += theirs.send(rest[at:])
            session.readable()
            while owner.waiting:
                owner.waiting.pop().proceed()
        for _ in range(20):
            session.readable()
        assert theirs.recv(100) == b"SERVER_ERROR out of memory storing object\r\nMN\r\n"
        for i in range(room, count):
            assert client.get(b"k%d" % i) == b"x" * 15_000
        session.close()
    engine.flush()
    crawl(engine)
    check_figures(engine)
    assert not any(figures["used_chunks"] for figures in engine.slab_stats()[0].values()), "chunks that nobody frees"
