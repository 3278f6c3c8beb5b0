"""Fixtures for tests that need real processes; each ends what it started."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from tests.peer import memcached
from tests.serving import Client, Server

settings.register_profile(
    "tests", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", deadline=None, database=None, print_blob=True)
settings.load_profile("soak" if "MCSERVER_SOAK" in os.environ else "tests")
"""Nothing is left to chance: each run of the tests makes the same examples. `scripts/soak --tests` makes new ones."""
if "MCSERVER_SOAK" not in os.environ:
    # Hypothesis tries numbers and texts that it finds in the sources of the modules that are loaded: which those are depends on
    # the tests that ran before in the same process.
    providers._get_local_constants = lambda: providers._local_constants  # none, and nobody adds to them now

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background has it ignored, and every process that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

Start = Callable[..., Server]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first: workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """What a module's tests left for the garbage collector to close is an error of that module, not of a later one by chance."""
    gc.freeze()  # what was there before isn't looked at again: that took nearly half of the time of --quick
    yield
    gc.collect()


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(*args)`: a server with these arguments, on a free port of 127.0.0.1 unless told otherwise."""
    with ExitStack() as running:

        def start_server(*args: str, environment: dict[str, str] | None = None) -> Server:
            folder = Path(running.enter_context(TemporaryDirectory()))
            server = Server(folder, args, environment=environment)
            running.callback(server.stop)
            return server

        yield start_server


@pytest.fixture
def server(start: Start) -> Server:
    """A server with the default settings."""
    return start()


@pytest.fixture
def client(server: Server) -> Client:
    """A connection to it."""
    return server.connect()


@pytest.fixture
def peer() -> Iterator[Callable[..., Client]]:
    """`peer(*args)`: a connection to a real memcached with these arguments."""
    with ExitStack() as running:

        def start_memcached(*args: str) -> Client:
            client = Client(running.enter_context(memcached(*args)))
            running.callback(client.close)
            return client

        yield start_memcached
