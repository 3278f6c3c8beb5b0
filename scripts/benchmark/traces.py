"""Where the keys of the replayed loads come from: a folder of recorded traces, or seeds. Sizes are made elsewhere (sizes.py)."""

from __future__ import annotations

import gzip
import random
import sys
from array import array
from itertools import accumulate
from pathlib import Path

from .programs import ROOT, BenchError

SUFFIX = ".u32.gz"
BESIDE = ROOT.parent / "shared" / "traces"
KEYS = 60_000  # of a load that is made
EXPONENTS = (0.7, 0.9, 1.0, 1.1)
SEED = 20


def gather(folder: Path | None, most: int) -> dict[str, array[int]]:
    """The keys of the first `most` requests by trace: of `folder`, of BESIDE, or made. BenchError: none in `folder`."""
    if folder is None and not BESIDE.is_dir():
        return made(most)
    folder = folder or BESIDE
    found = {path.name.removesuffix(SUFFIX): recorded(path, most) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    if not found:
        raise BenchError(f"{folder} holds no NAME{SUFFIX}")
    return found


def recorded(path: Path, most: int) -> array[int]:
    """A trace: the keys in order, little-endian numbers of 32 bits, compressed by gzip."""
    keys = array("I")
    with gzip.open(path) as stream:
        data = stream.read(4 * most)
    keys.frombytes(data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        keys.byteswap()
    if not keys:
        raise BenchError(f"{path} is empty")
    return keys


def made(most: int) -> dict[str, array[int]]:
    """Loads that follow from a seed: Zipf, a scan through it, a working set that moves."""
    loads = {f"Zipf {exponent}": zipf(exponent, most) for exponent in EXPONENTS}
    return {**loads, "scan": scan(most), "drift": drift(most)}


def zipf(exponent: float, most: int, seed: int = SEED, there: int = KEYS) -> array[int]:
    """`most` requests for the keys 0 to `there` - 1; the key of rank r comes as often as r to the power -exponent."""
    source = random.Random(seed)
    weights = list(accumulate(rank**-exponent for rank in range(1, there + 1)))
    names = list(range(there))
    source.shuffle(names)
    return array("I", source.choices(names, cum_weights=weights, k=most))


def scan(most: int) -> array[int]:
    """Zipf 1.0, and in the middle third every second request is for a key that never came before."""
    keys = zipf(1.0, most, SEED + 1)
    for at in range(most // 3, 2 * most // 3, 2):
        keys[at] = KEYS + at
    return keys


def drift(most: int) -> array[int]:
    """Zipf 0.9; by the end, other keys than at the start are in demand."""
    keys = zipf(0.9, most, SEED + 2)
    return array("I", ((key + at * KEYS // most) if key % 2 else key for at, key in enumerate(keys)))
