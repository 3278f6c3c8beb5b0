"""Random streams to a real server and to Debian's memcached, byte for byte, but for what the versions are known to differ in."""

import pytest

from conformance.compare.__main__ import SAME, main
from tests.conftest import Start

MEMCACHED = "memcached -u root -U 0 -t 1 -o no_lru_maintainer,no_lru_crawler"


@pytest.mark.slow
def test_random_streams_are_answered_as_memcached_answers_them(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start("-o", "no_lru_maintainer,no_lru_crawler")
    assert main([MEMCACHED, f"127.0.0.1:{server.port}", "--streams", "4000", "--seed", "1000"]) == SAME, (
        capsys.readouterr().out
    )
