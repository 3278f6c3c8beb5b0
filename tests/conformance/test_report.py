"""What a run says: the table, failures, the line that repeats one, the files for machines."""

from __future__ import annotations

import io
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from conformance import __version__, formats, library, report
from conformance.notation import Case
from conformance.runner import Failure, Result
from conformance.wire import Address

PLAIN = report.Style(colour=False)
HERE = Address("127.0.0.1", 11211)
FACTS = formats.Facts("1.6.45", "h:1", says="1.6.45", look="looks like it", options=("--level must",))


def result(status: str, log: list[tuple[int, str, bytes]] | None = None, section: str = "s") -> Result:
    case = Case("a/b", "It does.", section, "Keys", ("x.y",))
    failure = Failure("wrong reply", b"OK\r\n", b"NO\r\n") if status == "failed" else None
    reason = {"failed": "wrong reply", "skipped": "no reason"}.get(status, "")
    return Result(case, status, reason, failure, log or [], 0.25)


def test_a_failure_shows_everything() -> None:
    log = [(1, ">", b"get a\r\nget b\r\n"), (1, "<", b"END\r\n")]
    text = "\n".join(report.failure(result("failed", log), Address("h", 1), "", PLAIN))
    for wanted in ("FAILED a/b", "It does.", "Keys", "    > get a\n    > get b\n    < END", "wanted  OK", "came    NO"):
        assert wanted in text
    assert "printf 'get a\\r\\nget b\\r\\n' | nc -w 2 h 1" in text


def test_the_repeating_line_prints_what_was_sent() -> None:
    data = b"set a 0 0 3000\r\n" + b"y" * 3000 + b"\r\n%d 'quoted' \\ \x00\xff\r\n"
    (line,) = report.repeat(result("failed", [(1, ">", data), (1, ">", b"mn\r\n")]), Address("h", 1), "")
    assert len(line) < 300
    shell, _, rest = line.rpartition(" | ")
    assert rest == "nc -w 2 h 1"
    assert subprocess.run(["sh", "-c", shell], capture_output=True, check=True).stdout == data + b"mn\r\n"


def test_the_repeating_line_waits_as_the_case_does() -> None:
    log = [(1, ">", b"x"), (1, "<", b"z"), (1, ">", b"y"), (1, "~", b"2.2 s"), (1, ">", b"z")]
    (line,) = report.repeat(result("failed", log), Address(path="/s"), "")
    assert line == "{ printf 'x'; printf 'y'; sleep 2.2; printf 'z'; } | nc -w 5 -U /s"
    assert "~ 2.2 s" in report.telnet(log)


def test_a_spawned_server_is_started_again_first() -> None:
    case = Case("a", "b", "s", "d", options=("-I", "2m"))
    lines = report.repeat(Result(case, "failed", log=[(1, ">", b"x")]), HERE, "memcached -u root")
    assert lines == [
        "memcached -u root -l 127.0.0.1 -p 11211 -I 2m &",
        "printf 'x' | nc -w 2 127.0.0.1 11211",
    ]


@pytest.mark.parametrize(
    ("case", "where", "lines"),
    [
        (Case("a", "b", "s", "d", options=("-s", "{socket}")), HERE,
         ["memcached -s /tmp/server.sock &", "printf 'x' | nc -w 2 -U /tmp/server.sock"]),
        (Case("a", "b", "s", "d"), Address("127.0.0.1", 11211, udp=True),
         ["memcached -l 127.0.0.1 -p 11211 -U 11211 &",
          "printf '\\000\\001\\000\\000\\000\\001\\000\\000x' | nc -u -w 2 127.0.0.1 11211"]),
        (Case("a", "b", "s", "d", files={"users": "u:p"}), HERE, ["mcconform --spawn memcached --only a"]),
        (Case("a", "b", "s", "d"), Address("127.0.0.1", 11211, user="u:secret"),
         ["mcconform --spawn memcached --user NAME:PASSWORD --only a"]),
    ],
)  # fmt: skip
def test_a_server_is_started_and_met_as_its_case_wants(case: Case, where: Address, lines: list[str]) -> None:
    assert report.repeat(Result(case, "failed", log=[(1, ">", b"x")]), where, "memcached") == lines


def test_what_several_connections_sent_is_repeated_by_the_suite() -> None:
    log = [(1, ">", b"x"), (2, ">", b"y")]
    assert report.repeat(result("failed", log), Address("h", 1), "") == ["mcconform h:1 --only a/b"]


def test_a_server_that_closes_after_errors_has_one_cause() -> None:
    told = [result("failed") for _ in range(4)]
    logs = [
        [(1, ">", b"bogus\r\n"), (1, "<", b"ERROR\r\n"), (1, ">", b"version\r\n")],
        [(1, ">", b"incr a x\r\n"), (1, "<", b"CLIENT_ERROR invalid numeric delta argument\r\n")],
        [(1, ">", b"get a\r\n"), (1, "<", b"END\r\n"), (1, ">", b"touch a 1\r\n")],
        [(1, ">", b"touch b x\r\n")],
    ]
    for each, log, wanted in zip(told, logs, (b"nothing more", b"END", b"TOUCHED", b"NOT_FOUND"), strict=True):
        each.log, each.failure = log, Failure("the server closed the connection", wanted)
    assert [len(group) for group in report.causes(told)] == [2, 2]


def test_a_wrong_length_and_wrong_flags_have_two_causes() -> None:
    told = [result("failed") for _ in range(3)]
    for each, got in zip(told, (b"VALUE k 0 9\r\n", b"VALUE k 0 8\r\n", b"VALUE k 7 10\r\n"), strict=True):
        each.failure = Failure("wrong reply", b"VALUE k 0 10\r\n", got)
    assert [len(group) for group in report.causes(told)] == [2, 1]


def test_connections_are_told_apart() -> None:
    log = [(1, ">", b"a\r\n"), (2, "<", b"b\n"), (2, "<", b"\xff")]
    assert report.telnet(log) == ["1> a", "2< b\\n  (no CRLF)", "2< \\xff  (no CRLF)"]


def test_long_runs_are_shortened() -> None:
    assert report.show(b"set " + b"y" * 1000 + b"\r\n") == "set {y*1000}\\r\\n"


def test_a_must_speaks_for_its_cause_whatever_its_variables_are_called() -> None:
    told = [result("failed") for _ in range(3)]
    for each, level, wanted in zip(
        told, ("version", "should", "must"), (b"<cas>", b"<C1: cas>", b"<C2: cas>"), strict=True
    ):
        each.case.level = level
        assert each.failure
        each.failure.wanted = wanted
    (group,) = report.causes(told)
    assert [each.case.level for each in group] == ["must", "should", "version"]
    assert [report.size(group[:count]) for count in (1, 3)] == ["1 case, a must", "3 cases, 1 of them must"]
    assert report.size(group[1:]) == "2 cases"


def test_what_is_left_out_is_told_by_why() -> None:
    assert report.left_out({}) == ["left out: nothing"]
    missing = {"cas": "it answers ERROR", "quit": "it answers nothing", "touch": "it answers ERROR"}
    assert report.left_out(missing) == [
        "left out: what uses cas, touch: it answers ERROR",
        "left out: what uses quit: it answers nothing",
    ]


def test_the_table_counts_by_section_and_says_why() -> None:
    lines = report.table([result("passed"), result("failed"), result("skipped", section="t")], PLAIN)
    assert [line.split() for line in lines] == [
        ["section", "passed", "failed", "skipped"],
        ["s", "1", "1", "0"],
        ["t", "0", "0", "1"],
        ["all", "1", "1", "1"],
        ["skipped", "1:", "no", "reason"],
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_and_colour_only_on_a_terminal(terminal: bool) -> None:
    stream = io.StringIO()
    progress = report.Progress(stream, 2, terminal=terminal)
    progress.done(result("failed"))
    progress.clear()
    assert ("1/2 cases, 1 failed" in stream.getvalue()) is terminal
    assert ("\x1b[" in report.Style(colour=terminal).bad("x")) is terminal


def test_json_has_counts_options_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = [(1, ">", b"\xff\r\n")]
    formats.write_json(tmp_path / "r", [result("failed", log), result("passed")], FACTS)
    read = json.loads((tmp_path / "r").read_text())
    assert {name: count for name, count in read["counts"].items() if count} == {"passed": 1, "failed": 1}
    assert (read["suite_version"], read["server"]["version"], read["options"]) == (
        __version__,
        "1.6.45",
        ["--level must"],
    )
    assert read["date"].endswith("Z")
    first, second = read["cases"]
    assert (first["status"], first["wanted"], first["got"]) == ("failed", "OK\r\n", "NO\r\n")
    assert first["exchange"] == [[1, ">", "\\xff\\r\\n"]]
    assert (second["status"], second["rules"]) == ("passed", ["x.y"])


def test_junit_has_counts_and_escapes_what_xml_forbids(tmp_path: Path) -> None:
    results = [result("failed", [(1, ">", b"\x01<&\r\n")]), result("skipped"), result("passed", section="t")]
    formats.write_junit(tmp_path / "r", results, FACTS)
    root = ET.parse(tmp_path / "r").getroot()
    first, second = root
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "1")
    assert {p.get("name"): p.get("value") for p in first.iter("property")}["server"] == "1.6.45"
    assert (first.get("tests"), first.get("failures"), first.get("skipped"), second.get("tests")) == (
        "2",
        "1",
        "1",
        "1",
    )
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "wrong reply"


def test_every_listed_case_is_a_line() -> None:
    assert len(report.listing(library.cases())) == len(library.cases())


def test_options_of_many_kinds_are_one_line() -> None:
    results = [result("skipped"), result("skipped")]
    results[0].reason, results[1].reason = (
        f"needs a server with {o}: give --spawn" for o in ("-F", "-s {socket} -a 7")
    )
    assert report.table(results, PLAIN)[-1] == "skipped 2: needs a server with options of its own: give --spawn"


def test_the_verdict_is_one_line() -> None:
    statuses = ["passed", "passed", "failed", "skipped", "unsupported", "not run", "expected"]
    told = report.verdict([result(status) for status in statuses])
    assert told == "2 passed, 1 failed, 1 failed as expected, 2 left out, 1 not run"
    assert report.verdict([result("passed")]) == "1 passed, none failed"


def test_a_server_that_cannot_be_tested_is_no_success_to_a_machine(tmp_path: Path) -> None:
    facts = formats.Facts("", "127.0.0.1:1", ended="cannot reach 127.0.0.1:1: Connection refused")
    formats.write_junit(tmp_path / "r", [], facts)
    root = ET.parse(tmp_path / "r").getroot()
    assert root.get("errors") == "1"
    assert [element.get("message") for element in root.iter("error")] == [facts.ended]
