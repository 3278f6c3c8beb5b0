"""How long a server that was cut off takes to be fresh again."""

from __future__ import annotations

import time

from tests.cluster.servers import until

from .stage import Result, Stage, table

ENTRIES = 2_000
CUT_OFF = 10.0  # s


def measure(quick: bool) -> str:
    with Stage(fsync=False, links=True) as stage:
        server, other = stage.servers(2, links=True)
        server.set(b"key:0", b"old")
        log = f"/cache/invalidation/{server.stats()['log']}/e-"
        links = stage.ensemble.peer_links["s0"]
        started = time.monotonic()
        for link in links:
            link.blackhole()
        with stage.ensemble.client() as client:
            for start in range(0, ENTRIES, 100):
                sent = [
                    client.create_async(log, b"MI1 bench 0\nd key:%d" % number, sequence=True)
                    for number in range(start, start + 100)
                ]
                for each in sent:
                    each.get(timeout=30)
            written = time.monotonic() - started
            time.sleep(max(0.0, CUT_OFF - written))
        for link in links:
            link.heal()
        healed = time.monotonic()
        until(lambda: server.stats()["applied"] == other.stats()["head"], 60)
        until(lambda: server.is_fresh, 60)
        took = time.monotonic() - healed
        stats = server.stats()
        assert server.get(b"key:0") is None
        assert stats["gaps"] == "0", "replayed, not flushed"
    figure = f"{took:.1f} s, without a flush"
    return table("Catch-up", [Result(f"fresh again after {CUT_OFF:g} s cut off, {ENTRIES:,} entries", figure, "5 s")])
