"""Servers that nobody tuned for: what a look says of them, that a report stays readable, and that each run ends."""

from __future__ import annotations

import re

import pytest

from conformance.__main__ import FAILED, UNREACHABLE, main
from conformance.compare import pair, shrink
from conformance.compare.__main__ import main as compare
from conformance.look import look
from tests.conformance import rogue
from tests.conformance.rogue import Behaviour
from tests.peer import memcached

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def test_what_a_server_says_of_itself_does_not_reach_the_terminal() -> None:
    with rogue.rogue(rogue.answering(b"ERROR\r\n", b"VERSION \x1b[31m\x07\xff<b>" + b"x" * 100 + b"\r\n")) as where:
        seen = look(where)
    assert seen.says.startswith("\\x1b[31m\\x07\\xff<b>xxx")
    assert not CONTROL.search(seen.sentence())
    assert len(seen.sentence()) < 400


def test_a_version_of_a_megabyte() -> None:
    with rogue.rogue(rogue.answering(b"ERROR\r\n", b"VERSION " + b"1" * (1 << 20) + b"\r\n")) as where:
        assert look(where).says == "1" * 60


@pytest.mark.parametrize("text", [b"CLIENT_ERROR 404 unknown command\r\n", b"-ERR unknown command 'x' 1 OK BUSY\r\n"])
def test_an_error_with_a_number_is_no_answer_to_incr(text: bytes) -> None:
    with rogue.rogue(rogue.answering(text)) as where:
        seen = look(where)
    assert {"incr", "decr", "admin", "gat", "meta", "stats", "binary"} <= seen.missing.keys()
    assert seen.suites == ["classic"]


def test_a_line_without_end_is_no_answer() -> None:
    with rogue.rogue(rogue.answering(b"E" * (1 << 20))) as where:
        seen = look(where, patience=0.5)
    assert {"incr", "gat", "meta"} <= seen.missing.keys()
    assert seen.missing["gat"] == f"it answers {'E' * 60}, without an end of line"


@pytest.mark.slow
def test_the_report_of_a_server_that_sends_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with rogue.rogue(rogue.answering(b"ERROR\r\n", b"VERSION \x1b[31m\r\n", after=b"\x1b]0;x\x07\x9b" * 200)) as where:
        code = main([str(where), "--timeout", "2", "--only", "classic/get/"])
    told = capsys.readouterr()
    assert code in {FAILED, UNREACHABLE}
    assert not CONTROL.search(told.out + told.err)
    assert len(told.out) < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [rogue.hang, rogue.nuls])
def test_compare_says_in_one_line_what_is_no_use(behaviour: Behaviour, capsys: pytest.CaptureFixture[str]) -> None:
    with memcached() as (host, port), rogue.rogue(behaviour) as where:
        assert compare([f"{host}:{port}", str(where)]) == UNREACHABLE
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"{where} cannot be compared: it answer" in told.err


@pytest.mark.slow
def test_compare_takes_no_flood_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "TRIES", 3)
    monkeypatch.setattr(pair, "MOST", 1 << 20)
    with memcached() as (host, port), rogue.rogue(rogue.flood_unknown) as where:
        code = compare([f"{host}:{port}", str(where), "--seconds", "60", "--timeout", "20", "--limit", "1"])
    told = capsys.readouterr()
    assert code == FAILED
    assert "second: " in told.out
    assert len(told.out) < 100_000


def test_shrinking_ends_with_its_seconds() -> None:
    asked = []

    def differs(candidate: shrink.Writes) -> bool:
        asked.append(candidate)
        return True

    writes = [["a", "b"], ["c"]]
    assert shrink.shrink(writes, differs, 0.0) == writes
    assert asked == []
