"""The fleet's budget of writes: many servers, each with nothing but its own view of the log, in virtual time."""

from __future__ import annotations

import heapq
import random
from statistics import fmean, median
from typing import Any

import pytest

from mcserver.coordination import budget
from mcserver.coordination.budget import Budget
from mcserver.coordination.ports import SECOND

APPEND = 0.008  # s from the request to the answer
SEEN = 0.004  # s more until the others have read the entry
STEP = 1.0  # s; a server looks again after so long at the latest, as the publisher does


class Member:
    """Appends what waits here, one batch at a time."""

    def __init__(self, name: str, rate: float, max_stale: float) -> None:
        self.name = name
        self.budget = Budget(rate, max_stale, 0)
        self.arrived: list[float] = []  # what waits for the next batch
        self.busy = False
        self.took: list[float] = []  # s, of each delete
        self.appends = 0


class Fleet:
    """`flows`: deletes a second at each member."""

    def __init__(
        self, flows: list[float], rate: float, *, max_stale: float = 1e6, seed: int = 1, seen: float = SEEN
    ) -> None:
        self.seen = seen
        self.members = [Member(f"m{n}", rate, max_stale) for n in range(len(flows))]
        self.random = random.Random(seed)
        self.now = 0.0
        self.appended: list[float] = []
        self._events: list[tuple[float, int, Any, Any]] = []
        for member, flow in zip(self.members, flows, strict=True):
            if flow:
                self._at(self.random.expovariate(flow), self._arrive, (member, flow))

    def _at(self, when: float, call: Any, args: Any) -> None:
        heapq.heappush(self._events, (when, len(self._events) + int(self.random.random() * 1e9), call, args))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, call, args = heapq.heappop(self._events)
            call(*args)

    def _arrive(self, member: Member, flow: float) -> None:
        member.arrived.append(self.now)
        self._at(self.now + self.random.expovariate(flow), self._arrive, (member, flow))
        if not member.busy:
            member.busy = True
            self._try(member)

    def _try(self, member: Member) -> None:
        if seconds := member.budget.wait(member.name, len(self.members), int(self.now * SECOND)):
            self._at(self.now + min(seconds, STEP) * (0.75 + 0.5 * self.random.random()), self._try, (member,))
            return
        batch, member.arrived = member.arrived, []
        self._at(self.now + APPEND, self._appended, (member, batch))

    def _appended(self, member: Member, batch: list[float]) -> None:
        self.appended.append(self.now)
        member.appends += 1
        member.took += [self.now - when for when in batch]
        member.budget.appended(len(self.appended))
        self._at(self.now + self.seen, self._seen, (member.name, len(self.appended)))
        if member.arrived:
            self._try(member)
        else:
            member.busy = False

    def _seen(self, name: str, version: int) -> None:
        for member in self.members:
            member.budget.saw(name, 0, int(self.now * SECOND), version)

    def rate(self, since: float) -> float:
        return sum(when >= since for when in self.appended) / (self.now - since)

    def forget(self) -> None:
        """Only what comes from now on is looked at."""
        for member in self.members:
            member.took.clear()


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 50, 300])
def test_below_the_budget_an_answer_takes_what_an_append_takes(count: int) -> None:
    fleet = Fleet([60 / count] * count, 100.0, seed=count)
    fleet.run(20)
    took = [each for member in fleet.members for each in member.took]
    assert len(took) > 1000
    assert median(took) <= 1.5 * APPEND
    assert fmean(took) <= 1.5 * APPEND


def steady_rate(count: int) -> float:
    """Appends a second of a fleet that wants five times its budget, of 100 a second."""
    fleet = Fleet([500 / count] * count, 100.0, seed=count)
    fleet.run(8)
    since = fleet.now
    fleet.run(20)
    return fleet.rate(since)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 50, 300])
def test_above_the_budget_it_is_kept_and_used(count: int) -> None:
    assert 80 <= steady_rate(count) <= 115


@pytest.mark.parametrize("count", [10, 50])
def test_readers_that_lag_do_not_exceed_it(count: int) -> None:
    """A flow that begins at once: from the versions of its own appends each learns how many it has not seen yet."""
    fleet = Fleet([1000 / count] * count, 100.0, seed=count, seen=0.8)
    fleet.run(2)
    assert 150 <= len(fleet.appended) <= 200 + 100 + count, "two seconds' worth, one of a burst, one of each"


@pytest.mark.slow
def test_a_flow_that_begins_at_rest_is_stopped_by_what_is_seen_of_it() -> None:
    """Each of 300 has a token; 200 a second are left, of which certificates take all but a quarter."""
    fleet = Fleet([10.0] * 300, 200.0, max_stale=6.0)
    fleet.run(1)
    unknown = 3000 * (APPEND + SEEN)  # what nobody can have seen of the others yet
    assert len(fleet.appended) <= budget.BURST * budget.LEAST * 200 + 1.5 * unknown


def test_who_reads_nothing_any_more_appends_by_its_tokens() -> None:
    one = Budget(100.0, 1e6, 0)
    one.saw("a", 0, 0, 1)
    sent = 0
    for tick in range(1, 20_000):  # 20 s, in which the version of each append tells of fifty more that it has not seen
        if not one.wait("a", 50, tick * SECOND // 1000):
            sent += 1
            one.appended(1 + 50 * sent)
    assert 20 <= sent <= 80, "its part of what fifty share: two a second"


@pytest.mark.parametrize("count", [5, 50, 300])
def test_above_the_budget_nobody_waits_more_than_twice_the_median(count: int) -> None:
    fleet = Fleet([500 / count] * count, 100.0, seed=count)
    fleet.run(10)
    fleet.forget()
    fleet.run(10 + max(20, 10 * count / 100))
    waits = [fmean(member.took) for member in fleet.members]
    assert max(waits) <= 2 * median(waits)


@pytest.mark.slow
def test_a_noisy_member_does_not_slow_the_quiet_ones() -> None:
    fleet = Fleet([5000.0, *[0.5] * 49], 100.0)
    fleet.run(8)
    fleet.forget()
    since = fleet.now
    fleet.run(40)
    quiet = [each for member in fleet.members[1:] for each in member.took]
    assert median(quiet) <= 1.5 * APPEND
    assert sorted(quiet)[int(0.95 * len(quiet))] < 1
    assert fmean(fleet.members[0].took) < 0.5
    assert 70 <= fleet.rate(since) <= 115


def test_what_the_certificates_take_is_not_left_to_appends() -> None:
    fleet = Fleet([10.0] * 50, 100.0, max_stale=4.0)  # 50 certificates a second
    fleet.run(8)
    since = fleet.now
    fleet.run(20)
    assert 40 <= fleet.rate(since) <= 58


def test_a_quarter_is_left_to_appends_whatever_the_certificates_take() -> None:
    fleet = Fleet([10.0] * 50, 100.0, max_stale=1.0)  # 200 certificates a second
    fleet.run(8)
    since = fleet.now
    fleet.run(20)
    assert 20 <= fleet.rate(since) <= 29


def test_what_the_log_does_not_show_counts() -> None:
    one = Budget(100.0, 1e6, 0)
    one.unlogged = 42.0
    assert one.used(3, 0) == pytest.approx(42.0, abs=0.1)
    for n in range(60):
        one.wrote("locks", n)
    assert one.used(3, 60) == pytest.approx(60.0, abs=0.1), "what is known here of the last second, when it is more"


@pytest.mark.slow
def test_acknowledgements_go_at_once_below_the_budget_and_keep_it_above() -> None:
    members = [Budget(100.0, 1e6, 0) for _ in range(21)]
    wanted, sent, now = [False] * 21, 0, 0
    for tick in range(10_000):  # 10 s in steps of a millisecond; 20 entries a second, each for 20 acknowledgements
        now = tick * SECOND // 1000
        if tick % 50 == 0:
            for member in members:
                member.saw("m0", 20, now)
            wanted = [False, *[True] * 20]
        for n, member in enumerate(members):
            if wanted[n] and not member.wait_to_acknowledge(21, now):
                wanted[n] = False
                sent += tick >= 5_000
    assert 150 <= sent <= 450, "of the 100 a second in 5 s 20 went to appends each second, the most by far for acks"
    fresh = Budget(100.0, 1e6, 0)
    fresh.saw("m0", 20, 0)
    assert fresh.wait_to_acknowledge(21, 1) == 0


def never_backs_off(self: Budget, name: str, members: int, now: int) -> float:
    return 0.0


def own_share_of_all(self: Budget, name: str, members: int, now: int) -> float:
    """The landed rule: the budget divided by the members, whoever appends."""
    share = self.rate / members
    return self._tokens.take(share, now, False)


@pytest.mark.slow
def test_a_share_that_never_backs_off_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget.Budget, "wait", never_backs_off)
    assert steady_rate(50) > 115


def test_a_share_by_the_number_of_members_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget.Budget, "wait", own_share_of_all)
    fleet = Fleet([60.0, *[0.0] * 49], 100.0)
    fleet.run(20)
    assert median(fleet.members[0].took) > 1.5 * APPEND


def test_what_was_appended_to_a_log_that_went_back_counts_no_more() -> None:
    """Its versions are far above those of the restored log: they would count as thousands of appends not yet seen."""
    one = Budget(100.0, 1e6, 0)
    one.saw("m", 0, 0, 50_000)
    one.appended(50_001)
    one.saw("m", 0, 5 * SECOND, 10)
    assert one.used(1, 5 * SECOND) < 2
    assert one.wait("m", 1, 5 * SECOND) == 0
