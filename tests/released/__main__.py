"""mcserver as it is, with the coordination of the earlier release: `python -m tests.released`, and mcserver's options."""

import sys

from tests.released import take_the_place_of_the_present

if __name__ == "__main__":
    take_the_place_of_the_present()
    from mcserver.cli import main

    sys.exit(main())
