"""The whole suite against memcached 1.6.18 and against mcserver, each with its profile."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from conformance import library
from conformance.__main__ import NOTHING_RAN, PASSED, main
from conformance.notation import version
from conformance.servers import Spawned
from conformance.wire import Address
from tests.peer import memcached
from tests.threads import threads

PEER = "memcached -u root -U 0 -t 1"
MCSERVER = " ".join([sys.executable, "-m", "mcserver", "-u", "root", *threads()])


def outcome(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the status of each case."""
    code = main([*arguments, "--timeout", "20", "--json", str(tmp_path / "results")])
    return code, {case["id"]: case["status"] for case in json.loads((tmp_path / "results").read_text())["cases"]}


@pytest.mark.slow
def test_memcached_passes_in_full(tmp_path: Path) -> None:
    code, statuses = outcome(tmp_path, "--spawn", PEER, "--profile", "1.6.18")
    wanted = {case.id for case in library.cases() if case.applies(version("1.6.18"))}
    assert code == PASSED
    assert {name for name, status in statuses.items() if status == "passed"} == wanted


@pytest.mark.slow
def test_memcached_passes_byte_by_byte(tmp_path: Path) -> None:
    code, statuses = outcome(tmp_path, "--spawn", PEER, "--profile", "1.6.18", "--split")
    assert code == PASSED
    assert sum(status == "passed" for status in statuses.values()) >= 900


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "-t 1"])
@pytest.mark.parametrize("split", [[], ["--split"]])
def test_mcserver_passes_in_full(tmp_path: Path, split: list[str], options: str) -> None:
    code, statuses = outcome(tmp_path, "--spawn", f"{MCSERVER} {options}", *split)
    left = {case.id for case in library.cases() if case.applies(version("1.6.45"))}
    left -= {name for name, status in statuses.items() if status == "passed"}
    assert code == PASSED
    assert left == {case.id for case in library.cases() if split and "whole" in case.needs}


@pytest.mark.slow
def test_a_given_server_is_left_unharmed(tmp_path: Path) -> None:
    with memcached() as where:
        code, statuses = outcome(tmp_path, str(Address(*where)), "--profile", "1.6.18")
    assert code == PASSED
    risky = {
        case.id for case in library.cases() if case.needs & {"destructive", "alone", "fresh", "own"} or case.options
    }
    assert {statuses[name] for name in risky} == {"skipped"}
    assert sum(status == "passed" for status in statuses.values()) >= 500


@pytest.mark.slow
def test_a_given_server_with_destructive(tmp_path: Path) -> None:
    with memcached() as where:
        code, statuses = outcome(
            tmp_path, str(Address(*where)), "--profile", "1.6.18", "--destructive", "--only", "flush/"
        )
    assert code == PASSED
    assert statuses["flush/all"] == "passed"
    assert statuses["flush/delayed"] == "skipped"


def test_nothing_ran_has_its_own_code() -> None:
    with memcached() as where:
        assert main([str(Address(*where)), "--only", "no such case"]) == NOTHING_RAN


@pytest.mark.slow
def test_stop_ends_after_the_first_failure(tmp_path: Path) -> None:
    arguments = ["--spawn", PEER, "--profile", "1.6.45", "--only", "framing/short", "--stop", "--jobs", "1"]
    _, statuses = outcome(tmp_path, *arguments)
    assert list(statuses.values()).count("failed") == 1


def test_verbose_shows_the_exchange(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--spawn", PEER, "--only", "classic/incr/adds", "--verbose"])
    out = capsys.readouterr().out
    assert "passed classic/incr/adds" in out
    assert "    < 15\n" in out


def test_a_server_of_the_suite_ends_with_it() -> None:
    servers = Spawned(PEER)
    case = next(case for case in library.cases() if case.id == "classic/get/hit")
    with servers.lend(case) as lease:
        process = lease.process
    servers.close()
    assert process is not None
    assert process.process.poll() is not None
