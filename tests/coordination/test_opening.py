"""Settings on their way from the command line to coordination."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mcserver.coordination import kazoo_driver
from mcserver.coordination.opening import first_address, make_settings, make_target
from mcserver.coordination.ports import Level
from mcserver.coordination.settings import Settings
from mcserver.settings.cluster import ClusterConfig


def test_settings_arrive() -> None:
    config = ClusterConfig(
        zookeeper="z:1/x", node_name="n", advertise="h:2", max_stale=3, on_stale="error", ack="async",
        ack_prefixes=((b"u:", "applied"),), ack_timeout=4, join="serve", soft_prefixes=(b"s:",), session_timeout=5,
        credentials="u:p", tls_ca="ca.pem",
    )  # fmt: skip
    settings = make_settings(config, [])
    assert (settings.node_name, settings.address, settings.path) == ("n", "h:2", "/cache")
    assert (settings.max_stale, settings.on_stale, settings.join, settings.ack_timeout) == (3, "error", "serve", 4)
    assert (settings.ack, settings.ack_prefixes) == (Level.ASYNC, ((b"u:", Level.APPLIED),))
    assert settings.soft_prefixes == (b"s:",)
    target = make_target(config, 1.5)
    assert (target.hosts, target.session_timeout, target.credentials, target.reply_deadline) == ("z:1/x", 5, "u:p", 1.5)
    assert (target.tls, target.tls_ca, target.tls_cert, target.tls_verify) == (True, "ca.pem", None, True)
    assert not make_target(ClusterConfig(zookeeper="z:1"), 1.5).tls


def test_a_node_alone_has_the_same_defaults() -> None:
    assert make_settings(ClusterConfig(zookeeper="z:1", node_name=Settings.node_name), []) == Settings()


@pytest.mark.parametrize("held", [None, "no certificate"])
def test_files_of_tls_that_are_gone_or_broken_are_named(tmp_path: Path, held: str | None) -> None:
    """A running server reads them again whenever it has no connection."""
    ca = tmp_path / "ca.pem"
    if held is not None:
        ca.write_text(held)
    (seen,) = kazoo_driver.look("z:1,z:2", make_target(ClusterConfig(zookeeper="z:1,z:2", tls_ca=str(ca)), 1.5))
    assert (seen.serving, seen.there) == (False, False)
    assert f"({ca}: " in seen.text
    assert "--zk-ca" in seen.text


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", os.uname().nodename),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", os.uname().nodename),
    ],
)
def test_the_first_address(family: socket.AddressFamily, host: str, shown: str) -> None:
    with socket.socket(socket.AF_UNIX) as path, socket.socket(family) as listener:
        listener.bind((host, 0))
        assert first_address([path, listener]) == f"{shown}:{listener.getsockname()[1]}"
        assert first_address([path]) == ""


@pytest.mark.parametrize(
    ("host", "name"), [("(none)", "-none-"), ("web 1", "web-1"), ("b\xfcro", "b-ro"), ("a/b", "a-b"), ("", "mcserver")]
)
def test_a_hosts_name_that_is_none_of_a_members(host: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would leave out such a member, or its record, and `applied` would not wait for it, or for ever."""
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((uname[0], host, *uname[2:])))
    config = ClusterConfig(zookeeper="z:1")
    assert config.node_name == name
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        assert make_settings(config, [listener]).address == ""
