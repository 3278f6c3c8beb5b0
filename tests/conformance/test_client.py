"""Clients under test: the judgement, and real clients in a few cases of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.__main__ import main
from conformance.client.__main__ import FAULTY, GOOD, USAGE
from conformance.client.cases import CASES, judge

MODULES = Path(__file__).parents[2] / "build" / "clients" / "node_modules"  # scripts/test installs them
BY_ID = {case.id: case for case in CASES}


def test_a_wrong_value_is_never_fine() -> None:
    for case in CASES:
        told = [{"value": "another", "seconds": 0.1} for _ in case.operations]
        if any(operation[0] == "get" for operation in case.operations):
            assert judge(case, told), case.id


def test_a_late_reply_that_is_given_for_another_key_is_a_fault() -> None:
    slept = {"value": None, "seconds": 1.0}
    told = [
        {"error": "timeout", "seconds": 1.0},
        slept,
        {"value": "value-of-a", "seconds": 0.0},
        {"value": "value-of-b", "seconds": 0.0},
    ]
    assert judge(BY_ID["late-reply"], told) == ["call 3, get: gave 'value-of-a' for b; wanted right or miss or error"]
    told[2] = {"value": "value-of-b", "seconds": 0.0}
    assert judge(BY_ID["late-reply"], told) == []


@pytest.mark.parametrize("value", [False, 7, {"a": "b"}, ["x"]])
def test_what_is_no_text_is_no_value(value: object) -> None:
    told = [{"value": value, "seconds": 0.1}, {"value": "value-of-b", "seconds": 0.1}]
    assert "call 1, get: gave" in judge(BY_ID["late"], told)[0]


def test_what_takes_too_long_or_never_comes_is_a_fault() -> None:
    assert (
        "took 9.0 s"
        in judge(BY_ID["never"], [{"value": None, "seconds": 9.0}, {"value": "value-of-b", "seconds": 0.1}])[0]
    )
    assert judge(BY_ID["never"], []) == ["call 1, get: never came back"]


def test_who_asks_again_may_get_it_right() -> None:
    told = [{"value": "value-of-a", "seconds": 0.1}, {"value": "value-of-b", "seconds": 0.1}]
    once = {("get", "a"): 1, ("get", "b"): 1}
    assert judge(BY_ID["noise"], [told[0], {"value": None}, told[1]], once)
    assert judge(BY_ID["noise"], [told[0], {"value": None}, told[1]], {**once, ("get", "a"): 2}) == []
    told[0]["value"] = "worth-of-a"
    assert judge(BY_ID["wrong-key"], told, {**once, ("get", "a"): 2})


@pytest.mark.slow
def test_pymemcache_does_well_and_libmemcached_takes_another_keys_value(capsys: pytest.CaptureFixture[str]) -> None:
    only = [word for name in ("right", "cut", "wrong-key", "out-of-order", "set-error") for word in ("--only", name)]
    assert main(["client", "pymemcache", *only]) == GOOD
    assert "pymemcache: 5 of 5 well" in capsys.readouterr().out
    kinds = ("ignore_exc", "HashClient", "HashClient ignore_exc", "RetryingClient", "compressed")
    assert main(["client", *(f"pymemcache {kind}" for kind in kinds), "--only", "noise", "--only", "get-error"]) == GOOD
    assert capsys.readouterr().out.count("2 of 2 well") == len(kinds)
    assert main(["client", "pylibmc", *only]) == FAULTY
    out = capsys.readouterr().out
    assert out.count("FAULT ") == 1
    assert "gave 'worth-of-a' for a" in out


@pytest.mark.slow
def test_nodes_clients_are_asked_as_pythons_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`huge` is more than a pipe holds at the end of a process; `closed` is a call that never comes back."""
    only = [word for name in ("right", "huge", "never", "get-error", "closed") for word in ("--only", name)]
    assert main(["client", "--node-modules", str(MODULES), "npm memcached", "memjs", *only]) == FAULTY
    out = capsys.readouterr().out
    assert "memjs: 4 of 5 well" in out
    assert "npm memcached: 3 of 5 well" in out
    assert out.count("call 1, get: never came back") == 3


def test_a_client_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "nobody"]) == USAGE
    assert "not installed: nobody" in capsys.readouterr().err
