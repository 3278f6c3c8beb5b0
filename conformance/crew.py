"""Runs many cases side by side, and says which of them a server did not survive.

Owns the pool, the order of cases, and what happens when a server dies or hangs: the run stops, the cases that were in
flight are run again one by one where the suite can start the server again, and otherwise it ends with the rest not run.
"""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from . import binary
from .notation import Case
from .runner import Result, Settings, run_case
from .servers import Lease, Servers
from .wire import BrokenError, Wire

DIGITS = string.digits + string.ascii_lowercase
DEATHS = 25  # after so many the run ends
TRIES = 3  # runs of a case that fails late, at most: the last one when the others are done
DYING = 1.0  # seconds that a server which closes connections has to end, or to answer again
NAMED = 12  # cases that a sentence names
ALONE = 16  # cases of those in flight that run again at a time, each on a server of its own
HANGS = "the server hangs"
NOT_RUN = "the server had ended"
STOPPED = "stopped after the first failure"
INTERRUPTED = "interrupted"


def base36(number: int) -> str:
    """A number in few characters, for keys."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
        if not number:
            return digits


def run(
    cases: Sequence[Case],
    servers: Servers,
    settings: Settings,
    done: Callable[[Result], None] = lambda _: None,
    puzzle: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Runs cases side by side, yields their results in the order of `cases`; `done` hears of each as it ends.

    `puzzle` hears of an end of the server that no case caused when it ran again alone. When settings.interrupt is
    set what has not begun is not run, and what is in flight comes to its end. The run is about as long as the longest wait.
    """
    crew = Crew(cases, servers, settings, done, puzzle)
    for group in _groups(cases, servers, settings):
        crew.work(group)
    for index in range(len(cases)):
        yield crew.results[index]


def lost(lease: Lease, settings: Settings) -> str:
    """How a server is lost, seen from a new connection: it ended, or it hangs; empty when it still answers."""
    asks = {"version": b"version\r\n", "mn": b"mn\r\n", "get": b"get mcconform.fence\r\n"}
    deadline = time.monotonic() + DYING
    while True:
        if lease.process and lease.process.stopped:
            return ""  # a server for one case alone, which the suite has ended since
        if lease.process and lease.process.dead:
            return lease.process.epitaph()
        try:
            with Wire(lease.address, settings.timeout, binary=settings.fence == "binary") as wire:
                if settings.fence == "binary":
                    binary.fence(wire)
                else:
                    wire.send(asks[settings.fence])
                    wire.line()
            return ""
        except BrokenError as error:
            if "hung" in error.reason:
                return f"{HANGS}: a new connection got no reply for {settings.timeout:g} s"
            if time.monotonic() > deadline:
                refused = "cannot reach" in error.reason
                return f"the server ended: it {'takes no connection any more' if refused else 'closes new connections'}"
        time.sleep(0.05)


def blame(result: Result, how: str, among: int = 0) -> None:
    """The server did not survive this case, or one of `among` that ran side by side."""
    result.deadly, result.among = True, among
    result.reason = how if how.startswith(result.reason) else f"{result.reason}; {how}"


class Crew:
    """One run: what is to do, what came of it, and how often the server died."""

    def __init__(
        self,
        cases: Sequence[Case],
        servers: Servers,
        settings: Settings,
        done: Callable[[Result], None],
        puzzle: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.cases = cases
        self.servers = servers
        self.settings = settings
        self.done = done
        self.puzzle = puzzle
        self.run_id = "".join(random.choices(DIGITS, k=4))
        self.attempts = 0
        self.results: dict[int, Result] = {}
        self.told: set[int] = set()
        self.deaths = 0
        self.over = ""  # why nothing more is run
        self.halt = threading.Event()
        self.guard = threading.Lock()
        self.ended = ""  # how the server was lost in this batch
        self.lost_at = 0.0  # when that was seen first

    def work(self, group: Sequence[int]) -> None:
        """Runs a group of cases to its end, through as many deaths of the server as are allowed."""
        left = list(group)
        while left:
            self.over = self.over or self.interrupted
            if self.over:
                for index in left:
                    self.finish(index, Result(self.cases[index], "not run", self.over))
                return
            self.halt.clear()
            self.ended, self.lost_at = "", 0.0
            batch = self.batch(left)
            suspects = self.suspects(batch)
            for index, result in batch.items():
                if index not in suspects and result.status != "not run":
                    self.finish(index, self.alone(result) if result.late else result)
            left = [index for index in left if index not in batch or batch[index].status == "not run"]
            if self.ended:
                self.question(suspects, batch)

    def batch(self, left: Sequence[int]) -> dict[int, Result]:
        """Runs cases until the server is lost; those that had not begun come back as not run."""
        results: dict[int, Result] = {}
        with ThreadPoolExecutor(self.settings.jobs) as pool:
            try:
                pending: dict[Future[Result], int] = {pool.submit(self.one, index): index for index in left}
                waiting = set(pending)
                while waiting:
                    ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in ended:
                        index, result = pending[future], future.result()
                        results[index] = result
                        if result.status != "not run" and not result.broken and not result.late:
                            self.told.add(index)
                            self.done(result)
            except BaseException:
                self.halt.set()
                raise
        return results

    def one(self, index: int) -> Result:
        """One case of a batch."""
        case = self.cases[index]
        if self.halt.is_set() or self.interrupted:
            return Result(case, "not run", self.over or self.interrupted or NOT_RUN)
        result = self.attempt(case, TRIES - 1)
        seen = time.monotonic()
        if result.broken and not self.halt.is_set() and result.lease:
            if how := lost(result.lease, self.settings):
                with self.guard:
                    self.ended = self.ended or how
                    self.lost_at = min(self.lost_at or seen, seen)
                self.halt.set()
            elif not self.halt.is_set():
                result.broken = ""  # the server lives: this case has lost its connection alone
        if self.settings.stop and result.status == "failed" and not result.late:
            self.over = self.over or STOPPED
            self.halt.set()
        return result

    def attempt(self, case: Case, tries: int) -> Result:
        """Runs a case; again, with other keys, where seconds decide and the machine was too busy for them."""
        for left in reversed(range(tries)):
            with self.guard:
                self.attempts += 1
                prefix = f"{self.run_id}.{base36(self.attempts)}."
            result = run_case(case, self.servers, self.settings, prefix)
            if not (left and result.late) or self.halt.is_set():
                break
        return result

    def alone(self, result: Result) -> Result:
        """The last run of a case that failed late beside others; the result that it has where nothing more is run."""
        if any((self.over, self.halt.is_set(), self.interrupted)):
            return result
        result = self.again(result.case, private=False, tries=1)
        if self.settings.stop and result.status == "failed":
            self.over = self.over or STOPPED
        return result

    def suspects(self, batch: dict[int, Result]) -> list[int]:
        """The cases that were in flight when the server was lost: what failed with a broken connection.

        A server that ends closes its connections: who waited on one until the time-out was not among them, and who first
        asked it something afterwards (it slept till then, or had just begun) has not been run.
        """
        if not self.ended:
            return []
        broken = [index for index, result in batch.items() if result.status == "failed" and result.broken]
        if self.hangs:
            return broken
        cut = [index for index in broken if not batch[index].broken.startswith("hung")] or broken
        afterwards = [index for index in cut if self.lost_at and not 0 < batch[index].sent <= self.lost_at]
        if len(afterwards) == len(cut):
            return cut
        for index in afterwards:
            batch[index] = Result(self.cases[index], "not run", NOT_RUN)
        return [index for index in cut if index not in afterwards]

    def question(self, suspects: Sequence[int], batch: dict[int, Result]) -> None:
        """Runs those in flight again, alone; without a way to start the server again they share the blame."""
        self.deaths += 1
        lease = next((r.lease for r in batch.values() if r.broken and r.lease), None)
        if not self.servers.restartable or lease is None or not self.servers.restart(lease):
            among = len(suspects) if len(suspects) > 1 else 0
            others = f"; {among} cases were in flight: --jobs 1, --restart or --spawn names the one" if among else ""
            for index in suspects:
                blame(batch[index], self.ended + others, among)
                self.finish(index, batch[index])
            self.over = self.over or NOT_RUN
            return
        private = self.servers.private and not self.hangs
        with ThreadPoolExecutor(ALONE if private else 1) as pool:
            again = pool.map(lambda index: self.again(self.cases[index], private=private), suspects)
            for index, result in zip(suspects, again, strict=True):
                self.finish(index, result)
        if not any(self.results[index].deadly for index in suspects) and not self.interrupted:
            names = [self.cases[index].id for index in suspects]
            told = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            self.puzzle(f"{self.ended}, while {told} ran, and not again when each ran alone")

    def again(self, case: Case, *, private: bool, tries: int = TRIES) -> Result:
        """Runs a case with nobody beside it: on a server of its own, or when its turn comes; whether the server survives it."""
        if self.over or self.interrupted:
            return Result(case, "not run", self.over or self.interrupted)
        result = self.attempt(replace(case, needs=case.needs | {"fresh"}) if private else case, tries)
        result.case = case
        how = lost(result.lease, self.settings) if result.broken and result.lease else ""
        if how and result.lease:
            blame(result, how)
            with self.guard:
                self.deaths += 1
            if self.deaths > DEATHS or not (private or self.servers.restart(result.lease)):
                self.over = f"the server had died {DEATHS} times" if self.deaths > DEATHS else NOT_RUN
        return result

    @property
    def interrupted(self) -> str:
        """Why the rest is not run, when somebody ends the run."""
        return INTERRUPTED if self.settings.interrupt.is_set() else ""

    @property
    def hangs(self) -> bool:
        """Whether the server was lost by hanging, and not by its end."""
        return self.ended.startswith(HANGS)

    def finish(self, index: int, result: Result) -> None:
        result.lease = None
        self.results[index] = result
        if index not in self.told:
            self.done(result)


def _groups(cases: Sequence[Case], servers: Servers, settings: Settings) -> list[list[int]]:
    """The order to start cases in: the longest waits first, what must be alone on its server last.

    On a server that all cases share, what would harm the others is a group of its own, after them.
    """

    def rank(index: int) -> tuple[float, bool, bool]:
        case = cases[index]
        return -case.seconds(settings.profile), "fresh" not in case.needs, case.exclusive

    order = sorted(range(len(cases)), key=rank)
    if not servers.shared_by_all:
        return [order]
    return [[index for index in order if cases[index].exclusive == alone] for alone in (False, True)]
