"""The engine under memory pressure: what it answers is the model's answer or a miss, and its figures stay true.

Sizes go from a byte to the largest item; limits move; pages are reassigned; nothing may exceed the limit. Clients that are in
the middle of reading or of sending a value stay there for as long as they like: their bytes are neither moved away under
them nor freed.
"""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.harness import MIB, Client, crawl, fresh, settle
from tests.stateful.invariants import check_figures, check_lists, check_nothing_leaks

KEYS = [b"key:%d" % i for i in range(60)]
SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from(
        [1000, 5000, 16_384, 65_535, 65_536, 65_537, 100_000, 262_144, 524_000, 524_288, 524_289, 1_000_000]
    ),
    st.integers(1, 1_048_000),
)
REFUSALS = {b"SERVER_ERROR out of memory storing object\r\n", b"SERVER_ERROR Out of memory during read\r\n"}


def content(number: int, size: int) -> bytes:
    """A value that no other number has."""
    stamp = b"<%d>" % number
    return (stamp * (size // len(stamp) + 1))[:size]


@dataclass
class Reader:
    """A client that asked for a value and takes it as it likes."""

    client: Client
    expected: bytes
    got: bytes = b""


@dataclass
class Writer:
    """A client in the middle of a store."""

    client: Client
    key: bytes
    value: bytes
    sent: int = 0
    got: bytes = b""


class PressureMachine(RuleBasedStateMachine):
    """``held`` says what a key's value is, if it has one."""

    @initialize(
        mib=st.sampled_from([2, 2, 4, 8]),
        evictions=st.booleans() | st.just(True),
        segmented=st.booleans(),
        slab_chunk_max=st.sampled_from([1024, 16_384, MIB]),
        automove=st.sampled_from([0, 1, 2]),
    )
    def start(self, mib: int, evictions: bool, segmented: bool, slab_chunk_max: int, automove: int) -> None:
        self.client = fresh(
            memory_limit=mib * MIB,
            evictions=evictions,
            segmented=segmented,
            item_size_max=MIB,
            slab_chunk_max=slab_chunk_max,
        )
        self.engine = self.client.engine
        self.engine.automove = automove
        self.evictions = evictions
        self.other = Client(self.engine)
        self.held: dict[bytes, bytes] = {}
        self.limit = self.most = mib * MIB
        self.count = 0
        self.readers: list[Reader] = []
        self.writers: list[Writer] = []

    def forget(self, key: bytes) -> None:
        self.held.pop(key, None)

    def stored(self, key: bytes, value: bytes, reply: bytes) -> None:
        if reply == b"STORED\r\n":
            self.held[key] = value
        else:
            assert reply in REFUSALS, reply
            self.forget(key)

    @rule(key=st.sampled_from(KEYS), size=SIZES)
    def set(self, key: bytes, size: int) -> None:
        self.count += 1
        value = content(self.count, size)
        self.stored(key, value, self.client.set(key, value))

    @rule(first=st.integers(0, 40), count=st.integers(1, 20), size=SIZES)
    def set_many(self, first: int, count: int, size: int) -> None:
        for key in KEYS[first : first + count]:
            self.set(key, min(size, 200_000))

    @rule(count=st.integers(1, 4000), size=st.integers(1, 3000))
    def scan(self, count: int, size: int) -> None:
        """Many keys that nobody asks for again."""
        lines = b"".join(b"set s:%d 0 0 %d noreply\r\n%b\r\n" % (i, size, b"s" * size) for i in range(count))
        reply = self.client.send(lines + b"mn\r\n")
        assert reply.endswith(b"MN\r\n")

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: bytes) -> None:
        value = self.client.get(key)
        if value is None:
            self.forget(key)
        else:
            assert value == self.held.get(key)

    @rule(key=st.sampled_from(KEYS), size=SIZES, before=st.booleans())
    def extend(self, key: bytes, size: int, before: bool) -> None:
        self.count += 1
        more = content(self.count, size)
        verb = b"prepend" if before else b"append"
        reply = self.client.send(b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, size, more))
        if reply == b"STORED\r\n":
            self.held[key] = more + self.held[key] if before else self.held[key] + more
        else:
            assert reply in {b"NOT_STORED\r\n", *REFUSALS}, reply
            self.get(key)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: bytes) -> None:
        reply = self.client.send(b"delete %b\r\n" % key)
        assert reply == b"NOT_FOUND\r\n" or (reply == b"DELETED\r\n" and key in self.held)
        self.forget(key)

    @rule(key=st.sampled_from(KEYS), size=SIZES, part=st.floats(0, 1))
    def abandon(self, key: bytes, size: int, part: float) -> None:
        """A client that dies in the middle of a value changes nothing."""
        dying = Client(self.engine)
        line = b"add %b 0 0 %d\r\n" % (key, size)
        dying.send(line + b"d" * round(size * part))
        dying.session.close()

    @rule(key=st.sampled_from(KEYS), size=SIZES)
    def bad_chunk(self, key: bytes, size: int) -> None:
        """A value without its line end changes nothing (but for what had to leave to make room)."""
        reply = self.other.send(b"set %b 0 0 %d\r\n%bXX" % (key, size, b"d" * size))
        assert reply in {b"CLIENT_ERROR bad data chunk\r\n", *REFUSALS}, reply
        if reply in REFUSALS:
            self.forget(key)

    @rule(key=st.sampled_from(KEYS), first=st.integers(0, 70_000))
    def begin_to_read(self, key: bytes, first: int) -> None:
        self.get(key)
        value = self.held.get(key)
        expected = b"END\r\n" if value is None else b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value)
        reader = Reader(Client(self.engine), expected)
        reader.client.session.limit(first)
        reader.got = reader.client.send(b"get %b\r\n" % key)
        self.readers.append(reader)

    @rule(number=st.integers(0, 9), more=st.integers(1, 300_000))
    def read_on(self, number: int, more: int) -> None:
        if not self.readers:
            return
        reader = self.readers[number % len(self.readers)]
        reader.client.session.limit(more)
        reader.got += reader.client.session.drain() + reader.client.settle()
        assert reader.expected.startswith(reader.got), "other bytes than the client was promised"
        if reader.client.is_closed or reader.got == reader.expected:
            reader.client.session.close()
            self.readers.remove(reader)

    @rule(key=st.sampled_from(KEYS), size=SIZES, part=st.floats(0, 1))
    def begin_to_write(self, key: bytes, size: int, part: float) -> None:
        self.count += 1
        writer = Writer(Client(self.engine), key, content(self.count, size))
        writer.got = writer.client.send(b"set %b 0 0 %d\r\n" % (key, size))
        self.writers.append(writer)
        self.write_some(writer, round(size * part))

    @rule(number=st.integers(0, 9), part=st.floats(0, 1))
    def write_on(self, number: int, part: float) -> None:
        if self.writers:
            writer = self.writers[number % len(self.writers)]
            self.write_some(writer, round((len(writer.value) - writer.sent) * part))

    @rule(number=st.integers(0, 9))
    def write_to_the_end(self, number: int) -> None:
        if self.writers:
            self.finish_writing(self.writers[number % len(self.writers)])

    def write_some(self, writer: Writer, count: int) -> None:
        writer.got += writer.client.send(writer.value[writer.sent : writer.sent + count])
        writer.sent += count

    def finish_writing(self, writer: Writer) -> None:
        """It is told once what became of its value, and is in step afterwards."""
        self.write_some(writer, len(writer.value) - writer.sent)
        writer.got += writer.client.session.drain() + writer.client.send(b"\r\n")
        if writer.got == b"STORED\r\n":
            self.held[writer.key] = writer.value
        else:  # perhaps long ago: what was stored under the key since is still there
            assert writer.got in REFUSALS, writer.got
            self.get(writer.key)
        assert writer.client.send(b"mn\r\n") == b"MN\r\n"
        writer.client.session.close()
        self.writers.remove(writer)

    @rule(on=st.booleans())
    def lru_mode(self, on: bool) -> None:
        self.engine.set_segmented(on)

    @rule(mib=st.sampled_from([2, 3, 4, 8, 12, 16]))
    def limit_memory(self, mib: int) -> None:
        if self.engine.set_memory_limit(mib * MIB):
            self.limit = mib * MIB
            settle(self.engine)
            # Without evictions what is there stays, and so does what somebody is using.
            busy = not self.evictions or self.readers or self.writers
            self.most = max(self.limit, self.engine.slab_stats()[2]) if busy else self.limit

    @rule(source=st.integers(-1, 40), taker=st.integers(0, 40))
    def reassign(self, source: int, taker: int) -> None:
        assert self.engine.reassign_page(source, taker) in {"OK", "BUSY", "BADCLASS", "NOSPARE", "SAME"}

    @rule(seconds=st.sampled_from([1, 60, 1000]), steps=st.integers(0, 20))
    def wait(self, seconds: int, steps: int) -> None:
        self.engine.advance(seconds)
        for _ in range(steps):
            self.engine.maintain()

    @rule()
    def crawl(self) -> None:
        crawl(self.engine)

    @invariant()
    def figures_are_true(self) -> None:
        if not hasattr(self, "engine"):
            return
        check_figures(self.engine)
        check_lists(self.engine)
        stats = self.engine.stats()
        assert stats["limit_maxbytes"] == self.limit
        assert self.engine.slab_stats()[2] <= self.most
        assert stats["unfinished_bytes"] <= stats["unfinished_limit"]
        if not self.evictions:
            assert stats["evictions"] == 0

    def teardown(self) -> None:
        """At the end, what is there is right; and when it is gone, nothing is left of it."""
        if not hasattr(self, "held"):
            return
        for writer in list(self.writers):
            self.finish_writing(writer)
        for key in KEYS:
            self.get(key)
        while self.readers:
            self.read_on(0, 100_000)
        self.engine.flush()
        crawl(self.engine)
        settle(self.engine)
        check_nothing_leaks(self.engine)


TestPressure = pytest.mark.slow(PressureMachine.TestCase)
TestPressure.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)
