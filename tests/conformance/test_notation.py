"""Case files: what is read, and what is refused with file and line."""

from __future__ import annotations

import pytest

from conformance import library
from conformance.notation import Act, Case, Expect, ExpectList, NotationError, Send, holds, read, version
from conformance.text import Scope

SCOPE = Scope("p.", lambda: 1000)
HEAD = "case a/b\n  It does.\n  rule: x.y\n"


def one(body: str) -> Case:
    (case,) = read("file", HEAD + body)
    return case


def sent(case: Case, profile: str = "1.6.45") -> list[bytes]:
    return [step.text.render(SCOPE) for step in case.exchange(version(profile)) if isinstance(step, Send)]


def test_a_cases_properties_are_read() -> None:
    case = one(
        "  level: should\n  doc: Keys\n  options: -I 2m\n  needs: fresh tcp\n  since: 1.6.27\n  file: f a\\nb\n  > x"
    )
    assert (case.id, case.requirement, case.rules) == ("a/b", "It does.", ("x.y",))
    assert (case.level, case.doc, case.options, case.needs) == (
        "should",
        "Keys",
        ("-I", "2m"),
        frozenset({"fresh", "tcp"}),
    )
    assert case.files == {"f": "a\nb"}
    assert (case.applies((1, 6, 45)), case.applies((1, 6, 18))) == (True, False)


def test_sections_and_docs_hold_until_changed() -> None:
    cases = list(read("f", f"section: s\ndoc: D\n{HEAD}  > x\nsection: t\n{HEAD}  > x"))
    assert [(case.section, case.doc) for case in cases] == [("s", "D"), ("t", "D")]


def test_neighbouring_sends_are_one_write() -> None:
    assert sent(one("  > a\n  > b\n  < c\n  > d")) == [b"a\r\nb\r\n", b"d\r\n"]


def test_sends_apart_and_without_line_end() -> None:
    case = one("  >> a\n  --\n  >> b\\n")
    assert sent(case) == [b"a", b"b\n"]
    assert any(isinstance(step, Act) and step.word == "wait" for step in case.exchange((1, 6, 45)))


def test_stored_counts_the_length() -> None:
    case = one("  stored {a} 5 0 x\\r\\n{y*10}")
    assert sent(case) == [b"set p.a 5 0 13\r\nx\r\nyyyyyyyyyy\r\n"]


def test_expected_lines_end_as_their_mark_says() -> None:
    case = one("  < a\n  << b\n  <lf c")
    texts = [step.text.render(SCOPE) for step in case.exchange((1, 6, 45)) if isinstance(step, Expect)]
    assert texts == [b"a\r\n", b"b", b"c\n"]


def test_conditions_choose_by_version() -> None:
    case = one("  > x\n  [<1.6.40] < old\n  [1.6.40+] < new\n  list END\n    [1.6.43+] has y")
    for profile, text, demands in (("1.6.18", b"old\r\n", 0), ("1.6.40", b"new\r\n", 0), ("1.6.45", b"new\r\n", 1)):
        _, reply, last = case.exchange(version(profile))
        assert isinstance(reply, Expect)
        assert reply.text.render(SCOPE) == text
        assert isinstance(last, ExpectList)
        assert len(last.lines) == demands


@pytest.mark.parametrize(
    ("condition", "profile", "holding"),
    [("", "1.6.18", True), ("1.6.9+", "1.6.18", True), ("<1.6.9", "1.6.18", False), ("1.6.40+", "1.6.18", False)],
)
def test_versions_compare_as_numbers(condition: str, profile: str, holding: bool) -> None:
    assert holds(condition, version(profile)) is holding


def test_tables_make_a_case_of_each_row() -> None:
    text = "case a/$n\n  It says $w.\n  each n w\n    | one | a b\n    | two | c\n  rule: x.y\n  > $w"
    cases = list(read("f", text))
    assert [(case.id, case.requirement) for case in cases] == [("a/one", "It says a b."), ("a/two", "It says c.")]
    assert sent(cases[1]) == [b"c\r\n"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "f:1: not a case"),
        (HEAD + "  jump", "f:4: cannot read this line: jump"),
        (HEAD + "  > {", "unclosed"),
        (HEAD + "  > {C1}", "C1 is used before a reply bound it"),
        (HEAD + "  < {=C1..}", "C1 is used before a reply bound it"),
        (HEAD + "  needs: money\n  > x", "unknown needs: money"),
        (HEAD + "  level: maybe\n  > x", "level"),
        ("case a/b\n  It does.\n  > x", "rule"),
        ("case a\n  S.\n  each a b\n  | 1\n  rule: x.y", "2 cells wanted"),
        (HEAD + "  wait long", "f:4"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(NotationError) as error:
        list(read("f", text))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "timed"),
    [
        ("exptime/not-early", True),
        ("meta/lease/n-on-hit", True),
        ("classic/get/hit", False),
        ("classic/cas/match", False),
    ],
)
def test_a_case_about_seconds(name: str, timed: bool) -> None:
    case = next(case for case in library.cases() if case.id == name)
    assert case.timed((1, 6, 45)) is timed
