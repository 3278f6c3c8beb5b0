"""Twenty thousand deletes a second at one server: what the peers lose, how far they lag, what ZooKeeper has to write."""

from __future__ import annotations

import time

from tests.cluster.servers import CacheServer, Client, until

from .beside import Beside
from .stage import Result, Stage, table

RATE = 20_000
BATCH = 200  # deletes sent at once
HELD = 50  # of so many keys, one is held by the peers


def measure(quick: bool) -> str:
    seconds = 10 if quick else 60
    with Stage() as stage:
        flooded, *peers = stage.servers(4, "--ack", "async")
        total = RATE * seconds
        held = range(0, total, HELD)
        for peer in peers:
            fill(peer, held)
        before, writes = flooded.stats(), stage.zxid
        watch = Watch(flooded, peers)
        started = time.monotonic()
        with watch, flooded.client() as client:
            late = flood(client, total)
        sent = time.monotonic() - started
        written = stage.zxid - writes
        after = flooded.stats()
        appends = int(after["appends"]) - int(before["appends"])
        settled = until(lambda: flooded.stats()["queue_keys"] == "0" and all(is_level(each) for each in peers), 60)
        left = sum(count_left(peer, held) for peer in peers)
        overflows = int(flooded.stats()["overflows"])
    return table(
        f"{RATE:,} deletes a second at one server for {seconds} s, three peers",
        [
            Result("deletes a second", f"{total / sent:,.0f} (the client was at most {late * 1000:.0f} ms late)"),
            Result("keys the peers held and did not lose", f"{left} of {len(held) * len(peers):,}", "0"),
            Result("overflows into a flush", str(overflows), "0"),
            Result(
                "ZooKeeper's writes a second", f"{written / sent:.0f}, of which {appends / sent:.0f} appends", "100"
            ),
            Result("queue at the server, most", f"{watch.queue:,} keys, {watch.age:.0f} ms old"),
            Result("lag at the peers, most", f"{watch.lag} entries"),
            Result("until all peers had applied the rest", f"{settled * 1000:.0f} ms after the last delete"),
        ],
    )


def fill(server: CacheServer, held: range) -> None:
    with server.client() as client:
        for start in range(0, len(held), 500):
            part = held[start : start + 500]
            client.send(b"".join(b"set k:%d 0 0 1 noreply\r\nx\r\n" % number for number in part))
        assert client.get(b"k:%d" % held[-1]) == b"x"


def flood(client: Client, total: int) -> float:
    """Sends the deletes when they are due; the seconds by which it was late, at most."""
    started, late = time.monotonic(), 0.0
    for number in range(0, total, BATCH):
        due = started + number / RATE
        rest = due - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        late = max(late, -rest)
        client.send(b"".join(b"delete k:%d noreply\r\n" % each for each in range(number, number + BATCH)))
    client.get(b"none")
    return late


def count_left(server: CacheServer, held: range) -> int:
    left = 0
    with server.client() as client:
        for start in range(0, len(held), 100):
            part = held[start : start + 100]
            left += len(client.lines(b"get " + b" ".join(b"k:%d" % number for number in part)))
    return left // 2


def is_level(server: CacheServer) -> bool:
    stats = server.stats()
    return stats["lag_entries"] == "0" and stats["stale"] == "0"


class Watch(Beside):
    """Looks at the figures while the flood goes on."""

    def __init__(self, flooded: CacheServer, peers: list[CacheServer]) -> None:
        super().__init__()
        self._flooded, self._peers = flooded, peers
        self.queue, self.age, self.lag = 0, 0.0, 0

    def work(self) -> None:
        while not self.stop.wait(0.2):
            stats = self._flooded.stats()
            self.queue = max(self.queue, int(stats["queue_keys"]))
            self.age = max(self.age, float(stats["queue_age_ms"]))
            self.lag = max(self.lag, *(int(peer.stats()["lag_entries"]) for peer in self._peers))
