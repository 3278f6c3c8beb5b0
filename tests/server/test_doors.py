"""Whoever speaks what is not spoken at a port is told so in a way that its own library shows, is closed, and is counted."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.datagrams import Datagrams
from tests.peer import MEMCACHED, RELEASE, memcached, sasl_memcached_settings
from tests.ports import free_port
from tests.serving import REPLY_SECONDS, Client, Server, eventually, run_to_end
from tests.stateful import packets as b
from tests.stateful.packets import replies, request
from tests.tls.certificates import Folder as Certificates

PING = b"*1\r\n$4\r\nPING\r\n"


def turned_away(server: Server, data: bytes) -> bytes:
    """All that it answers until it closes."""
    stranger = server.connect()
    stranger.send(data)
    return stranger.to_end()


def test_http_is_answered_in_http(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as error:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/index.html", timeout=5)
    with error.value as answered:
        assert b"memcached" in answered.read()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("POST", "/", body=b"x" * 1000)
    with contextlib.closing(connection), connection.getresponse() as answer:
        assert (answer.status, answer.will_close) == (400, True)


def test_http_whose_first_line_is_longer_than_any_of_ours(server: Server, client: Client) -> None:
    """The rest of it comes later: who speaks to it through a slow line gets the same answer."""
    begun = b"GET /?q=" + b"a" * 3000
    whole = turned_away(server, begun + b" HTTP/1.1\r\n\r\n")
    assert whole.startswith(b"HTTP/1.0 400 ")
    assert turned_away(server, begun) == whole
    assert client.stats()["wrong_protocol"] == "2"
    assert turned_away(server, b"GETS " + begun) == b"", "no method and no path"


def test_tls_is_answered_with_an_alert(server: Server) -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port), 5) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


def test_redis_is_answered_with_an_error_of_its_own(server: Server) -> None:
    assert turned_away(server, PING) == b"-ERR this is a memcached server: it doesn't speak Redis's protocol\r\n"


@pytest.mark.parametrize("options", [("-B", "ascii"), ("-Y", "USERS")])
def test_binary_where_it_is_switched_off(start: Start, tmp_path: Path, options: tuple[str, str]) -> None:
    users = tmp_path / "users"
    users.write_text("alice:secret\n")
    server = start(*(option.replace("USERS", str(users)) for option in options))
    (reply,), rest = replies(turned_away(server, request(b.GET, b"a", opaque=77)))
    assert (reply.opcode, reply.status, reply.opaque, rest) == (b.GET, 0x83, 77, b"")
    assert b"switched off" in reply.value


def test_text_that_begins_like_binary_where_that_is_switched_off(start: Start) -> None:
    client = start("-B", "ascii").connect()
    assert client.command(b"\x80bogus") == b"ERROR\r\n"
    assert client.command(b"mn") == b"MN\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"get a\r\n", b"\x00\x01", b"version\r\n"])
def test_text_where_only_binary_is_spoken(start: Start, data: bytes) -> None:
    server = start("-B", "binary")
    assert turned_away(server, data) == b"CLIENT_ERROR only the binary protocol is spoken here\r\n"
    client = server.connect()
    client.send(request(b.NOOP))
    client.until(b"\x81\x0a")


@pytest.mark.slow
def test_they_are_counted_and_told_once(server: Server, client: Client) -> None:
    for _ in range(3):
        turned_away(server, PING)
        turned_away(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.stats()["wrong_protocol"] == "6"
    eventually(lambda: "it speaks HTTP" in server.log())
    assert server.log().count("it speaks Redis's protocol") == server.log().count("it speaks HTTP") == 1
    client.command(b"stats reset")
    assert client.stats()["wrong_protocol"] == "0"


@pytest.mark.slow
def test_the_first_bytes_may_come_one_by_one(server: Server, client: Client) -> None:
    for data in (PING, b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x05hello"):
        whole = turned_away(server, data)
        slow = server.connect()
        for at in range(len(data)):
            try:
                slow.send(data[at : at + 1])
            except OSError:
                break  # it has heard enough
        try:
            assert whole.startswith(slow.to_end())
        except ConnectionResetError:
            pass
    assert client.command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_what_only_begins_like_that_is_text(client: Client) -> None:
    assert client.command(b"*1 a") == b"ERROR\r\n"
    assert client.command(b"GET a") == b"ERROR\r\n"
    assert client.command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_the_binary_protocol_on_a_unix_socket(start: Start, tmp_path: Path) -> None:
    client = start("-s", str(tmp_path / "socket")).connect()
    client.send(
        request(b.SET, b"a", b.STORE.pack(7, 0), b"hello") + request(b.GETK, b"a") + request(b.STAT) + request(b.QUIT)
    )
    got, rest = replies(client.to_end())
    assert rest == b""
    assert (got[1].extras, got[1].key, got[1].value) == (b"\0\0\0\7", b"a", b"hello")
    figures = {reply.key: reply.value for reply in got[2:-2]}
    assert figures[b"cmd_set"] == b"1"
    assert figures[b"version"] == b"1.6.45"
    assert (got[-2].key, got[-2].value, got[-1].opcode) == (b"", b"", b.QUIT)


# proto[...]: in -l -------------------------------------------------------------------------------------------------------

EACH = {"": "auto", "proto[ascii]:": "ascii", "proto[binary]:": "binary", "proto[negotiating]:": "auto"}
"""What is spoken at a listener with this prefix; without one, what -B says."""


def speaks_what_its_prefix_says(server: Server, default: str = "auto") -> None:
    lines = server.port_file.read_text().splitlines()
    doors = {kind: [int(line.split()[-1]) for line in lines if line.startswith(kind)] for kind in ("TCP", "UDP")}
    assert len(doors["TCP"]) == len(doors["UDP"]) == len(EACH)
    for prefix, tcp, udp in zip(EACH, doors["TCP"], doors["UDP"], strict=True):
        spoken = EACH[prefix] if prefix else default
        for binary in (True, False):
            data = request(b.VERSION) if binary else b"mn\r\n"
            fits = spoken in ("auto", "binary" if binary else "ascii")
            with socket.create_connection(("127.0.0.1", tcp), REPLY_SECONDS) as one:
                one.sendall(data)
                said = one.recv(1000)
                assert (said.startswith(b"\x81\x0b\0\0\0\0\0\0") or said == b"MN\r\n") == fits, (prefix, binary)
                assert fits or one.recv(1000) == b"", "closed"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(REPLY_SECONDS)
                one.connect(("127.0.0.1", udp))
                known = request(b.VERSION) if spoken == "binary" else b"mn\r\n"
                one.send(b"\0\1\0\0\0\1\0\0" + data)
                one.send(b"\0\2\0\0\0\1\0\0" + known)
                numbers = [one.recv(1000)[1]]
                while numbers[-1] != 2:
                    numbers.append(one.recv(1000)[1])
                assert numbers == ([1, 2] if fits else [2]), (prefix, binary)


@pytest.mark.slow
@pytest.mark.parametrize("default", ["auto", "ascii", "binary"])
def test_each_listener_speaks_what_its_prefix_says(start: Start, default: str) -> None:
    """As in memcached, where it is silence that answers the others."""
    inter = ",".join(f"{prefix}127.0.0.1" for prefix in EACH)
    speaks_what_its_prefix_says(start("-l", inter, "-B", default, "-U", "-1", "-t", "1"), default)


@pytest.mark.slow
def test_each_listener_speaks_the_same_in_the_next_process(start: Start, tmp_path: Path) -> None:
    options = ("-U", "-1", "-t", "1", "--take-over", str(tmp_path / "door"))
    server = start("-l", ",".join(f"{prefix}127.0.0.1" for prefix in EACH), *options)
    for _ in range(2):
        before, server = server, start("-l", "127.0.0.1", *options)
        assert before.end() == 0, before.log()
        speaks_what_its_prefix_says(server)


@pytest.mark.slow
def test_a_binary_datagram_is_never_read_as_text(start: Start) -> None:
    """Where it is switched off it has no answer, and commands in its value are none. What only begins so is text."""
    server = start("-B", "ascii", "-U", "-1", "-t", "1")
    port = next(int(line.split()[-1]) for line in server.port_file.read_text().splitlines() if line.startswith("UDP"))
    with contextlib.closing(Datagrams(("127.0.0.1", port))) as asking:
        assert asking.one(b"set k 0 0 1\r\n1\r\n") == b"STORED\r\n"
        for opaque in (0, 0x0A0A0A0A):
            packet = request(b.SET, b"a", b.STORE.pack(0, 0), b"\r\ndelete k\r\n", opaque=opaque)
            asking.socket.send(b"\0\1\0\0\0\1\0\0" + packet)
        assert asking.one(b"\x80\x80\r\n") == b"ERROR\r\n"
        assert asking.one(b"get k\r\n") == b"VALUE k 0 1\r\n1\r\nEND\r\n"
    assert server.connect().stats()["udp_dropped"] == "2"


def every_listener_answers(server: Server, binary: bytes, text: bytes) -> None:
    """A get of each protocol, by what the answer begins with."""
    for line in server.port_file.read_text().splitlines():
        address = ("127.0.0.1", int(line.split()[-1]))
        for data, answer in ((request(b.GET, b"a"), binary), (b"get a\r\n", text)):
            with socket.create_connection(address, REPLY_SECONDS) as one:
                one.sendall(data)
                assert one.recv(1000).startswith(answer)


@pytest.mark.slow
def test_no_prefix_is_a_way_around_a_login(start: Start, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("alice:secret\n")
    server = start("-Y", str(users), "-l", "127.0.0.1,proto[negotiating]:127.0.0.1", "-t", "1")
    every_listener_answers(server, b"\x81\0\0\0\0\0\0\x83", b"CLIENT_ERROR unauthenticated")
    server = start(
        *("-S", "-l", "127.0.0.1,proto[binary]:127.0.0.1,proto[negotiating]:127.0.0.1", "-t", "1"),
        environment={"MEMCACHED_SASL_PWDB": str(users)},
    )
    every_listener_answers(server, b"\x81\0\0\0\0\0\0\x20", b"CLIENT_ERROR only the binary")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "prefix", "code"),
    [
        (("-Y", "users"), "proto[binary]:", 71),
        (("-S",), "proto[ascii]:", 64),
        *((("-S", "-B", spoken), prefix, 64) for spoken in ("ascii", "auto") for prefix in ("", "proto[binary]:")),
        *(
            (("-Y", "users", "-B", spoken), prefix, 64)
            for spoken in ("binary", "auto")
            for prefix in ("", "proto[ascii]:")
        ),
    ],
)
def test_who_may_not_be_asked_for_a_login_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], prefix: str, code: int
) -> None:
    """As by memcached, but where 1.6.18 serves whoever comes without one."""
    (tmp_path / "users").write_text("alice:secret\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {**sasl_memcached_settings(tmp_path), "MEMCACHED_SASL_PWDB": str(tmp_path / "users")}.items():
        monkeypatch.setenv(name, value)
    where = ("-u", "root", "-p", str(free_port()), "-U", "0", "-l", f"{prefix}127.0.0.1")
    ended = run_to_end(*where, *options)
    assert ended.returncode == code
    assert "You cannot allow the" in ended.stderr
    if "-B" in options:
        theirs = subprocess.run([MEMCACHED, *where, *options], capture_output=True, text=True, timeout=60, check=False)
        assert theirs.returncode == code
        assert theirs.stderr.removeprefix("ERROR: ").rstrip(".\n") in ended.stderr
    elif RELEASE < (1, 6, 45):
        at = free_port()
        with memcached("-l", f"{prefix}127.0.0.1:{at}", *options):
            assert is_let_in(("127.0.0.1", at), request(b.GET, b"a") if "binary" in prefix else b"get a\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-B", "ascii"), ("-B", "binary"), ("-S",), ("-Y", "users")])
def test_each_prefix_lets_in_whom_memcached_lets_in(
    monkeypatch: pytest.MonkeyPatch, start: Start, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Nobody that it keeps out, and of the others all but who would need no login."""
    (tmp_path / "users").write_text("alice:secret\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {**sasl_memcached_settings(tmp_path), "MEMCACHED_SASL_PWDB": str(tmp_path / "users")}.items():
        monkeypatch.setenv(name, value)
    refused = {"-S": "proto[ascii]:", "-Y": "proto[binary]:"}.get(options[0] if options else "")
    for prefix in EACH:
        if prefix == refused:
            continue
        at = free_port()
        with memcached("-l", f"{prefix}127.0.0.1:{at}", *options):
            theirs = [is_let_in(("127.0.0.1", at), data) for data in ASKS]
        server = start("-l", f"{prefix}127.0.0.1", "-t", "1", *options)
        ours = [is_let_in(server.tcp, data) for data in ASKS]
        if options and options[0] in {"-S", "-Y"}:
            assert ours == [False, False], prefix
        else:
            assert ours == theirs, prefix


ASKS = (request(b.GET, b"a"), b"get a\r\n")


def is_let_in(address: tuple[str, int], data: bytes) -> bool:
    """Whether a miss is the answer."""
    with socket.create_connection(address, REPLY_SECONDS) as one:
        one.settimeout(0.3)
        one.sendall(data)
        try:
            return one.recv(1000).startswith((b"\x81\0\0\0\0\0\0\1", b"END\r\n"))
        except TimeoutError:
            return False


@pytest.mark.slow
def test_each_prefix_says_the_same_by_tls(start: Start, tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    inter = ",".join(f"{prefix}127.0.0.1" for prefix in EACH)
    server = start(*files.options(), "-l", inter, "-t", "1")
    for prefix, line in zip(EACH, server.port_file.read_text().splitlines(), strict=True):
        for data, answer, kind in (
            (request(b.GET, b"a"), b"\x81\0\0\0\0\0\0\1", "binary"),
            (b"get a\r\n", b"END\r\n", "ascii"),
        ):
            plain = socket.create_connection(("127.0.0.1", int(line.split()[-1])), REPLY_SECONDS)
            with files.context().wrap_socket(plain, server_hostname="localhost") as one:
                one.sendall(data)
                assert one.recv(1000).startswith(answer) is (EACH[prefix] in {"auto", kind}), (prefix, kind)
