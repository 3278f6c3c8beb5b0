"""E0 names a unique, 0: `mg ... N`, `md ... I` or `x`, and `ma` gave the next one. `ms` takes the next one, as memcached does.

Where a number has grown memcached tells the unique of E, and the item gets the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.core.harness import Client, fresh
from tests.peer import RELEASE, memcached
from tests.serving import Client as Socket

SET = (b"set a 0 0 1\r\n1", b"STORED\r\n")
ZERO: list[tuple[bytes, bytes | None]] = [
    (b"me a", None),
    (b"gets a", b"VALUE a 0 {} 0\r\n"),
    (b"mg a v c C0", b"HD c0"),
    (b"cas a 0 0 1 0\r\nz", b"EXISTS\r\n"),
    (b"ms a 1 C1\r\nz", b"EX\r\n"),
    (b"md a C1", b"EX\r\n"),
    (b"md a C0", b"HD\r\n"),
    (b"mg a", b"EN\r\n"),
]
CASES: dict[str, tuple[list[tuple[bytes, bytes]], int]] = {
    "mg N": ([(b"mg a N0 E0 c", b"HD c0 W\r\n")], 0),
    "mg N00": ([(b"mg a N30 E00 c", b"HD c0 W\r\n")], 0),
    "md I": ([SET, (b"md a I E0 k", b"HD ka\r\n")], 1),
    "md x": ([SET, (b"md a x E0", b"HD\r\n")], 0),
    "md I x": ([SET, (b"md a I x E0 T30", b"HD\r\n")], 0),
    "ma N": ([(b"ma a N0 J5 E0 c v", b"VA 1 c0\r\n5\r\n")], 1),
    "ma": ([SET, (b"ma a E0 c v", b"VA 1 c0\r\n2\r\n")], 1),
    "ma MD": ([SET, (b"ma a E0 c v MD", b"VA 1 c0\r\n0\r\n")], 1),
}


def play(steps: list[tuple[bytes, bytes]], value: int, ask: Callable[[bytes], bytes]) -> None:
    for line, reply in steps:
        assert ask(line + b"\r\n") == reply, line
    for line, start in ZERO:
        got = ask(line + b"\r\n")
        if start is None:
            assert b" cas=0 " in got
        else:
            assert got.startswith(start.replace(b"{}", b"%d" % value)), line


@pytest.mark.parametrize("name", CASES)
def test_zero_is_stored(name: str) -> None:
    steps, value = CASES[name]
    play(steps, value, fresh().send)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_memcached_stores_it(name: str) -> None:
    steps, value = CASES[name]
    with memcached() as address:
        client = Socket(address)

        def ask(data: bytes) -> bytes:
            client.send(data + b"mn\r\n")
            return client.until(b"MN\r\n")[:-4]

        if RELEASE < (1, 6, 45):  # E came after 1.6.18, C of mg with 1.6.40: scripts/newest
            assert ask(b"mg a N0 E0\r\n") == b"CLIENT_ERROR invalid flag\r\n"
        else:
            play(steps, value, ask)
        client.close()


def test_the_binary_protocol_shows_it() -> None:
    client = fresh()
    assert client.send(b"ma a N0 J5 E0\r\n") == b"HD\r\n"
    reply = Client(client.engine, client.owner).send(struct.pack(">BBHBBHIIQ", 0x80, 0, 1, 0, 0, 0, 1, 7, 0) + b"a")
    assert struct.unpack(">BBHBBHIIQ", reply[:24])[-1] == 0
    assert reply.endswith(b"5")


def test_ms_takes_the_next_one() -> None:
    client = fresh()
    assert client.send(b"ms a 1 E0 c\r\n1\r\n") not in (b"HD c0\r\n", b"HD\r\n")


def test_a_number_that_has_grown() -> None:
    client = fresh()
    assert client.set(b"a", b"9") == b"STORED\r\n"
    for unique in (b"0", b"777"):
        assert client.send(b"ma a D90 c v E" + unique + b"\r\n").startswith(b"VA ")
        assert client.send(b"mg a c\r\n") not in (b"HD c0\r\n", b"HD c777\r\n")
        assert client.set(b"a", b"9") == b"STORED\r\n"
    assert client.send(b"ma a D90 c v E777\r\n") == b"VA 2 c777\r\n99\r\n"


def test_without_uniques_it_has_no_effect() -> None:
    client = fresh(cas=False)
    assert client.send(b"ma a N0 J5 E9 c\r\n") == b"HD c0\r\n"
    assert client.send(b"ma a E9 D95 c\r\n") == b"HD c0\r\n"
