"""Clients in processes of their own: what a client that crashes, hangs or can't be run comes to, and the way there."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.clients import runner
from conformance.clients.own_tests import Suite, run_suite, suites
from conformance.clients.relay import Relay
from conformance.clients.runner import Report, Scenario, clients, run_client, takes
from conformance.clients.servers import NoServerError, Target, reach, started
from conformance.clients.table import markdown

NOWHERE = Target("nowhere", "127.0.0.1", 1, "1.2.3")


async def run_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Report:
    """Run a client that is this Python text."""
    file = tmp_path / "odd.py"
    file.write_text(text)
    monkeypatch.setattr(runner, "clients", lambda _folder="scenarios": {"odd": file})
    monkeypatch.setattr(runner, "command_of", lambda file: [sys.executable, str(file)])
    return await run_client("odd", NOWHERE, tmp_path)


async def test_a_client_that_crashes_keeps_what_it_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = '{"scenario": "one", "operations": 3, "seconds": 0.1, "error": null}'
    report = await run_script(monkeypatch, tmp_path, f"print('{line}', flush=True)\nraise SystemExit('out of luck')")
    assert report.scenarios == [Scenario("one", 3, 0.1, None)]
    assert report.failures() == ["ended early with status 1: out of luck"]


async def test_a_client_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "SECONDS_A_CLIENT", 0.3)
    report = await run_script(monkeypatch, tmp_path, "import time\ntime.sleep(100)")
    assert report.failures() == ["no end after 0.3 s"]


async def test_a_client_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "command_of", lambda _file: [str(tmp_path / "none")])
    report = await run_client("pymemcache", NOWHERE, tmp_path)
    assert len(report.failures()) == 1
    assert report.failures()[0].startswith("cannot be run:")


@pytest.mark.slow
async def test_a_server_that_is_not_there_fails_every_scenario(tmp_path: Path) -> None:
    report = await run_client("pymemcache", NOWHERE, tmp_path, ["storage", "flags"])
    assert [scenario.error is None for scenario in report.scenarios] == [False, False]


def test_every_kind_of_client_has_a_command() -> None:
    commands = {file.suffix: runner.command_of(file)[0] for file in clients().values()}
    others = {".java": "java", ".js": "node", ".php": "php", ".pl": "perl", ".rb": "ruby"}
    assert commands == {".py": sys.executable, **others}


def test_a_client_runs_where_the_server_has_its_door() -> None:
    everything = Target("all", "127.0.0.1", 1, "1.6.45", tls=2, udp=True, sasl=3)
    names = (("pymemcache", True), ("pymemcache-tls", False), ("libmemcached-udp", False), ("dalli-sasl", False))
    for name, here in names:
        assert takes(name, NOWHERE) is here
        assert takes(name, everything)


@pytest.mark.slow
async def test_a_relay_answers_and_a_mute_one_does_not(memcached: Target) -> None:
    async with (
        Relay(memcached.host, memcached.port) as second,
        Relay(memcached.host, memcached.port, mute=True) as mute,
    ):
        assert (await reach("relay", "127.0.0.1", second.port)).version == memcached.version
        reader, writer = await asyncio.open_connection("127.0.0.1", mute.port)
        writer.write(b"set k 0 0 1\r\nv\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.2)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", second.port)
        writer.write(b"get k\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"END\r\n"), 60) == b"VALUE k 0 1\r\nv\r\nEND\r\n"
        writer.close()


async def test_a_relay_to_nowhere_closes() -> None:
    async with Relay("127.0.0.1", 1) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_server_that_ends_at_once() -> None:
    with pytest.raises(NoServerError, match="broken ended at once, with status 7"):
        async with started("broken", f"{sys.executable} -c 'raise SystemExit(7)'"):
            pass
    with pytest.raises(NoServerError, match="cannot run /nowhere/server"):
        async with started("absent", "/nowhere/server -p {port}"):
            pass


async def test_what_does_not_answer_version_is_no_server() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NoServerError, match="answers `version` with b'HTTP"):
            await reach("web", "127.0.0.1", port)


def test_the_table_shows_what_passed_of_how_many() -> None:
    good = Report(
        "fast", "Fast client", "1.0", [Scenario("a", 1200, 0.1, None), Scenario("b", 34, 0.1, None)], ["get", "set"]
    )
    bad = Report(
        "fast", "Fast client", "1.0", [Scenario("a", 1200, 0.1, None), Scenario("b", 34, 0.1, "wrong")], ["get", "set"]
    )
    targets = [Target("memcached", "h", 1, "1.6.18"), Target("other", "h", 2, "1.6.45")]
    assert markdown(targets, {"memcached": {"fast": good}, "other": {"fast": bad}}).splitlines() == [
        "| client | version | operations (calls) | memcached 1.6.18 | other 1.6.45 |",
        "|---|---|---|---|---|",
        "| Fast client | 1.0 | 2 (1,234) | 2/2 | 1/2 **!** |",
    ]


@pytest.mark.slow
def test_an_own_suite_is_a_copy_with_the_servers_port(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tests = "def test_port():\n    assert int('11211') == 4321\n\ndef test_known():\n    assert not 'shared'\n\n"
    (source / "test_it.py").write_text(tests + "def test_wrong():\n    assert not 'ours'\n")
    suite = Suite("odd", "source", "pytest", ["test_it.py"], ["*.py"], {}, {}, {"test_known": "memcached does, too"})
    outcome = run_suite(suite, Target("server", "127.0.0.1", 4321, "1.6.18"), tmp_path)
    assert outcome.passes == ["test_it::test_port"]
    assert list(outcome.failed) == ["test_it::test_wrong"]
    assert outcome.known == {"test_it::test_known": "memcached does, too"}
    assert "11211" in (source / "test_it.py").read_text()


@pytest.mark.slow
def test_an_own_suite_without_its_source_or_its_tests_fails(tmp_path: Path) -> None:
    suite = Suite("odd", "none", "pytest", ["test_it.py"], [], {}, {}, {})
    assert "source is not there" in run_suite(suite, NOWHERE, tmp_path).failures()[0]
    (tmp_path / "none").mkdir()
    assert "no test ran" in run_suite(suite, NOWHERE, tmp_path).failures()[0]
    (tmp_path / "none" / "test_it.py").write_text("import no_such_module\n")
    known = replace(suite, known={"test_it": "one of several files can't be read"})
    assert "no test ran" in run_suite(known, NOWHERE, tmp_path).failures()[0]


def test_every_suite_is_a_clients_and_every_known_failure_has_a_reason() -> None:
    assert set(suites()) <= set(clients())
    assert all(reason for suite in suites().values() for reason in suite.known.values())
