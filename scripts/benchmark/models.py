"""What caches without classes, pages or rounding would hit: least recently used by bytes, and GDSF. Computed, no servers."""

from __future__ import annotations

import heapq
from collections import OrderedDict

from .requests import COUNTED, STORED_AFTER_A_MISS, STORED_UNASKED, Requests
from .sizes import ITEM, MEBIBYTE


class Tally:
    """Counts gets, hits and their bytes."""

    def __init__(self) -> None:
        self.gets = self.hits = self.bytes = self.hit_bytes = 0

    def count(self, length: int, hit: bool) -> None:
        """One get."""
        self.gets += 1
        self.bytes += length
        if hit:
            self.hits += 1
            self.hit_bytes += length


def byte_lru(requests: Requests, memory: int) -> Tally:
    """One list; the least recently used leave until the new one fits into `memory` MiB."""
    tally, held, room = Tally(), OrderedDict[int, int](), memory * MEBIBYTE
    for key, length, kind in requests:
        hit = key in held
        if kind & COUNTED:
            tally.count(length, hit)
        if hit:
            held.move_to_end(key)
        if not kind & STORED_UNASKED and (hit or not kind & STORED_AFTER_A_MISS):
            continue
        room += held.pop(key, 0)
        cost = length + ITEM
        while room < cost and held:
            room += held.popitem(last=False)[1]
        held[key] = cost
        room -= cost
    return tally


def gdsf(requests: Requests, memory: int) -> Tally:
    """Greedy dual, size and frequency (Cherkasova 1998): the least of age + uses / size leaves."""
    tally, held, room, age = Tally(), dict[int, tuple[float, int, int]](), memory * MEBIBYTE, 0.0
    heap: list[tuple[float, int]] = []  # (worth, key); a pair that `held` doesn't confirm is out of date
    for key, length, kind in requests:
        found = held.get(key)
        if kind & COUNTED:
            tally.count(length, found is not None)
        stores = kind & STORED_UNASKED or (not found and kind & STORED_AFTER_A_MISS)
        if not found and not stores:
            continue
        uses, cost = found[1] + 1 if found else 1, length + ITEM if stores or not found else found[2]
        if found:
            room += found[2]
            del held[key]
        while room < cost and heap:
            worth, victim = heapq.heappop(heap)
            if victim in held and held[victim][0] == worth:
                room += held.pop(victim)[2]
                age = worth
        worth = age + uses / cost
        held[key] = (worth, uses, cost)
        room -= cost
        heapq.heappush(heap, (worth, key))
    return tally


MODELS = {"byte-LRU": byte_lru, "GDSF": gdsf}
