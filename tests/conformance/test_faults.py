"""The suite finds every fault that a proxy plants in front of a right server, and none where there is none."""

from __future__ import annotations

import sys
import time

import pytest

from conformance import library
from conformance.crew import TRIES, run
from conformance.faults import Fault, Proxied, Talk, faults
from conformance.faults.__main__ import named, possible, prove
from conformance.notation import version
from conformance.runner import Settings
from conformance.servers import Spawned

PEER = "memcached -u root -U 0 -t 1"
# A proxy accepts in the server's place, and goes to it in its own time.
ACCEPTED_ELSEWHERE = {"connection/limit-counted", "connection/limit-paused"}
OLD, NEW = version("1.6.18"), version("1.6.45")


def unproved(command: str, profile: tuple[int, ...]) -> list[str]:
    """What the proof did not show; skipped cases count as unproved."""
    servers = Spawned(command)
    try:
        results = list(prove(servers, Settings(profile, timeout=3.0), patience=60.0))
    finally:
        servers.close()
    return [
        f"{fault.id if fault else 'no fault'}: {r.case.id} {r.status} {r.reason}"
        for fault, found in results
        for r in found
    ]


@pytest.mark.slow
def test_every_fault_in_front_of_memcached_is_found() -> None:
    assert unproved(PEER, OLD) == []
    assert len(possible(OLD)) >= 60


@pytest.mark.slow
def test_every_fault_in_front_of_mcserver_is_found() -> None:
    without_auth = [name for name in unproved(f"{sys.executable} -m mcserver -u root", NEW) if " auth/" not in name]
    assert without_auth == []


@pytest.mark.slow
def test_the_whole_suite_passes_through_the_proxy() -> None:
    servers = Spawned(PEER)
    try:
        cases = [case for case in library.cases() if case.applies(OLD) and case.id not in ACCEPTED_ELSEWHERE]
        results = list(run(cases, Proxied(servers, None), Settings(OLD, timeout=20.0)))
    finally:
        servers.close()
    assert [(result.case.id, result.reason) for result in results if result.status != "passed"] == []


def test_a_fault_that_changes_nothing_is_missed() -> None:
    """The proof can fail: a fault that is none is not found."""
    servers = Spawned(PEER)
    harmless = Fault("none", "nothing is wrong", "framing", ("classic/get/hit",), reply=lambda data, talk: data)
    try:
        results = list(run(named(harmless.found_by), Proxied(servers, harmless), Settings(OLD)))
    finally:
        servers.close()
    assert [result.status for result in results] == ["passed"]


@pytest.mark.slow
@pytest.mark.parametrize(("times", "status"), [(1, "passed"), (2, "passed"), (9, "failed")])
def test_a_case_about_seconds_that_came_late_is_run_again(times: int, status: str) -> None:
    """Three seconds of the machine's own between `flush_all 3` and the next command: its item has gone by then."""
    late: list[bytes] = []

    def delay(data: bytes, talk: Talk) -> bytes:
        if data == b"OK\r\n" and len(late) < times:
            late.append(data)
            time.sleep(3.2)
        return data

    servers = Spawned(PEER)
    fault = Fault("late", "a reply comes late", "flush", ("flush/delayed",), reply=delay)
    try:
        results = list(run(named(fault.found_by), Proxied(servers, fault), Settings(OLD)))
    finally:
        servers.close()
    assert [result.status for result in results] == [status]
    assert len(late) == min(times, TRIES)


def test_faults_of_later_releases_wait_for_them() -> None:
    later = {fault.id for fault in faults() if fault.since}
    assert later
    assert not later & {fault.id for fault in possible(OLD)}
    assert later <= {fault.id for fault in possible(NEW)}
