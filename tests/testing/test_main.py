"""`python -m mcserver.testing`: the server of a test in a process of its own; what it can't do, it says."""

from __future__ import annotations

import signal
import sys

import pytest

from mcserver.testing import __main__ as main


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["x"], 64, "'x' is no option"),
        (["99999"], 1, "can't listen on port 99999"),
        (["--bogus"], 1, "unrecognized option '--bogus'"),
        (["-p", "3"], 64, "`mcserver --ephemeral` starts a real one"),
    ],
)
def test_what_it_cannot_do_is_told_with_its_usage(
    arguments: list[str], code: int, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mcserver.testing", *arguments])
    monkeypatch.setattr(signal, "pthread_sigmask", lambda how, signals: None)
    assert main.main() == code
    told = capsys.readouterr().err
    assert why in told
    assert told.endswith(f"\n{main.USAGE}\n")


def test_help_is_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mcserver.testing", "--help"])
    monkeypatch.setattr(signal, "pthread_sigmask", lambda how, signals: None)
    assert main.main() == 0
    assert capsys.readouterr().out == f"{main.USAGE}\n"
