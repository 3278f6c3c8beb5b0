"""A rule is applied as at the time at which it came: a second refresh does not revive what the first one let expire."""

import pytest

from tests.core.harness import crawl, fresh


@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.parametrize("looks", [False, True])
def test_a_second_refresh_does_not_revive(segmented: bool, looks: bool) -> None:
    client = fresh(segmented=segmented)
    client.set(b"a", b"x")
    client.engine.refresh_prefix(b"", 1)
    if looks:
        assert client.send(b"mg a v t\r\n") == b"VA 1 t1 X W\r\nx\r\n"
    client.engine.advance(1)
    client.engine.refresh_prefix(b"", 1)
    assert client.send(b"mg a v\r\n") == b"EN\r\n"


def test_a_refresh_without_a_life_of_its_own_does_not_revive() -> None:
    client = fresh()
    client.set(b"a", b"x")
    client.engine.refresh_prefix(b"a", 1)
    client.engine.advance(2)
    client.engine.refresh_prefix(b"a")
    client.engine.refresh_prefix(b"", 60)
    assert client.send(b"mg a v\r\n") == b"EN\r\n"


def test_a_refresh_in_time_lengthens_the_life() -> None:
    client = fresh()
    client.set(b"a", b"x")
    client.engine.refresh_prefix(b"", 2)
    client.engine.advance(1)
    client.engine.refresh_prefix(b"", 5)
    client.engine.advance(3)
    assert client.send(b"mg a v t\r\n") == b"VA 1 t2 X W\r\nx\r\n"


def test_the_background_pass_sees_the_same() -> None:
    client = fresh()
    client.set(b"a", b"x")
    client.engine.refresh_prefix(b"", 1)
    client.engine.advance(1)
    client.engine.refresh_prefix(b"", 30)
    crawl(client.engine)
    assert client.engine.stats()["curr_items"] == 0
