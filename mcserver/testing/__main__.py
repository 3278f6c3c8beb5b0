"""`python -m mcserver.testing [PORT] [memcached's flags]`: the server of a test in a process of its own, until a signal comes.

For clients' own test suites; for tests in other languages `mcserver --ephemeral` is the real server.
"""

import signal
import sys

from mcserver.testing.server import Server


def main() -> int:
    """Exit code 0 after SIGINT or SIGTERM."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    arguments = sys.argv[1:]
    port = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 0
    server = Server(*arguments).start(port)
    print(server.url, flush=True)
    signal.sigwait(signals)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
