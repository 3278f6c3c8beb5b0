"""A server that dies or hangs: the run ends or goes on at once, with the case named."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conformance import library
from conformance.__main__ import DIED, FAILED, INTERRUPTED, NOTHING_RAN, PASSED, UNREACHABLE, main
from conformance.crew import Crew, run
from conformance.notation import Send, read, sent, version
from conformance.report import LINES, telnet
from conformance.runner import Result, Settings
from conformance.servers import Process, Spawned
from conformance.text import Scope, parse
from conformance.wire import Address, UnreachableError
from tests.conformance.rogue import rogue
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
SMALL = f"{sys.executable} {Path(__file__).with_name('small.py')}"
RUN = ["--suite", "classic", "--only", "framing/unknown", "--only", "classic/get/", "--level", "must"]


def outcome(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the ids by status; `deadly` are those whose reason names the end."""
    code = main([*arguments, "--timeout", "2", "--json", str(tmp_path / "r")])
    found: dict[str, list[str]] = {}
    for case in json.loads((tmp_path / "r").read_text())["cases"]:
        found.setdefault(case["status"], []).append(case["id"])
        if "server ended" in case["reason"] or "server hangs" in case["reason"]:
            found.setdefault("deadly", []).append(case["id"])
    return code, found


@pytest.mark.slow
@pytest.mark.parametrize("quirk", ["dies-gett", "hangs-gett"])
def test_a_spawned_server_names_the_case_and_goes_on(tmp_path: Path, quirk: str) -> None:
    code, found = outcome(tmp_path, "--spawn", f"{SMALL} {{port}} {quirk}", *RUN)
    assert code == DIED
    assert found["failed"] == found["deadly"] == ["framing/unknown/prefix-of-a-verb"]
    assert "not run" not in found
    assert "classic/get/hit" in found["passed"]


@pytest.mark.slow
def test_an_address_ends_at_once_and_the_rest_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers = Spawned(f"{SMALL} {{port}} dies-gett")
    with servers.lend(library.cases()[0]) as lease:
        code, found = outcome(tmp_path, str(lease.address), "--jobs", "1", *RUN)
    servers.close()
    out = capsys.readouterr().out
    assert code == DIED
    assert found["deadly"] == ["framing/unknown/prefix-of-a-verb"]
    assert len(found["not run"]) > 3
    assert "the server had ended" in out
    assert "mcconform 1." in out


@pytest.mark.slow
def test_a_server_of_one_case_that_hangs_is_not_said_to_have_died() -> None:
    servers = Spawned(f"{SMALL} {{port}} hangs-flush_all")
    cases = [case for case in library.cases() if case.id in {"flush/delayed", "classic/get/hit"}]
    try:
        found = {result.case.id: result for result in run(cases, servers, Settings(version("1.4"), timeout=1.0))}
    finally:
        servers.close()
    assert (found["flush/delayed"].status, found["flush/delayed"].deadly) == ("failed", False)
    assert found["flush/delayed"].reason == "hung: no reply for 1 s"
    assert found["classic/get/hit"].status == "passed"


@pytest.mark.slow
def test_restart_starts_it_again(tmp_path: Path) -> None:
    port = free_port()
    arguments = [f"127.0.0.1:{port}", "--restart", f"{SMALL} {{port}} dies-gett"]
    code, found = outcome(tmp_path, *arguments, *RUN)
    assert code == DIED
    assert found["failed"] == ["framing/unknown/prefix-of-a-verb"]
    assert "not run" not in found


@pytest.mark.slow
def test_expected_failures_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known"
    command = ["--spawn", f"{SMALL} {{port}}", "--only", "classic/get/key-25", "--only", "classic/delete/key-25"]
    assert main([*command, "--level", "must"]) == FAILED
    assert "FAILED" in capsys.readouterr().out
    known.write_text(
        "# ours\nclassic/*/key-251* keys may be long here\nclassic/get/key-250 it did once\nno/such it is\n"
    )
    assert main([*command, "--level", "must", "--expect", str(known)]) == PASSED
    out = capsys.readouterr().out
    assert "expected to fail, but passes now: classic/get/key-250 (it did once)" in out
    assert "expected, but no case of this run: no/such" in out
    assert "FAILED" not in out


@pytest.mark.slow
def test_not_leaves_out(tmp_path: Path) -> None:
    _, found = outcome(
        tmp_path, "--spawn", f"{SMALL} {{port}}", "--only", "classic/get/", "--not", "key-25", "--not", "m*"
    )
    assert not [name for names in found.values() for name in names if "key-25" in name]
    assert found["passed"]


PIECES = [
    b"END\r\n", b"STORED\r\n", b"VALUE a 0 1\r\nx\r\n", b"VALUE a 0 99999999999999999999\r\n", b"+OK\r\n", b"$-1\r\n",
    b"\0" * 50, b"\xff\xfe", b"STAT a 1\r\n", b"\r\n", b"\n" * 3000, b"9" * 30000, b"VERSION 1.6.45\r\n", b"MN\r\n",
    b"x" * 70000, b"\x81\x0a" + b"\xff" * 22, b"VALUE a 0 1 " + b"9" * 5000 + b"\r\nx\r\nEND\r\n", b"NOT_FOUND\r\n",
]  # fmt: skip


def fuzz(seed: int) -> None:
    """A server that answers right for a while, then anything; the suite must come to its end, small and in time."""
    guard, rolls, count = threading.Lock(), random.Random(seed), iter(range(1 << 30))

    def right(line: bytes) -> bytes:
        verb = line.split(b" ")[0].strip()
        known = {b"get": b"END\r\n", b"set": b"STORED\r\n", b"version": b"VERSION 1.6.45\r\n", b"mn": b"MN\r\n"}
        return known.get(verb, b"ERROR\r\n")

    def talk(client: socket.socket) -> None:
        quiet = next(count) < 40
        while data := client.recv(1 << 16):
            with guard:
                roll, piece = rolls.random(), b"".join(rolls.choices(PIECES, k=3))
            if quiet or roll < 0.3:
                client.sendall(right(data))
            elif roll < 0.35:
                return
            elif roll < 0.4:
                for _ in range(200):
                    client.sendall(piece * 20)
            elif roll > 0.45:
                client.sendall(piece[: rolls.randrange(1, len(piece) + 1)])

    with rogue(talk) as where:
        code = main([str(where), "--timeout", "0.2", "--suite", "all", "--profile", "1.6.45", "--level", "must"])
    assert code in {FAILED, DIED, UNREACHABLE, NOTHING_RAN}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_server_may_send_anything(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(seed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10  # KiB
    assert len(capsys.readouterr().out) < 2 << 20


def test_a_long_exchange_is_cut() -> None:
    log = [(1, ">", b"set a 0 0 2000000\r\n" + b"\n" * 2000000 + b"\r\n"), (1, "<", b"x\r\n" * 5000)]
    lines = telnet(log)
    assert len(lines) <= LINES
    assert lines[-1] == "< x"
    assert sum(map(len, lines)) < 20000
    assert parse("{\\n*MAX+951424}").render(Scope("", lambda: 0)) == b"\n" * 2_000_000


SETTING = re.compile(
    rb"^(?:verbosity [1-9]|cache_memlimit \d+\r|slabs automove [0-9]|slabs automove window \d|lru mode flat|lru tune "
    rb"|lru temp_ttl \d|lru_crawler (?:disable|tocrawl \d|sleep \d)|stats detail on)",
    re.MULTILINE,
)
LEFT_AS_IT_WAS = {  # what is refused, or sets what the server has at its start
    "admin/cache-memlimit/too-small", "admin/cache-memlimit/too-large", "admin/cache-memlimit/noreply",
}  # fmt: skip


@pytest.mark.slow
def test_a_case_that_changes_a_shared_server_says_how_it_was_before() -> None:
    shared = [case for case in library.cases() if "fresh" not in case.needs and not case.options]
    found = {
        case.id
        for case in shared
        for step in case.exchange(version("1.6.45"))
        if isinstance(step, Send) and SETTING.search(sent(step))
    }
    assert len(found) > 10
    assert found - {case.id for case in shared if case.undo} == LEFT_AS_IT_WAS & found


def test_a_case_that_fails_leaves_the_server_as_it_was() -> None:
    text = """
case x/fails
  It turns the crawler off and fails.
  rule: x.y
  needs: alone
  undo: lru_crawler enable
  > lru_crawler disable
  < NO SUCH ANSWER

case x/after
  The crawler runs.
  rule: x.y
  needs: destructive
  > lru_crawler enable
  < ERROR failed to start lru crawler thread
"""
    servers = Spawned("memcached -u root -U 0 -t 1")
    try:
        statuses = [r.status for r in run(list(read("f", text)), servers, Settings(version("1.6.18"), 5.0, jobs=1))]
    finally:
        servers.close()
    assert statuses == ["failed", "passed"]


def test_the_end_of_a_server_is_told_by_its_own_words(tmp_path: Path) -> None:
    script = (
        "import sys; sys.stderr.write('x.js:9\\n\\nRangeError: size\\n    at a (b)\\n}\\n\\nNode v0\\n'); sys.exit(1)"
    )
    with pytest.raises(UnreachableError, match=r"\(exit status 1\): RangeError: size$"):
        Process([sys.executable, "-c", script], [], tmp_path, Address())


def test_who_waited_in_vain_is_not_asked_whether_it_ended_the_server() -> None:
    servers = Spawned("unused")
    servers.close()
    crew = Crew(library.cases()[:3], servers, Settings((1, 4)), lambda _: None)
    ends = ["died", "the server closed the connection", "hung: no reply for 5 s"]
    batch = {at: Result(library.cases()[at], "failed", broken=end) for at, end in enumerate(ends)}
    crew.ended = "the server ended (exit status 1)"
    assert crew.suspects(batch) == [0, 1]
    crew.ended = "the server hangs: a new connection got no reply for 5 s"
    assert crew.suspects(batch) == [0, 1, 2]


def test_who_slept_when_the_server_ended_has_not_been_run() -> None:
    servers = Spawned("unused")
    servers.close()
    crew = Crew(library.cases()[:3], servers, Settings((1, 4)), lambda _: None)
    crew.ended, crew.lost_at = "the server ended (exit status 1)", 100.0
    batch = {
        at: Result(library.cases()[at], "failed", broken="died", sent=sent) for at, sent in enumerate((99.9, 101, 0))
    }
    assert crew.suspects(batch) == [0]
    assert [result.status for result in batch.values()] == ["failed", "not run", "not run"]
    late = {0: Result(library.cases()[0], "failed", broken="died", sent=101)}
    assert crew.suspects(late) == [0]  # somebody must have seen it


@pytest.mark.slow
def test_those_in_flight_are_told_of_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    servers = Spawned(f"{SMALL} {{port}} dies-gett")
    with servers.lend(library.cases()[0]) as lease:
        assert main([str(lease.address), *RUN]) == DIED
    servers.close()
    assert capsys.readouterr().out.count("FAILED ") == 1


@pytest.mark.slow
def test_an_end_that_no_case_causes_alone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "died"
    code = main(["--spawn", f"{SMALL} {{port}} once-{marker} dies-gett", *RUN, "--json", str(tmp_path / "r")])
    out = capsys.readouterr().out
    assert code == DIED, out
    assert "and not again when each ran alone" in out
    assert "framing/unknown/prefix-of-a-verb" in json.loads((tmp_path / "r").read_text())["ended"]
    assert "none failed" in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tells_what_it_has_and_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "conformance", "--spawn", f"{SMALL} {{port}} pid-{tmp_path}/pid", "--jobs", "1"]
    arguments = ["--only", "classic/incr/keeps-exptime", "--only", "classic/get/", "--json", str(tmp_path / "r")]
    with subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("left out"):
                break
        process.send_signal(number)
        out = process.stdout.read()
    assert process.returncode == INTERRUPTED, out
    assert "interrupted" in out
    assert json.loads((tmp_path / "r").read_text())["counts"]["not run"] > 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
