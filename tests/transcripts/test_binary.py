"""Recorded exchanges with memcached 1.6.18 in the binary protocol, in the core and with memcached itself.

A reply must equal the recorded one byte by byte, but for CAS uniques: those of the two servers must mean the same.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.harness import Client, fresh
from tests.peer import memcached
from tests.stateful.packets import Reply, Uniques, replies

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("binary.jsonl").read_text().splitlines()
]
SERVERS_OWN = {"binary/stat/detail", "binary/stat/unknown"}
"""Played over a socket only: the core does not know statistics."""
EACH = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


def sent(step: dict[str, Any], got: list[Reply]) -> bytes:
    """What is sent: long values are written as their length, and a CAS unique is that of an earlier reply."""
    text = step["send"]
    data = bytes.fromhex(text) if isinstance(text, str) else bytes.fromhex(text[0]).ljust(text[1], b"x")
    if "cas of" in step:
        data = data[:16] + got[step["cas of"]].cas.to_bytes(8, "big") + data[24:]
    return data


def play(case: dict[str, Any], answer: Callable[[bytes, int], bytes]) -> None:
    """`answer(data, length)` sends, and returns what comes; so many bytes are expected."""
    uniques, got = Uniques(), list[Reply]()
    for step in case["exchange"]:
        expected, _ = replies(bytes.fromhex(step["recv"]))
        data = answer(sent(step, got), len(step["recv"]) // 2)
        actual, rest = replies(data)
        assert rest == b""
        assert [each._replace(cas=0) for each in actual] == [each._replace(cas=0) for each in expected]
        assert all(uniques.bind(b"", a.cas, b.cas) for a, b in zip(actual, expected, strict=True))
        got += actual


def in_process(case: dict[str, Any], feed: Callable[[Client, bytes], bytes]) -> None:
    client = fresh()
    play(case, lambda data, _length: feed(client, data))
    assert client.is_closed == case["closed"]


@pytest.mark.parametrize("case", [case for case in CASES if case["id"] not in SERVERS_OWN], ids=lambda case: case["id"])
def test_in_process(case: dict[str, Any]) -> None:
    in_process(case, lambda client, data: client.send(data))
    in_process(case, lambda client, data: client.dribble(data) if len(data) < 5000 else client.send(data))


def over_a_socket(case: dict[str, Any], address: tuple[str, int]) -> None:
    with socket.create_connection(address, 5) as connection:

        def answer(data: bytes, length: int) -> bytes:
            connection.sendall(data)
            got = b""
            while len(got) < length:
                received = connection.recv(1 << 20)
                assert received, f"closed after {got!r}"
                got += received
            return got

        play(case, answer)
        if case["closed"]:
            assert connection.recv(1) == b""


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case["id"] in SERVERS_OWN], ids=lambda case: case["id"])
def test_by_the_server(case: dict[str, Any], server: Any) -> None:
    over_a_socket(case, server.address)


@pytest.mark.slow
@EACH
def test_by_memcached(case: dict[str, Any]) -> None:
    with memcached() as address:
        over_a_socket(case, address)
