"""mcserver as it is, with the coordination of an earlier release: `python -m tests.released`, and mcserver's options."""

import os
import sys

from tests.released import FIRST, take_the_place_of_the_present

if __name__ == "__main__":
    take_the_place_of_the_present(os.environ.get("RELEASED", FIRST))
    from mcserver.cli import main

    sys.exit(main())
