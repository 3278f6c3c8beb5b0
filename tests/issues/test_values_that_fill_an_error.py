"""An error repeats the value that it refuses: of one that is long the middle is left out, wherever it is said."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mcserver import cli
from mcserver.keys import SAID_MOST
from mcserver.settings.options import CLUSTER_OPTIONS, OPTIONS, OWN_OPTIONS, SUBOPTIONS
from mcserver.system.logs import JsonFormatter, TextFormatter

LONG = 100_000
MOST = 2 * SAID_MOST + 200
TAKING = [each.long or each.short for each in (*OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS) if each.metavar]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcserver.server.start.run", lambda config, _reread: sum(map(len, config.warnings)) and 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(arguments)
    said = capsys.readouterr()
    assert len(said.err) <= MOST
    return said.err


@pytest.mark.parametrize("unit", ["9", "x", "=\n", "[", "\x1b"], ids=ascii)
def test_of_every_option(unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = unit * LONG
    for name in TAKING:
        dashes = "--" if len(name) > 1 else "-"
        refused(capsys, f"{dashes}{name}", value)
    for each in SUBOPTIONS:
        refused(capsys, "-o", f"{each.name}={value}")
    refused(capsys, "-o", value)
    for wrong in (f"--{value}", f"--port{value}=1", f"--daemon={value}", f"-d{value}"):
        assert refused(capsys, wrong)


@pytest.mark.parametrize("command", ["ping", "stats", "top", "dump", "load", "bench"])
def test_of_subcommands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = "x" * LONG
    for arguments in ([f"--{value}"], ["--timeout", value], [f"/{value}"], ["--user-file", value]):
        cli.main([command, *arguments])
        printed = capsys.readouterr()
        assert len(printed.err + printed.out) <= MOST


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"port = '{'x' * LONG}'", "port in "),
        (f"{'x' * LONG} = 1", "there is no option"),
        (f"daemon = '{'x' * LONG}'", "daemon takes true or false"),
        (f"daemon = 0x{'f' * LONG}", "daemon takes true or false, not such a number"),
        (f"verbose = 0x{'f' * LONG}", "verbose must be from 0 to 9, not such a number"),
        (f"port = {[1] * LONG}", "port takes one num, not a list"),
        ("port" + ".a" * 19 + " = 1", "port takes one num, not a table"),
        ("port" + ".a" * 400_000 + " = 1", "has a name of more than 20 parts"),
        ("[" + "'a b' . " * 100_000 + "a]", "has a name of more than 20 parts"),
        ("port = {" + "a." * 400_000 + "a = 1}", "has a name of more than 20 parts"),
    ],
    ids=lambda text: text[:20],
)
def test_of_a_file(text: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers and tables without an end had ended with a traceback, names of many parts took half an hour to read."""
    file = tmp_path / "mcserver.toml"
    file.write_text(text)
    assert error in refused(capsys, "--config", str(file))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_of_the_log(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("mcserver", logging.ERROR, "", 0, "can't find %s: ask for it", ("\x1b" * LONG,), None)
    line = formatter.format(record)
    assert len(line) <= 6 * MOST, "JSON escapes what is kept"
    assert " [...] " in line
    assert line.rstrip('"}').endswith(": ask for it")


def test_a_warning_stays_a_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a\nport = 2"
    file.write_text("port = 3\n")
    assert cli.main(["config", "word\nport = 1", "--config", str(file)]) == 0
    ports = [line for line in capsys.readouterr().out.split("\n") if line.startswith("port")]
    assert len(ports) == 1
    assert ports[0].startswith("port = 3  ")
