"""`stats conns` lists connections whose workers may close them before their addresses are looked up.

The rule: what a worker owns may be gone at any time; Python asks, and takes no for an answer.
"""

import os
import threading

import pytest

from mcserver.server.connections import address_text, event_address, is_open
from tests.conftest import Start


def test_a_descriptor_that_was_closed_or_is_no_socket() -> None:
    read, write = os.pipe()
    os.close(write)
    assert [is_open(read), is_open(write)] == [True, False]
    assert [address_text(fd, peer=True) for fd in (read, write)] == ["unknown"] * 2
    assert event_address(write) == ("unknown", 0, "tcp")
    os.close(read)


@pytest.mark.slow
def test_connections_come_and_go_while_they_are_listed(start: Start) -> None:
    server = start("-t", "4")
    witness = server.connect()
    over = threading.Event()

    def visit() -> None:
        while not over.is_set():
            clients = [server.connect() for _ in range(20)]
            for client in clients:
                client.command(b"mn")
                client.close()

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    try:
        for _ in range(300):
            stats = witness.stats("conns")
            assert sum(state == "conn_listening" for state in stats.values()) == 1
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()
    assert "Traceback" not in server.log()
