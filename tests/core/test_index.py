"""The index: it grows without a pause, loses no key, and its hash can't be guessed."""

import time

import pytest

from tests.core.harness import MIB, Client, fresh

BATCH = 1000


def store(client: Client, count: int) -> None:
    for start in range(0, count, BATCH):
        lines = b"".join(b"set %d 0 0 8 noreply\r\n%08d\r\n" % (i, i) for i in range(start, start + BATCH))
        assert client.send(lines + b"mn\r\n") == b"MN\r\n"


@pytest.mark.slow
def test_a_million_keys_are_all_found() -> None:
    count = 1_000_000
    client = fresh(memory_limit=256 * MIB)
    store(client, count)
    stats = client.engine.stats()
    assert stats["curr_items"] == count
    assert stats["evictions"] == 0
    assert 2 ** stats["hash_power_level"] >= count / 2, "short chains"
    for start in range(0, count, BATCH):
        reply = client.send(b"get " + b" ".join(b"%d" % i for i in range(start, start + BATCH)) + b"\r\n")
        assert reply == b"".join(b"VALUE %d 0 8\r\n%08d\r\n" % (i, i) for i in range(start, start + BATCH)) + b"END\r\n"
    for start in range(0, count, BATCH):
        lines = b"".join(b"delete %d\r\n" % i for i in range(start, start + BATCH))
        assert client.send(lines) == b"DELETED\r\n" * BATCH
    assert client.engine.stats()["curr_items"] == 0


@pytest.mark.slow
def test_no_insert_waits_for_a_rehash() -> None:
    """What the machine does meanwhile is not the same each time; a rehash would be."""

    def longest() -> float:
        client, most = fresh(memory_limit=128 * MIB), 0.0
        for start in range(0, 400_000, 100):
            lines = b"".join(b"set %d 0 0 2 noreply\r\nhi\r\n" % i for i in range(start, start + 100))
            begin = time.thread_time()
            client.send(lines)
            most = max(most, time.thread_time() - begin)
        return most

    assert any(longest() < 0.05 for _ in range(5)), "a rehash of 400,000 keys in one go takes longer"


def test_the_index_can_start_large() -> None:
    assert fresh(hashpower_init=20).engine.stats()["hash_power_level"] >= 20


@pytest.mark.slow
def test_two_engines_hash_differently() -> None:
    def colliding() -> set[int]:
        """Keys that share a bucket of the hold-off table with one of fifty."""
        client = fresh(hash_seed=None)
        client.engine.hold_off(60_000)
        for i in range(50):
            client.engine.delete(b"deleted%d" % i)
        return {i for i in range(20_000) if client.set(b"%d" % i, b"x") == b"NOT_STORED\r\n"}

    first, second = colliding(), colliding()
    assert 100 < len(first) < 500
    assert len(first & second) < len(first) / 4, "the hash is under a random key"
