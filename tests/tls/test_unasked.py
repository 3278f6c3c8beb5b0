"""What a TLS client may do that nobody asked it to: other keys again and again, a second handshake, an end in halves."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import Start
from tests.peer import memcached
from tests.serving import REPLY_SECONDS, Client, eventually
from tests.tls.certificates import Folder

# New keys (TLS 1.3's KeyUpdate), which Python's library never sends ------------------------------------------------------

CRYPTO, TLS = ctypes.CDLL("libcrypto.so.3"), ctypes.CDLL("libssl.so.3")
for library, names in ((TLS, "TLS_client_method SSL_CTX_new SSL_new"), (CRYPTO, "BIO_new BIO_s_mem")):
    for name in names.split():
        getattr(library, name).restype = ctypes.c_void_p
KEEPS_ASKING, ASKS_BACK = 0, 1


class Keys:
    """A connection of OpenSSL's own, whose client can send new keys."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, REPLY_SECONDS)
        self.context = ctypes.c_void_p(TLS.SSL_CTX_new(ctypes.c_void_p(TLS.TLS_client_method())))
        self.tls = ctypes.c_void_p(TLS.SSL_new(self.context))
        self.incoming, self.outgoing = (
            ctypes.c_void_p(CRYPTO.BIO_new(ctypes.c_void_p(CRYPTO.BIO_s_mem()))) for _ in range(2)
        )
        TLS.SSL_set_bio(self.tls, self.incoming, self.outgoing)
        TLS.SSL_set_connect_state(self.tls)
        while TLS.SSL_do_handshake(self.tls) != 1:
            self.send()
            self.receive()

    def send(self) -> None:
        buffer = ctypes.create_string_buffer(1 << 20)
        length = CRYPTO.BIO_read(self.outgoing, buffer, len(buffer))
        if length > 0:
            self.socket.sendall(buffer.raw[:length])

    def receive(self) -> bool:
        data = self.socket.recv(1 << 16)
        CRYPTO.BIO_write(self.incoming, data, len(data))
        return bool(data)

    def ask(self, command: bytes, updates: int, how: int) -> bytes:
        """What is answered to it when so many new keys stand before it; nothing if the connection is closed."""
        for _ in range(updates):
            assert TLS.SSL_key_update(self.tls, how) == 1
            assert TLS.SSL_do_handshake(self.tls) == 1
        assert TLS.SSL_write(self.tls, command, len(command)) == len(command)
        buffer = ctypes.create_string_buffer(100)
        try:
            self.send()
            while (length := TLS.SSL_read(self.tls, buffer, len(buffer))) <= 0:
                if not self.receive():
                    return b""
        except ConnectionError:
            return b""
        return buffer.raw[:length]

    def close(self) -> None:
        TLS.SSL_free(self.tls)
        TLS.SSL_CTX_free(self.context)
        self.socket.close()


@pytest.fixture
def keys(start: Start, shared: Folder) -> Iterator[Keys]:
    server = start(*shared.options())
    client = Keys(("127.0.0.1", server.port))
    yield client
    client.close()


def test_new_keys_are_taken(keys: Keys) -> None:
    assert keys.ask(b"mn\r\n", 0, 0) == b"MN\r\n"
    for updates in (1, 5, 20):
        for how in (KEEPS_ASKING, ASKS_BACK):
            assert keys.ask(b"mn\r\n", updates, how) == b"MN\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", [KEEPS_ASKING, ASKS_BACK])
def test_a_flood_of_new_keys_is_no_way_to_hold_up_the_others(start: Start, shared: Folder, how: int) -> None:
    """OpenSSL takes one after the other while there is any, and nobody else would be served meanwhile: 2,000 in one recv."""
    options = shared.options()
    server = start(*options, "-l", "127.0.0.1,notls:127.0.0.1", "-t", "1")
    tls, plain = (int(line.split()[-1]) for line in server.port_file.read_text().splitlines())
    client = Keys(("127.0.0.1", tls))
    try:
        assert client.ask(b"mn\r\n", 2000, how) == b""
    finally:
        client.close()
    other = Client(("127.0.0.1", plain))
    server.clients.append(other)
    assert other.stats()["ssl_proto_errors"] == "1"
    eventually(lambda: "TLS: too many new keys at once" in server.log())


# A second handshake (TLS 1.2) --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_handshake_is_refused(start: Start, shared: Folder) -> None:
    server = start(*shared.options())
    command = [
        shutil.which("openssl") or "/usr/bin/openssl",
        "s_client",
        "-tls1_2",
        "-connect",
        f"127.0.0.1:{server.port}",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"version\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith(b"VERSION"):
                break
        process.stdin.write(b"R\n")
        process.stdin.flush()
        said = process.stdout.read()
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said


# An end in halves --------------------------------------------------------------------------------------------------------

BIG = b"set big 0 0 600000\r\n" + b"x" * 600_000 + b"\r\n"
ASKED = {
    "one": b"mn\r\n",
    "some": b"set a 0 0 1\r\n1\r\nget a\r\nget a\r\n",
    "a large value": BIG + b"get big\r\n" * 3,
    "and a part": b"get a\r\nget",
    "a part of a value": b"set a 0 0 100\r\nabc",
    "what Python answers": b"stats detail dump\r\nget a\r\n",
}


def half(address: tuple[str, int], context: ssl.SSLContext, data: bytes, *, says: bool, shuts: bool) -> bytes:
    """All plain bytes that come when the client `says` (close_notify) or shows (FIN) that it has asked for everything."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(address, REPLY_SECONDS) as one:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                one.sendall(outgoing.read())
                incoming.write(one.recv(1 << 16))
        tls.write(data)
        if says:
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
        one.sendall(outgoing.read())
        if shuts:
            one.shutdown(socket.SHUT_WR)
        while received := one.recv(1 << 20):
            incoming.write(received)
    plain = b""
    try:
        while received := tls.read(1 << 20):
            plain += received
    except ssl.SSLZeroReturnError:
        pass
    except ssl.SSLError:  # memcached takes a FIN alone for an error, and says so
        assert not says
    return plain


@pytest.mark.parametrize(
    "data", [b"quit\r\n", b"mn\r\nquit\r\n", b"set a 0 0 1 noreply\r\n1\r\nquit\r\n", b"shutdown\r\n"]
)
def test_who_leaves_behind_the_handshake_has_its_session(start: Start, shared: Folder, data: bytes) -> None:
    """What OpenSSL says after a handshake goes out with the first reply, or with the goodbye."""
    context = shared.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    server = start("-A", *shared.options())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.port), REPLY_SECONDS) as one:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        one.sendall(outgoing.read())
        while True:
            incoming.write(one.recv(1 << 16))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        tls.write(data)
        one.sendall(outgoing.read())  # the end of the handshake and the command, at once
        while received := one.recv(1 << 16):
            incoming.write(received)
    said = b""
    with contextlib.suppress(ssl.SSLZeroReturnError):
        while received := tls.read(100):
            said += received
    assert said == (b"MN\r\n" if data.startswith(b"mn") else b"")
    assert tls.session is not None
    assert tls.session.has_ticket


@pytest.mark.slow
def test_a_handshake_without_a_question_is_completed(start: Start, shared: Folder) -> None:
    """And so is one with a question that has no answer."""
    server = start(*shared.options())
    context = shared.context()
    for data in (b"", b"set a 0 0 1 noreply\r\n1\r\n", b"get"):
        client = Client(("127.0.0.1", server.port))
        server.clients.append(client)
        client.socket = tls = context.wrap_socket(client.socket, server_hostname="localhost")
        client.send(data)
        tls.settimeout(0.2)
        with pytest.raises(TimeoutError):
            tls.recv(1)  # it reads what comes besides
        assert tls.session is not None
        assert tls.session.has_ticket


@pytest.mark.slow
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("asked", ASKED)
def test_who_has_asked_for_everything_is_answered_as_by_memcached(
    start: Start, shared: Folder, version: ssl.TLSVersion, asked: str
) -> None:
    context = shared.context()
    context.minimum_version = context.maximum_version = version
    server = start(*shared.options())
    with memcached(*shared.options()) as address:
        for says, shuts in ((True, True), (True, False), (False, True)):
            ours, theirs = (
                half(each, context, ASKED[asked], says=says, shuts=shuts)
                for each in (("127.0.0.1", server.port), address)
            )
            assert ours == theirs
    assert "WARNING" not in server.log()
