"""Runs a case: one connection and one set of keys of its own, in nobody's way.

Owns the execution of a case and what it keeps of it. It prints nothing; crew.py runs many side by side.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import binary
from .binary import ExpectFrame
from .notation import Act, Case, Expect, ExpectList, Line, Send, Step, Until, Version
from .servers import Lease, RefusedError, Servers
from .text import MAX_ITEM, Scope
from .wire import BrokenError, UnreachableError, Wire


@dataclass(frozen=True)
class Settings:
    """How a run goes about its cases.

    timeout: seconds that each reply may take. fence: what proves that nothing more comes (version, mn or get).
    max_item: the item size limit, bytes. unsupported: why the server need not pass a case; empty when it must.
    interrupt: once set, no case is begun.
    """

    profile: Version
    timeout: float = 5.0
    split: bool = False
    jobs: int = 64
    stop: bool = False
    verbose: bool = False
    fence: str = "version"
    max_item: int = MAX_ITEM
    unsupported: Callable[[Case], str] = lambda case: ""
    interrupt: threading.Event = field(default_factory=threading.Event)


@dataclass
class Failure:
    """What was wanted and what came, as bytes; reason is one sentence."""

    reason: str
    wanted: bytes = b""
    got: bytes = b""


@dataclass
class Result:
    """One case's outcome. log: (connection, `>` or `<`, bytes) in order; where the case waited, `~` and how long."""

    case: Case
    status: str  # one of STATUSES
    reason: str = ""
    failure: Failure | None = None
    log: list[tuple[int, str, bytes]] = field(default_factory=list)
    seconds: float = 0.0
    broken: str = ""  # the connection broke, or the server was silent: how
    deadly: bool = False  # the server died or hung while this case ran alone, or it was one of those in flight
    among: int = 0  # cases that were in flight when the server was lost, where nothing tells which of them it was
    sent: float = 0.0  # when it last sent something
    lease: Lease | None = None
    begun: float = 0.0
    late: bool = False  # a case about seconds failed, and took so much longer than its waits that this may be why


STATUSES = ("passed", "failed", "expected", "skipped", "unsupported", "not run")
LATE = 0.3  # seconds beyond its waits after which a case about seconds may fail because the machine is busy
KEPT = 1 << 16  # bytes of replies that a failing case keeps


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
        self.scope = Scope(prefix, lambda: int(time.time()), max_item=settings.max_item)
        self.broken = ""
        self.kept = 0
        self.waited = 0.0
        self.sent = 0.0
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
            if error.reason.startswith(("hung", "the server", "cannot reach")):
                self.broken = error.reason
            if self.lease.process and self._ended():
                self.broken = "died"
                return Failure(self.lease.process.epitaph(), wanted, error.got)
            return Failure(error.reason, wanted, error.got)
        finally:
            for wire in [*self.wires.values(), *self.crowd]:
                wire.close()
        return None

    def undo(self) -> None:
        """Puts back what the case changed before it failed, as far as the server lets it: the next case counts on it."""
        with contextlib.suppress(BrokenError), Wire(self.lease.address, self.settings.timeout) as wire:
            for line in self.case.undo:
                wire.send(line.encode() + b"\r\n")
                wire.line()

    def wanted(self, step: Step) -> bytes:
        """What the report says was wanted at this step."""
        if isinstance(step, Expect | Until):
            return step.text.render(self.scope)
        if isinstance(step, ExpectFrame):
            return step.describe(self.scope)
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
            elif isinstance(step, ExpectFrame):
                self.expect_frame(wire, step)
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
        self.sent = time.monotonic()
        wire.send(data)
        while step.patient and wire.peek(b"BUSY "):
            wire.line()
            time.sleep(0.05)
            wire.send(data)

    def wire(self) -> Wire:
        """The connection in use, made when it is first used."""
        if self.current not in self.wires:
            split = self.settings.split and "whole" not in self.case.needs
            binary = self.case.suite == "binary"
            self.wires[self.current] = Wire(self.lease.address, self.settings.timeout, split=split, binary=binary)
        return self.wires[self.current]

    def keep_log(self, wire: Wire) -> None:
        for way, data in wire.log:
            if way == "<":
                self.kept += len(data)
                if self.kept > KEPT:
                    continue
            self.log.append((self.current, way, data))
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
            self.log.append((self.current, "~", b"%g s" % step.amount))
            time.sleep(step.amount)
            self.waited += step.amount
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
        """Proves that nothing more comes on a connection, and that it still works: the fence is answered next."""
        wire = self.wires[number]
        if self.case.suite == "binary":
            binary.fence(wire)
            return
        ask, start = {
            "version": (b"version\r\n", b"VERSION"),
            "mn": (b"mn\r\n", b"MN\r\n"),
            "get": (b"get " + self.scope.key("fence") + b"\r\n", b"END\r\n"),
        }[self.settings.fence]
        wire.send(ask)
        line = wire.line()
        if not line.startswith(start):
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

    def expect_frame(self, wire: Wire, step: ExpectFrame) -> None:
        """Reads a reply and holds it against what is wanted; a patient step reads on until it comes."""
        deadline = time.monotonic() + self.settings.timeout
        while True:
            header, body = binary.take(wire)
            wrong = step.check(header, body, self.scope)
            if not wrong:
                return
            if not step.patient or time.monotonic() > deadline or not body:
                got = "\n".join(binary.describe(binary.HEADER.pack(*header) + body)).encode()
                raise _Unmet(Failure(f"wrong reply: {wrong}", step.describe(self.scope), got))

    def expect_list(self, wire: Wire, step: ExpectList) -> None:
        """Reads a list and holds each demand against it."""
        lines = wire.lines(step.end.render(self.scope) + b"\r\n")
        at = 0
        for demand in step.lines:
            at = self.demand(demand, lines, at)

    def demand(self, demand: Line, lines: list[bytes], at: int) -> int:
        """One demand on a list; returns the position behind the line that met it."""
        if demand.word in {"lines", "least"}:
            if len(lines) != demand.count and (demand.word == "lines" or len(lines) < demand.count):
                wanted = b"%d lines" % demand.count + (b" or more" if demand.word == "least" else b"")
                raise _Unmet(Failure(f"{len(lines)} lines came", wanted, b"".join(lines)))
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
    if why := settings.unsupported(case):
        return Result(case, "unsupported", why)
    if not case.applies(settings.profile):
        reason = "says nothing about version " + ".".join(map(str, settings.profile))
    elif settings.split and "whole" in case.needs:
        reason = "needs its writes in one piece: not with --split"
    if reason:
        return Result(case, "skipped", reason)
    begun = time.monotonic()
    result = Result(case, "passed", begun=begun)
    try:
        with servers.lend(case) as result.lease:
            exchange, sent = Exchange(case, result.lease, settings, prefix), time.monotonic()
            result.failure = exchange.run()
            late = time.monotonic() - sent - exchange.waited > LATE and case.timed(settings.profile)
            result.late = late and result.failure is not None and not exchange.broken
            result.broken, result.sent = exchange.broken, exchange.sent
            if result.failure and case.undo and not exchange.broken:
                exchange.undo()
            result.log = exchange.log if result.failure or settings.verbose else []
    except RefusedError as error:
        return Result(case, "skipped", error.reason)
    except UnreachableError as error:
        result.failure, result.broken = Failure(error.reason), error.reason
    result.seconds = time.monotonic() - begun
    if result.failure:
        result.status, result.reason = "failed", result.failure.reason
        result.failure.got = result.failure.got[:KEPT]
    return result
