"""The engine against the model: several connections, all data commands, time, flushes, and what coordination does.

The memory is ample here; test_pressure.py is about what must hold when it is not.
"""

import os
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.core.harness import MIB, Client, crawl, fresh
from tests.stateful.comparing import Comparison
from tests.stateful.model import Model
from tests.stateful.streams import CLASSIC_KEYS, Commands
from tests.stateful.wire import ModelSession

SEEDS = st.integers(0, 2**32 - 1)
PREFIXES = st.sampled_from([b"", b"p", b"p:", b"p:1", b"k", b"none"])
SESSIONS = 3


class CacheMachine(RuleBasedStateMachine):
    """Every command goes to both; every reply must be the same."""

    @initialize(cas=st.booleans(), segmented=st.booleans())
    def start(self, cas: bool, segmented: bool) -> None:
        self.model = Model(use_cas=cas)
        first = fresh(memory_limit=64 * MIB, cas=cas, segmented=segmented)
        self.engine = first.engine
        self.clients = [first, *(Client(self.engine) for _ in range(SESSIONS - 1))]
        self.sessions = [ModelSession(self.model) for _ in range(SESSIONS)]
        self.unsent = [(b"", b"")] * SESSIONS
        self.comparison = Comparison(self.model, Random(0))
        self.commands = Commands(Random(0), self.comparison.choose, lifetimes=(0, 0, 1, 2, 100, -1, 2592000))

    def reseed(self, seed: int) -> Random:
        """Makes what follows depend on the seed only."""
        self.commands.random = self.comparison.random = Random(seed)
        return self.commands.random

    def check(self, number: int, ours: bytes, theirs: bytes) -> None:
        """Feeds both; ``theirs`` is the same command with the engine's CAS uniques."""
        expected, actual = self.sessions[number].feed(ours), self.clients[number].send(theirs)
        self.comparison.note()
        assert self.comparison.same(expected, actual), (
            f"\nsent     {theirs!r}\nexpected {expected!r}\ngot      {actual!r}"
        )

    def finish(self, number: int) -> None:
        """Sends what is left of a command that was cut off."""
        (ours, theirs), self.unsent[number] = self.unsent[number], (b"", b"")
        self.check(number, ours, theirs)

    @rule(seed=SEEDS, number=st.integers(0, SESSIONS - 1), count=st.integers(1, 6))
    def send(self, seed: int, number: int, count: int) -> None:
        self.finish(number)
        self.reseed(seed)
        for _ in range(count):
            command = self.commands.any()
            self.check(number, command, self.comparison.translate(command))

    @rule(seed=SEEDS, number=st.integers(0, SESSIONS - 1), count=st.integers(1, 8), cuts=st.integers(0, 5))
    def send_in_pieces(self, seed: int, number: int, count: int, cuts: int) -> None:
        self.finish(number)
        random = self.reseed(seed)
        commands = [self.commands.any() for _ in range(count)]
        ours, theirs = b"".join(commands), b"".join(self.comparison.translate(command) for command in commands)
        expected, actual, at = self.sessions[number].feed(ours), b"", 0
        for cut in sorted(random.randint(0, len(theirs)) for _ in range(cuts)):
            actual += self.clients[number].send(theirs[at:cut])
            at = cut
        actual += self.clients[number].send(theirs[at:])
        self.comparison.note()
        assert self.comparison.same(expected, actual), (
            f"\nsent     {theirs!r}\nexpected {expected!r}\ngot      {actual!r}"
        )

    @rule(seed=SEEDS, number=st.integers(0, SESSIONS - 1))
    def send_a_beginning(self, seed: int, number: int) -> None:
        self.finish(number)
        random = self.reseed(seed)
        ours = self.commands.any()
        theirs = self.comparison.translate(ours)
        if len(ours) != len(theirs):  # other CAS uniques, other cuts
            self.check(number, ours, theirs)
            return
        cut = random.randint(0, len(ours))
        self.unsent[number] = ours[cut:], theirs[cut:]
        self.check(number, ours[:cut], theirs[:cut])

    @rule(seconds=st.sampled_from([1, 1, 2, 5, 50, 99, 101]))
    def advance(self, seconds: int) -> None:
        after = self.model.now + seconds
        due = self.model.flush_at
        if due and due - 2 <= after <= due:  # the second before a delayed flush belongs to either side
            seconds = due + 1 - self.model.now
        self.model.advance(seconds)
        self.engine.advance(seconds)

    @rule(delay=st.sampled_from([0, -1, 5, 60]), number=st.integers(0, SESSIONS - 1))
    def flush_all(self, delay: int, number: int) -> None:
        self.finish(number)
        self.check(number, b"flush_all %d\r\n" % delay, b"flush_all %d\r\n" % delay)

    @rule(key=st.sampled_from(CLASSIC_KEYS))
    def delete(self, key: bytes) -> None:
        assert self.engine.delete(key) == self.model.delete(key)

    @rule(key=st.sampled_from(CLASSIC_KEYS), ttl=st.sampled_from([1, 30]))
    def mark_stale(self, key: bytes, ttl: int) -> None:
        assert self.engine.mark_stale(key, ttl) == self.model.coordinated_stale(key, ttl)

    @rule(prefix=PREFIXES)
    def flush_prefix(self, prefix: bytes) -> None:
        self.engine.flush_prefix(prefix)
        self.model.flush_prefix(prefix)

    @rule(prefix=PREFIXES, ttl=st.sampled_from([1, 30]))
    def refresh_prefix(self, prefix: bytes, ttl: int) -> None:
        self.engine.refresh_prefix(prefix, ttl)
        self.model.refresh_prefix(prefix, ttl)
        self.comparison.note()

    @rule()
    def flush(self) -> None:
        self.engine.flush()
        self.model.flush()

    @rule(seed=SEEDS)
    def gate(self, seed: int) -> None:
        """A cache that can't prove that it is fresh answers as an empty one; what it holds is there again afterwards."""
        self.finish(0)
        self.reseed(seed)
        self.model.gated, self.commands.whole = True, 1.0
        self.engine.set_gate("miss", 0)
        for maker in (self.commands.mg, self.commands.ma, self.commands.touch):
            command = maker()
            self.check(0, command, self.comparison.translate(command))
        for verb in (b"get", b"gats"):
            command = self.commands.retrieve(verb)
            self.check(0, command, command)
        for verb in (b"set", b"add", b"append", b"cas"):
            command = self.commands.storage(verb)
            self.check(0, command, self.comparison.translate(command))
        self.model.gated, self.commands.whole = False, 0.98
        self.engine.set_gate(None)

    @rule(count=st.integers(1, 20))
    def background(self, count: int) -> None:
        for _ in range(count):
            self.engine.maintain()

    @rule()
    def reclaim(self) -> None:
        """After a whole pass of the crawler, only the living are counted."""
        crawl(self.engine)
        living = [key for key in list(self.model.items) if self.model.find(key)]
        assert self.engine.stats()["curr_items"] == len(living)
        numbers = [stats["number"] for stats in self.engine.item_stats().values()]
        assert sum(numbers) == len(living)

    def teardown(self) -> None:
        """At the end every key says the same on both sides."""
        if not hasattr(self, "clients"):
            return
        for number in range(SESSIONS):
            self.finish(number)
        for key in CLASSIC_KEYS:
            command = b"mg %b s v f t c h k\r\n" % key
            self.check(0, command, command)


TestCache = pytest.mark.slow(CacheMachine.TestCase)
TestCache.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_the_tests_leave_nothing_to_chance() -> None:
    """A run on another machine makes the same examples, and no slow machine makes it fail; `scripts/soak --tests` may."""
    if "MCSERVER_SOAK" not in os.environ:
        for each in (settings(), TestCache.settings):
            assert each.derandomize
            assert each.deadline is None
            assert each.database is None
            assert HealthCheck.too_slow in each.suppress_health_check
