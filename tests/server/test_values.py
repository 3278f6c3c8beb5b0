"""On real sockets: who pays for values that do not come, for very large ones, and for what has died."""

import threading
import time
from collections.abc import Callable

import pytest

from tests.conftest import Start
from tests.serving import Client, eventually

NO_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
Peer = Callable[..., Client]


def fill(client: Client, count: int, size: int, exptime: int = 0) -> None:
    """Keys k0, k1, ... of so many bytes."""
    value = b"x" * size
    for at in range(0, count, 2000):
        numbers = range(at, min(at + 2000, count))
        client.send(b"".join(b"set k%d 0 %d %d noreply\r\n%b\r\n" % (i, exptime, size, value) for i in numbers))
        assert client.command(b"mn") == b"MN\r\n"


def figure(client: Client, name: str) -> int:
    return int(client.stats()[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "count", "size"),
    [(["-m", "64"], 100, 1_000_000), (["-m", "64", "-I", "32m"], 4, (32 << 20) - 300)],
)
def test_lengths_that_are_only_announced_cost_nobody_an_item(
    start: Start, arguments: list[str], count: int, size: int
) -> None:
    server = start(*arguments)
    client = server.connect()
    fill(client, 100_000, 20)
    others = [server.connect() for _ in range(count)]
    for i, other in enumerate(others):
        other.send(b"set up%d 0 0 %d\r\n" % (i, size))
    eventually(lambda: figure(client, "curr_connections") >= count + 1)
    fill(client, 100, 20)
    stats = client.stats()
    assert (stats["curr_items"], stats["evictions"]) == ("100000", "0")
    assert int(stats["unfinished_bytes"]) < count * 40_000
    for other in others:
        other.close()
    eventually(lambda: figure(client, "unfinished_bytes") == 0)


@pytest.mark.slow
def test_values_that_come_half_are_bounded_and_the_innocent_finish(start: Start) -> None:
    server = start("-m", "64", "-c", "1200")
    client = server.connect()
    fill(client, 100_000, 20)
    innocent = [server.connect() for _ in range(200)]
    for i, other in enumerate(innocent):
        other.send(b"set in%d 0 0 100\r\n%b" % (i, b"i" * 50))
    others = [server.connect() for _ in range(200)]
    for i, other in enumerate(others):
        other.send(b"set up%d 0 0 1000000\r\n%b" % (i, b"u" * 500_000))
    stats = client.stats()
    assert int(stats["unfinished_bytes"]) <= int(stats["unfinished_limit"]) == 16 << 20
    for i in range(200):
        assert client.command(b"set small%d 0 0 5\r\nsmall" % i) == b"STORED\r\n"
    for other in innocent:
        assert other.command(b"i" * 50) == b"STORED\r\n"
    refused = 0
    for other in others:
        other.send(b"u" * 500_000 + b"\r\nmn\r\n")
        reply = other.until(b"MN\r\n").removesuffix(b"MN\r\n")
        assert reply in {b"STORED\r\n", NO_MEMORY}
        refused += reply == NO_MEMORY
    assert refused >= 200 - 2 * 34
    stats = client.stats()
    assert int(stats["unfinished_refused"]) == refused
    assert stats["unfinished_bytes"] == "0"
    assert int(stats["curr_items"]) > 30_000


class Waiting:
    """A second client that asks for a small value over and over; ``longest`` is its longest wait in seconds."""

    def __init__(self, client: Client) -> None:
        self.client, self.longest, self.count = client, 0.0, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.ended.is_set():
            began = time.monotonic()
            assert self.client.command(b"mg small v").startswith((b"EN", b"VA"))
            self.longest, self.count = max(self.longest, time.monotonic() - began), self.count + 1
            time.sleep(0.001)

    def end(self) -> None:
        self.ended.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-o", "slab_chunk_max=1"]])
def test_a_quarter_of_a_gigabyte_keeps_nobody_waiting(start: Start, options: list[str]) -> None:
    """Prints the longest wait of a second client, which must be far from the length of a step: nothing is done in one go."""
    server = start("-m", "600", "-I", "256m", *options)
    client, second = server.connect(), server.connect()
    client.socket.settimeout(60)
    for at in range(0, 600_000, 20_000):
        client.send(b"".join(b"set f%d 0 0 900 noreply\r\n%b\r\n" % (i, b"f" * 900) for i in range(at, at + 20_000)))
        assert client.command(b"mn") == b"MN\r\n"
    size = 250_000_000
    value = b"0123456789" * (size // 10)
    waiting, waits, lengths = Waiting(second), {}, {}

    def step(name: str, request: bytes, reply: bytes) -> None:
        waiting.longest, began = 0.0, time.monotonic()
        client.send(request)
        assert client.until(b"\r\n") == reply
        time.sleep(0.05)  # the other one asks again
        waits[name], lengths[name] = waiting.longest, time.monotonic() - began

    def read(first: bytes, last: bytes, length: int) -> None:
        waiting.longest, began = 0.0, time.monotonic()
        client.send(b"get huge\r\n")
        head = client.until(b"\r\n")
        assert head == b"VALUE huge 0 %d\r\n" % length
        parts, missing = [client.unread], length + 7 - len(client.unread)
        while missing:
            parts.append(client.socket.recv(1 << 20))
            missing -= len(parts[-1])
        got = b"".join(parts)
        client.unread = b""
        assert got[: len(first)] == first
        assert got[length - len(last) : length] == last
        assert got.endswith(b"\r\nEND\r\n")
        waits["get"], lengths["get"] = waiting.longest, time.monotonic() - began

    try:
        step("set", b"set huge 0 0 %d\r\n%b\r\n" % (size, value), b"STORED\r\n")
        step("append", b"append huge 0 0 3\r\nend\r\n", b"STORED\r\n")
        step("prepend", b"prepend huge 0 0 5\r\nfirst\r\n", b"STORED\r\n")
        read(b"first" + value[:1000], value[-1000:] + b"end", size + 8)
        step("overwrite", b"set huge 0 0 %d\r\n%b\r\n" % (size - 1, value[:-1]), b"STORED\r\n")
        step("delete", b"delete huge\r\n", b"DELETED\r\n")
    finally:
        waiting.end()
    print(f"\nlongest waits in ms, {options}:", {name: round(wait * 1000, 1) for name, wait in waits.items()})
    assert all(wait < 1 + lengths[name] / 2 for name, wait in waits.items()), lengths
    assert figure(client, "curr_items") > 100_000


@pytest.mark.slow
def test_half_of_a_memory_that_is_deleted_goes_into_the_pool(start: Start) -> None:
    """As in memcached the pool then serves any class; no item leaves for it."""
    server = start("-m", "60", "-o", "slab_automove_window=3")
    client = server.connect()
    fill(client, 6000, 11_000)
    client.send(b"".join(b"delete k%d noreply\r\n" % i for i in range(0, 6000, 2)))
    before = client.stats()
    total = client.stats("slabs")["total_malloced"]
    eventually(lambda: figure(client, "slab_global_page_pool") * 262_144 > 20 << 20)
    stats = client.stats()
    assert stats["evictions"] == before["evictions"]
    assert stats["curr_items"] == before["curr_items"]
    assert client.stats("slabs")["total_malloced"] == total


@pytest.mark.slow
def test_pages_of_pieces_that_are_reassigned_by_hand(start: Start) -> None:
    server = start("-m", "12", "-o", "no_lru_crawler,slab_automove=0,slab_chunk_max=16")
    client = server.connect()
    fill(client, 300, 30_000)
    client.send(b"".join(b"delete k%d noreply\r\n" % i for i in range(0, 300, 2)))
    figures = client.stats("slabs")
    source = max((key for key in figures if key.endswith(":total_pages")), key=lambda key: int(figures[key]))
    number = source.split(":")[0]
    for _ in range(3):
        assert client.command(b"slabs reassign %b 0" % number.encode()) == b"OK\r\n"
        eventually(lambda: figure(client, "slab_reassign_running") == 0)
    stats = client.stats()
    assert (stats["slabs_moved"], stats["evictions"], stats["slab_global_page_pool"]) == ("3", "0", "3")
    assert int(stats["slab_reassign_chunk_rescues"]) > 0
    assert stats["curr_items"] == "150"
    assert client.stats("slabs")[f"{number}:pages_given"] == "3"
    assert client.command(b"slabs reassign 0 1") == b"OK\r\n"
    assert client.stats("slabs")["1:pages_taken"] == "1"


COUNTED = ["curr_items", "reclaimed", "crawler_reclaimed", "expired_unfetched", "evicted_unfetched", "evicted_active"]


@pytest.mark.slow
@pytest.mark.parametrize(("fetched", "options"), [(4, []), (0, ["-o", "no_lru_crawler"])])
def test_the_dead_are_counted_as_memcached_counts_them(
    start: Start, peer: Peer, fetched: int, options: list[str]
) -> None:
    """Ten that expire, some of them after they were read; nobody asks for them again."""
    ours, theirs = start("-m", "64", *options).connect(), peer("-m", "64", *options)
    for client in (ours, theirs):
        for i in range(10):
            assert client.command(b"set k%d 0 1 3\r\nabc" % i) == b"STORED\r\n"
        for i in range(fetched):
            assert client.command(b"get k%d" % i, b"END\r\n") != b"END\r\n"
        assert client.command(b"set stays 0 0 3\r\nabc") == b"STORED\r\n"
    for client in (ours, theirs):
        eventually(lambda client=client: figure(client, "curr_items") == 1)
    expected, found = theirs.stats(), ours.stats()
    assert {name: found[name] for name in COUNTED} == {name: expected[name] for name in COUNTED}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["-o", "no_lru_maintainer,no_lru_crawler"]])
def test_evictions_are_counted_as_memcached_counts_them(start: Start, peer: Peer, mode: list[str]) -> None:
    """What nobody read is evicted unfetched."""
    shown: list[set[str]] = []
    ours, theirs = start("-m", "4", *mode).connect(), peer("-m", "4", *mode)
    for client in (ours, theirs):
        fill(client, 30_000, 500, 1000)
        stats = client.stats()
        evictions = int(stats["evictions"])
        assert evictions > 10_000
        assert stats["evicted_unfetched"] == stats["evictions"]
        shown.append({name for name in ("evicted_active", "direct_reclaims") if name in stats})
        assert stats.get("evicted_active", "0") == "0"
        if client is ours and "direct_reclaims" in stats:
            assert int(stats["direct_reclaims"]) == evictions, "here each store evicts for itself"
        items = client.stats("items")
        nonzero = sum(int(value) for key, value in items.items() if key.endswith(":evicted_nonzero"))
        assert nonzero == evictions
        assert int(stats["curr_items"]) + evictions == 30_000
    assert shown[0] == shown[1], "with a flat LRU neither is shown"


@pytest.mark.slow
def test_each_class_shows_its_worth_on_the_wire(start: Start) -> None:
    client = start("-m", "8").connect()
    fill(client, 30_000, 100)
    assert client.command(b"get k29999", b"END\r\n") != b"END\r\n"
    items, slabs = client.stats("items"), client.stats("slabs")
    assert all(value.isdigit() for value in items.values()), "clients read whole numbers only"
    shares = [int(value) for key, value in items.items() if key.endswith(":hits_share")]
    assert sum(shares) == pytest.approx(1000, abs=len(shares))
    assert all(int(value) > 0 for key, value in items.items() if key.endswith(":page_worth"))
    assert any(key.endswith(":pages_taken") for key in slabs)
    assert any(key.endswith(":pages_given") for key in slabs)
