"""Signals: what they do from the first moment until the server has handlers (server/loop.py), and that no other thread gets them.

It must load nothing that takes its time, and knows nothing of servers. SIGINT first ends the process without a traceback, as
SIGTERM does; SIGHUP and SIGUSR1 wait for their handlers.
"""

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""What ends a server, or has it read its files again."""
_WAITING = {signal.SIGHUP, signal.SIGUSR1}


def hold() -> None:
    """The server's way, before anything else is loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)


def release() -> None:
    """Python's own way again, for what is no server."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)


def block() -> None:
    """All of ENDING wait: before the first thread begins, which inherits that for ever, and when the handlers are gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def forget() -> None:
    """Of signals that wait: a loop's handlers would hold all that it served, even when it is closed. They wait on."""
    for number in ENDING:
        signal.signal(number, _nothing)


def _nothing(number: int, frame: object) -> None:
    """Unlike SIG_IGN it takes away no signal that waits."""


def unblock() -> None:
    """The main thread has its handlers, and gets what came meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
