"""`mcserver dump` and `mcserver load`: items with flags and expiry, out of any memcached from 1.6 on and into another.

A dump is lines of JSON, so that it can be filtered and read: `{"key": "user:1", "value": "Ada", "expires": 1795337219}`. Values
that are no text, and keys that are none, are in base64 (`value64`, `key64`). `expires` is Unix time; without it an item lives for
ever. What a server stores or evicts meanwhile may be missing: it is not stopped.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from mcserver.keys import KEY_MAX, printable_text
from mcserver.tools.client import ADDRESS, BusyError, Client, ToolError, Way, parser, run
from mcserver.tools.progress import Progress

BATCH = 100
"""Items on their way at once."""
CRAWLER_SECONDS = 60.0
"""How long a crawler that is busy is asked again."""
VALUE_MOST = 1 << 30


class Item(NamedTuple):
    """`expires` is Unix time; 0: never."""

    key: bytes
    value: bytes
    flags: int
    expires: int


def dump_main(arguments: Sequence[str]) -> int:
    """0, or 1 when the server can't be asked."""
    return run(dump, dump_known_arguments(), arguments)


def dump_known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("dump", "Writes a server's items as lines of JSON, for `mcserver load`.")
    known.add_argument("server", nargs="?", default=ADDRESS, metavar="HOST[:PORT]", help=f"the server ({ADDRESS})")
    known.add_argument("file", nargs="?", default="-", metavar="FILE", help="where to (standard output)")
    known.add_argument("--prefix", default="", metavar="TEXT", help="only keys that begin so")
    return known


def load_main(arguments: Sequence[str]) -> int:
    """0, 1 when the server can't be reached or a line is wrong, 2 when items were refused."""
    return run(load, load_known_arguments(), arguments)


def load_known_arguments() -> argparse.ArgumentParser:
    """What it can be told."""
    known = parser("load", "Stores what `mcserver dump` wrote, but for what has expired since.")
    known.add_argument("server", nargs="?", default=ADDRESS, metavar="HOST[:PORT]", help=f"the server ({ADDRESS})")
    known.add_argument("file", nargs="?", default="-", metavar="FILE", help="where from (standard input)")
    known.add_argument("--add", action="store_true", help="leave alone what is there")
    return known


# Out of a server ---------------------------------------------------------------------------------------------------------


def dump(options: argparse.Namespace) -> int:
    """`mcserver dump`: the exit code. Raises ToolError."""
    prefix, count = options.prefix.encode(), 0
    with Client(options.server, options.way) as client:
        keys = [key for key in listed(options.server, options.way) if key.startswith(prefix)]
        # Only now: a dump of before is not given up for a server that can't be asked.
        with opened(options.file, "w") as file, Progress("dumping", len(keys)) as progress:
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                for item in fetched(client, batch):
                    file.write(to_line(item) + "\n")
                    count += 1
                progress.advance(len(batch))
            file.flush()
    print(f"{count:,} items of {options.server}", file=sys.stderr)
    return 0


def listed(server: str, way: Way) -> Iterator[bytes]:
    """All keys, by `lru_crawler metadump`."""
    with Client(server, way) as client:
        for line in crawled(client):
            if line.startswith(b"key="):
                yield unquote_to_bytes(line.split(b" ", 1)[0].removeprefix(b"key="))


def crawled(client: Client) -> Iterator[bytes]:
    """The lines of a metadump. A crawler may be on a round of its own, as soon after a start: then it is asked again."""
    deadline = time.monotonic() + CRAWLER_SECONDS
    while True:
        try:
            yield from client.lines(b"lru_crawler metadump all")
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def fetched(client: Client, keys: Sequence[bytes]) -> Iterator[Item]:
    """The items of these keys that are still there; the answers come in the order of the questions."""
    client.send(b"".join(b"mg %s%s v f t\r\n" % spelled(key) for key in keys))
    for key in keys:
        answer = client.line()
        words = answer.split(b" ")
        if words[0] == b"EN":
            continue
        if words[0] != b"VA" or len(words) < 4:
            raise ToolError(f"{client.name}: mg is answered with {answer[:80]!r}; memcached 1.6 or newer is needed")
        flags = {word[:1]: word[1:] for word in words[2:]}
        try:
            length, ttl, number = int(words[1]), int(flags.get(b"t", b"-1")), int(flags.get(b"f", b"0"))
        except ValueError:
            length = -1
        if not 0 <= length <= VALUE_MOST:
            raise ToolError(f"{client.name}: this is no memcached: mg is answered with {answer[:80]!r}")
        yield Item(key, client.data(length), number, 0 if ttl < 0 else int(time.time()) + ttl)


def spelled(key: bytes) -> tuple[bytes, bytes]:
    """The key as a line can hold it, and the flag that says so."""
    if all(33 <= byte < 127 or byte > 127 for byte in key):
        return key, b""
    return base64.b64encode(key), b" b"


# Into a server -----------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace) -> int:
    """`mcserver load`: the exit code. Raises ToolError."""
    stored = expired = there = 0
    refused: dict[str, int] = {}
    mode = b" ME" if options.add else b""
    with (
        opened(options.file, "r") as file,
        Client(options.server, options.way) as client,
        Progress("loading", None) as progress,
    ):
        for batch in batches(items(file), BATCH):
            now = int(time.time())
            alive = [item for item in batch if not item.expires or item.expires > now]
            expired += len(batch) - len(alive)
            for answer in sent(client, alive, mode, now):
                stored += answer == b"HD"
                there += answer == b"NS"
                if answer not in {b"HD", b"NS"}:
                    text = answer.decode("utf-8", "replace")
                    refused[text] = refused.get(text, 0) + 1
            progress.advance(len(batch))
    parts = [f"{stored:,} stored", f"{expired:,} had expired"] + [f"{there:,} were there"] * options.add
    parts += [f"{count:,} refused: {printable_text(text)}" for text, count in refused.items()]
    print(", ".join(parts), file=sys.stderr)
    return 2 if refused else 0


def sent(client: Client, batch: Sequence[Item], mode: bytes, now: int) -> Iterator[bytes]:
    """The answers, in order."""
    client.send(
        b"".join(
            b"ms %s %d%s F%d T%d%s\r\n%s\r\n"
            % (
                spelled(each.key)[0],
                len(each.value),
                spelled(each.key)[1],
                each.flags,
                lifetime(each, now),
                mode,
                each.value,
            )
            for each in batch
        )
    )
    for _ in batch:
        yield client.line()


def lifetime(item: Item, now: int) -> int:
    """As exptime: seconds, or beyond thirty days the date itself."""
    seconds = item.expires - now
    return 0 if not item.expires else seconds if seconds <= 30 * 86400 else item.expires


def batches(found: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    batch: list[Item] = []
    for item in found:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# The lines ---------------------------------------------------------------------------------------------------------------


def to_line(item: Item) -> str:
    """One line of a dump."""
    entry: dict[str, Any] = {}
    for name, data in (("key", item.key), ("value", item.value)):
        try:
            entry[name] = data.decode()
        except UnicodeDecodeError:
            entry[f"{name}64"] = base64.b64encode(data).decode()
    if item.flags:
        entry["flags"] = item.flags
    if item.expires:
        entry["expires"] = item.expires
    return json.dumps(entry, ensure_ascii=False)


def items(file: IO[str]) -> Iterator[Item]:
    """The items of a dump. Raises ToolError with the number of a line that is none."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            key, value = (_bytes(entry, name) for name in ("key", "value"))
            flags, expires = int(entry.get("flags", 0)), int(entry.get("expires", 0))
            if not 0 < len(key) <= KEY_MAX or len(value) > VALUE_MOST or not 0 <= flags < 1 << 32 or expires < 0:
                raise ValueError("out of range")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ToolError(f"line {number} is no item of a dump: {error!r}") from None
        yield Item(key, value, flags, expires)


def _bytes(entry: dict[str, Any], name: str) -> bytes:
    if f"{name}64" in entry:
        return base64.b64decode(entry[f"{name}64"], validate=True)
    text = entry[name]
    if not isinstance(text, str):
        raise TypeError(f"{name} is no text")
    return text.encode()


@contextlib.contextmanager
def opened(name: str, mode: str) -> Iterator[IO[str]]:
    """A file, or `-`; UTF-8, whatever the locale says. Raises ToolError."""
    errors = "strict" if mode == "w" else "surrogateescape"  # a wrong byte makes a line that is no item
    if name == "-":
        stream = sys.stdout if mode == "w" else sys.stdin
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
        yield stream
        return
    try:
        file = open(name, mode, encoding="utf-8", errors=errors, newline="\n")  # noqa: SIM115  # closed below; only opening it may fail
    except OSError as error:
        raise ToolError(f"{name}: {error.strerror}") from None
    with file:
        yield file
