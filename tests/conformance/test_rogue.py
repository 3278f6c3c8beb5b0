"""Servers that hang, close, flood, answer noise or die: each case fails with a clear reason, and the run goes on."""

from __future__ import annotations

import socket
import sys

import pytest

from conformance import library
from conformance.__main__ import FAILED, UNREACHABLE, USAGE, main
from conformance.crew import run
from conformance.faults import Proxy, faults
from conformance.notation import version
from conformance.runner import Result, Settings
from conformance.servers import Given, Spawned
from conformance.wire import Address, address
from tests.conformance import rogue
from tests.conformance.rogue import Behaviour
from tests.peer import memcached
from tests.ports import free_port

PROFILE = version("1.6.45")
NAMES = ["classic/get/hit", "stats/form", "admin/quit", "meta/mg/miss", "admin/version", "framing/http"]


def results(behaviour: Behaviour, names: list[str], timeout: float = 0.4) -> dict[str, Result]:
    cases = [case for case in library.cases() if case.id in names]
    with rogue.rogue(behaviour) as where:
        found = list(run(cases, Given(where, destructive=False), Settings(PROFILE, timeout)))
    return {result.case.id: result for result in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (rogue.hang, "hung: no reply for 0.4 s"),
        (rogue.close_early, "the server closed the connection"),
        (rogue.garbage, "wrong reply"),
        (rogue.half_answer, "wrong reply"),
        (rogue.drip, "wrong reply"),
        (rogue.flood, "wrong reply"),
    ],
)
def test_a_case_fails_with_the_reason(behaviour: Behaviour, reason: str) -> None:
    silent = behaviour in {rogue.hang, rogue.half_answer, rogue.drip}  # what comes at all comes in a longer time, too
    result = results(behaviour, ["classic/get/hit"], 0.4 if silent else 60)["classic/get/hit"]
    assert result.status == "failed"
    assert result.failure
    assert result.failure.reason == reason


@pytest.mark.slow
def test_a_server_that_closes_before_it_was_asked() -> None:
    result = results(rogue.close_at_once, ["classic/get/hit"])["classic/get/hit"]
    assert result.reason.startswith("the server ")
    assert "the connection" in result.reason


@pytest.mark.slow
def test_a_list_without_end_is_a_flood() -> None:
    assert results(rogue.flood_lines, ["stats/form"], 5)["stats/form"].reason.startswith(
        "flooded: over 200000 lines and no"
    )


def test_a_line_without_end_is_a_flood() -> None:
    assert results(rogue.flood, ["stats/form"], 5)["stats/form"].reason.startswith("flooded: over 4 MiB without an end")


@pytest.mark.slow
def test_a_drip_does_not_reset_the_time() -> None:
    assert results(rogue.drip, ["stats/form"])["stats/form"].reason.startswith(
        "hung: not whole after 0.4 s, and still coming: --timeout S waits longer; the server hangs"
    )


@pytest.mark.slow
def test_a_server_that_reads_nothing() -> None:
    names = ["classic/set/too-large-swallow"]
    assert "hung" in results(rogue.read_nothing, names)["classic/set/too-large-swallow"].reason


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [rogue.hang, rogue.close_early, rogue.garbage, rogue.drip, rogue.half_answer])
def test_no_case_passes(behaviour: Behaviour) -> None:
    found = results(behaviour, NAMES)
    assert list(found) == [case.id for case in library.cases() if case.id in NAMES]
    passed = {name for name, result in found.items() if result.status == "passed"}
    assert passed <= ({"admin/quit", "framing/http"} if behaviour is rogue.close_early else set())


def test_what_came_too_much_is_a_failure() -> None:
    def echo_twice(client: socket.socket) -> None:
        while data := client.recv(1 << 16):
            client.sendall(b"MN\r\nMN\r\n" if data == b"mn\r\n" else b"VERSION 1\r\n")

    result = results(echo_twice, ["meta/mn/reply"])["meta/mn/reply"]
    assert result.reason == "an answer too many"
    assert result.failure
    assert result.failure.got == b"MN\r\n"


@pytest.mark.slow
def test_a_process_that_dies_in_the_middle_is_told_and_started_again() -> None:
    script = (
        "import socket, sys; s = socket.create_server((sys.argv[2], int(sys.argv[4])))\n"
        "while True:\n c, _ = s.accept(); d = c.recv(100)\n if d: sys.stderr.write('out of luck\\n'); sys.exit(7)"
    )
    servers = Spawned(f'{sys.executable} -c "{script}"')
    cases = [case for case in library.cases() if case.id in {"classic/get/hit", "meta/mg/miss"}]
    found = list(run(cases, servers, Settings(PROFILE, 2.0, jobs=1)))
    servers.close()
    assert [result.reason for result in found] == ["the server ended (exit status 7): out of luck"] * 2


def test_unreachable_is_one_line_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"127.0.0.1:{free_port()}"]) == UNREACHABLE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_unix_socket_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unix:/nowhere/at/all"]) == UNREACHABLE
    assert "cannot reach unix:/nowhere/at/all" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["/no/such/program", f"{sys.executable} -c pass"])
def test_a_command_that_starts_no_server(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--spawn", command]) == UNREACHABLE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["a:"], ["a:1", "--spawn", "b"], ["a:1", "--timeout", "0"], ["a:x"], ["a:1", "--json", "/none/x"]],
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == USAGE
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("localhost", "localhost", 11211), ("a:5", "a", 5), ("[::1]:5", "::1", 5), ("[::1]", "::1", 11211)],
)
def test_a_host_alone_has_memcacheds_port(text: str, host: str, port: int) -> None:
    assert (address(text).host, address(text).port) == (host, port)


@pytest.mark.slow
def test_the_command_reports_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    fault = next(fault for fault in faults() if fault.id == "error-string")
    with memcached() as right:
        proxy = Proxy(Address(*right), fault)
        code = main([str(proxy.address), "--timeout", "3", "--only", "framing/unknown/"])
        proxy.close()
    out = capsys.readouterr().out
    assert code == FAILED
    assert out.count("FAILED ") >= 1
    assert "the same" in out
    assert "\x1b" not in out
    assert "| nc -w 2 127.0.0.1" in out
