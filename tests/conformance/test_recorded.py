"""The cases against what memcached was recorded to answer: none may contradict it."""

from __future__ import annotations

import pytest

from conformance import library
from conformance.notation import Act, Send, version
from conformance.runner import Exchange, Settings
from conformance.servers import Lease

from .recorded import Replayer


@pytest.mark.slow
@pytest.mark.parametrize(("release", "at_least"), [("1.6.45", 90), ("1.6.18", 85)])
def test_no_case_contradicts_the_records(release: str, at_least: int) -> None:
    replayer = Replayer(release)
    settings = Settings(version(release), timeout=60.0)
    confirmed = 0
    for case in library.cases():
        steps = case.exchange(settings.profile)
        if case.options or not case.applies(settings.profile) or case.seconds(settings.profile) > 1:
            continue
        if any(isinstance(step, Act) and step.word == "use" for step in steps):  # a record is of one connection
            continue
        if not any(isinstance(step, Send) for step in steps):
            continue
        before = replayer.unknown
        failure = Exchange(case, Lease(replayer.address), settings, "").run()
        if replayer.unknown == before:
            assert failure is None, f"{case.id}: {failure}"
            confirmed += 1
    replayer.close()
    assert confirmed >= at_least
