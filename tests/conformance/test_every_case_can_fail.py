"""No case passes whatever the server does: behind a proxy that spoils every reply, and one that never closes, each fails."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from conformance import library
from conformance.binary import ExpectFrame
from conformance.faults import Fault, Proxied, Talk
from conformance.notation import Act, Case, Expect, ExpectList, version
from conformance.runner import Result, Settings, run_case
from conformance.servers import Spawned

OLD = version("1.6.18")
PEER = "memcached -u root -U 0 -t 1"


def spoil(data: bytes, talk: Talk) -> bytes:
    """Every reply says something else; the proof of silence at a case's end is left alone."""
    if talk.request.endswith((b".fence\r\n", b"\x0f\xe0\xce\x00" + bytes(8))) and len(talk.request) < 30:
        return data
    return b"~" + data if data[:1] == b"\x81" else re.sub(rb"(?m)^(?=.)", b"~", data)


def stay(data: bytes, talk: Talk) -> bytes:
    """What the client sends never reaches the server, so that it never closes or ends."""
    return b""


def ends(case: Case) -> bool:
    """Whether all that the case wants is the end of a connection or of the server."""
    steps = case.exchange(OLD)
    replies = any(isinstance(step, Expect | ExpectList | ExpectFrame) for step in steps)
    return not replies and any(isinstance(step, Act) and step.word in {"closed", "gone"} for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("closing", [False, True])
def test_every_case_can_fail(closing: bool) -> None:
    fault = Fault("x", "", "", (), request=stay if closing else None, reply=None if closing else spoil)
    servers = Spawned(PEER)
    cases = [case for case in library.cases() if case.applies(OLD) and ends(case) is closing]
    settings = Settings(OLD, timeout=0.5, fence="get")

    def spoiled(number: int) -> Result:
        return run_case(cases[number], Proxied(servers, fault), settings, f"k{number}.")

    try:
        with ThreadPoolExecutor(64) as pool:  # no crew: it ends a run whose server seems to be lost
            results = list(pool.map(spoiled, range(len(cases))))
    finally:
        servers.close()
    assert len(results) > 3
    assert [(r.case.id, r.status) for r in results if r.status != "failed"] == []
