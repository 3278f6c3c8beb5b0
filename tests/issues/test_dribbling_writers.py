"""Clients that begin large values and don't send the rest must not keep others from storing."""

import pytest

from tests.core.harness import Client, fresh


def test_half_sent_values_give_way_when_memory_is_needed() -> None:
    client = fresh(memory_limit=16 << 20)
    dribblers = [Client(client.engine) for _ in range(40)]
    for i, dribbler in enumerate(dribblers):
        dribbler.send(b"set d%d 0 0 1000000\r\nhalf" % i)
    for i in range(10):
        assert client.send(b"set big%d 0 0 500000\r\n" % i + b"x" * 500000 + b"\r\n") == b"STORED\r\n"
    assert client.send(b"get big9\r\n").startswith(b"VALUE big9 0 500000")
    for dribbler in dribblers[:5]:
        assert dribbler.send(b"x" * 999_996 + b"\r\n") == b"STORED\r\n", "they hold a piece each, and nobody is closed"


@pytest.mark.slow
def test_a_large_value_that_is_still_coming_is_stored_when_there_is_room() -> None:
    client = fresh(memory_limit=16 << 20)
    slow = Client(client.engine)
    slow.send(b"set slow 0 0 1000000\r\n" + b"y" * 1000)
    for i in range(100):
        client.send(b"set k%d 0 0 100000\r\n" % i + b"x" * 100000 + b"\r\n")
    assert slow.send(b"y" * 999000 + b"\r\n") == b"STORED\r\n"
