"""The versions of memcached whose behaviour the cases know, as data.

A profile is a version: a line of a case marked `[1.6.40+]` holds for profiles from 1.6.40 on, `[<1.6.40]` for those
before. CHANGES says what those marks stand for. Every release from 1.6.18 to 1.6.45 is a profile; 1.6.18, 1.6.38 and
1.6.45 have been checked against real servers. 1.4 and 1.5 stand for the last releases of their lines, which have not (1.5
has been with 1.6.9): there only classic cases of level must and should are judged, without what came later (touch 1.4.8,
gat 1.5.3, meta commands 1.6, whose words were others before 1.6.18).
"""

from __future__ import annotations

import argparse
import re

RELEASES = {"1.4": "1.4.39", "1.5": "1.5.22", "1.6.18": "1.6.18", "1.6.45": "1.6.45"}
PROFILES = tuple(RELEASES)
OLDEST, DEFAULT = "1.6.18", "1.6.45"  # each release between these two is a profile as well


def release(profile: str) -> tuple[int, ...]:
    """The release that a profile stands for, as numbers that compare."""
    return _numbers(RELEASES.get(profile, profile))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def profile(text: str) -> str:
    """A profile as the command line names it; argparse's own error, which it prints, when there is none of that name."""
    between = re.fullmatch(r"1\.6\.[1-9][0-9]?", text) and _numbers(OLDEST) <= _numbers(text) <= _numbers(DEFAULT)
    if text not in RELEASES and not between:
        raise argparse.ArgumentTypeError(f"no profile {text}: {', '.join(PROFILES[:2])}, {OLDEST} to {DEFAULT}")
    return text


def nearest(text: str) -> str:
    """The profile to judge a server by that says it is this 1.6: the release itself where the cases know it."""
    if not text.startswith("1.6."):
        return DEFAULT
    if _numbers(text) < _numbers(OLDEST):
        return "1.5"
    return text if _numbers(text) <= _numbers(DEFAULT) else DEFAULT


# The releases that changed what a client can see, after 1.6.18.
CHANGES = {
    "1.6.19": "lru_crawler mgdump",
    "1.6.20": "ms takes N with append and prepend, and s; watch deletions",
    "1.6.22": "stats settings shows client_flags_size",
    "1.6.24": "metadump lines carry flags=",
    "1.6.25": "stats sizes_enable and sizes_disable are gone; flush_all ages items instead of comparing cas uniques",
    "1.6.27": "E sets the cas unique; md x drops the value",
    "1.6.34": "stat slab_reassign_busy_nomem",
    "1.6.37": "-X forbids stats detail too",
    "1.6.40": "one parser for all commands: short or malformed classic lines are CLIENT_ERROR bad command line format; "
    "delete takes anything after the key; mg C leaves the value out when the cas unique is the same",
    "1.6.41": "lines of less than 4 bytes are CLIENT_ERROR bad command line format",
    "1.6.43": "metadump and mgdump answer OK before the list",
    "1.6.45": "strict numbers: no sign, no overflow; a cas unique is used up by the start of the server",
}
