"""The model itself: it must pass the recordings, and agree with Debian's memcached on random streams."""

import socket
from random import Random

import pytest

from tests.peer import memcached
from tests.stateful.comparing import Comparison
from tests.stateful.model import Model
from tests.stateful.streams import Commands
from tests.stateful.wire import ModelSession
from tests.transcripts.replay import Case, play_in_process
from tests.transcripts.test_in_process import CHOSEN


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.id)
def test_the_model_passes_the_recording(case: Case) -> None:
    model = Model(item_size_max=2 << 20 if "-I" in case.args else 1 << 20, epoch=1_700_000_000)
    session = ModelSession(model)
    play_in_process(case, session.feed, lambda seconds: model.advance(round(seconds)), lambda: session.closed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_model_agrees_with_memcached(seed: int) -> None:
    # The flat LRU, because the other holds references to items, and then incr does not write in place.
    with memcached("-o", "no_lru_maintainer,no_lru_crawler") as address, socket.create_connection(address, 5) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        model, random = Model(), Random(seed)
        session, comparison = ModelSession(model), Comparison(model, random)
        commands = Commands(random, comparison.choose, old=True)
        for count in range(2500):
            command = commands.any()
            expected = session.feed(command) + session.feed(b"mn\r\n")
            comparison.note()
            peer.sendall(comparison.translate(command) + b"mn\r\n")
            actual = b""
            while not actual.endswith(b"MN\r\n"):
                data = peer.recv(1 << 20)
                assert data, (count, command)
                actual += data
            assert comparison.same(expected, actual), (count, command, expected, actual)
