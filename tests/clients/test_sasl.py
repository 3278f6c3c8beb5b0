"""Python's clients that log in by SASL, on memcached and on mcserver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bmemcached
import pytest

from tests.conftest import Start
from tests.peer import memcached, sasl_memcached_settings


@pytest.fixture(params=["memcached", "mcserver"])
def address(
    request: pytest.FixtureRequest, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Of a server that wants a login, and has the user alice."""
    if request.param == "memcached":
        for name, value in sasl_memcached_settings(tmp_path).items():
            monkeypatch.setenv(name, value)
        with memcached("-S") as (host, port):
            yield f"{host}:{port}"
    else:
        users = tmp_path / "users"
        users.write_text("alice:secret\n")
        yield f"127.0.0.1:{start('-S', environment={'MEMCACHED_SASL_PWDB': str(users)}).port}"


@pytest.mark.slow
def test_python_binary_memcached(address: str) -> None:
    client = bmemcached.Client((address,), "alice", "secret")
    assert client.set("a", "value")
    assert client.get_multi(["a", "b"]) == {"a": "value"}
    client.disconnect_all()
    stranger = bmemcached.Client((address,), "alice", "wrong")
    with pytest.raises(bmemcached.exceptions.MemcachedException, match="Auth failure"):
        stranger.get("a")
    stranger.disconnect_all()


LIBMEMCACHED = """
import sys, pylibmc
client = pylibmc.Client([sys.argv[1]], binary=True, username="alice", password=sys.argv[2])
try:
    assert client.set("a", "value")
    assert client.get_multi(["a", "b"]) == {"a": "value"}
    print("in")
except pylibmc.Error as error:
    print(error)
"""


@pytest.mark.slow
def test_pylibmc(address: str) -> None:
    """In a process of its own: its SASL library brings no mechanisms, and reads where they are when it is loaded."""

    def says(password: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", LIBMEMCACHED, address, password],
            env={**os.environ, "SASL_PATH": "/usr/lib/x86_64-linux-gnu/sasl2"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()

    assert says("secret") == "in"
    assert "AUTHENTICATION" in says("wrong").upper()
