"""The `mcserver` command, and `python -m mcserver`: sees to the signals before it loads what takes its time."""

import sys

from mcserver.system import signals


def main() -> int:
    """The process's exit code."""
    signals.hold()
    from mcserver import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
