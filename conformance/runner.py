"""Runs cases: one connection and one set of keys each, side by side, none in the way of another.

Owns the execution of a case and the pool that runs many. It prints nothing and decides nothing about exit codes.
"""

from __future__ import annotations

import contextlib
import random
import string
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from .notation import Act, Case, Expect, ExpectList, Line, Send, Step, Until, Version
from .servers import Lease, RefusedError, Servers
from .text import Scope
from .wire import BrokenError, UnreachableError, Wire

DIGITS = string.digits + string.ascii_lowercase


@dataclass(frozen=True)
class Settings:
    """How a run goes about its cases. timeout: seconds that each reply may take."""

    profile: Version
    timeout: float = 5.0
    split: bool = False
    jobs: int = 64
    stop: bool = False


@dataclass
class Failure:
    """What was wanted and what came, as bytes; reason is one sentence."""

    reason: str
    wanted: bytes = b""
    got: bytes = b""


@dataclass
class Result:
    """One case's outcome. log: (connection, `>` or `<`, bytes) in order."""

    case: Case
    status: str  # passed, failed, skipped
    reason: str = ""
    failure: Failure | None = None
    log: list[tuple[int, str, bytes]] = field(default_factory=list)
    seconds: float = 0.0


class _Unmet(Exception):  # noqa: N818  # a control flow of this module, not an error of the program
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Exchange:
    """One case against one server."""

    def __init__(self, case: Case, lease: Lease, settings: Settings, prefix: str) -> None:
        self.case = case
        self.lease = lease
        self.settings = settings
        self.scope = Scope(prefix, lambda: int(time.time()))
        self.wires: dict[int, Wire] = {}
        self.crowd: list[Wire] = []
        self.muted: set[int] = set()
        self.current = 1
        self.log: list[tuple[int, str, bytes]] = []

    def run(self) -> Failure | None:
        """Goes through the exchange; None when the requirement is met."""
        wanted = b""
        try:
            for step in self.case.exchange(self.settings.profile):
                wanted = self.wanted(step)
                self.step(step)
            wanted = b"nothing more"
            for number in sorted(self.wires.keys() - self.muted):
                self.fence(number)
        except _Unmet as unmet:
            return unmet.failure
        except BrokenError as error:
            if self.lease.process and self._ended():
                return Failure(self.lease.process.epitaph(), wanted, error.got)
            return Failure(error.reason, wanted, error.got)
        finally:
            for wire in [*self.wires.values(), *self.crowd]:
                wire.close()
        return None

    def wanted(self, step: Step) -> bytes:
        """What the report says was wanted at this step."""
        if isinstance(step, Expect | Until):
            return step.text.render(self.scope)
        if isinstance(step, ExpectList):
            return b"a list that ends with " + step.end.render(self.scope)
        return b"the connection closed" if isinstance(step, Act) and step.word == "closed" else b""

    def step(self, step: Step) -> None:
        """Does one step; raises _Unmet or BrokenError when the server does not."""
        if isinstance(step, Act):
            self.act(step)
            return
        wire = self.wire()
        try:
            if isinstance(step, Send):
                self.send(wire, step)
            elif isinstance(step, ExpectList):
                self.expect_list(wire, step)
            elif isinstance(step, Until):
                self.until(wire, step)
            elif step.text.bindings:
                line = wire.line()
                if wrong := step.text.match(line, self.scope):
                    raise _Unmet(Failure(f"wrong reply: {wrong}", step.text.render(self.scope), line))
            else:
                wire.exactly(step.text.render(self.scope))
        finally:
            self.keep_log(wire)

    def send(self, wire: Wire, step: Send) -> None:
        """Sends; a patient command again and again, until the server is no longer busy with another."""
        data = step.text.render(self.scope)
        wire.send(data)
        while step.patient and wire.peek(b"BUSY "):
            wire.line()
            time.sleep(0.05)
            wire.send(data)

    def wire(self) -> Wire:
        """The connection in use, made when it is first used."""
        if self.current not in self.wires:
            split = self.settings.split and "whole" not in self.case.needs
            self.wires[self.current] = Wire(self.lease.address, self.settings.timeout, split=split)
        return self.wires[self.current]

    def keep_log(self, wire: Wire) -> None:
        self.log.extend((self.current, way, data) for way, data in wire.log)
        wire.log.clear()

    def act(self, step: Act) -> None:
        """Closing, waiting, changing the connection."""
        if step.word == "closed":
            self.wire().end()
            self.muted.add(self.current)
        elif step.word == "hangup":
            self.wire().close()
            self.muted.add(self.current)
        elif step.word == "wait":
            time.sleep(step.amount)
        elif step.word == "use":
            self.current = int(step.amount)
            self.wire()
        elif step.word == "mute":
            self.muted.add(self.current)
        elif step.word == "crowd":
            with contextlib.suppress(UnreachableError):  # a full server may leave the next one waiting
                for _ in range(int(step.amount)):
                    self.crowd.append(Wire(self.lease.address, min(1.0, self.settings.timeout)))
        elif self.lease.process:
            self.muted |= self.wires.keys()
            self.lease.process.wait(self.settings.timeout)

    def fence(self, number: int) -> None:
        """Proves that nothing more comes on a connection, and that it still works: `version` is answered next."""
        wire = self.wires[number]
        wire.send(b"version\r\n")
        line = wire.line()
        if not line.startswith(b"VERSION "):
            wire.buffer = line + wire.buffer
            raise BrokenError("an answer too many", line)

    def until(self, wire: Wire, step: Until) -> None:
        """Drops lines until the wanted one; others' events may stand between a watcher's lines."""
        deadline = time.monotonic() + self.settings.timeout
        last = b""
        while True:
            try:
                line = wire.line(deadline)
            except BrokenError as error:
                raise BrokenError(f"it never came ({error.reason})", last) from None
            if step.text.match(line, self.scope) is None:
                return
            last = line

    def expect_list(self, wire: Wire, step: ExpectList) -> None:
        """Reads a list and holds each demand against it."""
        lines = wire.lines(step.end.render(self.scope) + b"\r\n")
        at = 0
        for demand in step.lines:
            at = self.demand(demand, lines, at)

    def demand(self, demand: Line, lines: list[bytes], at: int) -> int:
        """One demand on a list; returns the position behind the line that met it."""
        if demand.word == "lines":
            if len(lines) != demand.count:
                raise _Unmet(Failure(f"{len(lines)} lines came", b"%d lines" % demand.count, b"".join(lines)))
            return at
        end = b"\n" if demand.word.endswith("lf") else b"\r\n"
        text = demand.text + end
        wanted = text.render(self.scope)
        if demand.word in {"each", "eachlf"}:
            for line in lines:
                if wrong := text.match(line, self.scope):
                    raise _Unmet(Failure(f"a line of the list is wrong: {wrong}", wanted, line))
            return at
        start = at if demand.word.startswith("next") else 0
        wrongs = []
        for position in range(start, len(lines)):
            wrong = text.match(lines[position], self.scope)
            if wrong is None:
                if demand.word == "none":
                    raise _Unmet(Failure("the list has a line it should not", wanted, lines[position]))
                return position + 1
            if wrong != "the text differs":
                wrongs.append((wrong, lines[position]))
        if demand.word == "none":
            return at
        if wrongs:
            raise _Unmet(Failure(f"a line of the list is wrong: {wrongs[0][0]}", wanted, wrongs[0][1]))
        nearest = b"".join(line for line in lines if line.split()[:2] == wanted.split()[:2]) or b"".join(lines)
        raise _Unmet(Failure("the list lacks a line" + " at its place" * (start > 0), wanted, nearest))

    def _ended(self) -> bool:
        """Whether the server's process has ended, or does so within a second of breaking a connection."""
        assert self.lease.process
        deadline = time.monotonic() + 1
        while not self.lease.process.dead and time.monotonic() < deadline:
            if not any(wire.ended for wire in self.wires.values()) and self.wires:
                break
            time.sleep(0.02)
        return self.lease.process.dead


def run_case(case: Case, servers: Servers, settings: Settings, prefix: str) -> Result:
    """Runs one case; whatever the server does becomes a result."""
    reason = servers.reason_to_skip(case)
    if not case.applies(settings.profile):
        reason = "says nothing about version " + ".".join(map(str, settings.profile))
    elif settings.split and "whole" in case.needs:
        reason = "needs its writes in one piece: not with --split"
    if reason:
        return Result(case, "skipped", reason)
    begun = time.monotonic()
    try:
        with servers.lend(case) as lease:
            exchange = Exchange(case, lease, settings, prefix)
            failure = exchange.run()
            log = exchange.log
    except RefusedError as error:
        return Result(case, "skipped", error.reason)
    except UnreachableError as error:
        failure, log = Failure(error.reason), []
    seconds = time.monotonic() - begun
    return Result(case, "failed" if failure else "passed", failure.reason if failure else "", failure, log, seconds)


def base36(number: int) -> str:
    """A number in few characters, for keys."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
        if not number:
            return digits


def run(
    cases: Sequence[Case], servers: Servers, settings: Settings, done: Callable[[Result], None] = lambda _: None
) -> Iterator[Result]:
    """Runs cases side by side, yields their results in the order of `cases`; `done` hears of each as it ends.

    The run is about as long as the longest wait.
    """
    run_id = "".join(random.choices(DIGITS, k=4))
    stopped = threading.Event()

    def one(index: int) -> Result:
        if stopped.is_set():
            return Result(cases[index], "skipped", "stopped after the first failure")
        result = run_case(cases[index], servers, settings, f"{run_id}.{base36(index)}.")
        if settings.stop and result.status == "failed":
            stopped.set()
        return result

    futures: dict[int, Future[Result]] = {}
    with ThreadPoolExecutor(settings.jobs) as pool:
        try:
            for group in _groups(cases, servers, settings):
                pending = set()
                for index in group:
                    futures[index] = pool.submit(one, index)
                    pending.add(futures[index])
                while pending:
                    ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in ended:
                        done(future.result())
        except BaseException:
            stopped.set()
            raise
    for index in range(len(cases)):
        yield futures[index].result()


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
