"""Fuzzes what one process leaves to the next: a record and a memory in which bytes were changed are refused, or what they serve
holds together; never a crash or a hang. Without checksums, so that every look at a field has to stand by itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from typing import Any

from mcserver.core import Engine
from tests.core.harness import MIB, Client

HEAD = 2 << 20  # where page 1 lies in the file
HANG = 60  # seconds after which a memory has hung
MUTANTS = 60  # of each memory
WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"segmented": False},
    {"slab_chunk_max": 1024},
    {"item_size_max": 4 * MIB},
    {"growth_factor": 1.08},
)


def engine_on(fd: int, settings: dict[str, Any]) -> Engine:
    return Engine(**{"memory_limit": 8 * MIB, "memory_fd": fd, "manual_clock": True, **settings})


def use(engine: Engine, chance: random.Random, count: int) -> None:
    """Commands of all kinds over few keys, with values of all sizes."""
    client = Client(engine)
    for n in range(count):
        key = b"key-%d" % chance.randrange(400)
        value = b"v" * chance.choice((0, 10, 100, 1000, 5000, 40000, 200000))
        what = chance.random()
        if what < 0.5:
            client.send(b"ms %s %d F%d T%d\r\n%s\r\n" % (key, len(value), n, chance.choice((0, 5, 5000)), value))
        elif what < 0.6:
            client.send(b"%s %s 0 0 4\r\nmore\r\n" % (chance.choice((b"append", b"prepend")), key))
        elif what < 0.7:
            client.send(b"delete %s\r\n" % key)
        elif what < 0.75:
            client.send(b"touch %s 9\r\n" % key)
        elif what < 0.78:
            client.send(b"flush_all %d\r\n" % chance.choice((3, 100)))
        elif what < 0.8:
            engine.advance(1)
            engine.maintain()
        else:
            client.send(b"mg %s v t f c s\r\n" % key)
    client.session.close()


def changed(record: bytes, memory: int, size: int, chance: random.Random) -> bytes:
    """The record after one to six changes in it or in the memory."""
    found = bytearray(record)
    for _ in range(chance.randrange(1, 7)):
        what, width = chance.random(), chance.choice((1, 2, 4, 8))
        word = chance.choice((*WORDS, chance.getrandbits(64))) & ((1 << 8 * width) - 1)
        if what < 0.05:
            del found[chance.randrange(len(found)) :]
            found = found or bytearray(record[:8])
        elif what < 0.5:
            at = chance.randrange(len(found) if chance.random() < 0.5 else min(len(found), 12000)) // width * width
            found[at : at + width] = word.to_bytes(width, "little")[: len(found) - at]
        elif what < 0.6:
            at, other = (HEAD + chance.randrange(max(size - HEAD, 1)) // 64 * 64 for _ in range(2))
            os.pwrite(memory, os.pread(memory, 64, other), at)
        else:
            at = HEAD + chance.randrange(max(size - HEAD - 8, 1)) // width * width
            os.pwrite(memory, word.to_bytes(width, "little"), at)
    return bytes(found)


def serve(engine: Engine, chance: random.Random) -> None:
    """All that another process does with a memory that it has taken."""
    client = Client(engine)
    for n in range(400):
        client.send(b"mg key-%d v t f c s\r\n" % n)
    for _ in engine.walk():
        pass
    for cls in range(1, engine.classes + 1):
        for _ in engine.cachedump(cls, 0):
            pass
    use(engine, chance, 200)
    for _ in range(50):
        engine.advance(1)
        engine.maintain()
    client.session.close()
    engine.keep(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=1_000_000, help="memories, whatever --seconds says")
    parser.add_argument("--verbose", action="store_true", help="says each change before it is tried")
    options = parser.parse_args()
    began = time.monotonic()
    memories = taken = refused = 0
    while time.monotonic() < began + options.seconds and memories < options.most:
        seed = options.seed + memories
        memories += 1
        chance = random.Random(seed)
        settings = chance.choice(SETTINGS)
        fd = os.memfd_create("kept")
        engine = engine_on(os.dup(fd), settings)
        use(engine, chance, chance.choice((0, 50, 1500)))
        record = engine.keep(False)
        size = os.fstat(fd).st_size
        copy = os.pread(fd, size, 0)
        for number in range(MUTANTS):
            signal.alarm(HANG)
            if options.verbose:
                print(f"memory {seed}, change {number}", flush=True)
            memory = os.memfd_create("changed")
            os.pwrite(memory, copy, 0)
            mutant = changed(record, memory, size, chance)
            later = engine_on(memory, settings)
            try:
                later.resume(mutant, chance.choice((0, 1, 1e6)))
            except ValueError:
                refused += 1
                continue
            taken += 1
            serve(later, chance)
        os.close(fd)
    signal.alarm(0)
    print(
        f"{time.monotonic() - began:.0f} s, {memories} memories from seed {options.seed}: of the changed ones {taken} were taken,"
        f" {refused} refused"
    )


if __name__ == "__main__":
    main()
