"""Looks for the memory at which a server has a given number of hits. Knows no server: hits are asked of a function."""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS = 3  # halvings once the two sides are known
WIDEST = 16  # times as much, or as little, as where it starts


def memory_for(target: float, start: int, hits: Callable[[int], float], at_start: float) -> float | None:
    """MiB at which `hits(MiB)`, taken to grow, reaches `target`; it is `at_start` at `start` MiB.

    None when WIDEST times as much is too little, or as little enough. What lies between the last two sizes tried is interpolated
    (linear in the logarithm of the memory).
    """
    low, high = (float(start), at_start), (float(start), at_start)
    while high[1] < target:
        if high[0] >= start * WIDEST:
            return None
        low, high = high, _point(2 * high[0], hits)
    while low[1] > target:
        if low[0] <= max(2, start / WIDEST):
            return None
        low, high = _point(low[0] / 2, hits), low
    for _ in range(STEPS):
        middle = round(math.sqrt(low[0] * high[0]))
        if not low[0] < middle < high[0]:
            break
        tried = _point(middle, hits)
        low, high = (tried, high) if tried[1] < target else (low, tried)
    if high[1] <= low[1]:
        return high[0]
    part = (target - low[1]) / (high[1] - low[1])
    return math.exp(math.log(low[0]) + part * (math.log(high[0]) - math.log(low[0])))


def _point(memory: float, hits: Callable[[int], float]) -> tuple[float, float]:
    whole = max(1, round(memory))
    return float(whole), hits(whole)
