"""The tools on servers with TLS and users: mcserver's and memcached's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from mcserver import cli
from tests.conftest import Start
from tests.peer import memcached


class Secure:
    """A server that speaks TLS alone and knows one user, and what its clients need."""

    def __init__(self, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
        (folder / "users").write_text("ada:secret\n")
        (folder / "wrong").write_text("ada:guessed\n")
        self.folder = folder
        self.address = ""
        pem = folder / "server.pem"
        self.flags = ("-Z", "-o", f"ssl_chain_cert={pem},ssl_key={pem}", "-Y", str(folder / "users"))
        self.way = ("--ca", str(folder / "ca.pem"), "--user-file", str(folder / "users"))

    def run(self, tool: str, *arguments: str) -> int:
        """With all it takes."""
        return cli.main([tool, *self.way, self.address, *arguments])


@pytest.fixture(params=["mcserver", "memcached"])
def secure(request: pytest.FixtureRequest, tmp_path: Path, start: Start) -> Iterator[Secure]:
    made = Secure(tmp_path)
    with ExitStack() as running:
        if request.param == "mcserver":
            address = start(*made.flags).address
        else:
            address = running.enter_context(memcached(*made.flags))
        made.address = "{}:{}".format(*address)
        yield made


@pytest.mark.slow
def test_each_tool_speaks_tls_and_logs_in(secure: Secure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert secure.run("ping", "-c", "1") == 0
    items = tmp_path / "items"
    items.write_text(json.dumps({"key": "a", "value": "1" * 70_000}) + "\n")
    assert secure.run("load", str(items)) == 0
    capsys.readouterr()
    assert secure.run("dump") == 0
    assert json.loads(capsys.readouterr().out)["key"] == "a"
    assert secure.run("stats", "--json", "--only", "curr_items") == 0
    assert json.loads(capsys.readouterr().out) == {"curr_items": 1}
    assert secure.run("bench", "--seconds", "0.05") == 0
    assert secure.run("top", "-n", "2", "-i", "0.05") == 0
    assert secure.address in capsys.readouterr().out


@pytest.mark.slow
def test_what_keeps_a_tool_out(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    folder, (trust, ca, users, file) = secure.folder, secure.way
    for way, why in (
        ((), r"it speaks TLS alone: give --tls|does it speak TLS \(--tls, --ca FILE\), or"),
        (("--tls",), "its certificate is not trusted.*--ca"),
        ((trust, str(folder / "stranger.pem")), "its certificate is not trusted.*--ca"),
        ((trust, str(folder / "none.pem")), "can't use .*none.pem"),
        ((trust, str(folder / "users")), "can't use .*users"),
        ((trust, ca), "it wants a login: name a file with --user-file"),
        ((trust, ca, users, str(folder / "wrong")), "the login is answered with CLIENT_ERROR authentication failure"),
        ((trust, ca, users, ca), "its first line is not name:password"),
    ):
        assert cli.main(["stats", *way, secure.address]) == 1
        assert re.search(why, capsys.readouterr().err), (way, why)
    assert cli.main(["ping", "-c", "1", "--any-certificate", users, file, secure.address]) == 0
    capsys.readouterr()
    for tool in ("ping", "dump", "load", "bench", "top"):
        more = [str(folder / "items")] if tool == "load" else []
        (folder / "items").write_text(json.dumps({"key": "a", "value": "1"}) + "\n")
        assert cli.main([tool, trust, ca, secure.address, *more]) == 1
        shown = capsys.readouterr()
        assert "it wants a login: name a file with --user-file" in shown.out + shown.err, tool


@pytest.mark.slow
@pytest.mark.parametrize("server", ["mcserver", "memcached"])
@pytest.mark.parametrize("tool", ["ping", "stats", "dump", "load", "bench", "top"])
def test_a_server_that_speaks_binary_alone(
    server: str, tool: str, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tools speak text, and say that this is why."""
    items = tmp_path / "items"
    items.write_text(json.dumps({"key": "a", "value": "1"}) + "\n")
    more = {"ping": ["-c", "1"], "load": [str(items)], "top": ["-n", "1", "-i", "0.1"]}.get(tool, [])
    with ExitStack() as running:
        flags = ("-B", "binary")
        address = start(*flags).address if server == "mcserver" else running.enter_context(memcached(*flags))
        code = cli.main([tool, "--timeout", "0.2", "{}:{}".format(*address), *more])
    shown = capsys.readouterr()
    assert code == 1
    assert "binary protocol alone" in shown.out + shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("server", ["mcserver", "memcached"])
def test_a_server_without_users_or_tls(
    server: str, tmp_path: Path, memcached_factory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told no password, which it would keep as an item for all to read."""
    users = tmp_path / "users"
    users.write_text("ada:secret\n")
    with ExitStack() as running:
        where = memcached_factory().address if server == "mcserver" else running.enter_context(memcached())
        address = "{}:{}".format(*where)
        assert cli.main(["ping", "-c", "1", "--user-file", str(users), address]) == 0
        assert cli.main(["stats", "--user-file", str(users), "--json", "--only", "cmd_set", address]) == 0
        assert '"cmd_set": 0' in capsys.readouterr().out
        assert cli.main(["stats", "--any-certificate", address]) == 1
        assert "does it speak TLS?" in capsys.readouterr().err
