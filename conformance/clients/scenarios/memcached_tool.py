"""memcached-tool, the Perl script that comes with memcached: what operators look at a server with."""

from __future__ import annotations

import re
import socket
import subprocess

from ..harness import Client, Run, check, equal

TOOL = "/usr/share/memcached/scripts/memcached-tool"
PROGRAMS = ("display", "dump", "keys", "settings", "sizes", "stats")


def version_of_tool() -> str:
    """The version of the memcached that the script came with."""
    told = subprocess.run(["memcached", "-V"], capture_output=True, text=True, check=True).stdout
    return told.split()[-1]


CLIENT = Client(title="memcached-tool", version=version_of_tool(), programs=frozenset(PROGRAMS))


def tool(run: Run, *words: str) -> str:
    """Run the script in one of its modes; what it printed."""
    run.called(words[0])
    command = ["perl", TOOL, run.server.address, *words]
    done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    equal(done.returncode, 0, f"{' '.join(command)} printed {done.stderr!r}; exit status")
    return done.stdout.decode("latin-1")


def fill(run: Run) -> list[str]:
    """Store 30 values of several sizes, by a raw connection of nobody's client."""
    keys = [run.key(number) for number in range(30)]
    with socket.create_connection((run.server.host, run.server.port), 10) as connection:
        for number, key in enumerate(keys):
            value = b"v" * (10 + 100 * number)
            connection.sendall(b"set %s 5 0 %d noreply\r\n%s\r\n" % (key.encode(), len(value), value))
        connection.sendall(b"version\r\n")
        check(connection.recv(100).startswith(b"VERSION"), "all were taken")
    return keys


@CLIENT.scenario
def tables(run: Run) -> None:
    fill(run)
    lines = tool(run, "display").splitlines()
    check("Item_Size" in lines[0], "the heading")
    check(len(lines) >= 5, "a line for each slab class")
    check(all(re.match(r" +\d+ +[\d.]+[BKM]", line) for line in lines[1:]), f"the lines {lines[1:]}")


@CLIENT.scenario
def figures(run: Run) -> None:
    for mode, figure in (("stats", "curr_items"), ("settings", "item_size_max")):
        check(re.search(rf"^ +{figure} +\d+\s*$", tool(run, mode), re.MULTILINE), f"{mode} tells {figure}")
    check("Size" in tool(run, "sizes"), "sizes")


@CLIENT.scenario
def keys_and_dump(run: Run) -> None:
    keys = fill(run)
    told = tool(run, "keys")
    equal([key for key in keys if f"key={key} ".replace(":", "%3A") not in told], [], "keys that metadump leaves out")
    dumped = tool(run, "dump")
    equal([key for key in keys if f"add {key} 5 " not in dumped], [], "keys that dump leaves out")
