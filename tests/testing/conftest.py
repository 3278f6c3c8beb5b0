"""Nothing stays open after a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testing.clients import close_all


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    close_all()
