"""Measures a fleet on this machine and prints tables in Markdown: three ZooKeeper servers, and mcservers on them.

`--simulate N` takes a fleet of any size instead, in virtual time, with ZooKeeper's costs counted; `--compare` holds that model
against real fleets of the sizes named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tests.cluster.ensemble import Ensemble

from . import calibrate, catchup, compare, flood, reads, simulate, travel, undisturbed

MEASUREMENTS: dict[str, Callable[[bool], str]] = {
    "travel": travel.measure,
    "flood": flood.measure,
    "reads": reads.measure,
    "catchup": catchup.measure,
    "undisturbed": undisturbed.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench --cluster", description=__doc__)
    names = ", ".join(MEASUREMENTS)
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=MEASUREMENTS, help=f"{names}; may be given again"
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: shorter runs, wider noise")
    parser.add_argument("--simulate", type=int, metavar="N", nargs="+", help="simulated fleets of so many members")
    parser.add_argument("--compare", type=int, metavar="N", nargs="+", help="real fleets of so many, beside the model")
    parser.add_argument("--zk-writes", type=float, default=100.0, metavar="N", help="of simulated fleets (100)")
    parser.add_argument("--servers", type=int, default=3, metavar="N", help="of ZooKeeper, of simulated fleets (3)")
    parser.add_argument(
        "--rates", type=int, metavar="N", nargs="*", help="deletes a second, of simulated fleets (100 1000 20000)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="of each rate (5; 2 from 500 members on)")
    parser.add_argument("--calibrate", action="store_true", help="measure service times here before simulating")
    options = parser.parse_args()
    if options.simulate:
        _simulate(options)
    elif options.compare:
        print(compare.measure(options.compare), flush=True)
    else:
        for name in options.only or MEASUREMENTS:
            print(MEASUREMENTS[name](options.quick), flush=True)
    return 0


def _simulate(options: argparse.Namespace) -> None:
    service = simulate.SERVICE
    if options.calibrate:
        with Ensemble(fsync=True) as ensemble:
            service = calibrate.measure(ensemble)
    print(f"{service} µs\n", flush=True)
    for members in options.simulate:
        seconds = options.seconds or (2.0 if options.quick or members >= 500 else 5.0)
        for line in simulate.measure(
            members,
            service,
            writes=options.zk_writes,
            servers=options.servers,
            seconds=seconds,
            rates=simulate.RATES if options.rates is None else options.rates,
        ):
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
