"""Measures a fleet on this machine and prints tables in Markdown: three ZooKeeper servers, and mcservers on them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from . import catchup, flood, reads, travel

MEASUREMENTS: dict[str, Callable[[bool], str]] = {
    "travel": travel.measure,
    "flood": flood.measure,
    "reads": reads.measure,
    "catchup": catchup.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench --cluster", description=__doc__)
    names = ", ".join(MEASUREMENTS)
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=MEASUREMENTS, help=f"{names}; may be given again"
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: shorter runs, wider noise")
    options = parser.parse_args()
    for name in options.only or MEASUREMENTS:
        print(MEASUREMENTS[name](options.quick), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
