"""How the suite is let in: TLS, a user, SASL, datagrams, another item size limit, a template for --spawn."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import conformance
from conformance.__main__ import FAILED, PASSED, UNREACHABLE, USAGE, main
from tests.peer import memcached


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate and a client's, in one folder."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca"))
    for name in ("server", "client"):
        cert = ca.issue_cert("localhost", "127.0.0.1")
        cert.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        cert.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    return folder


# Each of memcached's known hangs over TLS takes the time-out twice: one of them, and all that is not, will do here.
HASTE = ["--timeout", "5", "--level", "must", "--not", "connection/large-pipeline"]


def outcome(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, int], list[str]]:
    code = main([*arguments, "--json", str(tmp_path / "r")])
    read = json.loads((tmp_path / "r").read_text())
    return code, read["counts"], [case["id"] for case in read["cases"] if case["status"] == "failed"]


@pytest.mark.slow
def test_memcached_passes_over_tls_with_a_client_certificate(tmp_path: Path, certificates: Path) -> None:
    folder = certificates
    server = f"memcached -u root -U 0 -t 1 -Z -o ssl_chain_cert={folder}/server.pem,ssl_key={folder}/server.key"
    server += f",ssl_verify_mode=2,ssl_ca_cert={folder}/ca"
    known = str(Path(conformance.__file__).parent / "known/memcached-1.6.18-tls.txt")
    shown = ["--tls-cert", f"{folder}/client.pem", "--tls-key", f"{folder}/client.key"]
    code, counts, failed = outcome(
        tmp_path, "--spawn", server, "--tls", f"{folder}/ca", *shown, *HASTE, "--expect", known
    )
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] > 300
    assert counts["expected"] == 1


@pytest.mark.slow
def test_mcserver_passes_over_tls_with_a_client_certificate(tmp_path: Path, certificates: Path) -> None:
    folder = certificates
    server = (
        f"{sys.executable} -m mcserver -u root -Z -o ssl_chain_cert={folder}/server.pem,ssl_key={folder}/server.key"
    )
    server += f",ssl_verify_mode=2,ssl_ca_cert={folder}/ca"
    shown = ["--tls-cert", f"{folder}/client.pem", "--tls-key", f"{folder}/client.key"]
    code, counts, failed = outcome(tmp_path, "--spawn", server, "--tls", f"{folder}/ca", *shown, "--level", "must")
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] > 300


@pytest.mark.slow
def test_a_wrong_ca_is_one_line(tmp_path: Path, certificates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other"))
    options = f"ssl_chain_cert={certificates}/server.pem,ssl_key={certificates}/server.key"
    with memcached("-Z", "-o", options) as (host, port):
        assert main([f"{host}:{port}", "--tls", str(tmp_path / "other")]) == UNREACHABLE
        assert main([f"{host}:{port}", "--tls", f"{certificates}/ca", "--only", "classic/get/hit"]) == PASSED
    assert "no TLS with" in capsys.readouterr().err


@pytest.mark.slow
def test_a_user_of_the_text_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "users").write_text("alice:secret\n")
    with memcached("-Y", str(tmp_path / "users")) as (host, port):
        right = [f"{host}:{port}", "--user", "alice:secret", "--suite", "classic", "--only", "classic/get"]
        assert outcome(tmp_path, *right)[::2] == (PASSED, [])
        assert main([f"{host}:{port}", "--user", "alice:wrong"]) == UNREACHABLE
        assert "refused the user alice" in capsys.readouterr().err
        assert "secret" not in (tmp_path / "r").read_text()


@pytest.mark.slow
def test_memcached_passes_with_users_and_at_a_path(tmp_path: Path) -> None:
    """What a login or a Unix socket changes (statistics, places under -c, settings) is no fault of the server's."""
    (tmp_path / "users").write_text("alice:secret\n")
    users = ["--spawn", f"memcached -u root -U 0 -t 1 -Y {tmp_path}/users", "--user", "alice:secret"]
    code, counts, failed = outcome(tmp_path, *users)
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] > 900
    code, counts, failed = outcome(tmp_path, "--spawn", "memcached -u root -t 1 -s {socket}", "--suite", "admin")
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] > 100


@pytest.mark.slow
def test_a_server_that_asks_for_no_login_is_told_no_password() -> None:
    with memcached() as (host, port):
        assert main([f"{host}:{port}", "--user", "alice:secret", "--only", "classic/get/hit"]) == PASSED
        with socket.create_connection((host, port), 5) as client:
            client.sendall(b"get auth\r\n")
            assert client.recv(100) == b"END\r\n"


@pytest.mark.slow
def test_a_user_of_sasl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("saslpasswd2") or "/usr/sbin/saslpasswd2"
    make = [program, "-p", "-c", "-f", str(tmp_path / "db"), "-u", socket.gethostname(), "alice"]
    subprocess.run(make, input=b"secret", check=True)
    lines = ["mech_list: plain", "pwcheck_method: auxprop", "auxprop_plugin: sasldb", f"sasldb_path: {tmp_path}/db"]
    (tmp_path / "memcached.conf").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("SASL_CONF_PATH", str(tmp_path))
    spawn = ["--spawn", "memcached -u root -U 0 -t 1"]
    code, counts, failed = outcome(tmp_path, *spawn, "--suite", "binary", "--only", "sasl")
    assert (code, failed, counts["passed"]) == (PASSED, [], 11)
    spawn[1] += " -S"
    code, counts, failed = outcome(tmp_path, *spawn, "--user", "alice:secret")
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] > 100
    assert main([*spawn, "--user", "alice:wrong"]) == UNREACHABLE


@pytest.mark.slow
def test_memcached_passes_by_datagrams(tmp_path: Path) -> None:
    code, counts, failed = outcome(tmp_path, "--spawn", "memcached -u root -t 1", "--udp", "--only", "classic/")
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] >= 110
    assert counts["unsupported"] > 10


@pytest.mark.slow
def test_mcserver_passes_in_datagrams(tmp_path: Path) -> None:
    code, counts, failed = outcome(tmp_path, "--spawn", f"{sys.executable} -m mcserver -u root", "--udp")
    assert (code, failed) == (PASSED, [])
    assert counts["passed"] >= 550


@pytest.mark.slow
def test_another_item_size_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with memcached("-I", "2m") as (host, port):
        where = [f"{host}:{port}", "--only", "classic/set/too-large", "--only", "classic/add/too-large"]
        _, counts, _ = outcome(tmp_path, *where)
        assert counts["unsupported"] >= 3
        assert "say --max-item" in capsys.readouterr().out
        code, counts, failed = outcome(tmp_path, *where, "--max-item", str(2 << 20))
    assert (code, failed, counts["unsupported"]) == (PASSED, [], 0)


@pytest.mark.slow
def test_a_template_says_where_everything_belongs(tmp_path: Path) -> None:
    only = ["--only", "classic/get/", "--only", "classic/set/eviction", "--only", "classic/set/item-size-limit"]
    spawn = ["--spawn", "memcached -u root -U 0 -l {host} -p {port} -m {memory}"]
    code, counts, _ = outcome(tmp_path, *spawn, *only)
    assert (code, counts["skipped"]) == (PASSED, 1)  # -I cannot be said
    code, counts, _ = outcome(tmp_path, "--spawn", "memcached -u root -s {socket}", "--only", "classic/get/")
    assert (code, counts["failed"]) == (PASSED, 0)
    assert counts["passed"] > 5


@pytest.mark.parametrize(
    "wrong",
    [
        ["--user", "alice"],
        ["--tls", "/no/file"],
        ["--tls-cert", "x"],
        ["--expect", "/no/file"],
        ["--udp", "--tls", "x"],
        ["--udp", "--split"],
    ],
)
def test_wrong_ways_in(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["127.0.0.1:1", *wrong])
    assert end.value.code == USAGE
    assert FAILED != USAGE
    assert capsys.readouterr().err
