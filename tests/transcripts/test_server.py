"""Every recorded exchange with memcached 1.6.45, against a real server process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Start
from tests.serving import Server
from tests.transcripts.replay import Case, MismatchError, cases, play

SLEEPING = [case for case in cases() if case.seconds]
OWN_SERVER = [case for case in cases() if not case.seconds and (case.args or case.id.startswith("admin/"))]
SHARED = [case for case in cases() if case not in SLEEPING and case not in OWN_SERVER]


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One server for the cases that leave nothing behind but items."""
    with TemporaryDirectory() as folder:
        server = Server(Path(folder), ())
        try:
            yield server
        finally:
            server.stop()


def _address(server: Server) -> tuple[str, int]:
    assert isinstance(server.address, tuple)
    return server.address


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_exchange(case: Case, shared: Server) -> None:
    client = shared.connect()
    assert client.command(b"flush_all") == b"OK\r\n"
    client.send(b"set last 0 0 1\r\nx\r\n")
    client.until(b"STORED\r\n")
    last = int(client.command(b"mg last c").split(b" c")[1])
    assert client.command(b"delete last") == b"DELETED\r\n"
    client.close()
    play(case, _address(shared), last)


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN_SERVER, ids=lambda case: case.id)
def test_exchange_on_a_fresh_server(case: Case, start: Start) -> None:
    play(case, _address(start(*case.args)))


@pytest.mark.slow
def test_exchanges_that_sleep(start: Start) -> None:
    servers = [start(*case.args) for case in SLEEPING]

    def failure(case: Case, server: Server) -> str | None:
        try:
            play(case, _address(server))
        except MismatchError as mismatch:
            return str(mismatch)
        return None

    with ThreadPoolExecutor(len(SLEEPING)) as pool:
        failures = [text for text in pool.map(failure, SLEEPING, servers) if text]
    assert not failures, "\n\n".join(failures)


def test_every_case_is_played() -> None:
    assert len(SHARED) + len(OWN_SERVER) + len(SLEEPING) == len(cases()) > 380
