"""Sessions that are resumed, and certificates that are renewed while the server runs."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.serving import Client, eventually
from tests.tls.certificates import SECONDS, Folder
from tests.tls.wire import of


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
            assert old.command(b"refresh_certs noreply\r\nmn") == b"MN\r\n"
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
    assert client.command(b"refresh_certs noreply").startswith(b"Error loading"), "as memcached, which silences only OK"
    eventually(lambda: "the certificates stay as they were" in server.log())
    context = ssl.create_default_context(cadata=own.authority.cert_pem.bytes().decode())
    assert serial(opened(server.address, context)) == before


def test_a_line_end_in_a_path_is_none_in_the_reply(start: Start, own: Folder, opened: Callable[..., Client]) -> None:
    odd = Path(own / "a\r\nOK\udcff.pem")
    Path(own / "server.pem").rename(odd)
    server = start("-Z", "-o", f"ssl_chain_cert={odd},ssl_key={own / 'server.key'}")
    client = opened(server.address, own.context())
    odd.unlink()
    told = client.command(b"refresh_certs")
    assert told == b"Error loading the certificate chain: %b : No such file or directory\r\n" % (
        os.fsencode(own / "") + rb"/a\r\nOK\udcff.pem"
    )
