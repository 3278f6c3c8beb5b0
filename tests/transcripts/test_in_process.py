"""The recorded exchanges with memcached 1.6.45 that need the core only, through a session without a socket."""

from typing import Any

import pytest

from tests.core.harness import MIB, fresh
from tests.transcripts.replay import Case, cases, play_in_process

# Verbs that the server answers, not the core.
COLD = {
    *(b"auth", b"cache_memlimit", b"extstore", b"lru", b"lru_crawler", b"misbehave", b"refresh_certs", b"shutdown"),
    *(b"slabs", b"stats", b"verbosity", b"watch"),
}
OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("-I", "2m"): {"item_size_max": 2 * MIB},
    ("-M",): {"evictions": False},
}
CHOSEN = [case for case in cases() if case.args in OPTIONS and not case.verbs & COLD]
# The limit of 2,048 bytes for a line without an end is the one rule that depends on how the bytes arrive.
ANY_SPLIT = [case for case in CHOSEN if not case.id.startswith("framing/long")]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.id)
def test_exchange(case: Case) -> None:
    client = fresh(**OPTIONS[case.args])
    play_in_process(case, client.send, client.engine.advance, lambda: client.is_closed)


@pytest.mark.parametrize("case", ANY_SPLIT, ids=lambda case: case.id)
def test_exchange_byte_by_byte(case: Case) -> None:
    client = fresh(**OPTIONS[case.args])

    def feed(data: bytes) -> bytes:
        return client.dribble(data) if len(data) < 5000 else client.send(data[:60]) + client.send(data[60:])

    play_in_process(case, feed, client.engine.advance, lambda: client.is_closed)


def test_most_cases_need_the_core_only() -> None:
    assert len(CHOSEN) > 300
