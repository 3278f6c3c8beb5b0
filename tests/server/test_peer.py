"""Beside a real memcached: the lines of `watch` and of -vv for the same commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Start
from tests.peer import memcached
from tests.serving import Client, eventually

COMMANDS = [
    b"get missing",
    b"set a 0 100 3\r\nxyz",
    b"get a",
    b"add a 0 0 1\r\nx",
    b"cas a 0 0 1 99999\r\nx",
    b"append a 0 0 1\r\nx",
    b"prepend a 0 0 1\r\nx",
    b"replace missing 0 0 1\r\nx",
    b"incr a 1",
    b"touch a 0",
    b"gat 0 a",
    b"mg a",
    b"mg missing",
    b"ms a 2\r\nhi",
    b"ms a 1 MA\r\nx",
    b"ms fresh 1 ME T50\r\nx",
    b"ms missing 1 MR\r\nx",
    b"ms a 1 C99999\r\nx",
    b"md a",
    b"mg lease N30",
    b"ms a 1 C5 MA\r\nx",
    b"ma n N0 J5",
    b"incr n 1",
    b"decr missing 1",
    b"delete n",
    b"delete missing",
    b"set k%:/x 0 0 1\r\nx",
]
END_OF_LIST = b"get end-of-list"


def events(server: Callable[[], Client]) -> list[str]:
    """What a watcher of fetchers and mutations is told of the commands, without times, numbers and descriptors.

    A lookup that is logged twice counts once: memcached looks again before it makes the number of `ma ... N`.
    """
    watcher, client = server(), server()
    assert watcher.command(b"watch fetchers mutations") == b"OK\r\n"
    client.send(b"".join(command + b"\r\n" for command in (*COMMANDS, END_OF_LIST)))
    lines = []
    while "key=end-of-list " not in (line := watcher.until(b"\n").decode()):
        lines.append(re.sub(r"^ts=\d+\.\d+ gid=\d+ | cfd=\d+|\n", "", line))
    client.close()
    watcher.close()
    return [line for line, _ in groupby(lines)]


@pytest.mark.slow
def test_watch_lines_are_memcacheds(start: Start) -> None:
    ours = events(start().connect)
    with memcached() as address:
        theirs = events(lambda: Client(address))
    assert ours == theirs


TRACED = [
    b"get a",
    b"set a 0 0 1\r\nx",
    b"get a b",
    b"gets a",
    b"delete a",
    b"delete a",
    b"incr a 1",
    b"touch a 1",
    b"bogus",
    b"flush_all",
    b"verbosity 2",
    b"stats settings",
]


def trace(client: Client, log: Callable[[], str]) -> list[str]:
    """What -vv prints for the commands, without descriptors."""
    client.send(b"".join(command + b"\r\n" for command in TRACED) + b"quit\r\n")
    client.to_end()
    client.close()
    eventually(lambda: "connection closed." in log())
    text = log()
    lines = [
        line for line in text[text.index("new auto-negotiating client") :].splitlines() if line.startswith(("<", ">"))
    ]
    return [re.sub(r"^([<>])\d+ ", r"\1", re.sub(r"( \d+)?( sending key) ", r"\2 ", line)) for line in lines]


@pytest.mark.slow
def test_trace_is_memcacheds(start: Start) -> None:
    server = start("-vv")
    ours = trace(server.connect(), server.log)
    with TemporaryDirectory() as folder:
        stderr = Path(folder, "stderr")
        with memcached("-vv", stderr=stderr) as address:
            theirs = trace(Client(address), lambda: stderr.read_text("utf-8", "replace"))
    assert ours == theirs


COUNTED = [
    *COMMANDS,
    b"md lease I",
    b"md lease",
    b"mg z N30 v t",
    b"mg y N30 T10",
    b"mg y T10",
    b"mg nothing T10",
    b"ma m N0",
    b"ma m MD",
    b"ma m C1",
    b"ma lease2",
    b"ma lease2 MD",
    b"ms c 1 C99\r\nx",
    b"set c 0 0 1\r\nx",
    b"ms c 1 C1 I\r\nx",
    b"ms c 1 ME\r\nx",
    b"gats 0 zz c",
    b"touch c 0",
    b"cas zz 0 0 1 1\r\n1",
    b"me c",
    b"set big 0 0 1048576\r\n" + b"x" * 1048576,
    b"set bad 0 0 3\r\nabcde",
    b"delete c 0",
]
COUNTERS = """
    cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits
    incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large
    store_no_memory bytes curr_items total_items evictions
"""


def counters(client: Client) -> dict[str, str]:
    client.send(b"".join(command + b"\r\n" for command in (*COUNTED, END_OF_LIST, b"verbosity 0", b"mn")))
    client.until(b"MN\r\n")
    stats = client.stats()
    return {key: stats[key] for key in COUNTERS.split()}


STATES = [
    b"",
    b"set K 3 0 2\r\n10",
    b"set K 0 100 3\r\nabc",
    b"set K 0 0 0\r\n",
    b"set K 0 -1 2\r\n10",
    b"set K 0 0 2\r\n10\r\nget K\r\ntouch K -1",
    b"set K 0 0 2\r\n10\r\nmd K I",
    b"set K 0 0 2\r\n10\r\nmd K I\r\nmg K",
    b"mg K N100",
]
ON_EACH = """
    get K/gets K K/gat 10 K/gats -1 K/touch K 10/touch K x/delete K/incr K 1/decr K 1/incr K 18446744073709551615/incr K x
    set K 0 0 1|x/add K 0 0 1|x/replace K 0 0 1|x/append K 0 0 1|x/prepend K 0 0 1|x/cas K 0 0 1 0|x/cas K 0 0 1 99999999|x
    set K 0 -1 1|x/set K 0 0 1|xx/flush_all x/mg K/mg K v/mg K T30/mg K T-1/mg K N30/mg K N30 T30/mg K R30/mg K u/mg K q/mg K h l
    ms K 1|x/ms K 1 ME|x/ms K 1 MA|x/ms K 1 MR|x/ms K 1 C99999999|x/ms K 1 C0|x/ms K 1 C1 I|x/ms K 1 C99999999 I|x/ms K 1 T-1|x
    ms K 1 I|x/ms K 1 C1 ME|x/ms K 1 C1 MA|x/ms K 1 Z|x/md K/md K I/md K I T5/md K I T-1/md K C99999999/md K C99999999 I/md K q
    ma K/ma K v/ma K N5/ma K N5 J7 v/ma K MD D999/ma K C99999999/ma K C99999999 N5/ma K MZ/me K/me KKKKKKKK!/me
""".replace("\n", "/").split("/")
AT_ITS_TIME = {"bytes", "curr_items", "evictions"}
"""Of what has expired: it is counted until somebody frees it, whoever comes first."""


def counters_of_each(client: Client) -> dict[str, dict[str, int]]:
    """By how much each command raises which counters, on keys in all states together."""
    found: dict[str, dict[str, int]] = {}
    before = client.stats()
    for number, command in enumerate(word.strip() for word in ON_EACH if word.strip()):
        line = command.encode().replace(b"|", b"\r\n").replace(b"K" * 8, b"k" * 250)
        for lines in (STATES, [line] * len(STATES)):  # not at once: memcached pads no number whose reply is unsent
            batch = [each.replace(b"K", b"%d.%d" % (number, state)) for state, each in enumerate(lines) if each]
            client.command(b"\r\n".join([*batch, b"mn"]), b"MN\r\n")
        after = client.stats()
        names = set(COUNTERS.split()) - AT_ITS_TIME
        found[command] = {name: int(after[name]) - int(before[name]) for name in names if after[name] != before[name]}
        before = after
    return found


@pytest.mark.slow
def test_each_commands_counters_are_memcacheds(start: Start) -> None:
    options = ("-o", "no_lru_crawler,no_lru_maintainer")  # nobody frees what has expired, or counts what he meets
    ours = counters_of_each(start(*options).connect())
    with memcached(*options) as address:
        client = Client(address)
        theirs = counters_of_each(client)
        client.close()
    assert ours == theirs


@pytest.mark.slow
def test_counters_are_memcacheds(start: Start) -> None:
    ours = counters(start().connect())
    with memcached() as address:
        client = Client(address)
        theirs = counters(client)
        client.close()
    assert ours == theirs
