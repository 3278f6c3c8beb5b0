"""Random requests of the binary protocol to the core and to Debian's memcached: the replies are the same, byte for byte but for
the numbers of CAS uniques; and the same again when every byte comes alone.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing
from random import Random

import pytest

from tests.core.harness import Client, fresh
from tests.peer import RELEASE, memcached
from tests.stateful.packets import END, NOOP, Reply, Requests, Uniques, replies, request

REQUESTS = 1500
AS_OLD = {"version": ".".join(map(str, RELEASE)).encode()}
FENCE = request(NOOP, opaque=END)


class Other:
    """A connection to memcached; each answer is what came before the fence's, and whether it closed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socket = socket.create_connection(address, 5)

    def close(self) -> None:
        self.socket.close()

    def next_second(self) -> None:
        """Returns when its own clock, which may be late, has gone on."""
        with socket.create_connection(self.address, 5) as text:
            began = self.clock(text)
            while self.clock(text) == began:
                time.sleep(0.01)

    def clock(self, text: socket.socket) -> bytes:
        text.sendall(b"stats\r\n")
        reply = b""
        while not reply.endswith(b"END\r\n"):
            reply += text.recv(1 << 16)
        return reply.partition(b"STAT time ")[2].split()[0]

    def answer(self, data: bytes) -> tuple[list[Reply], bool]:
        self.socket.sendall(data + FENCE)
        got: list[Reply] = []
        rest = b""
        while not got or got[-1].opaque != END:
            try:
                received = self.socket.recv(1 << 20)
            except ConnectionResetError:
                received = b""
            if not received:
                assert not rest
                self.socket.close()
                self.socket = socket.create_connection(self.address, 5)
                return got, True
            more, rest = replies(rest + received)
            got += more
        return got[:-1], False


def ours(client: Client, data: bytes, *, dribbled: bool) -> tuple[list[Reply], bool, Client]:
    """The same of the core; a connection that was closed is followed by a new one."""
    answer = client.dribble(data + FENCE) if dribbled else client.send(data + FENCE)
    got, rest = replies(answer)
    assert not rest
    if client.is_closed:
        return got, True, Client(client.engine)
    assert got.pop().opaque == END
    return got, False, client


def same(key_of: dict[int, bytes], uniques: Uniques, mine: list[Reply], theirs: list[Reply]) -> bool:
    """Whether they say the same."""
    if [each._replace(cas=0) for each in mine] != [each._replace(cas=0) for each in theirs]:
        return False
    return all(uniques.bind(key_of.get(a.opaque, b""), a.cas, b.cas) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "settings", "seed"),
    [((), {}, 1), ((), {}, 2), (("-C",), {"cas": False}, 3), (("-F",), {"flush_enabled": False}, 4)],
)
def test_replies_are_memcacheds(options: tuple[str, ...], settings: dict[str, object], seed: int) -> None:
    # memcached's flush takes along what was stored in its second, or leaves it, by its settings: so nothing is. An item in its
    # queue of bumps is held, and then incr stores a new value instead of padding the old one: so nothing is bumped.
    with memcached("-o", "no_lru_maintainer", *options) as address, closing(Other(address)) as other:
        client, slow = fresh(**settings, **AS_OLD), fresh(**settings, **AS_OLD)
        uniques = Uniques()
        made = Requests(Random(seed), uniques.pairs)
        key_of: dict[int, bytes] = {}
        for _ in range(REQUESTS):
            sent = made.any()
            mine, theirs = sent.packet(sent.cas[0]), sent.packet(sent.cas[1])
            key_of[made.opaque] = mine[24 + mine[4] :][: int.from_bytes(mine[2:4], "big")]
            flushes = mine[1] in (0x08, 0x18)
            if flushes:
                other.next_second()
            answer, closed, client = ours(client, mine, dribbled=False)
            expected = other.answer(theirs)
            if flushes:
                other.next_second()
            assert closed == expected[1], (mine[:400], answer, expected)
            assert same(key_of, uniques, answer, expected[0]), (mine[:400], answer, expected)
            slowly, slowly_closed, slow = ours(slow, mine, dribbled=len(mine) < 5000)
            assert (slowly, slowly_closed) == (answer, closed), mine[:400]
