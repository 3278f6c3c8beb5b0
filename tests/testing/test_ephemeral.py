"""--ephemeral: one line of JSON, and the end when standard input closes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from mcserver import cli
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError
from tests.testing.clients import Plain as Client


def start(*arguments: str) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mcserver", "--ephemeral", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_it_tells_where_it_is_and_ends_with_stdin() -> None:
    process, told = start("-m", "8")
    try:
        assert told["pid"] == process.pid
        client = Client((str(told["host"]), int(str(told["port"]))))
        assert client.stats("settings")["maxbytes"] == str(8 << 20)
        client.close()
        assert process.stdin is not None
        process.stdin.write(b"this is not read as a command\n")
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""
        process.stdout.close()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_unix_socket(tmp_path: Path) -> None:
    process, told = start("-s", str(tmp_path / "s"))
    try:
        assert "port" not in told
        assert Client(str(told["socket_path"])).command(b"mn") == b"MN\r\n"
        process.communicate(timeout=10)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_tells_of_datagrams_and_metrics() -> None:
    process, told = start("-U", "-1", "--metrics", "127.0.0.1:0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(60)
            asking.sendto(b"\0\1\0\0\0\1\0\0mn\r\n", ("127.0.0.1", int(str(told["udp_port"]))))
            assert asking.recv(100) == b"\0\1\0\0\0\1\0\0MN\r\n"
        with urlopen(f"http://127.0.0.1:{told['metrics_port']}/healthz", timeout=60) as answer:
            assert answer.read() == b"ok\n"
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()


def test_a_daemon_has_nobody_to_end_with() -> None:
    with pytest.raises(ConfigError, match="-d parts from him"):
        cli.parse(["--ephemeral", "-d"], {})


@pytest.mark.slow
def test_without_a_standard_input_it_ends_at_once() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mcserver", "--ephemeral"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 0
    assert json.loads(result.stdout)["host"] == "127.0.0.1"


def test_what_is_asked_for_goes_before_its_own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    for arguments, port, inter in [([], -1, "127.0.0.1"), (["-p", "7"], 7, "127.0.0.1"), (["-l", "::1"], -1, "::1")]:
        config = cli.configured(["--ephemeral", *arguments])
        assert isinstance(config, Config)
        assert (config.tcpport, config.inter) == (port, inter)
