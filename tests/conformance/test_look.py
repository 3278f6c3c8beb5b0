"""The look before the cases: what a server is, and what is no use to test."""

from __future__ import annotations

import itertools
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

from conformance import library
from conformance.__main__ import PASSED, UNREACHABLE, main
from conformance.look import Look, UnfitError, look
from conformance.servers import Given, Lease, Spawned
from conformance.wire import Address
from tests.conformance import rogue
from tests.conformance.rogue import Behaviour
from tests.peer import memcached

SMALL = f"{sys.executable} {Path(__file__).with_name('small.py')} {{port}}"


def greet(client: socket.socket) -> None:
    client.sendall(b"220 mail.example ESMTP\r\n")
    client.recv(100)


def redis(client: socket.socket) -> None:
    while client.recv(1 << 16):
        client.sendall(b"-ERR unknown command\r\n")


def every_second() -> Behaviour:
    """Resets every second connection."""
    count = itertools.count()

    def behave(client: socket.socket) -> None:
        if next(count) % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            rogue.answering(b"ERROR\r\n")(client)

    return behave


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (rogue.hang, "it answered nothing to `get` for 3 s"),
        (rogue.read_nothing, "it answered nothing to `get` for 3 s"),
        (rogue.close_early, "it closed the connection when asked `get`"),
        (greet, "220 mail.example ESMTP"),
        (redis, "it answers `get` of a missing key with -ERR unknown"),
        (rogue.flood, "it answers `get` of a missing key with xxxx"),
        (rogue.garbage, "it answers `get` of a missing key with"),
        (rogue.half_answer, "it answers `get` of a missing key with VALUE"),
        (rogue.one_late, "it answered nothing to `get` for 3 s"),
        (rogue.nuls, "it answers `set` with \\x00"),
        (rogue.half_close, "it closed the connection when asked `set`"),
        (rogue.ahead, "it speaks first, with END"),
        (every_second(), "mcconform: "),  # it closes, cannot be talked to, or resets: as the race goes
    ],
)
def test_what_is_no_use_ends_with_one_sentence(
    behaviour: Behaviour, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with rogue.rogue(behaviour) as where:
        assert main([str(where)]) == UNREACHABLE
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert sentence in told.err


@pytest.mark.slow
def test_one_connection_at_a_time_is_no_use() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while client.recv(1 << 16):
                    client.sendall(b"END\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(UnfitError, match="on one connection alone"):
        look(Address("127.0.0.1", listener.getsockname()[1]))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def in_drops(pause: float, size: int) -> Behaviour:
    """Answers as a memcached that knows little, so many bytes at a time."""
    answers = {b"get": b"END", b"set": b"STORED", b"version": b"VERSION 1.6.18"}

    def behave(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            for line in lines:
                if line == b"x\r\n":  # a value
                    continue
                answer = answers.get(line.split()[0], b"ERROR") + b"\r\n"
                for at in range(0, len(answer), size):
                    client.sendall(answer[at : at + size])
                    time.sleep(pause)

    return behave


@pytest.mark.slow
def test_a_server_that_drips_is_no_use_at_once() -> None:
    with rogue.rogue(in_drops(0.06, 1)) as where, pytest.raises(UnfitError, match="it answers in drops: "):
        look(where, patience=0.6)


@pytest.mark.slow
def test_a_second_connection_that_is_answered_late_is_one_all_the_same() -> None:
    """On a busy machine that happens."""
    connections = itertools.count()
    quick = in_drops(0, 100)

    def behave(client: socket.socket) -> None:
        if next(connections) == 1 and client.recv(1, socket.MSG_PEEK):
            time.sleep(0.9)
        quick(client)

    with rogue.rogue(behave) as where:
        assert look(where, patience=0.5).says == "1.6.18"


def test_an_answer_in_pieces_is_read_whole() -> None:
    with rogue.rogue(in_drops(0.002, 7)) as where:
        assert look(where).says == "1.6.18"


@pytest.mark.slow
def test_memcached_is_seen_whole() -> None:
    with memcached() as where:
        seen = look(Address(*where), harmful=True)
    assert seen.missing == {}
    assert (seen.fence, seen.profile, seen.key_limit, seen.release) == ("version", "1.6.18", 250, "1.6.18")
    assert seen.sentence() == "looks like memcached 1.6 (it says 1.6.18)"


@pytest.mark.slow
def test_another_item_limit_is_seen() -> None:
    with memcached("-I", "2m") as where:
        assert look(Address(*where)).missing == {"item-limit": "values over 1 MiB: say --max-item"}
        assert look(Address(*where), max_item=2 << 20).missing == {}


def spawned(*quirks: str) -> tuple[Spawned, Address]:
    servers = Spawned(" ".join([SMALL, *quirks]))
    with servers.lend(library.cases()[0]) as lease:
        return servers, lease.address


def test_an_old_server_is_described() -> None:
    servers, where = spawned()
    seen = look(where)
    servers.close()
    assert (seen.generation, seen.profile, seen.fence) == ("1.4", "1.4", "version")
    assert {"cas", "touch", "gat", "meta", "binary"} <= seen.missing.keys()
    assert seen.sentence().startswith("looks like memcached 1.4 without cas, add")
    assert seen.suites == ["classic"]


@pytest.mark.slow
@pytest.mark.parametrize(("quirks", "fence"), [((), "version"), (("no-version",), "get")])
def test_the_fence_is_what_works(quirks: tuple[str, ...], fence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--spawn", " ".join([SMALL, *quirks]), "--only", "classic/get/", "--level", "must"])
    out = capsys.readouterr().out
    assert f"each case ends with {fence}" in out
    assert code == PASSED, out
    assert "unsupported" not in out


@pytest.mark.slow
def test_a_server_without_version_and_meta_is_fenced_by_get() -> None:
    assert Look().fence == "version"
    servers, where = spawned("no-version")
    assert look(where).fence == "get"
    servers.close()


@pytest.mark.slow
def test_a_question_that_ends_the_server_is_a_command_it_lacks() -> None:
    servers, where = spawned("dies-touch")
    with pytest.raises(UnfitError, match="it ended while the suite looked"):
        look(where)
    servers.close()
    servers, _ = spawned("dies-touch")
    with servers.lend(library.cases()[0]) as lease:
        assert lease.process
        command = lease.process
    given = Given(command.address, destructive=False, command=f"{SMALL} dies-touch")
    seen = look(given.where, revive=lambda: given.where if given.restart(Lease(given.where)) else None)
    given.close()
    servers.close()
    assert seen.missing["touch"] == "it ends"


@pytest.mark.slow
def test_the_cases_do_not_meet_what_the_look_has_flushed() -> None:
    """As yrmcds, which forgets what is set within the second of a flush_all."""
    assert main(["--spawn", f"{SMALL} forgets", "--only", "classic/get/hit"]) == PASSED
    servers, where = spawned("forgets")
    assert main([str(where), "--destructive", "--only", "classic/get/hit"]) == PASSED
    servers.close()


@pytest.mark.slow
def test_what_a_server_lacks_is_unsupported_and_not_failed(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["--spawn", f"{SMALL} old", "--suite", "classic", "--only", "classic/touch/", "--only", "classic/get/hit"]
    )
    out = capsys.readouterr().out
    assert code == PASSED, out
    assert "the server has no touch (it answers ERROR)" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "missing"),
    [("-C", {"cas"}), ("-I512k", {"item-limit", "large-values"}), ("-I8m", {"item-limit"}), ("-F", {"flush_all"})],
)
def test_what_an_option_has_switched_off_fails_no_case(
    options: str, missing: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with memcached(options) as (host, port):
        assert look(Address(host, port), harmful=options == "-F").missing.keys() == missing
        only = ["classic/set/", "classic/add/", "cas", "meta/mg/", "binary/get", "binary/flush", "large"]
        words = [word for pattern in only for word in ("--only", pattern)]
        assert main([f"{host}:{port}", "--not", "classic/set/eviction", *words]) == PASSED, capsys.readouterr().out
        if "-I8m" in options:
            assert (
                main([f"{host}:{port}", "--max-item", str(8 << 20), "--only", "too-large", "--only", "item-size"])
                == PASSED
            )
