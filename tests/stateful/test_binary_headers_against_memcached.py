"""Binary requests with any header, in batches over TCP and one by one over UDP, to a server and to Debian's memcached."""

from __future__ import annotations

from contextlib import closing
from random import Random

import pytest

from tests.conftest import Start
from tests.datagrams import Datagrams, shown, udp_address
from tests.peer import memcached
from tests.ports import free_ports
from tests.stateful.packets import DECREMENT, DECREMENTQ, INCREMENT, INCREMENTQ, any_header
from tests.stateful.test_binary_against_memcached import Other

BATCHES, DATAGRAMS = 200, 200
COUNTING = {INCREMENT, INCREMENTQ, DECREMENT, DECREMENTQ}
"""In memcached an item whose value is still to be sent isn't padded but replaced, so these come alone."""


def batch(chance: Random, number: int) -> bytes:
    """One request, or several."""
    count = chance.choice((1, 1, 2, 4, 9))
    made = [any_header(chance, number * 100 + each) for each in range(count)]
    return b"".join(each for each in made if count == 1 or each[1] not in COUNTING)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "seed"), [((), 1), (("-C",), 2), (("-B", "binary"), 3)])
def test_random_batches_are_answered_as_by_memcached(start: Start, options: tuple[str, ...], seed: int) -> None:
    server, chance = start("-t", "1", *options), Random(seed)
    with (
        memcached("-o", "no_lru_maintainer", *options) as address,
        closing(Other(("127.0.0.1", server.port))) as ours,
        closing(Other(address)) as theirs,
    ):
        for number in range(BATCHES):
            data = batch(chance, number)
            (mine, mine_closed), (known, known_closed) = ours.answer(data), theirs.answer(data)
            answers = [[each._replace(cas=0) for each in found] for found in (mine, known)]
            if mine_closed and known_closed:
                answers[0] = answers[0][: len(known)]  # memcached may lose what it had to say before
            assert mine_closed == known_closed, (number, data[:400])
            assert answers[0] == answers[1], (number, data[:400])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_datagrams_are_answered_as_by_memcached(start: Start, seed: int) -> None:
    (port,) = free_ports(1)
    server, chance = start("-U", "-1", "-t", "1"), Random(seed)
    with (
        memcached("-o", "no_lru_maintainer", "-U", str(port)) as (host, _),
        closing(Datagrams(udp_address(server))) as ours,
        closing(Datagrams((host, port))) as theirs,
    ):
        for number in range(DATAGRAMS):
            data = any_header(chance, number)
            mine, known = shown(ours.ask(data)), shown(theirs.ask(data))
            assert mine[: len(known)] == known, (number, data[:400])
            assert len(mine) == len(known) or len(data) > 24, (number, data[:400])
