"""ping, stats, dump, load, bench and top: against mcserver and against a real memcached, and what they say when it goes wrong."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mcserver import cli
from mcserver.testing import Server
from mcserver.tools import copying, stats
from mcserver.tools.client import Client as AskingClient
from mcserver.tools.client import ToolError, Way, parse_address
from mcserver.tools.copying import Item
from mcserver.tools.top import Watched, prefix_of, server_table, short
from tests.peer import memcached as real_memcached
from tests.serving import Client

YEAR = 365 * 86400


@pytest.fixture(params=["mcserver", "memcached"])
def server(request: pytest.FixtureRequest, memcached_factory: Any) -> Iterator[str]:
    """The address of either."""
    if request.param == "mcserver":
        yield "{}:{}".format(*memcached_factory().address)
    else:
        with real_memcached() as address:
            yield "{}:{}".format(*address)


@pytest.fixture
def filled(server: str) -> str:
    """With a few items of every kind."""
    client = Client(parse_address(server))
    for item in (
        b"set plain 0 0 5\r\nhello\r\n",
        b"set flags 42 0 0\r\n\r\n",
        b"set soon 0 1000 1\r\nx\r\n",
        b"set late 0 %d 1\r\nx\r\n" % (int(time.time()) + YEAR),
        b"set bytes 0 0 4\r\n\x00\xff\r\n\r\n",
        b"set text 0 0 6\r\n\xc3\xa4\xe2\x82\xac\n\r\n",
        b"set pct%20: 0 0 1\r\n1\r\n",
        b"set \xff 0 0 1\r\n1\r\n",
        b"ms ASBiDQo= 1 b\r\n1\r\n",
    ):
        client.send(item)
        assert client.until(b"\r\n") in {b"STORED\r\n", b"HD\r\n"}
    client.close()
    return server


# Addresses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h", ("h", 11211)), ("h:1", ("h", 1)), ("[::1]:2", ("::1", 2)), ("[::1]", ("::1", 11211)), ("::1", ("::1", 11211)),
        ("/run/s", "/run/s"), ("./s", "./s"),
    ],
)  # fmt: skip
def test_addresses_are_read(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "h:x", "h:0", "h:70000", "[]:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ToolError, match="is no address"):
        parse_address(text)


# ping --------------------------------------------------------------------------------------------------------------------


def test_ping_shows_version_and_times(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ping", server, "-i", "0.001"]) == 0
    assert re.match(rf"{server}: 1\.6\.\d+; ms: least [\d.]+, median [\d.]+, most [\d.]+\n", capsys.readouterr().out)


def test_ping_of_nobody_and_of_something_else(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held, socket.create_server(("127.0.0.1", 0)) as other:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        silent = f"127.0.0.1:{other.getsockname()[1]}"
        assert cli.main(["ping", nobody, server, silent, "-c", "1", "--timeout", "0.1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "Connection refused" in lines[0]
    assert lines[1].startswith(f"{server}: 1.6.")
    assert "no answer in time" in lines[2]


def test_a_wrong_argument_ends_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ping", "--frobnicate"]) == 64
    assert "usage: mcserver ping" in capsys.readouterr().err
    assert cli.main(["ping", "--help"]) == 0


# stats -------------------------------------------------------------------------------------------------------------------


def test_stats_are_a_table_or_json_and_an_error_is_told(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", filled]) == 0
    assert re.search(r"^curr_items +9$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["stats", filled, "settings", "--json", "--only", "max"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["maxbytes"] == 64 << 20
    assert all("max" in key for key in found)
    assert cli.main(["stats", filled, "frobnicate"]) == 1
    assert "stats frobnicate: ERROR" in capsys.readouterr().err


def test_the_server_may_be_left_out(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "ADDRESS", server)
    assert cli.main(["stats", "settings", "--only", "maxbytes"]) == 0
    assert capsys.readouterr().out == f"maxbytes  {64 << 20}\n"
    assert cli.main(["stats", "reset"]) == 0
    assert capsys.readouterr().out == "RESET\n"
    assert cli.main(["stats", "settings:1"]) == 1
    assert capsys.readouterr().err.startswith("settings:1: ")


def test_statistics_that_are_lists_or_only_done(memcached_factory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server: Server = memcached_factory()
    server["user:1"] = "Ada"
    client = Client(server.address)
    for words, said in (
        ("detail on", "OK\n"),
        ("detail dump", "user  get 1 hit 1 set 0 del 0\n"),
        ("cachedump 1 0", "user:1  [3 b; 0 s]\n"),
        ("reset", "RESET\n"),
        ("detail off", "OK\n"),
    ):
        assert cli.main(["stats", server.url.removeprefix("memcached://"), *words.split()]) == 0
        assert capsys.readouterr().out == said
        client.command(b"get user:1", b"END\r\n")
    client.close()


def test_changes_are_what_moved_meanwhile(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", filled, "--changes", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes_read"] > 0
    assert "curr_items" not in found


# dump and load -----------------------------------------------------------------------------------------------------------


def contents(server: str) -> dict[bytes, tuple[bytes, int, int]]:
    client = Client(parse_address(server))
    found = {}
    for key in copying.listed(server, Way(5)):
        with AskingClient(server) as asking:
            (item,) = copying.fetched(asking, [key])
        found[key] = (item.value, item.flags, item.expires)
    client.close()
    return found


def test_a_dump_waits_for_a_crawler_that_is_busy(memcached_factory: Any) -> None:
    server: Server = memcached_factory()
    server["plain"] = b"value"
    server.faults.error("lru_crawler", "BUSY currently processing crawler request", times=2)
    assert contents("{}:{}".format(*server.address)) == {b"plain": (b"value", 0, 0)}


def test_a_dump_is_loaded_elsewhere(filled: str, tmp_path: Path, memcached_factory: Any) -> None:
    file = tmp_path / "dump"
    assert cli.main(["dump", filled, str(file)]) == 0
    there = contents(filled)
    assert len(there) == 9
    other: Server = memcached_factory()
    address = "{}:{}".format(*other.address)
    assert cli.main(["load", address, str(file)]) == 0
    here = contents(address)
    assert here.keys() == there.keys()
    for key, (value, flags, expires) in there.items():
        assert here[key][:2] == (value, flags)
        assert abs(here[key][2] - expires) <= 2
    assert there[b"flags"][1] == 42
    assert there[b"\x01 b\r\n"][0] == b"1"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {"key": "plain", "value": "hello"} in lines
    assert any("value64" in line for line in lines)


def test_a_load_into_a_real_memcached(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "dump"
    assert cli.main(["dump", filled, str(file)]) == 0
    with real_memcached() as address:
        other = "{}:{}".format(*address)
        assert cli.main(["load", other, str(file)]) == 0
        assert {key: each[:2] for key, each in contents(other).items()} == {
            key: each[:2] for key, each in contents(filled).items()
        }


def test_a_prefix_and_pipes(filled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["dump", filled, "--prefix", "pl"]) == 0
    captured = capsys.readouterr()
    assert captured.out == '{"key": "plain", "value": "hello"}\n'
    assert captured.err == f"1 items of {filled}\n"
    text = '{"key": "plain", "value": "other"}\n\n{"key": "new", "value": "1"}\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert cli.main(["load", filled, "--add"]) == 0
    assert capsys.readouterr().err == "1 stored, 0 had expired, 1 were there\n"
    assert contents(filled)[b"plain"][0] == b"hello"


def test_what_has_expired_or_is_refused_is_counted(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"key": "gone", "value": "1", "expires": 1_000_000_000},
        {"key": "big", "value": "x" * (2 << 20)},
        {"key": "good", "value": "1", "expires": int(time.time()) + YEAR},
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, lines))))
    assert cli.main(["load", server]) == 2
    assert "1 stored, 1 had expired, 1 refused: SERVER_ERROR" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["x", "[]", "{}", '{"key": "a"}', '{"key": "", "value": "1"}', '{"key": 1, "value": "1"}', '{"key64": "!", "value": "1"}',
     '{"key": "a", "value": "1", "flags": -1}', '{"key": "a", "value": "1", "expires": "x"}',
     '{"key": "a", "value": "1", "expires": Infinity}', "[" * 100_000],
)  # fmt: skip
def test_a_line_that_is_no_item_is_named(
    line: str, server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"key": "ok", "value": "1"}\n' + line))
    assert cli.main(["load", server]) == 1
    assert "line 2 is no item of a dump" in capsys.readouterr().err


def test_a_line_that_is_no_utf8_is_named(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dump"
    file.write_bytes(b'{"key": "ok", "value": "1"}\n{"key": "a", "value": "\xff"}\n')
    assert cli.main(["load", server, str(file)]) == 1
    assert "line 2 is no item of a dump" in capsys.readouterr().err


def test_pipes_are_utf8_whatever_the_locale(
    filled: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('{"key": "ä", "value": "€"}\n'.encode()), "latin-1"))
    assert cli.main(["load", filled]) == 0
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "latin-1"))
    assert cli.main(["dump", filled, "--prefix", "ä"]) == 0
    assert out.getvalue() == '{"key": "ä", "value": "€"}\n'.encode()


def test_files_that_cannot_be_opened(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["load", server, str(tmp_path / "none")]) == 1
    assert cli.main(["dump", server, str(tmp_path)]) == 1
    assert capsys.readouterr().err.count(str(tmp_path)) == 2


def test_a_dump_of_before_stays_when_the_server_cannot_be_asked(tmp_path: Path, memcached_factory: Any) -> None:
    kept = tmp_path / "kept"
    kept.write_text("of yesterday\n")
    assert cli.main(["dump", "127.0.0.1:1", str(kept)]) == 1
    server: Server = memcached_factory("-X")
    assert cli.main(["dump", server.url.removeprefix("memcached://"), str(kept)]) == 1
    assert kept.read_text() == "of yesterday\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["dump {}", "dump {} /dev/full", "stats {}", "ping {}", "top {} -n 1 -i 0.1", "config", "-h"]
)
def test_a_full_disk_is_one_line(filled: str, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "mcserver", *command.format(filled).split()],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "can't go on: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["bench {} --seconds 0.1", "top {} -n 1 -i 0.1", "pages man"])
def test_any_locale_will_do(filled: str, command: str, encoding: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mcserver", *command.format(filled).split()],
        capture_output=True, timeout=30, check=False, env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "20"},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")


def test_items_survive_their_line() -> None:
    for item in (Item(b"a", b"", 0, 0), Item(b"\xff", b"\xff", 1, 2), Item("ä".encode(), '\u2028\n"'.encode(), 0, 0)):
        assert list(copying.items(io.StringIO(copying.to_line(item)))) == [item]


def test_progress_without_a_terminal_is_a_line_now_and_then(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcserver.tools.progress.LINE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"key": "a", "value": "1"}\n' * 250))
    assert cli.main(["load", server]) == 0
    assert capsys.readouterr().err.splitlines()[:3] == [
        "loading: 100 items",
        "loading: 200 items",
        "loading: 250 items",
    ]


# bench -------------------------------------------------------------------------------------------------------------------


def test_bench_measures_and_leaves_nothing(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", server, "--seconds", "0.05", "--size", "10"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"get, one at a time +[\d,]+ a second; µs: p50 [\d,]+, p99", out)
    assert re.search(r"set, 100 at once +[\d,]+ a second", out)
    assert list(copying.listed(server, Way(5))) == []
    assert cli.main(["bench", server, "--size", "9999999"]) == 1


def test_bench_says_what_a_server_refuses(memcached_factory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server: Server = memcached_factory("-m", "2", "-I", "1k")
    assert cli.main(["bench", "{}:{}".format(*server.address), "--size", "2000"]) == 1
    assert "a set is answered with SERVER_ERROR object too large" in capsys.readouterr().err


# top ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_top_without_a_terminal(filled: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mcserver", "top", filled, "-n", "2", "-i", "0.05"],
        capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "140"},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "ops/s" in result.stdout
    assert filled in result.stdout
    assert "classes of" in result.stdout
    assert "q ends" not in result.stdout
    assert result.stdout.endswith("\n")
    assert result.stdout.count("ops/s") == 2, "each look as it comes"


@pytest.mark.parametrize("width", [40, 55, 72, 80, 90, 100, 120])
def test_no_heading_is_cut_on_a_terminal_of_any_width(memcached_factory: Any, width: int) -> None:
    server: Server = memcached_factory()
    server["a"] = bytes(1 << 19)
    watched = Watched(server.url.removeprefix("memcached://"), Way(5), watch=False)
    watched.look()
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(server_table([watched], width))
    watched.close()
    assert "…" not in captured.get()


@pytest.mark.slow
def test_top_on_a_terminal_ends_with_q(filled: str) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    command = [sys.executable, "-m", "mcserver", "top", filled, "127.0.0.1:1", "-i", "0.1"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(slave)
    client = Client(parse_address(filled))
    seen = ""
    try:
        while "user:*" not in seen or "Connection refused" not in seen or "paused" not in seen:
            client.send(b"get user:1 user:2\r\n")
            client.until(b"END\r\n")
            if "user:*" in seen:
                os.write(master, b"p")
            if select.select([master], [], [], 0.05)[0]:
                seen += os.read(master, 65536).decode("utf-8", "replace")
        os.write(master, b"ppq")  # at once: none is lost
        with contextlib.suppress(OSError):  # the terminal's other end is closed when it has ended
            while os.read(master, 65536):
                pass
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        client.close()
        os.close(master)


def test_top_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "127.0.0.1:1", "-n", "1"]) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_rates_prefixes_and_short_numbers(memcached_factory: Any) -> None:
    server: Server = memcached_factory()
    watched = Watched("{}:{}".format(*server.address), Way(5), watch=False)
    watched.look()
    assert watched.hit_ratio is None
    server["a"] = "1"
    server.ask(b"get a\r\n" * 3 + b"get b\r\n")
    watched.look()
    assert watched.hit_ratio == pytest.approx(0.75)
    assert watched.operations > 0
    assert [prefix_of(key) for key in ("user:1", "a/b:c", "plain", ":x")] == ["user:*", "a/*", "plain", ":*"]
    assert [short(value) for value in (0, 1.25, 999, 1000, 123456, 5e9)] == ["0", "1.2", "999", "1k", "123k", "5G"]
    for number in range(6000):
        watched.count(f"{number}:x")
    assert len(watched.prefixes) <= 5000
    watched.close()


@pytest.mark.slow
def test_a_link_named_memcached_has_no_subcommands(tmp_path: Path) -> None:
    link = tmp_path / "memcached"
    link.symlink_to(Path(sys.executable).parent / "mcserver")
    result = subprocess.run([link, "ping", "-V"], capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.startswith("memcached 1.6.")


@pytest.mark.slow
def test_the_tools_load_nothing_of_the_server() -> None:
    code = "import sys; from mcserver.tools import bench, copying, ping, stats, top; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    ).stdout.split()
    assert not {"asyncio", "kazoo", "rich", "mcserver.core", "mcserver.server"} & set(loaded)
