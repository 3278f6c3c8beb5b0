"""Runs seeds: `python -m tests.coordination.simulator SEED` replays one with a trace; `--seeds N` runs many."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time

from tests.released import FIRST, RELEASES

from .mutations import MUTATIONS
from .run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.coordination.simulator", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the seed to replay, or the first of many")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="run N seeds from there on, without a trace")
    parser.add_argument("--mutation", default="", choices=["", *sorted(MUTATIONS)], help="break one rule first")
    parser.add_argument(
        "--upgrade",
        nargs="?",
        default="",
        const=FIRST,
        choices=RELEASES,
        help="servers of an earlier release, upgraded",
    )
    parser.add_argument("--members", type=int, default=0, metavar="N", help="so many servers, instead of two or three")
    parser.add_argument("--strange", action="store_true", help="somebody else deletes and overwrites znodes")
    parser.add_argument(
        "--uneven", action="store_true", help="servers of one name, of several options, at late servers"
    )
    parser.add_argument("--odd", action="store_true", help="machines that sleep, and records that look as before")
    options = parser.parse_args()
    chosen = {
        "upgrade": options.upgrade,
        "members": options.members,
        "strange": options.strange,
        "uneven": options.uneven,
        "odd": options.odd,
    }
    if not options.seeds:
        outcome = simulate(options.seed, options.mutation, print, **chosen)
        print(outcome.violation or "every property held", f"({outcome.events} events)")
        return bool(outcome.violation)
    logging.disable(logging.CRITICAL)
    gc.disable()  # a world is closed at its end and leaves little behind
    began, bad = time.process_time(), 0
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = simulate(seed, options.mutation, **chosen)
        if seed % 100 == 0:
            gc.collect()
        if outcome.violation:
            bad += 1
            print(f"seed {seed}: {outcome.violation}", flush=True)
    spent = time.process_time() - began
    print(f"{options.seeds} seeds, {bad} with a violation, {options.seeds / spent:.0f} seeds a second of one processor")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
