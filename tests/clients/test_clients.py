"""Python's clients and Debian's tools, on memcached and on mcserver. `scripts/clients` runs other languages' and TLS, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from conformance.clients.own_tests import run_suite, suites
from conformance.clients.runner import clients, run_client
from conformance.clients.servers import Target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOT_HERE = {"aiocache", "pymemcache-tls"}  # not in the group of packages; wants a port with TLS
PYTHON = [name for name, file in clients().items() if file.suffix == ".py" and name not in NOT_HERE]


@pytest.mark.parametrize("name", PYTHON)
async def test_client(name: str, target: Target) -> None:
    report = await run_client(name, target, Path("build/clients"))
    assert report.failures() == []
    assert report.scenarios
    assert report.passed == len(report.scenarios)
    assert report.version


async def test_pymemcaches_own_tests(target: Target) -> None:
    outcome = await asyncio.to_thread(run_suite, suites()["pymemcache"], target, Path("build/clients"))
    assert outcome.failures() == []
    assert outcome.passed >= 100
