"""Values that are on their way in: what they may hold, who is refused, and who never is."""

import pytest

from tests.core.harness import MIB, Client, fill, fresh, held, settle
from tests.stateful.invariants import check_figures, check_lists

NO_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"


def announce(client: Client, count: int, size: int, sent: int = 0) -> list[Client]:
    """So many others in the middle of a store, of which so much has come."""
    others = []
    for i in range(count):
        other = Client(client.engine)
        assert other.send(b"set up%d 0 0 %d\r\n" % (i, size)) == b""
        other.send(b"u" * sent)
        others.append(other)
    return others


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size", "most"), [(100, 1_000_000, MIB), (4, 32 * MIB - 300, 32 * MIB)])
def test_what_is_only_announced_takes_nothing(count: int, size: int, most: int) -> None:
    client = fresh(memory_limit=64 * MIB, item_size_max=most)
    fill(client, b"k", 20, 300_000)
    assert held(client, b"k", 300_000) == 300_000
    others = announce(client, count, size)
    assert held(client, b"k", 300_000) == 300_000
    assert client.engine.stats()["evictions"] == 0
    assert client.engine.stats()["unfinished_bytes"] < count * 40_000
    assert all(not other.is_closed for other in others)


@pytest.mark.slow
def test_what_is_half_sent_is_bounded() -> None:
    """Two hundred clients that send half of a megabyte: those beyond the bound are told, and stay in step."""
    client = fresh(memory_limit=64 * MIB)
    fill(client, b"k", 20, 250_000)
    others = announce(client, 200, 1_000_000, 500_000)
    stats = client.engine.stats()
    assert stats["unfinished_bytes"] <= stats["unfinished_limit"] == 16 * MIB
    assert held(client, b"k", 250_000) > 150_000
    refused = 0
    for other in others:
        assert not other.is_closed
        reply = other.session.drain() + other.send(b"v" * 500_000 + b"\r\n")
        assert reply in {b"STORED\r\n", NO_MEMORY}
        refused += reply == NO_MEMORY
        assert other.send(b"mn\r\n") == b"MN\r\n"
    assert refused >= 200 - 2 * 34
    stats = client.engine.stats()
    assert stats["unfinished_refused"] == refused
    assert stats["unfinished_bytes"] == 0
    check_figures(client.engine)


@pytest.mark.parametrize("evictions", [True, False])
def test_the_innocent_are_not_refused(evictions: bool) -> None:
    """Clients in the middle of a small store, beside many with large ones, finish; and others' small stores succeed."""
    client = fresh(memory_limit=64 * MIB, evictions=evictions)
    small = announce(client, 500, 100, 50)
    large = announce(client, 72, 1_000_000, 400_000)
    for i in range(2000):
        assert client.set(b"i%d" % i, b"x" * 100) == b"STORED\r\n"
    for other in small:
        assert other.send(b"u" * 50 + b"\r\n") == b"STORED\r\n"
    assert all(not other.is_closed for other in small + large)
    assert client.engine.stats()["unfinished_bytes"] <= client.engine.stats()["unfinished_limit"]


def test_who_holds_most_and_moves_least_gives_way() -> None:
    client = fresh(memory_limit=8 * MIB, item_size_max=MIB)
    limit = client.engine.stats()["unfinished_limit"]
    assert limit == 2 * MIB
    (still,) = announce(client, 1, 900_000, 800_000)
    client.engine.advance(10)
    (moving,) = announce(client, 1, 900_000, 800_000)
    (last,) = announce(client, 1, 900_000, 600_000)
    assert still.settle() == NO_MEMORY
    assert still.send(b"u" * 100_000 + b"\r\nmn\r\n") == b"MN\r\n", "the rest of its value is swallowed"
    assert moving.send(b"u" * 100_000 + b"\r\n") == b"STORED\r\n"
    assert last.send(b"u" * 300_000 + b"\r\n") == b"STORED\r\n"
    assert client.engine.stats()["unfinished_refused"] == 1
    assert client.engine.stats()["store_no_memory"] == 1


def test_what_a_refused_set_was_to_replace_is_gone() -> None:
    client = fresh(memory_limit=8 * MIB, item_size_max=MIB)
    client.set(b"up0", b"old")
    first = announce(client, 1, 900_000, 890_000)[0]
    client.engine.advance(10)
    others = [Client(client.engine) for _ in range(3)]
    for i, other in enumerate(others):
        other.send(b"set o%d 0 0 900000\r\n%b" % (i, b"o" * 890_000))
    assert first.settle() == NO_MEMORY
    assert client.get(b"up0") is None


def test_unfinished_figures_follow_each_byte() -> None:
    client = fresh(memory_limit=64 * MIB)
    assert client.engine.stats()["unfinished_bytes"] == 0
    (other,) = announce(client, 1, 1_000_000)
    before = client.engine.stats()["unfinished_bytes"]
    assert 0 < before < 40_000
    for sent in range(100_000, 1_000_000, 100_000):
        other.send(b"u" * 100_000)
        now = client.engine.stats()["unfinished_bytes"]
        assert before < now
        assert sent <= now <= sent * 1.02 + 40_000
        before = now
    other.send(b"u" * 100_000)
    assert other.send(b"\r\n") == b"STORED\r\n"
    assert client.engine.stats()["unfinished_bytes"] == 0
    (dying,) = announce(client, 1, 1_000_000, 300_000)
    dying.session.close()
    assert client.engine.stats()["unfinished_bytes"] == 0
    settle(client.engine)
    check_lists(client.engine)
