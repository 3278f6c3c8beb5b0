"""`-d`: who waited to hear of the start was killed before. That ended the server, with a traceback that nobody saw."""

from __future__ import annotations

import os

from mcserver.system.process import Daemon


def test_nobody_hears_of_the_start() -> None:
    hear, tell = os.pipe()
    os.close(hear)
    Daemon(tell, keep_output=True).failed(0)
    hear, again = os.pipe()
    os.close(hear)
    assert again == tell, "the descriptor was closed"
    Daemon(again, keep_output=True).failed(71)
