"""Templates: escapes, places, rules."""

from __future__ import annotations

import pytest

from conformance.text import Scope, TemplateError, parse


@pytest.fixture
def scope() -> Scope:
    return Scope("p.", lambda: 1000, {"C1": b"41"})


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("plain", b"plain"),
        (r"\r\n\t\s\0\\\{\}\xff", b"\r\n\t \0\\{}\xff"),
        ("é", "é".encode()),
        ("{a}", b"p.a"),
        ("{a:6}", b"p.aaaa"),
        ("{C1}", b"41"),
        ("{C1+1}", b"42"),
        ("{C1-42}", b"-1"),
        ("{NOW}", b"1000"),
        ("{NOW+100}", b"1100"),
        ("{y*5}", b"yyyyy"),
        (r"{\x20*2}", b"  "),
        (r"{\n*2}", b"\n\n"),
        ("{b64:{a}}", b"cC5h"),
        (r"{b64:{a}\xff}", b"cC5h/w=="),
        ("{uri:{a}:/%}", b"p.a%3A%2F%25"),
        ("<{=int}>", b"<<int>>"),
        ("{C2=C1+1..}", b"<C2: C1+1..>"),
    ],
)
def test_rendering(scope: Scope, text: str, data: bytes) -> None:
    assert parse(text).render(scope) == data


@pytest.mark.parametrize("text", ["{", "}", "{a", "{A B}", "{a:x}", r"\q", "{=}", "{c=int}", "{}"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(TemplateError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("t{=98..100}", b"t99"),
        ("t{=..5}", b"t-7"),
        ("c{=cas}", b"c18446744073709551615"),
        ("{=C1+1..}", b"42"),
        ("{=!C1}", b"42"),
        ("{=yes|no}", b"no"),
        ("{=OK|BUSY a b}", b"BUSY a b"),
        ("a {=text}", b"a b c"),
        ("{=time}", b"1.000005"),
        ("{=NOW-3..NOW+3}", b"998"),
    ],
)
def test_rules_that_hold(scope: Scope, text: str, line: bytes) -> None:
    assert parse(text).match(line, scope) is None


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("t{=98..100}", b"t97", "97 is less than 98"),
        ("t{=98..100}", b"t101", "101 is more than 100"),
        ("c{=cas}", b"c0", "0 is no cas unique"),
        ("c{=cas}", b"c18446744073709551616", "18446744073709551616 is no cas unique"),
        ("{=C1+1..}", b"41", "41 is less than C1+1 = 42"),
        ("{=!C1}", b"41", "41 should differ from C1"),
        ("{=int}", b"-1", "the text differs"),
        ("a {=text}", b"a b\r", "the text differs"),
        ("{=word}", b"a b", "the text differs"),
        ("{=yes|no}", b"maybe", "the text differs"),
    ],
)
def test_rules_that_break(scope: Scope, text: str, line: bytes, wrong: str) -> None:
    assert parse(text).match(line, scope) == wrong


def test_a_binding_is_kept_only_when_the_whole_line_holds(scope: Scope) -> None:
    template = parse("{A=int} {B=5..}")
    assert template.match(b"1 2", scope) is not None
    assert "A" not in scope.variables
    assert template.match(b"1 7", scope) is None
    assert (scope.variables["A"], scope.variables["B"]) == (b"1", b"7")
