"""What a file that somebody names may be instead: a pipe held a start and SIGHUP for ever, a device filled memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trustme

from mcserver import cli
from mcserver.server import tls, users
from mcserver.settings.cluster import ClusterConfig, check_tls, read_credentials
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError
from mcserver.system import files
from mcserver.system.process import StartError
from tests.conftest import Start
from tests.serving import eventually

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start's patience; 0 is that of a server that serves."""
    monkeypatch.setattr(files.Patience, "seconds", 0.02)


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    """One at which nobody writes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)


def text_users(path: str) -> Config:
    return Config(auth_file=path, binding_protocol="ascii")


def test_a_pipe_that_nobody_writes(pipe: str) -> None:
    with pytest.raises(OSError, match="nobody wrote"):
        files.read(pipe, 100)


def test_a_pipe_with_all_in_it_is_read(pipe: str) -> None:
    """As the shell's <(...) is, the end of which is there when its writer has gone."""
    hear, tell = os.pipe()
    os.write(tell, b"port = 11212\n")
    os.close(tell)
    try:
        config = cli.parse(["--config", f"/dev/fd/{hear}"], {})
    finally:
        os.close(hear)
    assert isinstance(config, Config)
    assert config.tcpport == 11212


def test_a_pipe_without_an_end(pipe: str) -> None:
    holder = os.open(pipe, os.O_RDWR)
    try:
        os.write(holder, b"port = 11212\n")
        with pytest.raises(OSError, match="to its end in time"):
            files.read(pipe, 100)
    finally:
        os.close(holder)


def test_devices_and_directories(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no file"):
        files.read("/dev/zero", 100)
    with pytest.raises(IsADirectoryError):
        files.read(str(tmp_path), 100)
    with pytest.raises(OSError, match="no file"):
        files.check("/dev/zero")
    assert files.read("/dev/null", 100) == b""


def test_no_more_than_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1000))
    assert len(files.read(str(tmp_path / "large"), 100)) == 100


def test_a_configuration_that_is_a_pipe_is_an_error(pipe: str) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*nobody wrote"):
        cli.parse(["--config", pipe], {})


def test_users_in_a_pipe_or_a_device_are_an_error(pipe: str) -> None:
    for config in (text_users(pipe), Config(sasl=True, sasl_file=pipe, binding_protocol="binary")):
        with pytest.raises(StartError, match="nobody wrote"):
            users.read_logins(config)
    with pytest.raises(StartError, match="no file"):
        users.read_logins(text_users("/dev/zero"))


def test_users_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "users").write_bytes(b"a:b\n" * (1 << 19))
    with pytest.raises(StartError, match="more than"):
        users.read_logins(text_users(str(tmp_path / "users")))


def test_certificates_in_a_pipe_or_a_device_are_an_error(pipe: str, tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("localhost")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both"))
    both = str(tmp_path / "both")
    wrong: list[dict[str, Any]] = [
        {"ssl_chain_cert": pipe},
        {"ssl_key": pipe},
        {"ssl_ca_cert": pipe},
        {"ssl_ca_cert": "/dev/zero"},
    ]
    for files_of_tls in wrong:
        with pytest.raises(StartError, match=r"a pipe, not a file|no file"):
            tls.load(Config(ssl_enabled=True, **{"ssl_chain_cert": both, **files_of_tls}))


def test_what_zookeeper_asks_for(pipe: str, tmp_path: Path) -> None:
    Path(pipe).chmod(0o600)
    with pytest.raises(OSError, match="nobody wrote"):
        read_credentials(pipe)
    wrong: list[dict[str, Any]] = [{"tls_ca": pipe}, {"tls_certificate": pipe}]
    for settings in wrong:
        with pytest.raises(ConfigError, match="a pipe, not a file"):
            check_tls(ClusterConfig(zookeeper="a:1", **settings))


def test_a_relative_name_means_the_same_to_a_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It goes elsewhere, and reads the users again on SIGHUP."""
    monkeypatch.chdir(tmp_path)
    config = cli.parse(["-Y", "users"], {})
    assert isinstance(config, Config)
    assert config.auth_file == str(tmp_path / "users")


def test_a_server_that_serves_waits_for_no_pipe(start: Start, tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("localhost")
    both, names, settings = tmp_path / "both", tmp_path / "users", tmp_path / "toml"
    made.private_key_and_cert_chain_pem.write_to_path(str(both))
    names.write_text("a:b\n")
    settings.write_text("conn-limit = 100\n")
    listen = "-l", "notls:127.0.0.1", "-Z", "-o", f"ssl_chain_cert={both}"
    server = start("-p", "-1", "-Y", str(names), "--config", str(settings), *listen)
    for each in (both, names, settings):
        each.unlink()
        os.mkfifo(each)
    server.signal(signal.SIGHUP)
    eventually(lambda: server.log().count("a pipe") == 3)
    client = server.connect()
    assert client.command(b"set login 0 0 3\r\na b") == b"STORED\r\n"
    assert client.command(b"refresh_certs").endswith(b"a pipe, not a file\r\n")
