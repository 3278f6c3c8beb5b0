"""The `mcserver` command, and `python -m mcserver`: sees to the signals before it loads what takes its time."""

import os
import sys

from mcserver.system import signals


def main() -> int:
    """The process's exit code."""
    signals.hold()
    try:
        from mcserver import cli

        return cli.main()
    except MemoryError:  # what says so elsewhere may need more than there is
        os.write(2, b"can't start: the system has no memory left for this process\n")
        return os.EX_OSERR


if __name__ == "__main__":
    sys.exit(main())
