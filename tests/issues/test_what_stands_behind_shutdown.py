"""`shutdown` is its connection's last command: nothing behind it runs, as in memcached. What stood before it is answered, and
what watchers were about to be told is told.
"""

from contextlib import closing
from tempfile import TemporaryDirectory

import pytest

from tests.admin.harness import Wire
from tests.conftest import Start
from tests.datagrams import HEADER, Datagrams, udp_address
from tests.peer import memcached
from tests.serving import Client


@pytest.mark.parametrize("line", [b"shutdown\r\n", b"shutdown graceful\r\n"])
def test_nothing_behind_it_runs(line: bytes) -> None:
    wire = Wire(shutdown_command=True)
    assert wire.send(b"set a 0 0 1\r\nA\r\n" + line + b"set b 0 0 1\r\nB\r\nget a b\r\nshutdown\r\n") == b"STORED\r\n"
    assert wire.owner.closes == [(wire.session, "shutdown")]
    assert wire.network.stops == [b"graceful" in line]
    assert wire.another().send(b"get a b\r\n") == b"VALUE a 0 1\r\nA\r\nEND\r\n"


@pytest.mark.parametrize("line", [b"shutdown x\r\n", b"shutdown graceful x\r\n"])
def test_a_refused_one_is_a_command_among_others(line: bytes) -> None:
    wire = Wire(shutdown_command=True)
    assert wire.send(line + b"mn\r\n") == b"CLIENT_ERROR invalid shutdown mode\r\nMN\r\n"
    assert wire.network.stops == []


PIPELINE = b"get a\r\nshutdown\r\nset b 0 0 1\r\nB\r\nget b\r\n"


@pytest.mark.slow
def test_it_is_the_last_in_memcached_too(start: Start) -> None:
    answers = []
    with memcached("-A") as address:
        client = Client(address)
        client.send(PIPELINE)
        answers.append(client.to_end())
        client.close()
    client = start("-A").connect()
    client.send(PIPELINE)
    answers.append(client.to_end())
    assert answers == [b"END\r\n", b"END\r\n"]


@pytest.mark.slow
def test_what_came_behind_it_is_not_kept_for_the_next_process(start: Start) -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        server = start("-A", "-e", f"{folder}/memory")
        client = server.connect()
        client.send(b"set a 0 0 1\r\nA\r\nshutdown graceful\r\nset b 0 0 1\r\nB\r\n")
        assert client.to_end() == b"STORED\r\n"
        assert server.end() == 0
        server = start("-e", f"{folder}/memory")
        assert server.connect().command(b"get a b", b"END\r\n") == b"VALUE a 0 1\r\nA\r\nEND\r\n"
        server.stop()


@pytest.mark.slow
def test_watchers_are_told_what_happened_just_before(start: Start) -> None:
    server = start("-A")
    watcher = server.connect()
    assert watcher.command(b"watch mutations") == b"OK\r\n"
    client = server.connect()
    client.send(b"set last 0 0 1\r\nA\r\nshutdown\r\n")
    assert client.to_end() == b"STORED\r\n"
    assert b"type=item_store key=last status=stored " in watcher.to_end()


@pytest.mark.slow
def test_in_a_datagram(start: Start) -> None:
    server = start("-A", "-U", "-1")
    with closing(Datagrams(udp_address(server))) as client:
        client.socket.send(HEADER.pack(1, 0, 1, 0) + b"get a\r\nshutdown\r\nget a\r\n")
        answer = client.socket.recv(1 << 16)
        assert answer == HEADER.pack(1, 0, 1, 0) + b"END\r\n"
        assert server.end() == 0
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing came besides
            client.socket.recv(1 << 16)
