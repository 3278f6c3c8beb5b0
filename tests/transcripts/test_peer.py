"""The replayer itself: Debian's memcached must pass every recorded answer of its own version, and fail altered ones."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.peer import MEMCACHED, memcached
from tests.transcripts.replay import DEVIATIONS, Case, MismatchError, Numbers, cases, play, same


def _play_fresh(case: Case) -> str | None:
    failure = None
    for _ in range(5):
        with memcached(*case.args) as address:
            try:
                play(case, address)
                return None
            except MismatchError as mismatch:
                failure = str(mismatch)
        if "BUSY" not in failure:  # memcached's own crawler was at work at that moment
            break
    return failure


@pytest.mark.slow
def test_memcached_1_6_18_passes_its_own_recording() -> None:
    version = subprocess.run([MEMCACHED, "-V"], capture_output=True, text=True, check=True).stdout
    assert "1.6.18" in version, "the recording's second version is Debian 12's"
    chosen = [case for case in cases("1.6.18") if case.id not in DEVIATIONS]
    with ThreadPoolExecutor(8) as pool:
        failures = [text for text in pool.map(_play_fresh, chosen) if text]
    assert not failures, "\n\n".join(failures)
    assert len(chosen) > 380


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (b"STORED\r\n", b"STORED\n"),
        (b"STORED\r\n", b"STORED\r\n\r\n"),
        (b"HD c5 t10\r\n", b"HD t10 c5\r\n"),
        (b"HD c5 c6\r\n", b"HD c9 c8\r\n"),
        (b"HD c5 c6\r\n", b"HD c9 c9\r\n"),
        (b"HD c5\r\n", b"HD c0\r\n"),
        (b"HD t10\r\n", b"HD t12\r\n"),
        (b"HD kc5\r\n", b"HD kc6\r\n"),
        (b"VALUE a 0 1 5\r\nx\r\nEND\r\n", b"VALUE a 0 1 5\r\ny\r\nEND\r\n"),
        (b"VALUE a 0 1\r\n5\r\nEND\r\n", b"VALUE a 0 1\r\n6\r\nEND\r\n"),
        (b"VALUE a 0 1 5\r\nx\r\nEND\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n"),
        (b"VA 2 W\r\nhi\r\n", b"VA 2\r\nhi\r\n"),
    ],
)
def test_a_wrong_reply_is_not_the_same(expected: bytes, actual: bytes) -> None:
    assert not same(Numbers(), expected, actual)
    assert same(Numbers(), expected, expected)


def test_cas_uniques_are_variables_that_rise() -> None:
    numbers = Numbers()
    assert same(numbers, b"HD c5\r\n", b"HD c70\r\n")
    assert same(numbers, b"HD c6\r\n", b"HD c75\r\n")
    assert not same(numbers, b"HD c6\r\n", b"HD c76\r\n")
    assert not same(numbers, b"HD c7\r\n", b"HD c71\r\n")
    assert numbers.translate(b"ms a 2 C5 T0\r\nhi\r\n") == b"ms a 2 C70 T0\r\nhi\r\n"
    assert numbers.translate(b"cas a 0 0 1 6\r\nC5\r\n") == b"cas a 0 0 1 75\r\nC5\r\n"
    assert numbers.translate(b"ms a 2 C4 T0\r\nhi\r\n") == b"ms a 2 C69 T0\r\nhi\r\n"


def test_every_case_has_a_send_and_an_answer() -> None:
    for case in cases():
        kinds = [kind for kind, _ in case.exchange]
        assert kinds[0] == "send", case.id
        assert "recv" in kinds, case.id
        texts = [value for _, value in case.exchange if isinstance(value, bytes)]
        assert not any(re.search(rb"\{.\*\d+\}", text) for text in texts), case.id
