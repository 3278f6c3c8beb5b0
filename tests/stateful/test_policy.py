"""The engine against the model of its policy: the same lists in the same order, the same victims, the same worth."""

from math import isclose

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.harness import MIB, Client, crawl, fresh, settle
from tests.fading import worth_of_new
from tests.stateful.invariants import check_figures
from tests.stateful.policy import COLD, HOT, TEMP, WARM, Policy, giver

PAGE = 65_536  # of a memory of 2 MiB, which has 32
NO_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
KEYS = st.integers(0, 150).map(lambda i: b"k%d" % i)
LIFETIMES = st.sampled_from([0, 0, 0, 0, 3, 8, 40, -1])


def check_lists(client: Client, model: Policy, number: int, cls: int) -> None:
    """The same items in the same lists and the same order, and the same worth of the next page."""
    c = model.classes[number]
    order = [
        (item.key, item.nbytes)
        for name in (COLD, HOT, TEMP)
        for item in reversed(c.lists[name])
        if not model.dead(item)
    ]
    assert [(key, nbytes) for found in client.engine.cachedump(cls, 0) for key, nbytes, _ in found] == order
    figures = client.engine.item_stats().get(cls)
    if not any(c.lists.values()):
        assert figures is None
        return
    assert figures is not None
    for segment in (HOT, WARM, COLD, TEMP):
        assert figures[f"number_{segment}"] == c.count(segment), segment
    assert figures["mem_requested"] == sum(item.size for item in c.items())
    assert isclose(figures["page_worth"], model.page_worth(c), rel_tol=1e-9), (figures["page_worth"], c.ready)
    assert isclose(figures["new_worth"], worth_of_new(c.came, c.wanted), rel_tol=1e-9), (
        figures["new_worth"],
        c.came,
        c.wanted,
    )
    assert isclose(figures["use_ratio"], c.uses.ratio(model.uses), rel_tol=1e-9), (figures["use_ratio"], c.uses)


class OneClassMachine(RuleBasedStateMachine):
    """A full memory of one class, followed step by step."""

    @initialize(
        chunk=st.sampled_from([3000, 8000]),
        segmented=st.booleans() | st.just(True),
        evictions=st.booleans() | st.just(True),
        maintained=st.booleans(),
        hot_pct=st.sampled_from([20, 5, 60]),
        temporary_ttl=st.sampled_from([-1, 5]),
    )
    def start(
        self, chunk: int, segmented: bool, evictions: bool, maintained: bool, hot_pct: int, temporary_ttl: int
    ) -> None:
        self.client = fresh(
            memory_limit=2 * MIB,
            slab_sizes=[chunk + 48],
            segmented=segmented,
            evictions=evictions,
            maintained=maintained,
            hot_lru_pct=hot_pct,
            warm_lru_pct=20,
            temporary_ttl=temporary_ttl,
        )
        self.engine = self.client.engine
        self.engine.automove = 0  # no page goes to the pool behind the model's back
        self.engine.crawler_enabled = False
        self.largest = chunk - 20
        size = chunk + 48
        self.model = Policy(
            [size],
            PAGE,
            2 * MIB // PAGE * (PAGE // size),
            segmented=segmented,
            evictions=evictions,
            maintained=maintained,
            hot_pct=hot_pct,
            temporary_ttl=temporary_ttl,
        )
        self.departed: list[bytes] = []
        self.engine.observe(4, lambda _kind, fields: self.departed.append(fields["key"]))
        self.count = 0
        self.scan(self.model.capacity or 0, 10)  # full from the beginning

    def scan_key(self) -> bytes:
        self.count += 1
        return b"s%d" % self.count

    def set(self, key: bytes, nbytes: int, exptime: int = 0) -> None:
        stored = self.model.set(key, nbytes, exptime)
        assert self.client.set(key, b"x" * nbytes, exptime=exptime) == (b"STORED\r\n" if stored else NO_MEMORY)

    def scan(self, count: int, nbytes: int) -> None:
        for _ in range(count):
            self.set(self.scan_key(), nbytes)

    @rule(key=KEYS, share=st.floats(0, 1), exptime=LIFETIMES)
    def store(self, key: bytes, share: float, exptime: int) -> None:
        self.set(key, int(self.largest * share), exptime)

    @rule(first=st.integers(0, 140), count=st.integers(1, 60), nbytes=st.sampled_from([1, 100, 2900]))
    def store_many(self, first: int, count: int, nbytes: int) -> None:
        for i in range(first, first + count):
            self.set(b"k%d" % i, nbytes)

    @rule(count=st.integers(1, 150), nbytes=st.sampled_from([1, 100, 2900]))
    def pass_by(self, count: int, nbytes: int) -> None:
        """Keys that nobody asks for again."""
        self.scan(count, nbytes)

    @rule(key=KEYS, times=st.integers(1, 5))
    def get(self, key: bytes, times: int) -> None:
        for _ in range(times):
            assert (self.client.get(key) is not None) == self.model.get(key)

    @rule(first=st.integers(0, 140), count=st.integers(1, 60), times=st.integers(1, 4))
    def get_many(self, first: int, count: int, times: int) -> None:
        for i in range(first, first + count):
            self.get(b"k%d" % i, times)

    @rule(times=st.integers(1, 4))
    def get_all(self, times: int) -> None:
        """More than are passed over for one chunk."""
        for key in [item.key for item in self.model.classes[0].items()]:
            self.get(key, times)

    @rule(key=KEYS, meta=st.booleans())
    def peek(self, key: bytes, meta: bool) -> None:
        """A look that is no use."""
        reply = self.client.send(b"mg %b u%b\r\n" % (key, b" v" if meta else b""))
        assert (reply != b"EN\r\n") == self.model.peek(key)

    @rule(key=KEYS, exptime=LIFETIMES)
    def touch(self, key: bytes, exptime: int) -> None:
        reply = self.client.send(b"touch %b %d\r\n" % (key, exptime))
        assert (reply == b"TOUCHED\r\n") == self.model.touch(key, exptime)

    @rule(key=KEYS, exptime=LIFETIMES)
    def gat(self, key: bytes, exptime: int) -> None:
        reply = self.client.send(b"gat %d %b\r\n" % (exptime, key))
        assert (reply != b"END\r\n") == self.model.touch(key, exptime)

    @rule(key=KEYS, exptime=st.sampled_from([0, 4, 30]))
    def meta_touch(self, key: bytes, exptime: int) -> None:
        reply = self.client.send(b"mg %b T%d\r\n" % (key, exptime))
        assert (reply == b"HD\r\n") == self.model.touch(key, exptime)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        reply = self.client.send(b"delete %b\r\n" % key)
        assert (reply == b"DELETED\r\n") == self.model.delete(key)

    @rule(key=KEYS, share=st.floats(0, 1), exptime=LIFETIMES)
    def add(self, key: bytes, share: float, exptime: int) -> None:
        nbytes = int(self.largest * share)
        reply = self.client.send(b"add %b 0 %d %d\r\n%b\r\n" % (key, exptime, nbytes, b"x" * nbytes))
        expected = {True: b"STORED\r\n", False: b"NOT_STORED\r\n", None: NO_MEMORY}
        assert reply == expected[self.model.add(key, nbytes, exptime)]

    @rule(key=KEYS, nbytes=st.integers(1, 50), front=st.booleans())
    def append(self, key: bytes, nbytes: int, front: bool) -> None:
        was = self.model.index.get(key)
        if was and was[1].nbytes + nbytes > self.largest:
            return
        verb = b"prepend" if front else b"append"
        reply = self.client.send(b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, nbytes, b"x" * nbytes))
        expected = {True: b"STORED\r\n", False: b"NOT_STORED\r\n", None: NO_MEMORY}
        assert reply == expected[self.model.append(key, nbytes)]

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.engine.advance(seconds)
        self.model.second += seconds

    @rule()
    def flush(self) -> None:
        """A flush meets a share of the items and frees the dead among them; the model does not know which: none are left."""
        if any(self.model.dead(item) for item in self.model.classes[0].items()):
            self.crawl()
        self.engine.flush()
        self.model.flush()

    @rule()
    def background(self) -> None:
        settle(self.engine)
        self.model.maintain()

    @rule()
    def crawl(self) -> None:
        crawl(self.engine)
        self.model.crawl()

    @invariant()
    def follows(self) -> None:
        if not hasattr(self, "model"):
            return
        check_lists(self.client, self.model, 0, 1)
        assert self.departed == self.model.departed
        stats = self.engine.stats()
        assert {name: stats[name] for name in self.model.counts} == self.model.counts
        used = self.engine.slab_stats()[0][1]["used_chunks"]
        assert used == self.model.used <= (self.model.capacity or 0)
        check_figures(self.engine)


TestOneClass = pytest.mark.slow(OneClassMachine.TestCase)
TestOneClass.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


class WorthMachine(RuleBasedStateMachine):
    """Several classes with room enough: what the next page of each is worth."""

    @initialize(hot_pct=st.sampled_from([20, 60]))
    def start(self, hot_pct: int) -> None:
        sizes = [152, 1048, 8048]
        self.client = fresh(memory_limit=16 * MIB, slab_sizes=sizes, hot_lru_pct=hot_pct, warm_lru_pct=20)
        self.model = Policy(sizes, PAGE, hot_pct=hot_pct)

    @rule(first=st.integers(0, 300), count=st.integers(1, 100), size=st.sampled_from([10, 700, 7500]))
    def store(self, first: int, count: int, size: int) -> None:
        for i in range(first, first + count):
            key = b"%d:%d" % (size, i)
            assert self.client.set(key, b"x" * size) == b"STORED\r\n"
            self.model.set(key, size)

    @rule(first=st.integers(0, 300), count=st.integers(1, 60), size=st.sampled_from([10, 700, 7500]))
    def get(self, first: int, count: int, size: int) -> None:
        for i in range(first, first + count):
            key = b"%d:%d" % (size, i)
            assert (self.client.get(key) is not None) == self.model.get(key)

    @rule(first=st.integers(0, 300), count=st.integers(1, 60), size=st.sampled_from([10, 700, 7500]))
    def delete(self, first: int, count: int, size: int) -> None:
        for i in range(first, first + count):
            key = b"%d:%d" % (size, i)
            reply = self.client.send(b"delete %b\r\n" % key)
            assert (reply == b"DELETED\r\n") == self.model.delete(key)

    @invariant()
    def worths_are_the_models(self) -> None:
        if hasattr(self, "model"):
            for number in range(3):
                check_lists(self.client, self.model, number, number + 1)


TestWorth = WorthMachine.TestCase
TestWorth.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)


class GiverMachine(RuleBasedStateMachine):
    """Several classes in a full memory: which of them gives a page when another one needs it."""

    SIZES = (60, 600, 2500, 7000)

    @initialize(automove=st.sampled_from([1, 2]))
    def start(self, automove: int) -> None:
        self.client = fresh(memory_limit=4 * MIB, slab_sizes=[148, 1048, 3048, 7548])
        self.engine = self.client.engine
        self.engine.automove = automove
        self.margin = 1.25 if automove == 1 else 1.0
        self.count = self.seen = 0
        for size in self.SIZES:
            for _ in range(2 * MIB // (size + 60)):
                self.set_one(size)

    def set_one(self, size: int) -> None:
        self.count += 1
        assert self.client.set(b"%d:%d" % (size, self.count % 3000), b"x" * size) == b"STORED\r\n"

    def pages_moved(self) -> dict[int, int]:
        return {cls: figures["pages_given"] for cls, figures in self.engine.slab_stats()[0].items()}

    def store_and_watch(self, size: int) -> None:
        """One store; if a page went on its way because of it, the right class gives it."""
        if self.engine.stats()["slab_reassign_running"]:
            self.set_one(size)
            return
        worths = {cls: figures["page_worth"] for cls, figures in self.engine.item_stats().items()}
        classes = self.engine.slab_stats()[0]
        given, moves = self.pages_moved(), self.engine.stats()["slabs_moved"]
        taker = self.SIZES.index(size) + 1
        self.set_one(size)
        for _ in range(400):
            if not self.engine.stats()["slab_reassign_running"]:
                break
            self.engine.maintain()
        if self.engine.stats()["slabs_moved"] == moves:
            return
        gave = [cls for cls, pages in self.pages_moved().items() if pages > given.get(cls, 0)]
        pages = {cls: figures["total_pages"] for cls, figures in classes.items()}
        self.seen += 1
        assert gave == [giver(worths, pages, taker, self.margin)], (gave, taker, worths, pages)

    @rule(size=st.sampled_from(SIZES), count=st.integers(1, 150))
    def store(self, size: int, count: int) -> None:
        for _ in range(count):
            self.store_and_watch(size)

    @rule(size=st.sampled_from(SIZES), first=st.integers(0, 2900), count=st.integers(1, 400))
    def use(self, size: int, first: int, count: int) -> None:
        for i in range(first, first + count):
            self.client.send(b"mg %d:%d\r\n" % (size, i))

    @invariant()
    def figures_are_true(self) -> None:
        if hasattr(self, "engine"):
            check_figures(self.engine)
            assert self.engine.slab_stats()[2] <= 4 * MIB


TestGiver = pytest.mark.slow(GiverMachine.TestCase)
TestGiver.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
