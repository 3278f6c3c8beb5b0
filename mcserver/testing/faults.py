"""Planted faults: which commands meet one, and in what order. What a fault does on the wire is conversation.py's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from mcserver.testing.commands import VERBS, Command

OUT_OF_MEMORY = b"SERVER_ERROR out of memory storing object"


@dataclass
class Fault:
    """One planted fault: delay, error, drop, half, blackhole or slow, by the method of Faults that plants it.

    `after`: matching commands that still go well; `times`: how many it still hits, None: all; `hits`: how many it has hit. Of a
    delay `seconds`, of an error its line, of a slow reply its bytes a second.
    """

    kind: str
    verb: str | None
    key: str | None
    after: int
    times: int | None
    seconds: float = 0.0
    text: bytes = b""
    rate: float = 0.0
    hits: int = field(default=0)

    def matches(self, command: Command) -> bool:
        return command.matches(self.verb, self.key)

    def meets(self, command: Command) -> bool:
        """Whether this command is one that it hits; counts it."""
        if self.times == 0 or not self.matches(command):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.hits += 1
        return True


class Faults:
    """Plants faults; each method returns the same object, so that they can be chained.

    A fault hits commands with this `verb` (None: any) and, with `key`, those with a key that fits the pattern (`user:*`).
    `after`: so many of these still go well, from 0; `times`: how many it hits, from 1 (None: all that come). Those that were
    planted first come first; a delay goes together with another fault. Raises ValueError for a verb that is no command's and for
    numbers out of range, TypeError for a verb or key that is no str.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None, before: Callable[[], None] = lambda: None) -> None:
        """changed: called when `refusing` did, or all faults are gone; before: before anything is planted or taken away."""
        self.refusing = False
        """Whether new connections are refused."""
        self._changed = changed
        self._before = before
        self._planted: list[Fault] = []
        self._lock = threading.Lock()

    def delay(
        self, verb: str | None, seconds: float, *, key: str | None = None, times: int | None = None, after: int = 0
    ) -> Faults:
        """The command waits for so many seconds, 0 or more, before it is carried out; other connections go on."""
        return self._plant(Fault("delay", verb, key, after, times, seconds=seconds))

    def error(
        self,
        verb: str | None,
        text: bytes | str = OUT_OF_MEMORY,
        *,
        key: str | None = None,
        times: int | None = None,
        after: int = 0,
    ) -> Faults:
        """The command has no effect and is answered with this line; one with noreply is answered with nothing.

        text: one line, its end may be left out; else ValueError, or TypeError.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"the answer of a fault is bytes or str, not {text!r}")
        line = (text.encode() if isinstance(text, str) else text).rstrip(b"\r\n")
        if not line or b"\n" in line:
            raise ValueError(f"{text!r} is not one line of an answer")
        return self._plant(Fault("error", verb, key, after, times, text=line + b"\r\n"))

    def drop(
        self, verb: str | None = None, *, key: str | None = None, times: int | None = None, after: int = 0
    ) -> Faults:
        """The connection is reset instead of an answer, and the command has no effect."""
        return self._plant(Fault("drop", verb, key, after, times))

    def half_reply(
        self, verb: str | None = None, *, key: str | None = None, times: int | None = None, after: int = 0
    ) -> Faults:
        """The command takes effect, the first half of its reply is sent, and the connection is closed."""
        return self._plant(Fault("half", verb, key, after, times))

    def blackhole(
        self, verb: str | None = None, *, key: str | None = None, times: int | None = None, after: int = 0
    ) -> Faults:
        """Neither this command nor any that follows it on its connection is answered or has an effect; nothing is closed."""
        return self._plant(Fault("blackhole", verb, key, after, times))

    def slow(
        self,
        verb: str | None = None,
        bytes_a_second: float = 1000.0,
        *,
        key: str | None = None,
        times: int | None = None,
        after: int = 0,
    ) -> Faults:
        """The reply comes at this rate, above 0, in pieces of a tenth of a second."""
        return self._plant(Fault("slow", verb, key, after, times, rate=bytes_a_second))

    def refuse(self) -> Faults:
        """New connections are refused (ECONNREFUSED), as if no server ran; those that are open go on."""
        self._before()
        self.refusing = True
        self._changed()
        return self

    def clear(self) -> None:
        """All faults are gone; connections that a blackhole swallowed are closed."""
        self._before()
        self._planted.clear()
        self.refusing = False
        self._changed()

    @property
    def planted(self) -> list[Fault]:
        """Those that can still hit."""
        return [fault for fault in list(self._planted) if fault.times != 0]

    def may_meet(self, command: Command) -> bool:
        """Whether one of them is for such a command; counts nothing."""
        return any(fault.times != 0 and fault.matches(command) for fault in list(self._planted))

    def meet(self, command: Command) -> list[Fault]:
        """The faults that this command meets: delays, then at most one other."""
        if not self._planted:
            return []
        found: list[Fault] = []
        with self._lock:
            for fault in self._planted:
                if (fault.kind == "delay" or all(each.kind == "delay" for each in found)) and fault.meets(command):
                    found.append(fault)
        return sorted(found, key=lambda fault: fault.kind != "delay")

    def _plant(self, fault: Fault) -> Faults:
        _check(fault)
        self._before()
        with self._lock:
            self._planted = [each for each in self._planted if each.times != 0]
            self._planted.append(fault)
        return self


def _check(fault: Fault) -> None:
    """Raises TypeError or ValueError for a fault that could never hit anything, which a test would not notice."""
    for name, word in (("verb", fault.verb), ("key", fault.key)):
        if word is not None and not isinstance(word, str):
            raise TypeError(f"the {name} of a fault is str or None, not {word!r}")
    if fault.verb is not None and fault.verb not in VERBS:
        raise ValueError(
            f"no command is named {fault.verb!r}: a fault's verb is one of {', '.join(sorted(VERBS))}, or None"
        )
    for name, number in (("after", fault.after), ("times", fault.times)):
        if number is not None and not isinstance(number, int):
            raise TypeError(f"`{name}` counts commands: it is a whole number, not {number!r}")
    for name, figure in (("seconds", fault.seconds), ("bytes_a_second", fault.rate)):
        if not isinstance(figure, int | float):
            raise TypeError(f"`{name}` is a number, not {figure!r}")
    if fault.after < 0 or (fault.times is not None and fault.times < 1):
        raise ValueError("a fault lets 0 or more commands go well (after), and hits 1 or more (times)")
    if not fault.seconds >= 0 or (fault.kind == "slow" and not fault.rate > 0):
        raise ValueError("a fault's delay is 0 seconds or more, and its rate above 0 bytes a second")
