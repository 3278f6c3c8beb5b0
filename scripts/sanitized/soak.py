"""Random work on the engine, seeded: all commands on several connections, memory pressure, slow readers, page moves, crawls.

Made to run under sanitizers (scripts/asan). A round is one engine; at its end nothing may be left in its memory. Every second
round works on values of all sizes and compares each byte that it reads (soak_values.py).
"""

import argparse
import random
import sys
import time
from collections.abc import Callable

from soak_values import ValueRound

from mcserver.core import Engine
from tests.core.harness import MIB, Client, RecordingOwner, crawl
from tests.stateful.invariants import check_figures, check_that_all_is_free
from tests.stateful.packets import APPEND, GET, GETKQ, PREPEND, SET, SETQ, STORE, Requests, request
from tests.stateful.streams import CLASSIC_KEYS, Commands

SIZES = (0, 1, 40, 200, 1000, 5000, 20_000, 65_535, 65_536, 65_537, 200_000, 524_288, 1_000_000)
PREFIXES = (b"", b"k", b"p:", b"s:1", b"none")
STEPS = 400  # of a round

TELL_SECONDS = 30.0
"""Between two lines of progress."""


class Round:
    """One engine and what is done to it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.limit = pick((8, 8, 12, 24)) * MIB
        self.evictions = pick((True, True, False))
        self.engine = Engine(
            manual_clock=True, memory_limit=self.limit, item_size_max=pick((1, 2, 4)) * MIB, evictions=self.evictions,
            cas=pick((True, True, False)), segmented=pick((True, False)), temporary_ttl=pick((-1, 10)),
            slab_chunk_max=pick((512, 256, 64)) * 1024, track_sizes=pick((True, False)), growth_factor=pick((1.25, 1.08, 2.0)),
        )  # fmt: skip
        self.engine.detail = pick((True, False))
        self.engine.broadcast(pick((True, False)), [b"p:"] if pick((True, False)) else [])
        self.engine.lock_prefixes([b"n"] if self.random.random() < 0.3 else [])
        self.engine.observe(pick((0, 0, 15)), lambda _kind, _fields: None)
        self.owner = RecordingOwner(self.engine)
        self.owner.commands[b"stats"] = lambda _session, _line: pick(
            (b"STAT a 1\r\nEND\r\n", iter((b"STAT a 1\r\n", b"END\r\n")))
        )
        self.binary: set[Client] = set()  # who speaks the binary protocol
        self.requests = Requests(self.random, {})
        self.clients = [self.join() for _ in range(6)]
        self.commands = Commands(self.random, lambda _key: pick((0, 2, 3, 50, 2**63)), lifetimes=(0, 0, 1, 60, -1))
        self.left: list[Client] = []
        self.walk = self.engine.walk(None)
        self.sent = 0

    def work(self) -> None:
        """One random step."""
        steps: list[tuple[int, Callable[[], object]]] = [
            (40, self.talk), (12, self.store_large), (10, self.scan), (8, self.read_slowly), (6, self.confirm), (4, self.leave),
            (6, self.pass_time), (6, self.administer), (3, self.coordinate), (3, self.look),
        ]  # fmt: skip
        self.random.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()
        self.owner.batches.clear()
        self.owner.traces.clear()

    def join(self) -> Client:
        """A new connection, of either protocol; some must log in first, and do, or don't."""
        login = self.random.random() < 0.1
        self.engine.require_login("sasl" if login else None, [(b"alice", b"secret")])
        client = Client(self.engine, self.owner)
        if login or self.random.random() < 0.4:
            self.binary.add(client)
        if login:
            said = self.random.choice((b"\0alice\0secret", b"\0alice\0secret", b"\0alice\0", b"", b"x" * 5000))
            client.send(request(0x21, self.random.choice((b"PLAIN", b"PLAIN", b"OTHER")), b"", said))
        return client

    def client(self) -> Client:
        return self.random.choice(self.clients)

    def feed(self, client: Client, data: bytes) -> None:
        self.sent += data.count(b"\n") + (data.count(b"\x80") if client in self.binary else 0)
        at = 0
        while at < len(data) and not client.is_closed:
            step = self.random.choice((len(data), len(data), 1, 7, 100, 5000, 70_000))
            client.session.feed(data[at : at + step])
            at += step
        if self.random.random() < 0.8:
            client.settle()

    def talk(self) -> None:
        client = self.client()
        count = self.random.randint(1, 20)
        if client in self.binary:
            cas = self.random.choice((0, 0, 2, 3, 50))
            data = b"".join(self.requests.any().packet(cas) for _ in range(count))
        else:
            data = b"".join(self.commands.any() for _ in range(count))
        if self.random.random() < 0.1:
            data = data[: self.random.randint(0, len(data))]
        self.feed(client, data)

    def store_large(self) -> None:
        size = self.random.choice(SIZES)
        verb = self.random.choice((b"set", b"append", b"prepend", b"add", b"replace"))
        key = self.random.choice((*CLASSIC_KEYS, b"k%d" % self.random.randint(0, 300)))
        end = b"\r\n" if self.random.random() < 0.95 else b"xx"
        client = self.client()
        if client in self.binary:
            opcode = self.random.choice((SET, SETQ, APPEND, PREPEND))
            extras = b"" if opcode in (APPEND, PREPEND) else STORE.pack(0, 0)
            self.feed(client, request(opcode, key, extras, b"v" * size) + request(GET, key))
            return
        self.feed(client, b"%b %b 0 0 %d\r\n%b%b" % (verb, key, size, b"v" * size, end))

    def scan(self) -> None:
        size, start = self.random.choice(SIZES[:7]), self.random.randint(0, 5000)
        count = min(1000, 600_000 // (size + 50))
        client = self.client()
        if client in self.binary:
            self.feed(
                client, b"".join(request(SETQ, b"s:%d" % (start + i), bytes(8), b"s" * size) for i in range(count))
            )
            self.feed(client, b"".join(request(GETKQ, b"s:%d" % (start + i)) for i in range(200)))
            return
        lines = (b"set s:%d 0 0 %d noreply\r\n%b\r\n" % (start + i, size, b"s" * size) for i in range(count))
        self.feed(client, b"".join(lines))
        self.feed(client, b"get " + b" ".join(b"s:%d" % (start + i) for i in range(200)) + b"\r\n")

    def read_slowly(self) -> None:
        client = self.client()
        if not client.is_closed:
            client.session.limit(self.random.choice((None, 0, 1, 1000, 100_000)))
            client.session.drain()
            client.settle()

    def confirm(self) -> None:
        self.owner.hold = self.random.random() < 0.3
        for client in self.clients:
            if self.random.random() < 0.6:
                client.session.release(self.random.choice((None, {0: b"SERVER_ERROR not confirmed\r\n"})))
            if self.random.random() < 0.7:
                client.session.grant() if self.random.random() < 0.6 else client.session.refuse(
                    b"SERVER_ERROR lock lost\r\n"
                )
            client.settle()

    def leave(self) -> None:
        index = self.random.randrange(len(self.clients))
        self.clients[index].session.close() if self.random.random() < 0.7 else self.clients[index].session.quit()
        self.left.append(self.clients[index])  # after quit it may still wait for its reader
        self.clients[index] = self.join()

    def pass_time(self) -> None:
        self.engine.advance(self.random.choice((0.1, 1, 5, 61, 1000)))
        for _ in range(self.random.randint(0, 10)):
            self.engine.maintain(self.random.choice((1, 100, 1000)))

    def administer(self) -> None:
        engine, pick = self.engine, self.random.choice
        what = self.random.randrange(8)
        if what == 0:
            engine.set_memory_limit(pick((8, 12, 16, 24)) * MIB)
        elif what == 1:
            engine.reassign_page(self.random.randint(-1, 30), self.random.randint(0, 30))
        elif what == 2:
            engine.set_segmented(pick((True, False)))
        elif what == 3:
            engine.tune_lru(pick((10, 20, 40)), pick((10, 40)), pick((0.1, 0.5)), pick((1.5, 3.0)))
        elif what == 4:
            engine.crawl(pick((None, [1, 5, 9])), pick((0, 100)))
        elif what == 5:
            engine.set_temporary_ttl(pick((-1, 10)))
        elif what == 6:
            engine.automove = pick((0, 1, 2))
        else:
            engine.reset_stats()

    def coordinate(self) -> None:
        engine, pick = self.engine, self.random.choice
        what = self.random.randrange(8)
        if what == 0:
            engine.delete(pick(CLASSIC_KEYS))
        elif what == 1:
            engine.mark_stale(pick(CLASSIC_KEYS), pick((1, 30)))
        elif what == 2:
            engine.flush_prefix(pick(PREFIXES))
        elif what == 3:
            engine.refresh_prefix(pick(PREFIXES), pick((0, 30)))
        elif what == 4:
            engine.hold_off(pick((0, 10)))
        elif what == 5:
            engine.set_gate(pick((None, None, "miss", "error", "serve")), 0)
        elif what == 6:
            engine.flush_all(pick((0, 5, 60)))
        elif self.random.random() < 0.2:
            engine.flush()

    def look(self) -> None:
        next(self.walk, None)
        if self.random.random() < 0.3:
            self.walk = self.engine.walk(self.random.choice((None, [1, 2, 3])), self.random.choice((1, 50, 1000)))
        list(self.engine.cachedump(self.random.randint(0, 40), self.random.choice((0, 5))))
        list(self.engine.prefix_stats())
        list(self.engine.sizes() or ())
        check_figures(self.engine)

    def end(self) -> None:
        """Everybody leaves and all is flushed: no chunk may be in use any more."""
        for client in (*self.clients, *self.left):
            client.session.close()
        self.engine.set_gate(None)
        self.engine.flush()
        for _ in range(3):
            crawl(self.engine)
        check_that_all_is_free(self.engine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each round takes the next (1)")
    arguments = parser.parse_args()
    began, seed, commands = time.monotonic(), arguments.seed, 0
    told = began
    while seed == arguments.seed or time.monotonic() - began < arguments.seconds:
        running = Round(seed) if seed % 2 else ValueRound(seed)
        try:
            for _ in range(STEPS):
                running.work()
                if time.monotonic() - began > arguments.seconds:
                    break
            running.end()
        except BaseException:
            print(f"round with seed {seed}", file=sys.stderr)
            raise
        commands += running.sent
        seed += 1
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            print(
                f"{seed - arguments.seed} engines, {told - began:.0f} of {arguments.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    seconds = time.monotonic() - began
    print(f"{seed - arguments.seed} engines, {commands} lines, {seconds:.0f} s, seeds {arguments.seed} to {seed - 1}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
