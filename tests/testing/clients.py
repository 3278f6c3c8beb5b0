"""Clients that are closed when the test is over (conftest.py does it)."""

from __future__ import annotations

from typing import Any

import pymemcache

from tests import serving

OPEN: list[Any] = []


class Client(pymemcache.Client):  # type: ignore[misc]  # pymemcache has no types
    """pymemcache's."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        OPEN.append(self)


class Plain(serving.Client):
    """A plain socket."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        super().__init__(address)
        OPEN.append(self)


def close_all() -> None:
    while OPEN:
        OPEN.pop().close()
