"""Client certificates, listeners of each kind, ciphers and versions."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.peer import memcached
from tests.serving import Client, Server, eventually
from tests.tls.certificates import Folder
from tests.tls.wire import listening, of


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
        assert "can't be verified" not in server.log()


@pytest.mark.slow
def test_what_the_next_process_can_not_ask_for_is_said(start: Start, shared: Folder, tmp_path: Path) -> None:
    """As at a start of its own: it has neither the authority that mtls: needs, nor TLS."""
    door = ("--take-over", str(tmp_path / "door"))
    server = start(*shared.options(f"ssl_ca_cert={shared / 'ca.pem'}"), *door, "-l", EACH_KIND)
    for options, said in (
        (shared.options(), "client certificates can't be verified without -o ssl_ca_cert"),
        ((), "an address that was opened with btls: or mtls: is plain without -Z"),
    ):
        before, server = server, start(*options, *door)
        assert before.end() == 0, before.log()
        assert said in server.log()


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
