"""What the small commands change, beyond their reply."""

from __future__ import annotations

import pytest

from tests.admin.harness import Wire


def test_verbosity_changes_the_engine_and_stops_at_two() -> None:
    wire = Wire()
    wire.ask(b"verbosity 7")
    assert wire.engine.verbosity == 2
    assert wire.stats(b"settings")["verbosity"] == "2"


def test_memory_limit_shows_in_both_places() -> None:
    wire = Wire()
    wire.ask(b"cache_memlimit 32")
    assert wire.stats(b"settings")["maxbytes"] == str(32 << 20)
    assert wire.stats()["limit_maxbytes"] == str(32 << 20)


def test_a_memory_limit_beyond_what_is_reserved_changes_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(maxbytes=64 << 20)
    most = wire.engine.memory_limit_most >> 20
    refused = b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"
    for megabytes in (most + 1, 262144, 1_000_000_000):
        assert wire.ask(b"cache_memlimit %d" % megabytes) == refused
        assert wire.stats(b"settings")["maxbytes"] == wire.stats()["limit_maxbytes"] == str(64 << 20)
    assert f"memory limit can't be {most + 1} MiB: at most {most}, for which address space" in caplog.text
    assert wire.ask(b"cache_memlimit %d" % most) == b"OK\r\n"


@pytest.mark.parametrize(
    ("line", "graceful"), [(b"shutdown", False), (b"shutdown graceful", True), (b"shutdown g", True)]
)
def test_shutdown_stops_the_server_without_a_reply(line: bytes, graceful: bool) -> None:
    wire = Wire(shutdown_command=True)
    assert wire.ask(line) == b""
    assert wire.network.stops == [graceful]


def test_shutdown_needs_its_option() -> None:
    wire = Wire()
    wire.ask(b"shutdown")
    assert wire.network.stops == []


def test_debugtime_moves_and_stops_the_clock() -> None:
    wire = Wire(debug_clock=True)
    wire.set(b"a", b"x", exptime=60)
    assert wire.get(b"a") == b"x"
    wire.ask(b"debugtime 61")
    assert wire.get(b"a") is None
