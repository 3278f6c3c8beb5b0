"""TLS's options beside Debian's memcached: what they refuse, warn of and show."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.peer import MEMCACHED, memcached
from tests.serving import Client, run_to_end
from tests.tls.certificates import SECONDS, Folder


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


def test_a_certificate_without_a_key_names_the_option(shared: Folder) -> None:
    ended = run_to_end(
        "-u", "root", "-l", "127.0.0.1", "-p", "-1", "-Z", "-o", f"ssl_chain_cert={shared / 'server.pem'}"
    )
    assert (ended.returncode, "name its file with -o ssl_key" in ended.stderr) == (64, True), ended.stderr


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
