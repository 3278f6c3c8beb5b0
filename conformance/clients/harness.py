"""What a client's file is written with: scenarios, counted calls, checks.

A scenario is a name and the number of operations that it made. A client's surface is what introspection finds: an
operation that no scenario calls is reported, so "every operation of the client" is checked and not claimed. Owns no
process and no server; must not know any one client.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import distribution as find_distribution
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

ITEM_METHODS = ("__getitem__", "__setitem__", "__delitem__", "__contains__")
SECONDS_A_SCENARIO = 120.0
READS, SECONDS_BETWEEN_READS = 200, 0.05
LONGEST_REPR = 200


class ScenarioTimeoutError(BaseException):
    """A scenario ran over `SECONDS_A_SCENARIO`. Not an Exception: clients swallow those."""


@dataclass(frozen=True)
class Server:
    """The server under test, and two relays to it on this machine.

    `second` is another address of the same server, for clients that spread keys over several. `mute` takes all that a
    client sends to the server and never brings an answer back.
    """

    host: str
    port: int
    second: tuple[str, int]
    mute: tuple[str, int]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    @property
    def second_address(self) -> str:
        """HOST:PORT of the second way to the server."""
        return "{}:{}".format(*self.second)

    @property
    def mute_address(self) -> str:
        """HOST:PORT of the way that never answers."""
        return "{}:{}".format(*self.mute)


class Tally:
    """A client whose calls are counted, under `label.method`; everything else passes through."""

    def __init__(self, target: Any, label: str, calls: Counter[str], lock: threading.Lock) -> None:
        self._target = target
        self._label = label
        self._calls = calls
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._count(name)
            return attribute(*args, **kwargs)

        return counted

    def __getitem__(self, key: Any) -> Any:
        self._count("__getitem__")
        return self._target[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._count("__setitem__")
        self._target[key] = value

    def __delitem__(self, key: Any) -> None:
        self._count("__delitem__")
        del self._target[key]

    def __contains__(self, key: Any) -> bool:
        self._count("__contains__")
        return key in self._target

    def _count(self, name: str) -> None:
        with self._lock:
            self._calls[f"{self._label}.{name}"] += 1


@dataclass
class Run:
    """What one scenario is given: the server, keys of its own, and the counter."""

    server: Server
    prefix: str
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def called(self, operation: str) -> None:
        """Count one operation that no `Tally` sees."""
        with self.lock:
            self.calls[operation] += 1

    def key(self, name: object = "k") -> str:
        """A key that no other scenario and no other run uses."""
        return f"{self.prefix}:{name}"

    def keys(self, count: int) -> list[str]:
        """`count` keys of this scenario's own."""
        return [self.key(number) for number in range(count)]

    def count(self, target: Any, label: str | None = None) -> Any:
        """`target` with its calls counted, under its class's name unless `label` names another."""
        return Tally(target, label or type(target).__name__, self.calls, self.lock)


Scenario = Callable[[Run], Any]


@dataclass
class Client:
    """One client: where its version is found, what it can do, and its scenarios in order.

    `title` names it for readers, where that isn't its distribution. `distribution` is the Python distribution that has
    the version; `version` gives it for a client that is none. `surface` maps a label to the class whose public methods
    are operations; `not_operations` gives the reason for each method, as `name` or `label.name`, that talks to no server
    or that no scenario may call. `programs` are the operations of a client that is a set of commands.
    """

    distribution: str = ""
    version: str = ""
    title: str = ""
    surface: Mapping[str, type] = field(default_factory=dict)
    not_operations: Mapping[str, str] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    scenarios: list[Scenario] = field(default_factory=list)

    def scenario(self, function: Scenario) -> Scenario:
        """Decorator: the function is a scenario of this client; its name, with spaces, is the scenario's."""
        self.scenarios.append(function)
        return function

    def operations(self) -> set[str]:
        """All operations of the surface, as `label.method`, and the programs."""
        return set(self.programs) | {
            f"{label}.{name}"
            for label, kind in self.surface.items()
            for name in dir(kind)
            if (not name.startswith("_") or name in ITEM_METHODS)
            and callable(getattr(kind, name))
            and not inspect.isclass(getattr(kind, name))
            and not {name, f"{label}.{name}"} & self.not_operations.keys()
        }


def equal(actual: object, expected: object, what: str = "") -> None:
    """Fail unless the two are equal, and say what both are."""
    if actual != expected:
        raise AssertionError(f"{what + ': ' if what else ''}got {shown(actual)}, expected {shown(expected)}")


def check(condition: object, what: str) -> None:
    """Fail with `what` unless the condition holds."""
    if not condition:
        raise AssertionError(what)


def soon(read: Callable[[], object], expected: object) -> None:
    """Fail unless `read` gives what is expected within ten seconds: for what another connection has yet to do."""
    for _ in range(READS):
        if (actual := read()) == expected:
            return
        time.sleep(SECONDS_BETWEEN_READS)
    equal(actual, expected)


async def soon_read(read: Callable[[], Awaitable[object]], expected: object) -> None:
    """`soon` for what is awaited."""
    for _ in range(READS):
        if (actual := await read()) == expected:
            return
        await asyncio.sleep(SECONDS_BETWEEN_READS)
    equal(actual, expected)


@contextmanager
def raises(*kinds: type[BaseException], text: str = "") -> Iterator[None]:
    """Fail unless the block raises one of `kinds`, with `text` in its message."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds as error:
        check(text in f"{error!r} {error}", f"{names} says {shown(str(error))}, expected {text!r} in it")
    else:
        raise AssertionError(f"expected {names}")


def shown(value: object) -> str:
    """The value's repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}... ({len(text)} characters)"


def everything() -> bytes:
    """All 256 byte values, line ends and the protocol's own words: what a value may contain."""
    return bytes(range(256)) + b"\r\nEND\r\nSTORED\r\nVALUE x 0 1\r\n\r\n" + bytes(reversed(range(256)))


def run_client(client: Client, server: Server, out: TextIO, only: Sequence[str] = ()) -> None:
    """Run the client's scenarios, one JSON line for each, and a last line for the version and the operations."""
    total: Counter[str] = Counter()
    stamp = f"{time.time_ns():x}"
    for scenario in client.scenarios:
        if only and scenario.__name__.replace("_", " ") not in only:
            continue
        run = Run(server, f"{stamp}:{scenario.__name__}")
        started = time.monotonic()
        error = failure_of(scenario, run)
        total += run.calls
        report = {
            "scenario": scenario.__name__.replace("_", " "),
            "operations": run.calls.total(),
            "seconds": round(time.monotonic() - started, 3),
            "error": error,
        }
        print(json.dumps(report), file=out, flush=True)
    missing = sorted(client.operations() - total.keys()) if not only else []
    summary = {
        "title": client.title or client.distribution,
        "version": client.version or find_distribution(client.distribution).version,
        "covered": sorted(total),
        "missing": missing,
    }
    print(json.dumps(summary), file=out, flush=True)


def failure_of(scenario: Scenario, run: Run) -> str | None:
    """Run one scenario to its end or to its deadline; what went wrong, or None."""

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise ScenarioTimeoutError(f"no end after {SECONDS_A_SCENARIO:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_SCENARIO)
    try:
        if inspect.iscoroutinefunction(scenario):
            asyncio.run(scenario(run))
        else:
            scenario(run)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a client may raise anything; a failing scenario never hides the next
        return f"{type(error).__name__}: {error} [{last_line(error, scenario)}]"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def last_line(error: BaseException, scenario: Scenario) -> str:
    """Where in the scenario's own file the error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getsourcefile(scenario)] or frames
    return f"{own[-1].name}:{own[-1].lineno}: {own[-1].line}" if own else "nowhere"


def module_of(distribution: str, file: str) -> Any:
    """The module in `file` of a distribution, also where another one hides it by owning a package of the same name."""
    path = Path(str(find_distribution(distribution).locate_file(file)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{distribution} has no {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
