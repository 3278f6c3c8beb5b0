"""`python -m mcserver`: the same program as the `mcserver` command."""

import sys

from mcserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
