"""How large the values are: a function of the key, since traces carry no sizes, and a mean that lets a share of the keys fit."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

from .requests import CACHED, Requests

MEBIBYTE = 1 << 20
ITEM = 70  # bytes of an item besides its value, about: header, CAS, key of 16 bytes
USABLE = 0.97  # of -m
LARGEST = 500_000  # below half a page, the largest chunk
SMALLEST = 20
FACTOR = 230  # from the smallest to the largest where sizes are spread
HUNDREDFOLD = 0.1  # of the keys, where there are two sizes


def fraction(key: int) -> float:
    """A number in [0, 1) that follows from the key."""
    return ((key + 1) * 2_654_435_761 >> 7 & 0xFFFF) / 65_536


def spread(key: int, mean: float) -> float:
    """Log-uniform; 0.35 brings the mean about right."""
    return max(SMALLEST, min(20 * mean, 0.35 * mean * math.exp(math.log(FACTOR) * (fraction(key) - 0.5))))


def two(key: int, mean: float) -> float:
    """Nine keys in ten are small, one is a hundred times as large."""
    return mean / (1 - HUNDREDFOLD + 100 * HUNDREDFOLD) * (100 if fraction(key) < HUNDREDFOLD else 1)


def equal(_key: int, mean: float) -> float:
    """All the same."""
    return mean


MODELS: dict[str, Callable[[int, float], float]] = {"equal": equal, "spread": spread, "two": two}


def sized(keys: array[int], model: str, share: float, memory: int) -> Requests:
    """Requests of which `share` of the keys would fit into `memory` MiB if all values had the mean size."""
    distinct = set(keys)
    mean = memory * MEBIBYTE * USABLE / (len(distinct) * share) - ITEM
    length = {key: max(1, min(LARGEST, int(MODELS[model](key, mean)))) for key in distinct}
    return Requests(array("I", keys), array("I", [length[key] for key in keys]), array("I", [CACHED]) * len(keys))
