"""Loaded by each Python process that has this directory in its path: kills or stops itself at a step of a hand-over.

MCSERVER_TEST_STEP is the step's name, MCSERVER_TEST_SIGNAL the signal's number, MCSERVER_TEST_SECONDS how long each waits for
the other, MCSERVER_TEST_ANSWER_SECONDS how long for the first words, MCSERVER_TEST_REGAIN_SECONDS how long it takes to
serve again.
"""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from mcserver.server import handover
from mcserver.server.lives import Memory

steps = {os.environ.get("MCSERVER_TEST_STEP", "")}
SIGNAL = int(os.environ.get("MCSERVER_TEST_SIGNAL", "0"))


def reach(step: str) -> None:
    """Ends this process here, or stops it, if this is the step; once."""
    if step in steps:
        steps.remove(step)
        os.kill(os.getpid(), SIGNAL)
        time.sleep(0.05)  # a signal to a process is some thread's, soon


def around(owner: object, name: str, before: str, after: str) -> None:
    """The function, with a step before it and one behind it."""
    function = getattr(owner, name)

    def stepping(*args: Any, **named: Any) -> Any:
        reach(before)
        result = function(*args, **named)
        reach(after)
        return result

    setattr(owner, name, stepping)


def tell(other: socket.socket, word: bytes, function: Callable[[socket.socket, bytes], bool] = handover.tell) -> bool:
    """Every word that is told has a step before it and one behind it."""
    name = word.decode().strip()
    reach(f"before {name}")
    result = function(other, word)
    reach(f"after {name}")
    return result


handover.tell = tell
handover.ANSWER_SECONDS = float(os.environ.get("MCSERVER_TEST_ANSWER_SECONDS", handover.ANSWER_SECONDS))
handover.READY_SECONDS = handover.END_SECONDS = float(os.environ["MCSERVER_TEST_SECONDS"])
around(Memory, "offer", "before offer", "after offer")
around(handover.HandOver, "close", "before end", "after end")
around(handover, "bequeath", "before record", "after all")
around(handover, "receive_offer", "before receiving", "after receiving")
around(handover.Inheritance, "take", "before go", "after record")
around(handover.Inheritance, "claim", "before claim", "after claim")
around(handover.Inheritance, "serving", "before serving", "after serving")


def regain(*args: Any, function: Callable[..., Any] = Memory.regain) -> Any:
    """As with a memory that is large."""
    time.sleep(float(os.environ.get("MCSERVER_TEST_REGAIN_SECONDS", "0")))
    return function(*args)


Memory.regain = regain  # type: ignore[method-assign, assignment]  # slower on purpose
