"""Random work on workers, seeded: clients on several threads, a thread that answers letters, the engine worked on meanwhile.

Made to run under ThreadSanitizer and AddressSanitizer (scripts/tsan). A round is one engine with one to four workers;
each client's replies must be in step, and at its end nothing may be left in the memory.
"""

import argparse
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from mcserver.core import Engine
from tests.core.harness import MIB, crawl
from tests.core.threaded import Owner, Peer
from tests.stateful.invariants import check_figures

SIZES = (0, 1, 40, 1000, 5000, 20_000, 70_000, 300_000, 900_000)
KEYS = [b"k%d" % number for number in range(40)] + [b"l:%d" % number for number in range(4)]
END = b"\r\nMN\r\n"


class WorkersRound:
    """One engine, its workers, and clients that know nothing of each other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.evictions = pick((True, True, False))
        self.engine = Engine(
            memory_limit=pick((4, 8, 24)) * MIB,
            item_size_max=1 * MIB,
            evictions=self.evictions,
            slab_chunk_max=pick((512, 64)) * 1024,
        )
        self.engine.detail = pick((True, False))
        self.engine.broadcast(pick((True, False)), [b"k1"] if pick((True, False)) else [])
        self.engine.lock_prefixes([b"l:"] if pick((True, False)) else [])
        self.engine.verbosity = pick((0, 0, 2))
        self.engine.observe(pick((0, 15)), lambda _kind, _fields: None)
        self.owner = Owner(self.engine, pick((1, 2, 4)))
        self.owner.commands[b"stats"] = lambda _session, _line: b"STAT x %d\r\nEND\r\n" % len(self.engine.stats())
        self.owner.commands[b"dump"] = lambda _session, _line: (
            b"i %d\r\n" % len(items) for items in self.engine.walk(None)
        )
        self.owner.hold = pick((True, False))
        self.owner.on_events = lambda session, _events: self.owner.do(session.release) if self.owner.hold else None
        self.ended = threading.Event()
        self.over = threading.Event()
        self.failures: list[BaseException] = []
        self.sent = 0

    def run(self, seconds: float) -> None:
        """All of it."""
        with self.owner:
            talkers = [self.thread(self.talk, self.ended) for _ in range(4)]
            administrator = self.thread(self.administer, self.over)
            self.ended.wait(seconds)
            self.ended.set()
            for thread in talkers:
                thread.join()
            self.over.set()  # till now, so that nobody waits for a lock in vain
            administrator.join()
        if self.failures:
            raise self.failures[0]
        self.engine.flush()
        self.engine.observe(0, None)
        crawl(self.engine)
        check_figures(self.engine)
        assert not any(figures["used_chunks"] for figures in self.engine.slab_stats()[0].values()), "something is left"

    def thread(self, work: Callable[[random.Random], None], until: threading.Event) -> threading.Thread:
        """A thread that does it again and again, each time with its own chance."""
        seeds = iter(range(self.random.getrandbits(64), 1 << 65))

        def guard() -> None:
            try:
                while not until.is_set():
                    work(random.Random(next(seeds)))
            except BaseException as error:  # noqa: BLE001  # it ends the run, which shows it
                self.failures.append(error)
                self.ended.set()

        thread = threading.Thread(target=guard)
        thread.start()
        return thread

    def talk(self, chance: random.Random) -> None:
        """One connection: some batches, each ended by `mn`; then it goes, in one way or another."""
        peer = self.owner.connect()
        with contextlib.suppress(ConnectionError):
            for _ in range(chance.randrange(1, 30)):
                batch = b"".join(self.command(chance) for _ in range(chance.randrange(1, 12)))
                self.sent += len(batch)
                self.exchange(peer, batch + b"gets none\r\nmn\r\n", chance)
            if chance.random() < 0.3:
                peer.send(self.command(chance)[:-1])
            if chance.random() < 0.2:
                peer.send(b"get " + b" ".join(KEYS) + b"\r\n")
        peer.sock.close()
        self.owner.peers.remove(peer)

    def exchange(self, peer: Peer, batch: bytes, chance: random.Random) -> None:
        """Sends it in parts, from a thread of its own so that neither side waits for the other; reads to its end."""
        cut = sorted(chance.randrange(len(batch) + 1) for _ in range(chance.choice((0, 0, 1, 5))))

        def send() -> None:
            with contextlib.suppress(OSError):
                for begin, end in zip([0, *cut], [*cut, len(batch)], strict=True):
                    peer.send(batch[begin:end])

        sender = threading.Thread(target=send)
        sender.start()
        try:
            reply = b""
            while not reply.endswith(b"END\r\nMN\r\n"):
                data = peer.sock.recv(1 << 18)
                if not data:
                    raise ConnectionError
                reply += data
        finally:
            sender.join()
        if reply.startswith(b"ERROR") and not batch.startswith((b"bogus", b"dump")):  # a dump of nothing is nothing
            raise AssertionError(f"out of step: {batch[:200]!r} {reply[:200]!r}")

    def command(self, chance: random.Random) -> bytes:
        key = chance.choice(KEYS)
        if chance.random() < 0.3:
            value = bytes([chance.randrange(97, 123)]) * chance.choice(SIZES)
            verb = chance.choice((b"set", b"set", b"add", b"append", b"prepend", b"replace"))
            return b"%b %b 0 %d %d\r\n%b\r\n" % (verb, key, chance.choice((0, 0, 1, 60)), len(value), value)
        return chance.choice((
            b"get %b\r\n" % key, b"get %b %b\r\n" % (key, chance.choice(KEYS)), b"mg %b v t f s\r\n" % key,
            b"delete %b\r\n" % key, b"incr %b 1\r\n" % key, b"touch %b 60\r\n" % key, b"md %b I\r\n" % key,
            b"ma %b N60\r\n" % key, b"stats\r\n", b"dump\r\n",
            b"gat 30 %b\r\n" % key, b"ms %b 2 T9\r\nab\r\n" % key, b"set c 0 0 1\r\n1\r\n", b"bogus\r\n",
        ))  # fmt: skip

    def administer(self, chance: random.Random) -> None:
        """What the server's loop does between letters; sessions are touched by the owner's thread alone."""
        engine = self.engine
        time.sleep(0.002)
        for session, _ in self.owner.locks[:]:
            self.owner.locks.pop(0)
            self.owner.do(session.grant if chance.random() < 0.8 else partial(session.refuse, b"SERVER_ERROR lost"))
        chance.choice((
            engine.maintain, engine.stats, engine.item_stats, engine.slab_stats, engine.mrc_stats, self.owner.workers.sockets,
            lambda: engine.delete(chance.choice(KEYS)), lambda: engine.mark_stale(chance.choice(KEYS)), engine.crawl,
            lambda: engine.flush_prefix(b"k1"), lambda: engine.refresh_prefix(b"k2", 5), lambda: list(engine.walk(None)),
            lambda: [list(engine.cachedump(cls, 0)) for cls in range(1, engine.classes + 1)], lambda: list(engine.prefix_stats()),
            lambda: engine.set_memory_limit(chance.choice((4, 8, 24)) * MIB),
            lambda: engine.reassign_page(-1, chance.randrange(1, 9)),
            lambda: engine.set_segmented(chance.choice((True, False))), engine.reset_stats, lambda: engine.set_gate(None),
        ))()  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/tsan", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first round (1)")
    arguments = parser.parse_args()
    began, seed, sent = time.monotonic(), arguments.seed, 0
    deadline = began + arguments.seconds
    while time.monotonic() < deadline:
        work = WorkersRound(seed)
        try:
            work.run(min(4.0, max(1.0, deadline - time.monotonic())))
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
        sent += work.sent
        seed += 1
    rounds = f"{seed - arguments.seed} rounds, seeds {arguments.seed} to {seed - 1}"
    print(f"{time.monotonic() - began:.0f} s, {rounds}, {sent >> 20} MiB of commands: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
