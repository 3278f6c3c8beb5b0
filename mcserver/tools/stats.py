"""`mcserver stats`: a server's statistics as a table, as JSON, or what changes in a second."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence

from mcserver.keys import printable_text
from mcserver.tools.client import ADDRESS, Client, parser, positive, run

WORDS = ("settings", "items", "slabs", "sizes", "conns", "mrc", "cluster", "detail", "cachedump", "reset")
"""What may stand in the place of a server: `mcserver stats settings`. A host of such a name is written with its port."""
NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


def main(arguments: Sequence[str]) -> int:
    """0, or 1 when the server can't be asked."""
    return run(stats, known_arguments(), arguments)


def known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("stats", "Prints a server's statistics.")
    known.add_argument("server", nargs="?", default=ADDRESS, metavar="HOST[:PORT]", help=f"the server ({ADDRESS})")
    known.add_argument(
        "words", nargs="*", metavar="WORD", help="settings, items, slabs, sizes, conns, mrc, cluster, ..."
    )
    known.add_argument("--json", action="store_true", help="one object; numbers are numbers")
    known.add_argument(
        "--changes", type=positive, metavar="S", help="only what changes within so many seconds, and by how much"
    )
    known.add_argument("--only", default="", metavar="TEXT", help="only names with this text in them")
    return known


def stats(options: argparse.Namespace) -> int:
    """`mcserver stats`: the exit code. Raises ToolError."""
    server, words = options.server, list(options.words)
    if server in WORDS:
        server, words = ADDRESS, [server, *words]
    asked = " ".join(words)
    with Client(server, options.way) as client:
        found: Mapping[str, object] = client.stats(asked)
        if options.changes:
            time.sleep(options.changes)
            found = changes(found, client.stats(asked))
    found = {key: value for key, value in found.items() if options.only in key}
    if options.json:
        print(json.dumps({key: number(value) for key, value in found.items()}, indent=1))
    else:
        width = max(map(len, found), default=0)
        for key, value in found.items():
            print(printable_text(f"{key:<{width}}  {value}".rstrip()))
    return 0


def number(value: object) -> object:
    """As a number, where it is one: what Python would take besides (`nan`, `1_0`) is none."""
    text = str(value)
    if not NUMBER.fullmatch(text):
        return value
    return float(text) if "." in text else int(text)


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """The difference of every number that changed."""
    found: dict[str, object] = {}
    for key, value in after.items():
        new, old = number(value), number(before.get(key, 0))
        if isinstance(new, int | float) and isinstance(old, int | float) and new != old:
            found[key] = round(new - old, 6)
    return found
