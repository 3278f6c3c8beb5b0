"""`mcserver top`: what servers do now, on a terminal: operations, hit ratio, memory, classes, and the hot prefixes of keys.

Any memcached will do. Prefixes are counted from `watch fetchers`, where a server allows it, over what the watcher is given: a
busy server leaves lines out, so they are shares and no totals.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mcserver.keys import printable_text
from mcserver.tools.client import ADDRESS, Client, ToolError, Way, parser, positive, run

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

OPERATIONS = (
    "cmd_get", "cmd_set", "cmd_touch", "cmd_meta", "delete_hits", "delete_misses", "incr_hits", "incr_misses", "decr_hits",
    "decr_misses",
)  # fmt: skip
CLASS = re.compile("[0-9]{1,3}:")
CLASSES_SHOWN = 12
PREFIXES_SHOWN = 12
PREFIXES_KEPT = 5000
SEPARATORS = ":/."


def main(arguments: Sequence[str]) -> int:
    """0 after q or ctrl-C; 1 when no server answers."""
    return run(top, known_arguments(), arguments)


def known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("top", "Shows what servers do now. Keys: q ends it, p pauses it.")
    known.add_argument("server", nargs="*", default=[ADDRESS], metavar="HOST[:PORT]", help=f"servers ({ADDRESS})")
    known.add_argument("-i", "--interval", type=positive, default=1.0, metavar="S", help="seconds between looks (1)")
    known.add_argument("-n", "--count", type=int, default=0, metavar="N", help="end after so many looks (0: never)")
    known.add_argument("--no-watch", action="store_true", help="don't watch for hot prefixes")
    return known


class Watched:
    """One server: its figures now and before, and who is hot."""

    def __init__(self, name: str, way: Way, watch: bool) -> None:
        self.name = name
        self.error = ""
        self.now: Mapping[str, str] = {}
        self.rates: dict[str, float] = {}
        self.slabs: Mapping[str, str] = {}
        self.items: Mapping[str, str] = {}
        self.prefixes: Counter[str] = Counter()
        self._way = way
        self._client: Client | None = None
        self._at = 0.0
        self._watch = watch
        self._watcher: threading.Thread | None = None

    def look(self) -> None:
        """Asks once; what goes wrong is shown, and tried again at the next look."""
        try:
            if self._client is None:
                self._client = Client(self.name, self._way)
            stats = self._client.stats()
            self.slabs, self.items = self._client.stats("slabs"), self._client.stats("items")
        except ToolError as error:
            if self._client is not None:
                self._client.socket.close()
            self.error, self._client, self.now, self.rates = str(error), None, {}, {}
            return
        at = time.monotonic()
        if self.now:
            self.rates = {key: _rate(stats, self.now, key, at - self._at) for key in stats}
        self.now, self._at, self.error = stats, at, ""
        if self._watch and (self._watcher is None or not self._watcher.is_alive()):
            self._watcher = threading.Thread(target=self._listen, daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Ends its connection."""
        if self._client is not None:
            self._client.socket.close()

    def _listen(self) -> None:
        """Counts prefixes as long as the connection holds."""
        with contextlib.suppress(ToolError, ValueError), Client(self.name, self._way) as client:
            if client.command(b"watch fetchers") != b"OK":
                return
            client.socket.settimeout(None)
            while True:
                for word in client.line().split(b" "):
                    if word.startswith(b"key="):
                        self.count(unquote(word[4:].decode("latin-1"), errors="replace"))

    def count(self, key: str) -> None:
        """One more read of this key."""
        if len(self.prefixes) >= PREFIXES_KEPT:
            self.prefixes = Counter(dict(self.prefixes.most_common(PREFIXES_KEPT // 2)))
        self.prefixes[prefix_of(key)] += 1

    @property
    def hit_ratio(self) -> float | None:
        """Of the last interval; None without gets."""
        hits, misses = self.rates.get("get_hits", 0.0), self.rates.get("get_misses", 0.0)
        return hits / (hits + misses) if hits + misses else None

    @property
    def operations(self) -> float:
        return sum(self.rates.get(key, 0.0) for key in OPERATIONS)


def _rate(now: Mapping[str, str], before: Mapping[str, str], key: str, seconds: float) -> float:
    try:
        return max(0.0, float(now[key]) - float(before[key])) / seconds
    except (KeyError, ValueError, ZeroDivisionError):
        return 0.0


def prefix_of(key: str) -> str:
    """Up to its first separator, with it; a key without one stands for itself."""
    at = min((found for found in (key.find(each) for each in SEPARATORS) if found >= 0), default=-1)
    return key[: at + 1] + "*" if at >= 0 else key


def top(options: argparse.Namespace) -> int:
    """`mcserver top`: shows until it is interrupted, or so many looks; the exit code."""
    from rich.console import Console
    from rich.live import Live

    servers = [Watched(name, options.way, not options.no_watch) for name in options.server]
    console = Console()
    looks = 0
    for server in servers:
        server.look()
    if all(server.error for server in servers):
        raise ToolError("; ".join(server.error for server in servers))
    screen = Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else contextlib.nullcontext()
    with keys() as pressed, screen as live:
        paused = False
        while options.count <= 0 or looks < options.count:
            key = pressed(options.interval)
            if key == "q":
                break
            paused ^= key == "p"
            if not paused and not key:
                for server in servers:
                    server.look()
                looks += 1
            shown_now = picture(servers, paused, console.width, keys=live is not None)
            if live is not None:
                live.update(shown_now, refresh=True)
            else:  # a file or a pipe gets every look as it comes
                console.print(shown_now)
                sys.stdout.flush()
    for server in servers:
        server.close()
    return 0


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Gives pressed(seconds): the key that was pressed within that time, or ""; "q" at the terminal's end.

    Without a terminal it only waits.
    """
    if not sys.stdin.isatty():

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        # Not sys.stdin.read(): it would take all that was pressed and keep what select cannot see.
        return (os.read(sys.stdin.fileno(), 1) or b"q").decode("latin-1") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


# The picture ------------------------------------------------------------------------------------------------------------


def picture(servers: Sequence[Watched], paused: bool, width: int, *, keys: bool = True) -> Group:
    """All tables, one below the other, on a terminal of so many columns; keys: with a line about them."""
    from rich.console import Group, RenderableType
    from rich.text import Text

    first = next((server for server in servers if server.now), servers[0])
    parts: list[RenderableType] = [server_table(servers, width)]
    parts += [shown(server.error, "red") for server in servers if server.error]
    parts.append(class_table(first))
    if first.prefixes:
        parts.append(prefix_table(first))
    if keys:
        parts.append(Text("q ends, p pauses" + ("; paused" if paused else ""), style="dim"))
    return Group(*parts)


def shown(text: str, style: str = "") -> Text:
    """What a server or a user said, as it is: neither a terminal's command nor rich's markup."""
    from rich.text import Text

    return Text(printable_text(text), style=style)


def server_table(servers: Sequence[Watched], width: int) -> Table:
    """A row for each server; on a narrow terminal fewer columns."""
    from rich import box
    from rich.table import Table

    columns = [(name, show) for least, name, show in COLUMNS if width >= least]
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1))
    table.add_column("server", min_width=12, overflow="ellipsis", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for server in servers:
        cells = ("-" if server.error else show(server) for _, show in columns)
        table.add_row(*map(shown, (server.name, *cells)))
    return table


COLUMNS: tuple[tuple[int, str, Callable[[Watched], str]], ...] = (
    (0, "ops/s", lambda server: short(server.operations)),
    (0, "hits", lambda server: "-" if server.hit_ratio is None else f"{100 * server.hit_ratio:.1f}%"),
    (72, "gets/s", lambda server: short(server.rates.get("cmd_get", 0.0))),
    (72, "sets/s", lambda server: short(server.rates.get("cmd_set", 0.0))),
    (55, "evicted/s", lambda server: short(server.rates.get("evictions", 0.0))),
    (
        80,
        "memory",
        lambda server: f"{short(_number(server.now, 'bytes'))}/{short(_number(server.now, 'limit_maxbytes'))}",
    ),
    (100, "items", lambda server: short(_number(server.now, "curr_items"))),
    (90, "conns", lambda server: server.now.get("curr_connections", "-")),
    (120, "in B/s", lambda server: short(server.rates.get("bytes_read", 0.0))),
    (120, "out B/s", lambda server: short(server.rates.get("bytes_written", 0.0))),
)
"""How wide a terminal must be, what stands above, what is shown."""


def class_table(server: Watched) -> Table:
    """The classes with most pages."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=shown(f"classes of {server.name}"), title_justify="left", expand=True)
    for name in ("class", "chunk", "pages", "used", "items", "evicted", "age"):
        table.add_column(name, justify="right")
    numbers = {key.split(":")[0] for key in server.slabs if CLASS.match(key)}
    ordered = sorted(numbers, key=lambda each: -_number(server.slabs, f"{each}:total_pages"))
    for number in sorted(ordered[:CLASSES_SHOWN], key=int):
        total, used = (_number(server.slabs, f"{number}:{name}") for name in ("total_chunks", "used_chunks"))
        cells = (
            number, server.slabs.get(f"{number}:chunk_size", "-"), server.slabs.get(f"{number}:total_pages", "-"),
            f"{100 * used / total:.0f} %" if total else "-",
            *(server.items.get(f"items:{number}:{name}", "0") for name in ("number", "evicted", "age")),
        )  # fmt: skip
        table.add_row(*map(shown, cells))
    return table


def prefix_table(server: Watched) -> Table:
    """The prefixes of one server that were asked for most since it is watched."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=shown(f"hot prefixes of {server.name}"), title_justify="left", expand=True)
    table.add_column("prefix", overflow="fold")
    table.add_column("share of the gets that were watched", justify="right")
    total = server.prefixes.total()
    for prefix, count in server.prefixes.most_common(PREFIXES_SHOWN):
        table.add_row(shown(prefix), f"{100 * count / total:.1f} %")
    return table


def _number(values: Mapping[str, str], key: str) -> float:
    try:
        return float(values.get(key, "0"))
    except ValueError:
        return 0.0


def short(value: float) -> str:
    """Three digits and a unit."""
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}T"
