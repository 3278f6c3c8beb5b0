"""libmemcached's memcslap by datagrams. The library sends them and awaits no answer, so stores are looked for over TCP."""

from __future__ import annotations

import functools
import re

from ..harness import Client, Run, check, soon
from .libmemcached_tools import tool, version_of_tools

CLIENT = Client(title="libmemcached's memcslap (UDP)", version=version_of_tools(), programs=frozenset({"memcslap"}))


def stores(run: Run) -> int:
    """Stores that the server has counted."""
    found = re.search(r"cmd_set: (\d+)", tool(run, "memcstat"))
    return int(found[1]) if found else -1


def arrived(run: Run, before: int) -> bool:
    """Whether half of 50 stores were counted since there were `before`."""
    return 25 <= stores(run) - before <= 50


@CLIENT.scenario
def stores_in_datagrams(run: Run) -> None:
    """Nobody sends a lost datagram again, and memcached loses some of these: half is enough."""
    for options in ((), ("-b",)):
        before = stores(run)
        told = tool(run, "memcslap", "-U", "-t", "set", "-e", "50", "-c", "1", *options)
        check(re.search(r"Time to set\s+50 keys by\s+1 threads", told), f"memcslap {options}: {told!r}")
        soon(functools.partial(arrived, run, before), expected=True)
