"""What a client's file is written with: counting, checks, deadlines, and the check that no operation is left out."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from typing import Any

import pytest

from conformance.clients import harness
from conformance.clients.harness import Client, Run, Server, check, equal, raises, run_client

SERVER = Server("127.0.0.1", 1, ("127.0.0.1", 2), ("127.0.0.1", 3))


class Cache:
    """Stands for a client."""

    limit = 7

    def get(self, key: str) -> str:
        return key.upper()

    def set(self, key: str, value: str) -> bool:
        return bool(key and value)

    def helper(self) -> None: ...

    def __getitem__(self, key: str) -> str:
        return key


def report_of(client: Client, *only: str) -> list[dict[str, Any]]:
    out = io.StringIO()
    run_client(client, SERVER, out, only)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def a_client() -> Client:
    return Client(
        version="1.2", title="A cache", surface={"Cache": Cache}, not_operations={"helper": "talks to no server"}
    )


def test_calls_are_counted_under_the_classs_name() -> None:
    run = Run(SERVER, "prefix")
    cache = run.count(Cache())
    assert (cache.get("a"), cache["b"], cache.limit) == ("A", "b", 7)
    cache.get("c")
    assert run.calls == Counter({"Cache.get": 2, "Cache.__getitem__": 1})


def test_keys_belong_to_the_run() -> None:
    assert Run(SERVER, "one").keys(2) == ["one:0", "one:1"]


def test_an_operation_that_no_scenario_calls_is_reported() -> None:
    client = a_client()

    @client.scenario
    def reads_only(run: Run) -> None:
        cache = run.count(Cache())
        equal(cache.get("a") + cache["b"], "Ab")

    first, last = report_of(client)
    assert (first["scenario"], first["operations"], first["error"]) == ("reads only", 2, None)
    assert last == {
        "title": "A cache",
        "version": "1.2",
        "covered": ["Cache.__getitem__", "Cache.get"],
        "missing": ["Cache.set"],
    }


def test_a_failing_scenario_does_not_hide_the_next() -> None:
    client = a_client()

    @client.scenario
    def fails(_run: Run) -> None:
        check(False, "this is wrong")

    @client.scenario
    async def exits(_run: Run) -> None:
        raise SystemExit(3)

    @client.scenario
    def passes(_run: Run) -> None: ...

    errors = [entry["error"] for entry in report_of(client)[:3]]
    assert errors[0].startswith("AssertionError: this is wrong [fails:")
    assert errors[1].startswith("SystemExit: 3 [exits:")
    assert errors[2] is None


def test_only_the_named_scenarios_run() -> None:
    client = a_client()

    @client.scenario
    def one(_run: Run) -> None: ...

    @client.scenario
    def two(_run: Run) -> None: ...

    first, last = report_of(client, "two")
    assert first["scenario"] == "two"
    assert last["missing"] == []


def test_a_scenario_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS_A_SCENARIO", 0.05)
    client = a_client()

    @client.scenario
    def hangs(_run: Run) -> None:
        while True:
            try:
                time.sleep(10)
            except Exception:  # noqa: BLE001 - as clients do
                continue

    assert "no end after 0.05 s" in report_of(client)[0]["error"]


def test_equal_shows_both_and_cuts_long_ones() -> None:
    with pytest.raises(AssertionError, match=r"the value: got 1, expected 2"):
        equal(1, 2, "the value")
    with pytest.raises(AssertionError, match=r"\.\.\. \(1000003 characters\)"):
        equal(b"x" * 1_000_000, b"")


def test_raises_wants_the_kind_and_the_text() -> None:
    with raises(ValueError, text="seven"):
        raise ValueError("seven")
    with pytest.raises(AssertionError, match="expected 'eight'"), raises(ValueError, text="eight"):
        raise ValueError("seven")
    with pytest.raises(AssertionError, match="expected ValueError or KeyError"), raises(ValueError, KeyError):
        pass
    with pytest.raises(TypeError), raises(ValueError):
        raise TypeError


def test_everything_has_all_bytes_and_line_ends() -> None:
    assert set(harness.everything()) == set(range(256))
    assert b"\r\nEND\r\n" in harness.everything()


def test_a_module_hidden_by_a_package_of_the_same_name_is_found() -> None:
    module = harness.module_of("python-memcached", "memcache.py")
    assert module.Client([]).get("k") is None
    with pytest.raises(FileNotFoundError):
        harness.module_of("python-memcached", "none.py")
