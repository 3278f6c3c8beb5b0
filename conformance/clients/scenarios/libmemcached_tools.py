"""libmemcached's command-line tools: memccapable's 27 cases, the load generators, and one tool an operation."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path

from ..harness import Client, Run, check, equal, everything

CAPABLE_CASES = 27
# memcached 1.6.45 accepts whatever follows `delete KEY`, which memccapable wants refused.
NOT_CAPABLE = {"ascii delete", "ascii delete noreply"}
LAST_THAT_REFUSED = (1, 6, 18)
PROGRAMS = (
    "memcaslap memccapable memccat memccp memcdump memcexist memcflush memcping memcrm memcslap memcstat memctouch"
)


def version_of_tools() -> str:
    """The number in `memcstat v1.1 (libmemcached v1.1.4)`."""
    told = subprocess.run(["memcstat", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libmemcached v([\d.]+)", told)
    return found[1] if found else told.strip()


CLIENT = Client(title="libmemcached's tools", version=version_of_tools(), programs=frozenset(PROGRAMS.split()))


def tool(run: Run, program: str, *arguments: str, status: int = 0, server: str | None = None) -> str:
    """Run one tool against the server, fail unless it ends with `status`; what it printed."""
    run.called(program)
    address = server or run.server.address
    command = [program, "-s", address, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    printed = (done.stdout + done.stderr).decode("latin-1")
    equal(done.returncode, status, f"{' '.join(command)} printed {printed[:300]!r}; exit status")
    return done.stdout.decode("latin-1")


def put(run: Run, *files: tuple[str, bytes], options: tuple[str, ...] = ()) -> None:
    """Copy files into the cache; a file's name is its key."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files:
            Path(folder, name).write_bytes(content)
        tool(run, "memccp", *options, *(str(Path(folder, name)) for name, _ in files))


def name(run: Run, part: str) -> str:
    """A key that can be the name of a file."""
    return run.key(part).replace(":", "-")


@CLIENT.scenario
def memccapable(run: Run) -> None:
    run.called("memccapable")
    command = ["memccapable", "-a", "-t", "30", "-h", run.server.host, "-p", str(run.server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    cases = dict(re.findall(r"(ascii \w+(?: noreply)?) +(\[pass\])?", done.stdout))
    equal(len(cases), CAPABLE_CASES, f"cases in {done.stdout!r}")
    failed = {case for case, result in cases.items() if not result}
    version = re.search(r"version: (\d+)\.(\d+)\.(\d+)", tool(run, "memcstat"))
    check(version, "memcstat tells the version")
    late = version is not None and tuple(map(int, version.groups())) > LAST_THAT_REFUSED
    equal(failed - (NOT_CAPABLE if late else set()), set(), "cases that fail")


@CLIENT.scenario
def memccapable_of_the_binary_protocol(run: Run) -> None:
    run.called("memccapable")
    command = ["memccapable", "-b", "-t", "30", "-h", run.server.host, "-p", str(run.server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    cases = dict(re.findall(r"(binary \w+) +(\[pass\])?", done.stdout))
    equal(len(cases), CAPABLE_CASES, f"cases in {done.stdout!r}")
    equal({case for case, result in cases.items() if not result}, set(), "cases that fail")


@CLIENT.scenario
def copy_and_print(run: Run) -> None:
    key, binary = name(run, "text"), name(run, "binary")
    put(run, (key, b"text"), (binary, everything() * 1000))
    equal(tool(run, "memccat", key), "text\n")
    equal(tool(run, "memccat", binary).encode("latin-1")[:-1], everything() * 1000)
    tool(run, "memccat", name(run, "none"), status=1)
    put(run, (key, b"flagged"), options=("-F", "42"))
    equal(tool(run, "memccat", "-F", key).split(), ["42", "flagged"])
    put(run, (name(run, "added"), b"1"), options=("-A",))
    put(run, (name(run, "added"), b"2"), options=("-R",))
    equal(tool(run, "memccat", name(run, "added")), "2\n")


@CLIENT.scenario
def exist_touch_and_remove(run: Run) -> None:
    short, touched = name(run, "short"), name(run, "touched")
    put(run, (short, b"v"), (touched, b"v"), options=("-e", "3"))
    tool(run, "memcexist", short)
    tool(run, "memctouch", "-e", "100", touched)
    time.sleep(4.2)
    tool(run, "memcexist", short, status=1)
    tool(run, "memcexist", touched)
    tool(run, "memcrm", touched)
    tool(run, "memcrm", touched, status=1)
    tool(run, "memctouch", "-e", "100", touched, status=1)


@CLIENT.scenario
def dump(run: Run) -> None:
    """Keys by `stats items` and `stats cachedump`, which shows the cold segment: most of what was stored a while ago."""
    keys = [name(run, f"key{number}") for number in range(200)]
    put(run, *((key, b"v") for key in keys))
    deadline = time.monotonic() + 10
    while not (found := set(keys) & set(tool(run, "memcdump").split())) and time.monotonic() < deadline:
        time.sleep(0.5)
    check(found, "memcdump prints keys that are there")


@CLIENT.scenario
def statistics(run: Run) -> None:
    put(run, (name(run, "k"), b"v"))
    told = tool(run, "memcstat")
    for figure in ("pid", "curr_connections", "bytes", "curr_items", "evictions"):
        check(re.search(rf"^\t *{figure}: \d+$", told, re.MULTILINE), f"memcstat tells {figure}")
    check("items:" in tool(run, "memcstat", "items"), "memcstat items")
    check("active_slabs" in tool(run, "memcstat", "slabs"), "memcstat slabs")
    check("item_size_max" in tool(run, "memcstat", "settings"), "memcstat settings")
    check("Average Item Size" in tool(run, "memcstat", "-a"), "memcstat's analysis")
    tool(run, "memcstat", "-S")


@CLIENT.scenario
def ping_and_flush(run: Run) -> None:
    tool(run, "memcping")
    tool(run, "memcping", server="127.0.0.1:1", status=1)
    put(run, (name(run, "k"), b"v"))
    tool(run, "memcflush", "-e", "100")
    tool(run, "memcexist", name(run, "k"))
    tool(run, "memcflush")
    tool(run, "memcexist", name(run, "k"), status=1)


@CLIENT.scenario
def load_by_memcslap(run: Run) -> None:
    both = f"{run.server.address},{run.server.second_address}"
    for test in ("set", "get", "mget"):
        for options in ((), ("-R",), ("-n",), ("--binary",)):
            told = tool(run, "memcslap", "-t", test, "-e", "500", "-c", "4", *options)
            check(
                re.search(rf"Time to {test}\s+2000 keys by\s+4 threads", told), f"memcslap {test} {options}: {told!r}"
            )
    tool(run, "memcslap", "-t", "get", "-e", "300", "-c", "4", server=both)


@CLIENT.scenario
def load_by_memcaslap(run: Run) -> None:
    """Values are verified; keys are fetched singly and ten at a time."""
    for options in ((), ("-d", "10"), ("-X", "100k", "-n", "2")):
        told = tool(run, "memcaslap", "-T", "1", "-c", "8", "-x", "3000", "-v", "0.5", *options)
        figures = dict(re.findall(r"^(\w+): (\d+)", told, re.MULTILINE))
        equal((figures.get("verify_failed"), figures.get("verify_misses")), ("0", "0"))
        equal(int(figures["cmd_get"]) + int(figures["cmd_set"]), 3000)
