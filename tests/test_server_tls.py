"""TLS beside Debian's memcached: the same bytes, the same refusals; sessions, certificates, listeners, hostile clients."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import Start
from tests.peer import MEMCACHED, memcached
from tests.serving import Client, Server, eventually, run_to_end

SECONDS = 60
"""Far more than any wait here takes."""


class Folder:
    """Certificates of one authority, and of another that nobody knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(path / "ca.pem"))
        self.stranger = trustme.CA()
        self.renew("server")
        self.renew("client")
        self.renew("foreign", self.stranger)

    def renew(self, name: str, authority: trustme.CA | None = None) -> None:
        """A new key and certificate in NAME.pem, NAME.key and, both in one, NAME.both."""
        issued = (authority or self.authority).issue_cert("localhost", "127.0.0.1", common_name=name)
        issued.private_key_pem.write_to_path(str(self.path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(self.path / f"{name}.pem"))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.path / f"{name}.both"))

    def __truediv__(self, name: str) -> str:
        return str(self.path / name)

    def options(self, *more: str) -> tuple[str, ...]:
        """-Z with the server's certificate."""
        files = [f"ssl_chain_cert={self / 'server.pem'}", f"ssl_key={self / 'server.key'}", *more]
        return "-Z", "-o", ",".join(files)

    def context(self, certificate: str = "") -> ssl.SSLContext:
        """A client's, which knows the authority; it shows a certificate if there is one to show."""
        context = ssl.create_default_context(cafile=self / "ca.pem")
        if certificate:
            context.load_cert_chain(self / f"{certificate}.pem", self / f"{certificate}.key")
        return context


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """For tests that change no file."""
    return Folder(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def own(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def opened() -> Iterator[Callable[..., Client]]:
    """`opened(address, context)`: a connection by TLS, closed at the end."""
    clients: list[Client] = []

    def connect(
        address: tuple[str, int] | str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> Client:
        client = Client(address)
        clients.append(client)
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost", session=session)
        return client

    yield connect
    for client in clients:
        client.close()


def of(client: Client) -> ssl.SSLSocket:
    assert isinstance(client.socket, ssl.SSLSocket)
    return client.socket


# The same bytes ----------------------------------------------------------------------------------------------------------

STREAM = [
    (b"set a 5 0 3\r\nabc\r\n", b"\r\n"),
    (b"get a b a\r\n", b"END\r\n"),
    (b"gets none\r\n", b"END\r\n"),
    (b"set n 0 0 1\r\n9\r\nincr n 3\r\ndecr n 100\r\n", b"\r\n0\r\n"),
    (b"append a 0 0 2\r\nxy\r\nprepend a 0 0 1\r\n-\r\nget a\r\n", b"END\r\n"),
    (b"mg a v f k t\r\nmn\r\n", b"MN\r\n"),
    (b"ms m 4 T100\r\n1234\r\nmg m v t s\r\nmd m q\r\nmg m v\r\nmn\r\n", b"MN\r\n"),
    (b"set big 0 0 100000\r\n" + b"0123456789" * 10000 + b"\r\n", b"\r\n"),
    (b"get big\r\n", b"END\r\n"),
    (b"set q 0 0 1 noreply\r\n1\r\ndelete q noreply\r\nget q\r\n", b"END\r\n"),
    (b"nonsense\r\nmn\r\n", b"MN\r\n"),
    (b"set a 0 0 2\r\nlonger\r\nmn\r\n", b"MN\r\n"),
    (b"touch a 100\r\ndelete a\r\nverbosity 0\r\nflush_all\r\nget n\r\n", b"END\r\n"),
]


def whole(client: Client, data: bytes) -> None:
    client.send(data)


def by_byte(client: Client, data: bytes) -> None:
    """A record for each byte."""
    for at in range(len(data)):
        client.send(data[at : at + 1])


@pytest.mark.slow
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("send", [whole, by_byte])
def test_answers_are_memcacheds(
    start: Start,
    shared: Folder,
    opened: Callable[..., Client],
    send: Callable[[Client, bytes], None],
    threads: str,
    version: ssl.TLSVersion,
) -> None:
    context = shared.context()
    context.maximum_version = version
    ours = opened(start("-t", threads, *shared.options()).address, context)
    with memcached(*shared.options()) as address:
        theirs = opened(address, context)
        assert of(ours).cipher() == of(theirs).cipher()
        for data, mark in STREAM:
            if send is by_byte and len(data) > 1000:
                continue
            send(ours, data)
            whole(theirs, data)
            assert ours.until(mark) == theirs.until(mark), data


def test_a_batch_goes_out_in_few_records(start: Start, shared: Folder) -> None:
    """Small replies share a record; with a small ssl_wbuf_size none is larger."""
    server = start(*shared.options("ssl_wbuf_size=1"))
    wire = Wire(server, shared.context())
    wire.tls.write(b"set a 0 0 100\r\n" + b"x" * 100 + b"\r\n")
    wire.until(b"STORED\r\n")
    wire.records.clear()
    wire.tls.write(b"get a\r\n" * 8)
    wire.until(b"END\r\n", 8)
    assert len(wire.records) == 1
    wire.records.clear()
    wire.tls.write(b"get a\r\n" * 100)
    wire.until(b"END\r\n", 100)
    assert max(wire.records) <= 1024 + 256
    assert len(wire.records) >= 10
    wire.socket.close()


class Wire:
    """A client whose records can be counted."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), SECONDS)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.records: list[int] = []
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def exchange(self) -> None:
        """Sends what waits, and takes one record."""
        self.flush()
        head = self.take(5)
        body = self.take(int.from_bytes(head[3:], "big"))
        self.records.append(len(body))
        self.incoming.write(head + body)

    def take(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            got = self.socket.recv(n - len(data))
            assert got, "closed"
            data += got
        return data

    def until(self, mark: bytes, times: int = 1) -> bytes:
        data = b""
        while data.count(mark) < times:
            try:
                data += self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.exchange()
        return data


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_large_values_and_slow_readers(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    server = start("-t", threads, "-m", "256", *shared.options())
    slow, other = opened(server.address, shared.context()), opened(server.address, shared.context())
    values = [random.Random(n).randbytes(1000 * n + 900_000) for n in range(4)]
    for n, value in enumerate(values):
        slow.send(b"set v%d 0 0 %d\r\n%b\r\n" % (n, len(value), value))
        assert slow.until(b"\r\n") == b"STORED\r\n"
    for _ in range(4):
        for n in range(len(values)):
            slow.send(b"get v%d\r\nget none\r\n" % n)  # nobody reads yet: 14 MB
    assert other.command(b"get none", b"END\r\n") == b"END\r\n"
    for _ in range(4):
        for n, value in enumerate(values):
            assert slow.until(b"\r\n") == b"VALUE v%d 0 %d\r\n" % (n, len(value))
            assert slow.until(b"\r\nEND\r\nEND\r\n").removesuffix(b"\r\nEND\r\nEND\r\n") == value
    pieces = opened(server.address, shared.context())
    pieces.send(b"set v0 0 0 %d\r\n" % len(values[0]))
    for at in range(0, len(values[0]), 7001):
        pieces.send(values[0][at : at + 7001])
    pieces.send(b"\r")
    pieces.send(b"\nget v0\r\n")
    assert pieces.until(b"END\r\n") == b"STORED\r\nVALUE v0 0 %d\r\n%b\r\nEND\r\n" % (len(values[0]), values[0])


# Starts that can't be ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "-Z", "-Z -o ssl_key=F/server.key",
        "-Z -o ssl_chain_cert=F/none,ssl_key=F/server.key", "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/none",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/client.key", "-Z -o ssl_chain_cert=F/server.key,ssl_key=F/server.key",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_ca_cert=F/none",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_ca_cert=F/server.key",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_ciphers=foo",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_verify_mode=4",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_keyformat=2",
        "-Z -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key,ssl_min_version=4",
        "-Z -p 0 -o ssl_chain_cert=F/server.pem,ssl_key=F/server.key",
        *(f"-Z -o ssl_{name}" for name in ("chain_cert", "key", "ciphers", "ca_cert", "keyformat")),
        *(f"-Z -o ssl_{name}" for name in ("verify_mode", "wbuf_size", "min_version")),
        *(f"-Z -o ssl_{name}=x" for name in ("verify_mode", "wbuf_size", "min_version", "keyformat")),
        "-o ssl_foo=1",
    ],
)  # fmt: skip
def test_a_start_that_fails_ends_as_memcacheds(shared: Folder, options: str) -> None:
    arguments = ["-u", "root", "-l", "127.0.0.1", "-p", "-1", *options.replace("F/", f"{shared.path}/").split()]
    theirs = subprocess.run([MEMCACHED, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    ours = run_to_end(*arguments)
    assert ours.returncode == theirs.returncode != 0
    if "client.key" in options:  # they can be told apart here
        assert "Error validating the certificate: " in ours.stderr
        return
    known = ("Error loading the", "Error validating", "Error setting the provided cipher(s): foo", "ERROR: You cannot")
    for words in known:
        if words in theirs.stderr and "(null)" not in theirs.stderr:
            assert words in ours.stderr
    assert len(ours.stderr.splitlines()) == 1


def test_a_key_that_needs_a_password_is_refused_without_asking(own: Folder) -> None:
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:x", "-in", own / "server.key", "-out", own / "locked.key"]
    kind = Path(own / "server.key").read_text().split()[1]
    command[1] = "ec" if kind == "EC" else "rsa"
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    options = f"ssl_chain_cert={own / 'server.pem'},ssl_key={own / 'locked.key'}"
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-Z", "-o", options)
    assert (ended.returncode, "Error loading the key" in ended.stderr) == (64, True)


@pytest.mark.slow
def test_what_is_asked_for_in_vain_is_said(start: Start, shared: Folder, tmp_path: Path) -> None:
    assert "-o ssl_key has no effect without -Z" in start("-o", f"ssl_key={shared / 'server.key'}").log()
    plain = start(*shared.options("ssl_verify_mode=1"), "-s", str(tmp_path / "s"))
    assert "the Unix socket is plain" in plain.log()
    assert "client certificates can't be verified without -o ssl_ca_cert" in plain.log()
    assert plain.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_other_ways_to_give_a_key(start: Start, own: Folder, opened: Callable[..., Client]) -> None:
    both = start("-Z", "-o", f"ssl_chain_cert={own / 'server.both'}")
    assert opened(both.address, own.context()).command(b"mn") == b"MN\r\n"
    convert = ["openssl", "pkey", "-in", own / "server.key", "-outform", "DER", "-out", own / "server.der"]
    subprocess.run(convert, check=True, capture_output=True, timeout=SECONDS)
    for name in ("2", "DER"):
        options = f"ssl_chain_cert={own / 'server.pem'},ssl_key={own / 'server.der'},ssl_keyformat={name}"
        assert opened(start("-Z", "-o", options).address, own.context()).command(b"mn") == b"MN\r\n"


def test_settings_are_memcacheds(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    more = ("ssl_verify_mode=3", f"ssl_ca_cert={shared / 'ca.pem'}", "ssl_session_cache", "ssl_min_version=3")
    options = shared.options(*more, "ssl_wbuf_size=32")
    ours = opened(start(*options).address, shared.context("client"))
    with memcached(*options) as address:
        theirs = opened(address, shared.context("client"))
        for sub in ("settings", ""):
            pairs = [(k, v) for k, v in theirs.stats(sub).items() if k.startswith("ssl_")]
            assert pairs
            found = ours.stats(sub)
            assert [k for k in found if k.startswith("ssl_") and k != "ssl_proto_errors"] == [k for k, _ in pairs]
            if sub:
                assert [(k, found[k]) for k, _ in pairs] == pairs
    keys = list(ours.stats())
    at = keys.index("log_watchers")
    assert keys[at : at + 6] == [
        *("log_watchers", "ssl_new_sessions", "ssl_handshake_errors", "ssl_proto_errors"),
        *("time_since_server_cert_refresh", "unexpected_napi_ids"),
    ]


def test_without_tls_none_of_its_figures_is_shown(start: Start) -> None:
    ours = start().connect()
    assert not [key for key in ours.stats() if "ssl" in key or "cert" in key]
    assert ours.command(b"refresh_certs") == b"Error TLS not enabled\r\n"


# Who may come in ---------------------------------------------------------------------------------------------------------


def gets_in(opened: Callable[..., Client], address: tuple[str, int] | str, context: ssl.SSLContext) -> bool:
    """In TLS 1.3 a client hears only at its first read that its certificate was refused."""
    try:
        return bool(opened(address, context).command(b"mn") == b"MN\r\n")
    except (ssl.SSLError, ConnectionError, AssertionError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("mode", range(4))
def test_client_certificates_as_in_memcached(
    start: Start, shared: Folder, opened: Callable[..., Client], mode: int
) -> None:
    options = shared.options(f"ssl_verify_mode={mode}", f"ssl_ca_cert={shared / 'ca.pem'}")
    server = start(*options)
    with memcached(*options) as theirs:
        for certificate in ("", "client", "foreign"):
            context = shared.context(certificate)
            assert gets_in(opened, server.address, context) is gets_in(opened, theirs, context), certificate
    expected = {0: 0, 1: 1, 2: 2, 3: 2}[mode]
    certified = opened(server.address, shared.context("client"))
    assert certified.stats()["ssl_handshake_errors"] == str(expected)
    if mode >= 2:
        eventually(lambda: "the TLS handshake failed: peer did not return a certificate" in server.log())


def listening(server: Server) -> list[tuple[str, int]]:
    line = next(line for line in server.log().splitlines() if " listens on " in line)
    ports = line.split(" listens on ")[1].split(";")[0]
    return [("127.0.0.1", int(each.rpartition(":")[2])) for each in ports.split(", ")]


EACH_KIND = "notls:127.0.0.1,btls:127.0.0.2,mtls:127.0.0.3,127.0.0.4"


def asks_for_what_its_prefix_says(server: Server, shared: Folder, opened: Callable[..., Client]) -> None:
    plain, basic, mutual, default = [(f"127.0.0.{n + 1}", port) for n, (_, port) in enumerate(listening(server))]
    client = Client(plain)
    assert client.command(b"mn") == b"MN\r\n"
    client.close()
    for address, certificate, welcome in (
        (basic, "", True), (basic, "client", True), (basic, "foreign", True),
        (mutual, "", False), (mutual, "client", True), (mutual, "foreign", False),
        (default, "", True), (default, "client", True), (default, "foreign", False),
    ):  # fmt: skip
        assert gets_in(opened, address, shared.context(certificate)) is welcome, (address, certificate)


def test_each_listener_asks_for_what_its_prefix_says(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    more = (f"ssl_ca_cert={shared / 'ca.pem'}", "ssl_verify_mode=1")
    asks_for_what_its_prefix_says(start(*shared.options(*more), "-l", EACH_KIND), shared, opened)


@pytest.mark.slow
def test_each_listener_asks_for_the_same_of_the_next_process(
    start: Start, shared: Folder, opened: Callable[..., Client], tmp_path: Path
) -> None:
    """And of the one after that, whatever prefixes they are told."""
    more = (f"ssl_ca_cert={shared / 'ca.pem'}", "ssl_verify_mode=1")
    options = (*shared.options(*more), "--take-over", str(tmp_path / "door"))
    server = start(*options, "-l", EACH_KIND)
    for doors in ("notls:127.0.0.1", "mtls:127.0.0.9,127.0.0.8"):
        before, server = server, start(*options, "-l", doors)
        assert before.end() == 0, before.log()
        asks_for_what_its_prefix_says(server, shared, opened)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_without_a_certificate_opens_no_other_door(
    start: Start, shared: Folder, opened: Callable[..., Client], version: ssl.TLSVersion
) -> None:
    server = start(
        *shared.options(f"ssl_ca_cert={shared / 'ca.pem'}", "ssl_session_cache"), "-l", "btls:127.0.0.1,mtls:127.0.0.1"
    )
    basic, mutual = listening(server)
    context = shared.context()
    context.maximum_version = version
    first = opened(basic, context)
    assert first.command(b"mn") == b"MN\r\n"
    session = of(first).session
    again = opened(basic, context, session)
    assert of(again).session_reused
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        opened(mutual, context, session).command(b"mn")


@pytest.mark.slow
def test_ciphers_and_versions(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    server = start(*shared.options("ssl_ciphers=ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"))
    context = shared.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    cipher = of(opened(server.address, context)).cipher()
    assert cipher is not None
    assert "CHACHA20" in cipher[0]
    newest = start(*shared.options("ssl_min_version=3"))
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        opened(newest.address, context)
    assert of(opened(newest.address, shared.context())).version() == "TLSv1.3"


# Sessions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("verify", ["ssl_verify_mode=0", "ssl_verify_mode=2"])
@pytest.mark.parametrize("kind", ["1.3", "1.2 tickets", "1.2 cache"])
def test_sessions_are_resumed(
    start: Start, shared: Folder, opened: Callable[..., Client], kind: str, verify: str
) -> None:
    server = start(*shared.options("ssl_session_cache", verify, f"ssl_ca_cert={shared / 'ca.pem'}"))
    context = shared.context("client")
    if kind != "1.3":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if kind == "1.2 cache":
        context.options |= ssl.OP_NO_TICKET
    first = opened(server.address, context)
    assert first.command(b"mn") == b"MN\r\n"
    assert not of(first).session_reused
    second = opened(server.address, context, of(first).session)
    assert second.command(b"mn") == b"MN\r\n"
    assert of(second).session_reused
    assert second.stats()["ssl_new_sessions"] == "1"
    assert second.stats()["ssl_handshake_errors"] == "0"


# Renewed certificates ----------------------------------------------------------------------------------------------------


def serial(client: Client) -> object:
    certificate = of(client).getpeercert()
    assert certificate is not None
    return certificate["serialNumber"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["command", "SIGHUP"])
def test_renewed_certificates_serve_new_connections_and_lose_none(
    start: Start, own: Folder, opened: Callable[..., Client], way: str
) -> None:
    server = start(*own.options("ssl_session_cache"))
    context = own.context()
    old = opened(server.address, context)
    old.command(b"set a 0 0 1\r\n1")
    stop, done, failures = threading.Event(), [0, 0], []

    def load() -> None:
        try:
            steady = opened(server.address, context)
            while not stop.is_set():
                assert steady.command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
                fresh = opened(server.address, context)
                assert fresh.command(b"mn") == b"MN\r\n"
                fresh.close()
                done[0] += 1
        except Exception as error:  # noqa: BLE001  # it is shown
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    serials = {serial(old)}
    for _ in range(5):
        own.renew("server")
        if way == "command":
            assert old.command(b"refresh_certs") == b"OK\r\n"
        else:
            server.signal(signal.SIGHUP)
            eventually(lambda: serial(opened(server.address, context)) not in serials)
        seen = done[0]
        eventually(lambda n=seen: done[0] > n + 3 or bool(failures))
        new = opened(server.address, context)
        serials.add(serial(new))
        assert not of(new).session_reused
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
    assert failures == []
    assert len(serials) == 6
    stats = old.stats()
    assert (stats["ssl_handshake_errors"], stats["ssl_proto_errors"]) == ("0", "0")
    assert int(stats["time_since_server_cert_refresh"]) <= int(stats["uptime"])


def test_certificates_that_can_not_be_read_change_nothing(
    start: Start, own: Folder, opened: Callable[..., Client]
) -> None:
    server = start(*own.options())
    client = opened(server.address, own.context())
    before = serial(client)
    other = Folder(Path(own / "ca.pem").parent)
    Path(own / "server.key").write_bytes(Path(other / "client.key").read_bytes())
    assert client.command(b"refresh_certs").startswith(b"Error validating the certificate: ")
    Path(own / "server.pem").unlink()
    assert client.command(b"refresh_certs") == (
        b"Error loading the certificate chain: %b : No such file or directory\r\n" % os.fsencode(own / "server.pem")
    )
    server.signal(signal.SIGHUP)
    assert client.command(b"refresh_certs").startswith(b"Error loading")
    eventually(lambda: "the certificates stay as they were" in server.log())
    context = ssl.create_default_context(cadata=own.authority.cert_pem.bytes().decode())
    assert serial(opened(server.address, context)) == before


# Who means no good -------------------------------------------------------------------------------------------------------


def hello(context: ssl.SSLContext) -> bytes:
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_client_that_has_gone_did_nothing_wrong(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    """It resets before its hello is answered: that was a failed handshake, without a reason."""
    server = start(*shared.options())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = shared.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(8):
            with socket.create_connection(server.address, SECONDS) as client:
                client.sendall(hello)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        server.signal(signal.SIGCONT)
    steady = opened(server.address, shared.context())
    eventually(lambda: steady.stats()["curr_connections"] == "1")
    assert steady.stats()["ssl_handshake_errors"] == "0"
    assert "closed" not in server.log()


@pytest.mark.slow
def test_a_handshake_has_a_time_limit(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    server = start(*shared.options("ssl_handshake_timeout=1"))
    first = hello(shared.context())
    steady = opened(server.address, shared.context())
    half_open = [server.connect() for _ in range(4)]
    half_open[1].send(first[:1])
    half_open[2].send(first[:200])
    half_open[3].send(first)  # its second flight never comes
    half_open[3].until(b"\x16\x03\x03")
    for each in half_open:
        each.to_end()
    assert steady.command(b"mn") == b"MN\r\n"
    assert steady.stats()["ssl_handshake_errors"] == "4"
    assert steady.stats()["read_buf_bytes"] == "0"
    eventually(lambda: "its TLS handshake took longer than ssl_handshake_timeout" in server.log())


@pytest.mark.slow
def test_what_a_handshake_holds_is_counted_and_bounded(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start(*shared.options("ssl_handshake_timeout=60"), "-o", "read_buf_mem_limit=1")
    steady = opened(server.address, shared.context())
    first = hello(shared.context())
    half_open = [server.connect() for _ in range(80)]
    for each in half_open:
        each.send(first[:200])
    eventually(lambda: int(steady.stats()["read_buf_oom"]) == 80 - (1 << 20) // 20480)
    assert int(steady.stats()["read_buf_bytes"]) <= 1 << 20
    for each in half_open:
        each.close()
    eventually(lambda: steady.stats()["read_buf_bytes"] == "0")
    assert opened(server.address, shared.context()).command(b"mn") == b"MN\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"get a\r\n", b"CLIENT_ERROR only TLS is spoken here\r\n"),
        (b"mn\r\n", b"CLIENT_ERROR only TLS is spoken here\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.0 400 Bad Request\r\n"),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR this is a memcached server"),
        (b"\x80\x0b" + bytes(22), b"\x81\x0b\0\0\0\0\0\x83\0\0\0\x17" + bytes(12) + b"only TLS is spoken here"),
    ],
)
def test_who_does_not_speak_tls_is_told(start: Start, shared: Folder, data: bytes, answer: bytes) -> None:
    server = start(*shared.options(), "-l", "127.0.0.1,notls:127.0.0.1")
    stranger = server.connect()
    stranger.send(data)
    assert stranger.to_end().startswith(answer)
    plain = Client(listening(server)[1])
    eventually(lambda: plain.stats()["wrong_protocol"] == "1")
    assert plain.stats()["ssl_handshake_errors"] == "0"
    plain.close()
    eventually(lambda: "it doesn't speak TLS, and the port does" in server.log())


def test_http_on_a_port_of_tls_has_the_length_it_says(start: Start, shared: Folder) -> None:
    stranger = start(*shared.options()).connect()
    stranger.send(b"GET / HTTP/1.0\r\n\r\n")
    head, _, body = stranger.to_end().partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_garbage_is_closed_and_leaves_the_others_alone(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    """Garbage from the first byte, in a handshake, and after one; a fixed seed."""
    server = start("-t", threads, *shared.options())
    steady = opened(server.address, shared.context())
    dice = random.Random(7)
    first = hello(shared.context())
    for round_ in range(120):
        stranger = server.connect()
        if round_ % 3 == 0:
            data = b"\x16" + dice.randbytes(dice.randrange(400))
        else:
            data = bytearray(first)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(1, len(data))] = dice.randrange(256)
        stranger.send(bytes(data))
        stranger.socket.shutdown(socket.SHUT_WR)
        stranger.to_end()
        stranger.close()
    for _ in range(20):
        wire = Wire(server, shared.context())
        wire.tls.write(b"mn\r\n")
        wire.until(b"MN\r\n")
        wire.socket.sendall(b"\x17\x03\x03\x00\x40" + dice.randbytes(64))
        while wire.socket.recv(1 << 16):
            pass
        wire.socket.close()
    assert steady.command(b"mn") == b"MN\r\n"
    stats = steady.stats()
    assert int(stats["ssl_proto_errors"]) == 20
    assert int(stats["ssl_handshake_errors"]) > 40
    assert stats["read_buf_bytes"] == "0"
    eventually(lambda: steady.stats()["curr_connections"] == "1")


def test_too_many_connections_are_refused_by_an_alert(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start("-c", "2", *shared.options())
    held = [opened(server.address, shared.context()) for _ in range(2)]
    with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
        opened(server.address, shared.context())
    assert held[0].command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_idle_connections_take_little_memory(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    server = start("-c", "400", *shared.options())
    context = shared.context()
    opened(server.address, context).command(b"mn")
    before = server.resident()
    for _ in range(200):
        assert opened(server.address, context).command(b"mn") == b"MN\r\n"
    assert server.resident() - before < 200 * 40_000


# Its end -----------------------------------------------------------------------------------------------------------------


def test_the_end_of_a_connection_is_said(start: Start, shared: Folder, opened: Callable[..., Client]) -> None:
    """Each side says close_notify, and nothing that was asked before is lost."""
    server = start(*shared.options())
    client = opened(server.address, shared.context())
    client.send(b"mn\r\nquit\r\n")
    assert client.until(b"MN\r\n") == b"MN\r\n"
    tls = of(client)
    tls.suppress_ragged_eofs = False
    assert tls.recv(10) == b""
    other = opened(server.address, shared.context())
    other.send(b"set a 0 0 1 noreply\r\n1\r\n")
    of(other).unwrap().close()  # waits for the server's
    assert opened(server.address, shared.context()).command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "4"])
def test_replies_that_wait_go_out_before_the_end(
    start: Start, shared: Folder, opened: Callable[..., Client], threads: str
) -> None:
    server = start("-t", threads, "-A", *shared.options())
    client, asks = opened(server.address, shared.context()), opened(server.address, shared.context())
    value = b"x" * 1_000_000
    client.send(b"set a 0 0 %d\r\n%b\r\n" % (len(value), value))
    assert client.until(b"\r\n") == b"STORED\r\n"
    client.send(b"get a\r\n" * 6)
    assert client.until(b"VALUE a 0 ").endswith(b"VALUE a 0 ")
    asks.send(b"shutdown graceful\r\n")
    received = b"VALUE a 0 " + client.to_end()
    assert received == b"VALUE a 0 1000000\r\n%b\r\nEND\r\n" % value * (len(received) // 1_000_026)
    assert server.end() == 0


@pytest.mark.slow
def test_a_killed_client_and_a_stopped_one_hurt_nobody(
    start: Start, shared: Folder, opened: Callable[..., Client]
) -> None:
    server = start(*shared.options())
    steady = opened(server.address, shared.context())
    steady.command(b"set a 0 0 500000\r\n" + b"x" * 500_000)
    for _ in range(10):
        client = opened(server.address, shared.context())
        client.send(b"get a\r\n" * 3)
        raw = socket.socket(fileno=of(client).detach())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        raw.close()  # a reset in the middle of a reply
    eventually(lambda: steady.stats()["curr_connections"] == "1")
    assert steady.command(b"get none", b"END\r\n") == b"END\r\n"


@pytest.mark.slow
def test_a_new_process_takes_over(start: Start, shared: Folder, opened: Callable[..., Client], tmp_path: Path) -> None:
    door = str(tmp_path / "door")
    old = start(*shared.options(), "--take-over", door)
    assert opened(old.address, shared.context()).command(b"set a 0 0 1\r\n1") == b"STORED\r\n"
    start(*shared.options(), "--take-over", door, "-p", str(old.port))
    assert old.end() == 0
    assert opened(old.address, shared.context()).command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
