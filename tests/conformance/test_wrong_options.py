"""Options that cannot be followed: one line says why, before anything runs, and nothing is harmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from conformance import expected, html
from conformance.__main__ import PASSED, UNREACHABLE, USAGE, main
from conformance.formats import Facts
from conformance.library import cases
from conformance.matrix import main as matrix
from conformance.runner import Result
from conformance.wire import address
from tests.peer import MEMCACHED, memcached
from tests.ports import free_port

NOWHERE = f"127.0.0.1:{free_port()}"  # what is wrong is told before a server is asked


def last_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and the one line that says why."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(str(end.code))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return code, captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--timeout", "nan"], "nan: wanted seconds, more than 0 and at most 86400"),
        (["--timeout", "inf"], "inf: wanted seconds"),
        (["--timeout", "1e300"], "1e300: wanted seconds"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--max-item", "10"], "--max-item must be 1024 to 1073741824 bytes"),
        (["--max-item", "99999999999999999999999"], "--max-item must be 1024 to 1073741824 bytes"),
        (["--profile", "9.9"], "no profile 9.9: 1.4, 1.5, 1.6.18 to 1.6.45"),
        (["--json", "."], "cannot write .: Is a directory"),
        (["--junit", "."], "cannot write .: Is a directory"),
        (["--html", "/dev/null"], "cannot write pages to /dev/null: Not a directory"),
        (["--html", "/proc"], "cannot write pages to /proc: "),
        (["--expect", "/none/x"], "--expect: cannot read /none/x: No such file or directory"),
        (["--expect", "."], "--expect: cannot read .: Is a directory"),
        (["--user", "name"], "--user: wanted NAME:PASSWORD"),
        (["--user", ":word"], "--user: wanted NAME:PASSWORD"),
        (["--tls", "/none/x"], "--tls: cannot use /none/x: No such file"),
        (["--tls", __file__], f"--tls: cannot use {__file__}: "),
    ],
)
def test_an_option_that_cannot_be_followed(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = last_line(capsys, NOWHERE, *arguments)
    assert code == USAGE
    assert why in line


@pytest.mark.parametrize(
    "arguments", [["--spawn", '"'], ["--spawn", " "], [NOWHERE, "--restart", "run 'it"], ["faults", "--spawn", '"']]
)
def test_a_command_that_no_shell_would_take(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, line = last_line(capsys, *arguments)
    assert code == UNREACHABLE
    assert "cannot start " in line


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["client", "--only", "nonsense"], "no such case: nonsense"),
        (["client", "--jobs", "0"], "--jobs must be at least 1"),
        (["client", "--node-modules", "/none"], "/none is no directory"),
        (["client", "--json", "."], "cannot write .: Is a directory"),
        (["compare", NOWHERE, NOWHERE, "--seconds", "nan"], "nan: wanted seconds"),
        (["compare", NOWHERE, NOWHERE, "--timeout", "0"], "0: wanted seconds"),
        (["compare", NOWHERE, NOWHERE, "--limit", "0"], "--limit must be at least 1"),
        (["compare", NOWHERE, NOWHERE, "--streams", "0"], "--streams must be at least 1"),
        (["report", "/none"], "cannot read /none: No such file or directory"),
        (["report", "."], "cannot read .: Is a directory"),
        (["report", "/dev/null"], "/dev/null is not what --json writes"),
    ],
)
def test_the_other_commands(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = last_line(capsys, *arguments)
    assert code == USAGE
    assert why in line


@pytest.mark.parametrize("text", ["[]", "1", '{"cases": [{}]}', '{"cases": {}}', "[" * 100_000, "\x00"])
def test_a_report_of_a_file_of_another_kind(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text(text)
    assert matrix([str(tmp_path / "x")]) == USAGE
    assert capsys.readouterr().err.endswith("x is not what --json writes\n")


def test_a_report_whose_page_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with memcached() as (host, port):
        where = [f"{host}:{port}", "--only", "classic/get/hit"]
        assert main([*where, "--name", "a|b", "--json", str(tmp_path / "r")]) == PASSED
    capsys.readouterr()
    assert matrix([str(tmp_path / "r"), "--html", "/none/x"]) == USAGE
    assert capsys.readouterr() == ("", "mcconform report: cannot write /none/x: No such file or directory\n")
    assert matrix([str(tmp_path / "r")]) == PASSED
    assert "| a\\|b | 1 |" in capsys.readouterr().out  # a name does not make a column
    assert json.loads((tmp_path / "r").read_text())["name"] == "a|b"


def test_a_server_that_cannot_be_tested_has_no_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("", "theirs")):
        arguments = [NOWHERE, "--json", str(tmp_path / str(number)), *(["--name", name] if name else [])]
        assert main(arguments) == UNREACHABLE
    capsys.readouterr()
    assert matrix([str(tmp_path / "0"), str(tmp_path / "1")]) == PASSED
    one, other = capsys.readouterr().out.splitlines()[2:]
    assert "cannot reach" in one
    assert one.count("| - ") == other.count("| - ") == 8
    assert other.startswith("| theirs: ")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--list"], ["--coverage"], ["client", "--list"], ["report", "{run}"]])
def test_a_full_disk_is_no_case_that_failed(arguments: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text(json.dumps({"name": "a", "cases": [], "counts": {}, "suite_version": "1"}))
    command = [sys.executable, "-m", "conformance", *(each.format(run=run) for each in arguments)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (USAGE, "mcconform: cannot write: No space left on device\n")


def test_a_report_on_a_full_disk_is_no_case_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with memcached() as (host, port):
        assert main([f"{host}:{port}", "--only", "classic/get/hit", "--json", "/dev/full"]) == USAGE
    assert capsys.readouterr().err == "mcconform: cannot write: No space left on device\n"


@pytest.mark.parametrize("text", ["unix:", "::1", "a:１", "a:99999999999999999999999", "a:0", "a:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted HOST:PORT"):
        address(text)


def test_known_failures_as_editors_write_them(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_bytes("\ufeff# why\r\n\r\n  a/b\tno tabs?  \r\nc/* it is so\r\n".encode())
    assert expected.read(path) == {"a/b": "no tabs?", "c/*": "it is so"}


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"a/b\n", ":1: a/b has no reason"), (b"a/b x\na/b y\n", ":2: a/b stands there twice"), (b"\xff", "is no text")],
)
def test_known_failures_that_cannot_be_read(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_bytes(data)
    with pytest.raises(ValueError, match=why):
        expected.read(tmp_path / "known")


def test_pages_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    first, second = [Result(case, "passed") for case in cases()[:2]]
    facts = Facts("1.6.45", "a:1")
    html.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "case"]
    html.write(tmp_path, [first, second], facts, address("a:1"), "memcached")
    (tmp_path / "case/mine.html").write_text("somebody's own")
    html.write(tmp_path, [second], facts, address("a:1"), "memcached")
    assert {path.name for path in (tmp_path / "case").iterdir()} == {html.page(second.case.id), "mine.html"}


def test_a_name_that_is_no_text_is_told_with_escapes(tmp_path: Path) -> None:
    program = os.fsdecode(bytes(tmp_path) + b"/caf\xe9")
    Path(program).symlink_to(MEMCACHED)
    outputs = ["--json", f"{tmp_path}/r", "--junit", f"{tmp_path}/x", "--html", f"{tmp_path}/site"]
    command = [sys.executable, "-m", "conformance", "--spawn", f"{program} -u root", "--only", "get/hit", *outputs]
    named = [*command, "--name", os.fsdecode(b"th\xe9")]
    done = subprocess.run(named, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (PASSED, "")
    assert "caf\\udce9 -u root" in done.stdout
    assert "<h1>th\\udce9" in (tmp_path / "site/index.html").read_text()
    target = next(p for p in ET.parse(tmp_path / "x").getroot().iter("property") if p.get("name") == "target")
    assert "caf\\udce9 -u root" in str(target.get("value"))
    assert matrix([f"{tmp_path}/r", "--html", f"{tmp_path}/m.html"]) == PASSED
