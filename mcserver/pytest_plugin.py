"""pytest's fixtures around mcserver.testing. Every run of pytest loads this file, so it imports nothing before it is used.

def test_it(memcached):                     # one server for the session, empty and without faults at each test
    client = Client(memcached.address)

@pytest.mark.memcached("-m", "2", "-I", "4k")   # memcached's flags: another server, kept for the session, too
def test_small(memcached): ...

def test_many(memcached_factory):
    one, other = memcached_factory(), memcached_factory("-C")

def test_fleet(memcached_fleet):            # coherent members without ZooKeeper
    here, there = memcached_fleet(2)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mcserver.testing import Fleet, Server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "memcached(*flags): the `memcached` fixture's server has these flags of memcached"
    )


@pytest.fixture(scope="session")
def _memcached_servers() -> Iterator[Callable[[tuple[str, ...]], Server]]:
    """One running server for each set of flags."""
    with ExitStack() as running:
        servers: dict[tuple[int, tuple[str, ...]], Server] = {}

        def server(flags: tuple[str, ...]) -> Server:
            which = os.getpid(), flags  # a test in a process that was forked has a server of its own
            if which not in servers:
                from mcserver.testing import Server

                servers[which] = running.enter_context(Server(*flags))
            return servers[which]

        yield server


@pytest.fixture
def memcached(
    request: pytest.FixtureRequest, _memcached_servers: Callable[[tuple[str, ...]], Server]
) -> Iterator[Server]:
    """A cache server, empty, on a port of its own; it is the same one in all tests with the same flags (mark `memcached`)."""
    marks = list(request.node.iter_markers("memcached"))
    if any(mark.kwargs for mark in marks):
        raise pytest.UsageError(
            'the mark `memcached` takes flags as on a command line: memcached("-m", "2", "-I", "4k")'
        )
    flags = tuple(str(flag) for mark in reversed(marks) for flag in mark.args)
    server = _memcached_servers(flags)
    server.reset()
    yield server
    server.reset()


@pytest.fixture
def memcached_factory() -> Iterator[Callable[..., Server]]:
    """`memcached_factory(*flags)`: one more server, which ends with the test."""
    with ExitStack() as running:

        def make(*flags: str) -> Server:
            from mcserver.testing import Server

            return running.enter_context(Server(*flags))

        yield make


@pytest.fixture
def memcached_fleet() -> Iterator[Callable[..., Fleet]]:
    """`memcached_fleet(members, *flags)`: servers that are coherent as in production; they end with the test."""
    with ExitStack() as running:

        def make(members: int = 2, *flags: str) -> Fleet:
            from mcserver.testing import Fleet

            return running.enter_context(Fleet(members, *flags))

        yield make
