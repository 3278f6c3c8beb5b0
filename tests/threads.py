"""How many worker threads the servers of the tests have: mcserver's default, or MCSERVER_TEST_THREADS (1: `-t 1`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

_WANTED = os.environ.get("MCSERVER_TEST_THREADS", "")


def threads(arguments: Sequence[str] = ()) -> list[str]:
    """The option, unless the arguments have it already or nothing is asked for."""
    return ["-t", _WANTED] if _WANTED and "-t" not in arguments else []
