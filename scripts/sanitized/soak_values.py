"""Random work on values of all sizes, seeded, where every byte that is read back is compared with what was stored.

Run by soak.py, in turns with its rounds of random commands. Some connections are real sockets, since a value that is read
straight into its item, with pieces taken ahead, is only reached through one. A miss is allowed, a wrong byte is not.
"""

import contextlib
import random
import re
import socket
from collections.abc import Callable

from mcserver.core import Engine, Session
from tests.core.harness import MIB, RecordingOwner, crawl
from tests.stateful.invariants import check_figures, check_that_all_is_free

LIMITS = (2, 2, 3, 4, 8, 16, 24, 33, 64)  # MiB
VAST = (33, 65, 129, 255)  # GiB: each makes handles of another shift; hardly any of it is touched
HEADS = re.compile(rb"VALUE ([^ ]+) \d+ (\d+)(?: \d+)?\r\n")
NO_MEMORY = re.compile(rb"SERVER_ERROR out of memory[ a-z]*\r\n")
LINE = re.compile(rb"[^\n]*\r\n")
NOISE = random.Random(0).randbytes(1 << 20)
Reply = Callable[[bytes], None]


def made(rng: random.Random, size: int) -> bytes:
    """A value whose bytes differ from another one's at nearly every place."""
    at = rng.randrange(len(NOISE))
    return (NOISE[at:] + NOISE * (size // len(NOISE) + 1))[:size]


class Values:
    """What was stored: for each key the value that a hit must have. Changed as the replies come, in the order of the work."""

    def __init__(self) -> None:
        self.of: dict[bytes, bytes | None] = {}
        self.checked = 0

    def check(self, key: bytes, got: bytes, want: bytes | None) -> None:
        self.checked += len(got)
        if got == want:
            return
        size = -1 if want is None else len(want)
        at = next((i for i, (a, b) in enumerate(zip(got, want or b"", strict=False)) if a != b), min(size, len(got)))
        raise AssertionError(f"{key!r}: {len(got)} bytes instead of {size}, the first wrong one at {at}")


class Line:
    """One connection, by a socket pair or by feed: what it was asked, and what each answer must be."""

    def __init__(self, engine: Engine, owner: RecordingOwner, *, real: bool, small: bool) -> None:
        self.owner = owner
        self.far: socket.socket | None = None
        self.near: socket.socket | None = None
        if real:
            self.near, self.far = socket.socketpair()
            if small:
                for end in (self.near, self.far):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.near.setblocking(False)
            self.far.setblocking(False)
        self.session = Session(engine, owner, self.near.fileno() if self.near else -1)
        self.to_send = bytearray()
        self.got = bytearray()
        self.expected: list[tuple[str, bytes, bytes | None]] = []
        self.began: bytes | None = None  # the key of a value that is only half sent

    @property
    def closed(self) -> bool:
        return self.session.closed

    def receive(self, most: int) -> None:
        """The client reads up to so many bytes."""
        if self.far is None:
            if not self.closed:
                self.session.limit(most)
            self.got += self.session.drain()
        else:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self.got += self.far.recv(most)

    def move(self, most: int) -> bool:
        """Both ends do one step, the client sending up to so many bytes. False when it has nothing to send any more."""
        if self.closed:
            self.to_send.clear()
            return False
        part = bytes(self.to_send[:most])
        if self.far is None:
            del self.to_send[: len(part)]
            self.got += self.session.feed(part)
        else:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                del self.to_send[: self.far.send(part) if part else 0]
            self.session.readable()
            if self.session.state == "conn_mwrite":
                self.session.writable()
        return bool(self.to_send)

    def close(self) -> None:
        self.session.close()
        for end in (self.near, self.far):
            if end:
                end.close()


class ValueRound:
    """One engine and the values in it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random.choice
        self.limit = pick(LIMITS) * MIB if self.random.random() < 0.9 else pick(VAST) * 1024 * MIB
        self.item_max = min(
            pick((16 << 10, 100 << 10, MIB, self.limit // 4, self.limit // 2)), 8 * MIB, self.limit // 2
        )
        self.evictions = pick((True, True, False))
        self.engine = Engine(
            manual_clock=True, memory_limit=self.limit, item_size_max=self.item_max, evictions=self.evictions,
            segmented=pick((True, True, False)), slab_chunk_max=pick((1, 2, 4, 16, 512)) * 1024,
            growth_factor=pick((1.25, 1.08, 2.0)), maintained=pick((True, False)), room_for=pick(("requests", "bytes")),
            temporary_ttl=pick((-1, 10)), track_sizes=pick((True, False)), cas=pick((True, False)),
        )  # fmt: skip
        self.owner = RecordingOwner(self.engine)
        self.values = Values()
        self.lines = [self.line(real=i % 2 == 0) for i in range(6)]
        self.keys = [b"v%d" % i for i in range(pick((3, 12, 60)))]
        self.sent = 0

    def line(self, *, real: bool) -> Line:
        return Line(self.engine, self.owner, real=real, small=self.random.random() < 0.3)

    def size(self) -> int:
        """From 1 byte to what an item may have, all magnitudes alike; often at a boundary."""
        rng = self.random
        if rng.random() < 0.2:
            piece = rng.choice((976, 2000, 4048, 16_336))
            return max(1, min(rng.randint(1, 5) * piece + rng.randint(-2, 2), self.item_max))
        return max(1, int(2 ** rng.uniform(0, (self.item_max - 1).bit_length())) + rng.randint(-1, 1))

    # Work

    def work(self) -> None:
        """One random step."""
        for index, line in enumerate(self.lines):
            if line.closed:
                self.drop(index)
        steps: list[tuple[int, Callable[[], object]]] = [
            (30, self.store), (12, self.grow), (20, self.read), (4, self.remove), (6, self.begin), (6, self.go_on),
            (10, self.read_slowly), (3, self.leave), (5, self.pass_time), (6, self.administer), (4, self.many), (2, self.look),
        ]  # fmt: skip
        self.random.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()
        self.owner.closes.clear()
        self.owner.interests.clear()

    def free_line(self) -> Line | None:
        """A line whose answers have all come: only then the order of the work is known."""
        lines = [line for line in self.lines if not line.expected and line.began is None and not line.closed]
        return self.random.choice(lines) if lines else None

    def ask(
        self, line: Line, data: bytes, kind: str, key: bytes, value: bytes | None = None, *, whole: bool = True
    ) -> None:
        self.sent += 1
        line.expected.append((kind, key, value))
        line.to_send += data
        self.run(line, whole=whole)

    def run(self, line: Line, *, whole: bool = True) -> None:
        """Lets a line go on until all is sent; with `whole` until all is answered, too, or the other end is gone."""
        most = self.random.choice((1 << 22, 1 << 22, 70_000, 5000))
        for _ in range(20_000):
            sending = line.move(most)
            self.settle()
            if whole or sending:
                line.receive(1 << 22)
            self.answers(line)
            if line.closed or not (sending or (whole and line.expected)):
                return
        raise AssertionError(f"no end: {line.session.state} {line.expected[:3]} {len(line.to_send)} bytes to send")

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.owner.waiting:
                return
            session = self.owner.waiting.pop(0)
            if not session.closed:
                session.proceed()
        raise AssertionError("a session goes on for ever")

    def answers(self, line: Line) -> None:
        """Compares what came with what was expected."""
        while line.expected:
            kind, key, value = line.expected[0]
            if kind == "get":
                head = HEADS.match(line.got)
                if head:
                    size = int(head[2])
                    end = head.end() + size + 7
                    if len(line.got) < end:
                        return
                    assert head[1] == key
                    assert line.got[end - 7 : end] == b"\r\nEND\r\n", bytes(line.got[:200])
                    self.values.check(key, bytes(line.got[head.end() : end - 7]), value)
                    del line.got[:end]
                elif line.got[:5] == b"END\r\n":
                    del line.got[:5]
                elif any(start.startswith(line.got[:40]) for start in (b"END\r\n", b"VALUE %b" % key)) or (
                    line.got[:6] == b"VALUE " and b"\n" not in line.got
                ):
                    return
                else:
                    raise AssertionError(f"{key!r}: {bytes(line.got[:200])!r}")
            else:
                said = LINE.match(line.got)
                if not said:
                    return
                text = said[0]
                del said
                del line.got[: len(text)]
                self.answered(kind, key, value, bytes(text))
            line.expected.pop(0)
        assert line.closed or not line.got, bytes(line.got[:200])

    def answered(self, kind: str, key: bytes, value: bytes | None, said: bytes) -> None:
        of = self.values.of
        if said == b"STORED\r\n":
            if kind == "append":
                of[key] = (of.get(key) or b"") + (value or b"")
            elif kind == "prepend":
                of[key] = (value or b"") + (of.get(key) or b"")
            elif kind != "noop":
                of[key] = value
        elif said == b"DELETED\r\n" or (kind == "set" and said.startswith(b"SERVER_ERROR ")):
            of[key] = None  # a failed set takes along what was there
        elif kind == "noop":
            assert said == b"MN\r\n", said
        else:
            assert said in (b"NOT_STORED\r\n", b"NOT_FOUND\r\n") or said.startswith(b"SERVER_ERROR "), said

    # Steps

    def store(self) -> None:
        line, rng = self.free_line(), self.random
        if line is None:
            return
        key, value = rng.choice(self.keys), made(rng, self.size())
        kind = rng.choice(("set", "set", "set", "add", "replace"))
        life = rng.choice((0, 0, 0, 1, 5, 1000))
        data = b"%b %b 0 %d %d\r\n%b\r\n" % (kind.encode(), key, life, len(value), value)
        self.ask(line, data, kind, key, value)

    def grow(self) -> None:
        line, rng = self.free_line(), self.random
        if line is None:
            return
        key, kind = rng.choice(self.keys), rng.choice(("append", "prepend"))
        for _ in range(rng.choice((1, 1, 3, 12))):
            value = made(rng, min(self.size(), rng.choice((10, 1000, 20_000, self.item_max))))
            self.ask(line, b"%b %b 0 0 %d\r\n%b\r\n" % (kind.encode(), key, len(value), value), kind, key, value)
            if line.closed:
                return

    def read(self) -> None:
        line = self.free_line()
        if line is not None:
            key = self.random.choice(self.keys)
            self.ask(line, b"get %b\r\n" % key, "get", key, self.values.of.get(key))

    def read_slowly(self) -> None:
        """A reader that takes a little of a value, and more now and then, while others change it."""
        waiting = [line for line in self.lines if line.expected and line.began is None and not line.closed]
        if waiting and self.random.random() < 0.6:
            line = self.random.choice(waiting)
            line.receive(self.random.choice((1, 3000, 16_384, 100_000, 1 << 22)))
            self.run(line, whole=self.random.random() < 0.3)
            return
        free = self.free_line()
        if free is None:
            return
        key = self.random.choice(self.keys)
        if free.far is None:
            free.session.limit(self.random.choice((0, 20, 20_000)))
        self.ask(free, b"get %b\r\n" % key, "get", key, self.values.of.get(key), whole=False)

    def remove(self) -> None:
        line = self.free_line()
        if line is None:
            return
        if self.random.random() < 0.1:
            self.engine.flush()
            self.values.of.clear()
            return
        key = self.random.choice(self.keys)
        self.ask(line, b"delete %b\r\n" % key, "delete", key)

    def begin(self) -> None:
        """A value is announced, and none or a part of it sent."""
        line, rng = self.free_line(), self.random
        if line is None:
            return
        key, value = rng.choice(self.keys), made(rng, self.size())
        part = rng.choice((0, 1, len(value) // 2, len(value)))
        kind = rng.choice(("set", "append", "prepend"))
        # It may be refused, and the answer read later: then it isn't known what was stored in between.
        line.expected.append(("late" if kind == "set" else kind, key, value))
        line.began = value[part:] + b"\r\n"
        line.to_send += b"%b %b 0 0 %d\r\n%b" % (kind.encode(), key, len(value), value[:part])
        self.run(line, whole=False)

    def go_on(self) -> None:
        """More of a value that was begun: a part, or the rest."""
        begun = [line for line in self.lines if line.began is not None and not line.closed]
        if not begun:
            return
        line = self.random.choice(begun)
        rest = line.began or b""
        part = len(rest) if self.random.random() < 0.5 else self.random.randint(0, len(rest))
        line.to_send += rest[:part]
        line.began = rest[part:] or None
        self.run(line, whole=line.began is None)

    def leave(self) -> None:
        index = self.random.randrange(len(self.lines))
        self.drop(index)

    def drop(self, index: int) -> None:
        line = self.lines[index]
        line.close()
        self.owner.waiting = [session for session in self.owner.waiting if session is not line.session]
        self.lines[index] = self.line(real=self.random.random() < 0.5)

    def pass_time(self) -> None:
        self.engine.advance(self.random.choice((0.1, 1, 2, 61)))
        for _ in range(self.random.randint(0, 10)):
            self.engine.maintain(self.random.choice((1, 100, 1000)))
        self.settle()

    def administer(self) -> None:
        engine, pick = self.engine, self.random.choice
        what = self.random.randrange(6)
        if what == 0:
            engine.set_memory_limit(max(2 * MIB, int(self.limit * pick((0.5, 0.75, 1, 1, 1.5, 2)))))
        elif what == 1:
            engine.set_segmented(pick((True, False)))
        elif what == 2:
            engine.automove = pick((0, 1, 2))
        else:
            for _ in range(5):
                engine.reassign_page(self.random.randint(-1, engine.classes), self.random.randint(0, engine.classes))
                engine.maintain(pick((1, 1000)))
        self.settle()

    def many(self) -> None:
        """Small items by the thousand, so that classes need each other's pages."""
        line = self.free_line()
        if line is None:
            return
        size = min(self.size(), 4000)
        start = self.random.randint(0, 50_000)
        body = b"m" * size + b"\r\n"
        line.to_send += b"".join(
            b"set m%d 0 0 %d noreply\r\n%b" % (start + i, size, body) for i in range(min(2000, 400_000 // (size + 60)))
        )
        for _ in range(20_000):
            sending = line.move(1 << 20)
            self.settle()
            line.receive(1 << 22)
            if not sending:
                break
        line.got = bytearray(NO_MEMORY.sub(b"", bytes(line.got)))
        self.ask(line, b"mn\r\n", "noop", b"")

    def look(self) -> None:
        check_figures(self.engine)
        for line in self.lines:
            assert line.session.unsent < 2 * self.item_max + 4 * MIB

    def end(self) -> None:
        """What is left is read once more; then everybody leaves and all is flushed: nothing may be in use any more."""
        check_figures(self.engine)
        for index, line in enumerate(self.lines):
            if line.expected or line.began is not None or line.closed:
                self.drop(index)
        for key in self.keys:
            line = self.free_line() or self.lines[0]
            self.ask(line, b"get %b\r\n" % key, "get", key, self.values.of.get(key))
        for line in self.lines:
            line.close()
        self.engine.flush()
        for _ in range(3):  # what moves to another page while it runs may be missed
            crawl(self.engine)
        check_that_all_is_free(self.engine)
