"""Clients under test: the judgement, and real clients in a few cases of the catalogue."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import main
from conformance.client.__main__ import FAULTY, GOOD, USAGE, answers
from conformance.client.cases import CASES, judge
from conformance.client.certificate import Authority
from conformance.client.doors import Doors

MODULES = Path(__file__).parents[2] / "build" / "clients" / "node_modules"  # scripts/test installs them
BY_ID = {case.id: case for case in CASES}


def test_a_wrong_value_is_never_fine() -> None:
    for case in CASES:
        told = [{"value": "another", "seconds": 0.1} for _ in case.operations]
        if any(operation[0] == "get" for operation in case.operations):
            assert judge(case, told), case.id


def test_a_late_reply_that_is_given_for_another_key_is_a_fault() -> None:
    slept = {"value": None, "seconds": 1.0}
    told: list[dict[str, Any]] = [
        {"error": "timeout", "seconds": 1.0},
        slept,
        {"value": "value-of-a", "seconds": 0.0},
        {"value": "value-of-b", "seconds": 0.0},
    ]
    assert judge(BY_ID["late-reply"], told) == ["call 3, get: gave 'value-of-a' for b; wanted right or miss or error"]
    told[2] = {"value": "value-of-b", "seconds": 0.0}
    assert judge(BY_ID["late-reply"], told) == []


@pytest.mark.parametrize("value", [False, 7, {"a": "b"}, ["x"]])
def test_what_is_no_text_is_no_value(value: object) -> None:
    told = [{"value": value, "seconds": 0.1}, {"value": "value-of-b", "seconds": 0.1}]
    assert "call 1, get: gave" in judge(BY_ID["late"], told)[0]


def test_what_takes_too_long_or_never_comes_is_a_fault() -> None:
    assert (
        "took 9.0 s"
        in judge(BY_ID["never"], [{"value": None, "seconds": 9.0}, {"value": "value-of-b", "seconds": 0.1}])[0]
    )
    assert judge(BY_ID["never"], []) == ["call 1, get: never came back"]


def test_who_asks_again_may_get_it_right() -> None:
    told = [{"value": "value-of-a", "seconds": 0.1}, {"value": "value-of-b", "seconds": 0.1}]
    once = {("get", "a"): 1, ("get", "b"): 1}
    assert judge(BY_ID["noise"], [told[0], {"value": None}, told[1]], once)
    assert judge(BY_ID["noise"], [told[0], {"value": None}, told[1]], {**once, ("get", "a"): 2}) == []
    told[0]["value"] = "worth-of-a"
    assert judge(BY_ID["wrong-key"], told, {**once, ("get", "a"): 2})


@pytest.mark.slow
def test_pymemcache_does_well_and_libmemcached_takes_another_keys_value(capsys: pytest.CaptureFixture[str]) -> None:
    only = [word for name in ("right", "cut", "wrong-key", "out-of-order", "set-error") for word in ("--only", name)]
    assert main(["client", "pymemcache", *only]) == GOOD
    assert "pymemcache: 5 of 5 well" in capsys.readouterr().out
    kinds = ("ignore_exc", "HashClient", "HashClient ignore_exc", "RetryingClient", "compressed")
    assert main(["client", *(f"pymemcache {kind}" for kind in kinds), "--only", "noise", "--only", "get-error"]) == GOOD
    assert capsys.readouterr().out.count("2 of 2 well") == len(kinds)
    assert main(["client", "pylibmc", *only]) == FAULTY
    out = capsys.readouterr().out
    assert out.count("FAULT ") == 1
    assert "gave 'worth-of-a' for a" in out


@pytest.mark.slow
def test_nodes_clients_are_asked_as_pythons_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`huge` is more than a pipe holds at the end of a process; `closed` is a call that never comes back."""
    only = [word for name in ("right", "huge", "never", "get-error", "closed") for word in ("--only", name)]
    assert main(["client", "--node-modules", str(MODULES), "npm memcached", "memjs", *only]) == FAULTY
    out = capsys.readouterr().out
    assert "memjs: 4 of 5 well" in out
    assert "npm memcached: 3 of 5 well" in out
    assert out.count("call 1, get: never came back") == 3


def test_other_lines_of_a_driver_are_its_own_business() -> None:
    lines = [
        "hello",
        "[1]",
        "7",
        "{",
        '{"value": "v", "seconds": "long"}',
        '{"value": "w"}',
        '{"error": "e", "seconds": 0.5}',
    ]
    assert answers("\n".join(lines)) == [{"value": "w"}, {"error": "e", "seconds": 0.5}]
    assert answers("") == []


# TLS, and clients of one's own -------------------------------------------------------------------------------------------

DRIVER = """
import json, socket, ssl, sys
port, operations, *ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca[0]) if ca else None
if ca and "CARELESS" == "yes":
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

def ask(request):
    with socket.create_connection(("127.0.0.1", int(port)), 1) as sock:
        sock.settimeout(1)
        with context.wrap_socket(sock, server_hostname="127.0.0.1") if context else sock as talking:
            talking.sendall(request)
            reply = b""
            while not reply.endswith((b"END\\r\\n", b"STORED\\r\\n")) and (more := talking.recv(4096)):
                reply += more
            return reply

print("a line of its own")
for word, *given in json.loads(operations):
    try:
        if word == "set":
            value = ask(b"set %s 0 0 %d\\r\\n%s\\r\\n" % (given[0].encode(), len(given[1]), given[1].encode())) == b"STORED\\r\\n"
        elif word == "get":
            reply = ask(b"get %s\\r\\n" % given[0].encode())
            head, _, rest = reply.partition(b"\\r\\n")
            value = rest.removesuffix(b"\\r\\nEND\\r\\n").decode("latin-1") if head.startswith(b"VALUE ") else None
        else:
            value = None
    except OSError as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps({"value": value}))
"""


def driver(folder: Path, *, careless: bool) -> str:
    """A client written here: it looks for the end of a reply, and not at the length; careless: nor at certificates."""
    (folder / "driver.py").write_text(DRIVER.replace("CARELESS", "yes" if careless else "no"))
    return f"{sys.executable} {folder}/driver.py"


def test_the_authority_is_trusted_by_the_strictest_and_nobody_else_is() -> None:
    doors = Doors()
    trusting = ssl.create_default_context(cadata=doors.certificate)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _shaken(trusting, doors, "right") == ""
    assert "verify failed" in _shaken(trusting, doors, "stranger")
    assert "127.0.0.1" in _shaken(trusting, doors, "elsewhere")
    assert _shaken(ssl.create_default_context(), doors, "right")
    assert Authority("a").certificate != Authority("a").certificate


def _shaken(context: ssl.SSLContext, doors: Doors, name: str) -> str:
    """What a client of this context says of a door; nothing when it is content."""
    ours, theirs = socket.socketpair()

    def let_in() -> None:
        with theirs, contextlib.suppress(OSError):
            inside = doors.by_name[name](theirs, 0)
            assert inside
            inside.close()

    thread = threading.Thread(target=let_in)
    thread.start()
    try:
        with ours, context.wrap_socket(ours, server_hostname="127.0.0.1"):
            return ""
    except OSError as error:
        return str(error)
    finally:
        thread.join()


@pytest.mark.slow
def test_pymemcache_does_well_by_tls_and_emcache_does_not_look_at_the_servers_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    only = [word for name in ("right", "split", "cut", "get-error") for word in ("--only", name)]
    only += [word for case in CASES if case.door for word in ("--only", case.id)]
    assert main(["client", "pymemcache", "--tls", *only, "--json", str(tmp_path / "told")]) == GOOD
    assert "pymemcache: 9 of 9 well, by TLS" in capsys.readouterr().out
    told = json.loads((tmp_path / "told").read_text())
    assert told["tls"] is True
    assert len(told["results"]) == 9
    assert main(["client", "emcache", "--tls", "--only", "tls-other-name", "--only", "tls-stranger"]) == FAULTY
    out = capsys.readouterr().out
    assert "FAULT  emcache: tls-other-name" in out
    assert "it asked all the same" in out
    assert "emcache: 1 of 2 well" in out


@pytest.mark.slow
def test_a_driver_of_ones_own_that_believes_every_certificate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its faults are found; once it looks at certificates there is one left: it doesn't count bytes."""
    own = ["client", "--driver", driver(tmp_path, careless=True), "--tls"]
    only = [word for case in CASES if case.door for word in ("--only", case.id)]
    assert main([*own, *only]) == FAULTY
    out = capsys.readouterr().out
    for name in ("tls-stranger", "tls-other-name", "tls-cut"):
        assert f"driver.py: {name}\n" in out
    assert out.count("FAULT ") == 3
    assert f"repeat: mcconform client --driver '{own[2]}' --tls --only tls-cut" in out
    driver(tmp_path, careless=False)
    assert main([*own, *only]) == FAULTY
    out = capsys.readouterr().out
    assert out.count("FAULT ") == 1
    assert "driver.py: tls-cut\n" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("pass", "call 1, set: never came back (the process had ended, status 0)"),
        ("import sys; sys.exit('no such client')", "(the process had ended, status 1: no such client)"),
        ("import sys; print('TypeError: x\\n    at y.js:3\\nNode.js v20', file=sys.stderr)", "status 0: TypeError: x)"),
    ],
)
def test_a_driver_that_ends_is_told_from_one_that_waits(
    code: str, why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "driver.py").write_text(code)
    assert main(["client", "--driver", f"{sys.executable} {tmp_path}/driver.py", "--only", "right"]) == 1
    assert why in capsys.readouterr().out


def test_a_driver_without_tls(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = ["client", "--driver", driver(tmp_path, careless=False), "--only", "split", "--only", "cut"]
    assert main([*own]) == FAULTY
    out = capsys.readouterr().out
    assert "driver.py: cut\n" in out
    assert "1 of 2 well\n" in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--driver", "/nowhere/driver"], "--driver: cannot start /nowhere/driver"),
        (["--driver", "'"], "--driver: no closing quotation"),
        (["--driver", " "], "--driver: cannot start a command without words"),
        (["--driver", "true", "pymemcache"], "give names of clients or --driver"),
        (["--protocol", "meta"], "--protocol is for --driver"),
        (["pylibmc", "--tls"], "pylibmc: no TLS"),
        (["pymemcache", "--only", "tls-cut"], "tls-cut: with --tls alone"),
    ],
)
def test_what_cannot_be_followed_is_one_line(wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", *wrong]) == USAGE
    assert capsys.readouterr().err == f"mcconform client: {said}\n"


def test_a_client_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "nobody"]) == USAGE
    assert "not installed: nobody" in capsys.readouterr().err
