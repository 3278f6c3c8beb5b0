"""Logins: -Y's first `set` and SASL beside memcached's own, the files of users, SIGHUP, and that guessing is slow."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.peer import RELEASE, memcached, sasl_memcached_settings
from tests.serving import Client, Server, eventually, run_to_end
from tests.stateful import packets as b
from tests.stateful.packets import Reply, plain, replies, request

USERS = "alice:secret\nbob:hid den\ncolon:a:b\nempty:\n"
RIGHT = b"set a 0 0 12\r\nalice secret\r\n"
WRONG = b"set a 0 0 11\r\nalice wrong\r\n"
LOGINS = [
    b"get a\r\n", b"set a\r\n", b"set a 0 0 x\r\n", b"set a 0 0 -1\r\n", RIGHT, WRONG, b"set a 0 0 2\r\nhi\r\n",
    b"set a 0 0 12 noreply\r\nalice secret\r\n", b"set a 0 0 9\r\ncolon a:b\r\n", b"set a 0 0 0\r\n\r\n",
    b"set a 0 0 5\r\nempty\r\n", b"set a 0 0 13\r\nalice secret\n\r\n", b"set  a  0 0 12 \r\nalice secret\r\n",
    b"set a 0 0 12\r\nalice secret!!", b"add a 0 0 12\r\n",
]  # fmt: skip
IN, OUT = b"STORED\r\n", b"CLIENT_ERROR authentication failure\r\n"
SINCE = {
    b"set a 0 0 15\r\n alice   secret\r\n": OUT,
    b"set a 0 0 14\r\nalice   secret\r\n": OUT,
    b"set a 0 0 13\r\nalice secret \r\n": OUT,
    b"set a 0 0 19\r\nalice secret extra!\r\n": OUT,
    b"set a 0 0 11\r\nbob hid den\r\n": IN,
    b"set a 0 0 7\r\nbob hid\r\n": OUT,
    b"set a 0 0 6\r\nempty \r\n": IN,
    b"set a 0 0 7\r\nempty  \r\n": OUT,
    b"set a 0 0 7\r\n secret\r\n": OUT,
    b"set a 0 0 6\r\nalice \r\n": OUT,
    b"quit\r\n": b"",
}
"""What 1.6.45 answers (scripts/newest asks it): a password is all behind the first blank. 1.6.18 took it for words: blanks in a
password locked its user out, and what stood behind it was not looked at."""


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(USERS)
    return file


def line(client: Client) -> bytes:
    return client.until(b"\r\n")


@pytest.mark.slow
def test_the_first_set_is_answered_as_by_memcached(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    with memcached("-Y", str(users)) as address:
        for login in [*LOGINS, *(SINCE if RELEASE >= (1, 6, 45) else ())]:
            ours, theirs = server.connect(), Client(address)
            for client in (ours, theirs):
                client.send(login)
            answer = line(theirs) if SINCE.get(login, IN) else theirs.to_end()
            assert (line(ours) if answer else ours.to_end()) == answer, login
            if answer == b"STORED\r\n":
                assert ours.command(b"get a") == b"END\r\n", "nothing was stored"
            theirs.close()


@pytest.mark.slow
def test_the_password_is_what_stands_behind_the_first_blank(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    clients = [server.connect() for _ in SINCE]
    for client, login in zip(clients, SINCE, strict=True):
        client.send(login)
    for client, (login, answer) in zip(clients, SINCE.items(), strict=True):
        assert (line(client) if answer else client.to_end()) == answer, login
    observer = server.connect()
    observer.send(RIGHT)
    assert line(observer) == IN
    assert observer.stats()["auth_errors"] == str(sum(answer == OUT for answer in SINCE.values()))


def test_a_login_in_pieces_and_then_commands(start: Start, users: Path) -> None:
    client = start("-Y", str(users)).connect()
    for byte in RIGHT:
        client.send(bytes([byte]))
    assert line(client) == b"STORED\r\n"
    assert client.command(b"set a 0 0 1\r\nx") == b"STORED\r\n"
    assert client.stats()["auth_cmds"] == "1"
    assert client.stats("settings")["auth_enabled_ascii"] == str(users)


def test_too_much_and_too_little_for_a_login(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    for data, answer in (
        (b"x" * 3000, b""),
        (b"\r\n", b""),
        (b"set a 0 0 16385\r\n", b"CLIENT_ERROR auth token too long\r\n"),
        (b"set a 0 0 4294967295\r\n", b"CLIENT_ERROR auth token too long\r\n"),
        (b"set a 0 0 -0\r\n", b"CLIENT_ERROR unauthenticated\r\n"),
    ):
        client = server.connect()
        client.send(data)
        assert (line(client) if answer else client.to_end()) == answer


@pytest.mark.slow
def test_a_failed_login_is_slow_and_keeps_nobody_waiting(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    other = server.connect()
    other.send(RIGHT)
    assert line(other) == b"STORED\r\n"
    guessers = [server.connect() for _ in range(50)]
    began = time.monotonic()
    for guesser in guessers:
        guesser.send(WRONG + RIGHT + b"get a\r\n")
    for _ in range(20):
        assert other.command(b"get a") == b"END\r\n"
    for guesser in guessers:
        assert [line(guesser) for _ in range(3)] == [
            b"CLIENT_ERROR authentication failure\r\n",
            b"STORED\r\n",
            b"END\r\n",
        ]
    assert time.monotonic() - began >= 0.9
    stats = other.stats()
    assert (stats["auth_cmds"], stats["auth_errors"]) == ("101", "50")
    eventually(lambda: server.log().count("a login failed") == 1)
    assert "secret" not in server.log()
    assert "wrong" not in server.log()


@pytest.mark.slow
def test_whoever_leaves_after_a_failed_login_does_no_harm(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    for _ in range(5):
        client = server.connect()
        client.send(WRONG)
        client.close()
    time.sleep(1.2)
    client = server.connect()
    client.send(RIGHT)
    assert line(client) == b"STORED\r\n"
    assert "internal error" not in server.log()


@pytest.mark.slow
@pytest.mark.parametrize("more", [b"", WRONG], ids=["alone", "with more behind it"])
def test_whoever_leaves_after_a_failed_login_keeps_no_place(start: Start, users: Path, more: bytes) -> None:
    """The answer would come after a second."""
    server = start("-Y", str(users), "-c", "2")
    observer = server.connect()
    observer.send(RIGHT)
    assert line(observer) == b"STORED\r\n"
    began = time.monotonic()
    for count in range(1, 31):
        client = Client(server.address)
        client.send(WRONG + more)
        eventually(lambda count=count: int(observer.stats()["auth_errors"]) >= count)
        client.close()
        eventually(lambda: observer.stats()["curr_connections"] == "1")
    assert time.monotonic() - began < 15
    assert observer.stats()["rejected_connections"] == "0"


@pytest.mark.slow
def test_sighup_reads_the_users_again(start: Start, users: Path) -> None:
    server = start("-Y", str(users))
    inside = server.connect()
    inside.send(RIGHT)
    assert line(inside) == b"STORED\r\n"
    users.write_text("carol:new\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: "the users are read again" in server.log())
    assert inside.command(b"mn") == b"MN\r\n", "who is inside stays"
    client = server.connect()
    client.send(RIGHT + b"set a 0 0 9\r\ncarol new\r\n")
    assert [line(client), line(client)] == [b"CLIENT_ERROR authentication failure\r\n", b"STORED\r\n"]
    users.write_text("nobody\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: "line 1 is not name:password; the users stay as they were" in server.log())
    client = server.connect()
    client.send(b"set a 0 0 9\r\ncarol new\r\n")
    assert line(client) == b"STORED\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nocolon\n", "line 1 is not name:password"),
        ("a:b\n" + "x" * 260 + ":long\n", "line 2 is longer"),
        ("", "there is no line"),
    ],
)
def test_a_file_that_is_none_stops_at_start(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "users"
    file.write_text(text)
    done = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-Y", str(file))
    assert done.returncode == 1
    assert error in done.stderr
    assert f"can't read the users in {file} (-Y): " in done.stderr


@pytest.mark.slow
def test_a_file_that_is_missing_stops_at_start(tmp_path: Path) -> None:
    done = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-Y", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "No such file" in done.stderr


# SASL


def exchange(client: Client, packets: list[bytes]) -> list[Reply]:
    """One reply to each, or fewer when it closes."""
    got: list[Reply] = []
    for packet in packets:
        try:
            client.send(packet)
            data = b""
            while not replies(data)[0]:
                received = client.socket.recv(1 << 16)
                if not received:
                    return got
                data += received
        except OSError:
            return got
        got += replies(data)[0]
    return got


GET = request(b.GET, b"a", opaque=1)
LIST = request(b.SASL_LIST, opaque=2)


@pytest.mark.slow
def test_sasl_is_answered_as_by_memcached(
    start: Start, tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sasl_memcached_settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    server = start("-S", environment={"MEMCACHED_SASL_PWDB": str(users)})
    exchanges = [
        [GET],
        [LIST, GET],
        [plain(b"\0alice\0secret"), GET],
        [plain(b"\0alice\0wrong"), plain(b"\0alice\0secret"), GET],
        [plain(b"alice\0alice\0secret"), GET],
        [plain(b"\0nobody\0secret"), GET],
        [plain(b"\0alice"), GET],
        [plain(b""), plain(b"\0alice\0secret", b.SASL_STEP), GET],
        [plain(b"\0alice\0secret", b.SASL_STEP), GET],
        [plain(b"x", mechanism=b"NONSENSE"), GET],
        [plain(b"\0alice\0secret", mechanism=b"pLain"), GET],
        [plain(b"", mechanism=b"plain"), plain(b"\0alice\0secret", b.SASL_STEP, b"plain"), GET],
        [plain(b"\0alice\0secret", mechanism=b"PLAIN "), GET],
        [plain(b"x", mechanism=b"M" * 40), plain(b"\0alice\0secret"), GET],
        [plain(b"\0alice\0secret"), LIST, GET],
        [request(b.NOOP)],
        [request(0x7F)],
    ]
    with memcached("-S") as address:
        for packets in exchanges:
            theirs = Client(address)
            assert exchange(server.connect(), packets) == exchange(theirs, packets), packets
            theirs.close()


@pytest.mark.slow
def test_sasl_of_one_server(start: Start, users: Path) -> None:
    server = start("-S", environment={"MEMCACHED_SASL_PWDB": str(users)})
    version = exchange(server.connect(), [request(b.VERSION)])
    assert version[0].value == b"1.6.45"
    client = server.connect()
    got = exchange(client, [plain(b"\0colon\0a"), request(b.STAT, b"settings")])
    assert [reply.status for reply in got[:2]] == [0, 0]
    figures = {reply.key: reply.value for reply in got}
    assert (figures[b"auth_enabled_sasl"], figures[b"binding_protocol"]) == (b"yes", b"binary")


@pytest.mark.slow
def test_whoever_leaves_after_a_failed_login_by_sasl_keeps_no_place(start: Start, users: Path) -> None:
    """There is one: the next client waits until it is free."""
    server = start("-S", "-c", "1", "-o", "no_maxconns_fast", environment={"MEMCACHED_SASL_PWDB": str(users)})
    began = time.monotonic()
    for _ in range(30):
        client = Client(server.address)
        client.send(request(b.VERSION))
        assert client.socket.recv(24)
        client.send(plain(b"\0alice\0wrong"))
        client.close()
    assert time.monotonic() - began < 15


@pytest.mark.slow
def test_sasl_needs_users() -> None:
    environment = {"MEMCACHED_SASL_PWDB": ""}
    done = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-S", environment=environment)
    assert done.returncode == 64
    assert "MEMCACHED_SASL_PWDB" in done.stderr
    assert os.environ.get("MEMCACHED_SASL_PWDB") is None


@pytest.mark.slow
def test_the_trace_has_no_password(start: Start, users: Path) -> None:
    server: Server = start("-vv", "-Y", str(users))
    client = server.connect()
    client.send(RIGHT)
    assert line(client) == b"STORED\r\n"
    assert client.command(b"mn") == b"MN\r\n"
    eventually(lambda: " mn" in server.log())
    assert "alice secret" not in server.log()
