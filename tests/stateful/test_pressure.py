"""The engine under memory pressure: what it answers is the model's answer or a miss, and its figures stay true.

Sizes go from a byte to the largest item; limits move; pages are reassigned; nothing may exceed the limit.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.harness import MIB, Client, crawl, fresh, settle
from tests.stateful.invariants import check_figures

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


class PressureMachine(RuleBasedStateMachine):
    """``held`` says what a key's value is, if it has one."""

    @initialize(evictions=st.booleans(), segmented=st.booleans())
    def start(self, evictions: bool, segmented: bool) -> None:
        self.client = fresh(memory_limit=8 * MIB, evictions=evictions, segmented=segmented, item_size_max=MIB)
        self.engine = self.client.engine
        self.evictions = evictions
        self.other = Client(self.engine)
        self.held: dict[bytes, bytes] = {}
        self.limit = self.most = 8 * MIB
        self.count = 0

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

    @rule(mib=st.sampled_from([4, 8, 12, 16]))
    def limit_memory(self, mib: int) -> None:
        if self.engine.set_memory_limit(mib * MIB):
            self.limit = mib * MIB
            settle(self.engine)
            # Without evictions, what is there stays.
            self.most = self.limit if self.evictions else max(self.limit, self.engine.slab_stats()[2])

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
        assert self.engine.stats()["limit_maxbytes"] == self.limit
        assert self.engine.slab_stats()[2] <= self.most

    def teardown(self) -> None:
        """At the end, what is there is right."""
        if hasattr(self, "held"):
            for key in KEYS:
                self.get(key)


TestPressure = PressureMachine.TestCase
TestPressure.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
