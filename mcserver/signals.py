"""Signals from the first moment until the server has handlers (server.py). It must load nothing that takes its time.

SIGINT ends the process without a traceback, as SIGTERM does; SIGHUP and SIGUSR1 wait for their handlers.
"""

import signal

_WAITING = {signal.SIGHUP, signal.SIGUSR1}


def hold() -> None:
    """The server's way. May be called again."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)


def release() -> None:
    """Python's own way again, for what is no server."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)
