"""One real ensemble for the tests of a process; each test has a chroot of its own and leaves everything healed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from .ensemble import Ensemble
from .network import Network

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


@pytest.fixture(scope="session")
def shared_ensemble(network: Network) -> Iterator[Ensemble]:
    with Ensemble(network) as made:
        yield made


@pytest.fixture
def ensemble(shared_ensemble: Ensemble) -> Iterator[Ensemble]:
    """All three servers run and all links pass, before and after."""
    yield shared_ensemble
    shared_ensemble.heal()
    shared_ensemble.start()


@pytest.fixture
def name() -> str:
    """A name nobody else uses: for a chroot, or for a peer's links."""
    return f"t{next(_numbers)}"
