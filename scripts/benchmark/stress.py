"""Loads for which no policy was tuned: sets that are only read, sizes that shift. Like all made loads they follow from a seed."""

from __future__ import annotations

import math
import random

from .requests import READ, SCANNED, STORED_UNASKED, Requests
from .sizes import ITEM, LARGEST, MEBIBYTE
from .traces import SEED, zipf

READS_A_STORE = 50
SMALL, LARGE = 100, 5_000  # bytes


def loads(memory: int, most: int) -> dict[str, Requests]:
    """By name, for `memory` MiB; sizes that shift take as many requests as it takes to fill it, the others about `most`."""
    return {
        "a set only read, large values stored": only_read(memory, most, one_size=True),
        "a set only read, a scan of any size": only_read(memory, most, one_size=False),
        f"sizes {SMALL}, {LARGE}, {SMALL} B": shifting(memory),
    }


def only_read(memory: int, most: int, one_size: bool) -> Requests:
    """A set of small values is stored once, then read evenly; in between, one-time values turn the memory over three times."""
    source, requests = random.Random(SEED), Requests()
    hot = 80 * memory  # 5,000 at 64 MiB
    stores = max(1, (most - hot) // (READS_A_STORE + 1))
    large = min(LARGEST, 3 * memory * MEBIBYTE // stores)
    for key in range(hot):
        requests.add(key, SMALL, STORED_UNASKED)
    for store in range(stores):
        for _ in range(READS_A_STORE):
            requests.add(source.randrange(hot), SMALL, READ)
        length = large if one_size else int(min(LARGEST, 4 * large * math.exp(-source.random() * math.log(1000))))
        requests.add(hot + store, max(1, length), SCANNED)
    return requests


def shifting(memory: int) -> Requests:
    """Three phases with keys of their own, Zipf 0.7 of as many as need twice the memory; as many requests as there are keys."""
    requests = Requests()
    for phase, length in enumerate((SMALL, LARGE, SMALL)):
        there = 2 * memory * MEBIBYTE // (length + ITEM)
        for key in zipf(0.7, there, SEED + 3 + phase, there):
            requests.add((phase << 28) + key, length)
    return requests
