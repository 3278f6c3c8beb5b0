"""The servers that clients run against."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from conformance.clients.servers import Target, started
from tests.peer import MEMCACHED

COMMANDS = {
    "memcached": f"{MEMCACHED} -u root -l 127.0.0.1 -p {{port}} -U {{port}}",
    "mcserver": f"{sys.executable} -m mcserver -u root -l 127.0.0.1 -p {{port}} -U {{port}}",
}


@pytest.fixture(params=COMMANDS)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """A memcached, then an mcserver: each client must do the same with both."""
    async with started(request.param, COMMANDS[request.param]) as server:
        yield server


@pytest.fixture
async def memcached() -> AsyncIterator[Target]:
    """A memcached."""
    async with started("memcached", COMMANDS["memcached"]) as server:
        yield server
