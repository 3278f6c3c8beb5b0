"""What a server says: the trace of -vv and of `verbosity`, and log lines as JSON."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import Start
from tests.serving import Client, Server, eventually


def talk(server: Server) -> int:
    """A short exchange; the descriptor that the trace names."""
    client = server.connect()
    assert client.command(b"set a 0 0 1\r\nx") == b"STORED\r\n"
    assert client.command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
    assert client.command(b"bogus") == b"ERROR\r\n"
    client.close()
    eventually(lambda: "connection closed." in server.log())
    found = re.search(r"<(\d+) new auto-negotiating client connection", server.log())
    assert found
    return int(found[1])


def test_very_verbose_traces_as_memcached(start: Start) -> None:
    server = start("-vv")
    fd = talk(server)
    lines = server.log().splitlines()
    begin = lines.index(f"<{fd} new auto-negotiating client connection")
    trace = lines[begin:]
    for line in (f"<{fd} set a 0 0 1", f">{fd} STORED", f"<{fd} get a", f">{fd} END", f"<{fd} bogus", f">{fd} ERROR"):
        assert line in trace, trace
    assert trace[-1] == f"<{fd} connection closed."
    assert re.search(r"^<\d+ server listening \(auto-negotiate\)$", server.log(), re.MULTILINE)


@pytest.mark.slow
def test_what_comes_too_fast_to_be_traced_is_counted(start: Start) -> None:
    server = start("-vv")
    client = server.connect()
    shown: list[str] = []
    while not shown:  # as fast as it can be
        client.send(b"get a\r\n" * 2000)
        for _ in range(2000):
            assert client.until(b"\r\n") == b"END\r\n"
        shown = re.findall(r"^-- (\d+) commands and replies are not shown", server.log(), re.MULTILINE)
    assert int(client.stats()["log_worker_dropped"]) >= int(shown[0]) > 0


def test_quiet_says_nothing_of_commands(server: Server, client: Client) -> None:
    before = server.log()
    assert client.command(b"get a", b"END\r\n") == b"END\r\n"
    assert server.log() == before


@pytest.mark.slow
def test_verbosity_works_while_running(server: Server, client: Client) -> None:
    assert client.command(b"verbosity 2") == b"OK\r\n"
    assert client.command(b"get traced", b"END\r\n") == b"END\r\n"
    eventually(lambda: re.search(r"^<\d+ get traced$", server.log(), re.MULTILINE) is not None)
    assert client.command(b"verbosity 0") == b"OK\r\n"
    assert client.command(b"get hidden", b"END\r\n") == b"END\r\n"
    assert "hidden" not in server.log()


@pytest.mark.slow
def test_json_lines_have_time_level_logger_and_message(start: Start) -> None:
    server = start("--log-json", "-vv")
    talk(server)
    entries = [json.loads(line) for line in server.log().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
    assert " listens on " in entries[0]["message"]
    assert entries[0]["level"] == "info"
    assert any(entry["logger"] == "mcserver.trace" and entry["message"].endswith(" get a") for entry in entries)


@pytest.mark.slow
def test_ascii_only_says_so(start: Start) -> None:
    server = start("-vv", "-B", "ascii")
    assert server.connect().command(b"mn") == b"MN\r\n"
    eventually(lambda: re.search(r"^<\d+ new ascii client connection\.$", server.log(), re.MULTILINE))


@pytest.mark.slow
def test_bytes_that_are_no_text_are_traced_safely(start: Start) -> None:
    server = start("-vv")
    client: Client = server.connect()
    assert client.command(b"get \xff\x01\x1b[2J", b"END\r\n") == b"END\r\n"
    eventually(lambda: "\\xff" in server.log())
    assert "\x1b" not in server.log()
