"""`python -m mcserver.testing [PORT] [memcached's flags]`: the server of a test in a process of its own, until a signal comes.

For clients' own test suites; for tests in other languages `mcserver --ephemeral` is the real server.
"""

import signal
import sys

from mcserver.settings.rules import EX_FAILURE, ConfigError
from mcserver.system.process import StartError
from mcserver.testing.server import Server

USAGE = (
    "usage: python -m mcserver.testing [PORT] [memcached's flags]; without PORT one that is free; prints its address"
)


def main() -> int:
    """Exit code 0 after SIGINT or SIGTERM; else memcached's for a failed start."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        print(USAGE)
        return 0
    port = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 0
    try:
        server = Server(*arguments).start(port)
    except (ConfigError, StartError) as error:
        print(f"{error}\n{USAGE}", file=sys.stderr)
        return error.status if isinstance(error, ConfigError) else error.code
    except (OSError, OverflowError) as error:
        print(f"can't listen on port {port}: {error}\n{USAGE}", file=sys.stderr)
        return EX_FAILURE
    print(server.url, flush=True)
    signal.sigwait(signals)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
