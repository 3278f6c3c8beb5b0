"""The benchmark can be believed: its load generator refuses wrong answers, and its tables come from real runs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from bench_cluster import simulate
from benchmark import disturb, programs
from benchmark.generator import build, load
from benchmark.programs import BenchError, peer
from benchmark.report import Cell, Table, interleave

ROOT = Path(__file__).resolve().parents[1]

Answer = Callable[[bytes], bytes]


@pytest.fixture(scope="session")
def loadgen() -> Path:
    return build()


@contextmanager
def rogue(answer: Answer) -> Iterator[int]:
    """A server of one connection that answers whatever arrives with `answer`; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):  # the generator hangs up in the middle
                connection.settimeout(10)
                while data := connection.recv(1 << 16):
                    connection.sendall(answer(data))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def run(loadgen: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([loadgen, *arguments], check=False, capture_output=True, text=True, timeout=30)


def value(key: bytes, length: int = 4) -> bytes:
    """What a right server answers for the value of `key`, as the generator makes it."""
    state, pattern = 0x9E3779B9, bytearray()
    shift = int(key[-8:], 16) % 4096
    for _ in range(shift + length):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        pattern.append(ord("a") + (state >> 24) % 26)
    return bytes(pattern[shift:])


def honest(request: bytes) -> bytes:
    key = request.split()[1]
    return b"VALUE %b 0 4\r\n%b\r\nEND\r\n" % (key, value(key))


def test_right_answers_are_counted(loadgen: Path) -> None:
    with rogue(honest) as port:
        report = run(loadgen, "closed", f"--port={port}", "--value=4", "--keys=50", "--seconds=0.1", "--warm-up=0.05")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["requests"] > 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda reply: reply.replace(b"VALUE", b"VALVE"), id="another word"),
        pytest.param(lambda reply: reply.replace(b" 0 4\r\n", b" 1 4\r\n"), id="other flags"),
        pytest.param(lambda reply: reply.replace(b" 0 4\r\n", b" 0 5\r\n"), id="another length"),
        pytest.param(lambda reply: reply.replace(b"key-", b"kex-"), id="another key"),
        pytest.param(lambda reply: reply[:-8] + b"#" + reply[-7:], id="another value"),
        pytest.param(lambda _: b"END\r\n", id="a miss"),
        pytest.param(lambda reply: reply + b"END\r\n", id="an end too many"),
        pytest.param(lambda _: b"SERVER_ERROR out of memory\r\n", id="an error"),
    ],
)
def test_a_wrong_answer_to_a_get_is_noticed(loadgen: Path, spoil: Answer) -> None:
    with rogue(lambda request: spoil(honest(request))) as port:
        report = run(loadgen, "closed", f"--port={port}", "--value=4", "--keys=50", "--seconds=5")
    assert report.returncode == 1
    assert "wrong reply" in report.stderr
    assert report.stdout == ""


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        (("closed", "--workload=set"), b"NOT_STORED\r\n"),
        (("closed", "--workload=meta"), b"EN\r\n"),
        (("closed", "--workload=meta"), b"VA 5\r\nabcde\r\n"),
        (("closed", "--workload=multiget"), b"END\r\n"),
        (("closed", "--workload=binary-get"), b"\x81\0\0\0\0\0\0\1\0\0\0\x09" + bytes(12) + b"Not found"),
        (("closed", "--workload=binary-get"), b"\x81\0\0\0\4\0\0\0\0\0\0\x08" + bytes(16) + b"abcd"),
        (("closed", "--workload=binary-set"), b"\x81\1\0\0\0\0\0\5\0\0\0\x0b" + bytes(12) + b"Not stored."),
        (("open",), b"ERROR\r\n"),
        (("fill",), b"SERVER_ERROR out of memory storing object\r\nMN\r\n"),
        (("count",), b"VALUE key-000000000000 0 4\r\n0000\r\nEND\r\n"),
    ],
)
def test_every_mode_notices_a_wrong_answer(loadgen: Path, mode: tuple[str, ...], answer: bytes) -> None:
    with rogue(lambda _: answer) as port:
        report = run(loadgen, *mode, f"--port={port}", "--value=4", "--keys=100", "--seconds=5")
    assert report.returncode == 1
    assert "wrong reply" in report.stderr


@contextmanager
def rogue_by_datagrams(answer: Answer) -> Iterator[int]:
    """Answers each datagram, its frame of eight bytes with it, until nothing came for a second; yields its port."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(1)

        def serve() -> None:
            with suppress(TimeoutError):
                while True:
                    data, sender = one.recvfrom(1 << 16)
                    one.sendto(answer(data), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield one.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "right"),
    [
        pytest.param(lambda frame: frame, True, id="right"),
        pytest.param(lambda frame: b"\xff\xff" + frame[2:], False, id="of another request"),
        pytest.param(lambda frame: frame[:5] + b"\2" + frame[6:], False, id="one of two"),
        pytest.param(lambda frame: frame[:4], False, id="too short"),
    ],
)
def test_answers_by_datagrams_are_checked(loadgen: Path, spoil: Answer, right: bool) -> None:
    def answer(data: bytes) -> bytes:
        frame = spoil(data[:8])
        return frame + honest(data[8:]) if len(frame) == 8 else frame

    with rogue_by_datagrams(answer) as port:
        options = ["--udp", "--value=4", "--keys=50", "--depth=4", "--seconds=0.1", "--warm-up=0.05"]
        report = run(loadgen, "closed", f"--port={port}", *options)
    assert report.returncode == int(not right), report.stderr
    assert ("wrong reply" in report.stderr) is not right


def test_a_login_that_is_refused_is_noticed(loadgen: Path) -> None:
    with rogue(lambda _: b"CLIENT_ERROR authentication failure\r\n") as port:
        report = run(loadgen, "closed", f"--port={port}", "--login=bench secret")
    assert report.returncode == 1
    assert "refuses the login" in report.stderr


def test_a_login_by_sasl_that_is_refused_is_noticed(loadgen: Path) -> None:
    with rogue(
        lambda _: bytes.fromhex("8121 0000 00 00 0020 0000000d 00000000 0000000000000000") + b"Auth failure."
    ) as port:
        report = run(loadgen, "open", f"--port={port}", "--sasl=bench secret")
    assert report.returncode == 1
    assert "refuses the login" in report.stderr


@pytest.mark.slow
def test_requests_and_a_flood_where_logins_are_by_sasl(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(disturb.LOGIN.decode().replace(" ", ":") + "\n")
    told = {"MEMCACHED_SASL_PWDB": str(tmp_path / "users")}
    with programs.subject().running(more=["-S"], sasl=disturb.LOGIN, environment=told) as server:
        how: dict[str, Any] = {"sasl": disturb.LOGIN.decode(), "keys": 500, "value": 100}
        assert load(server, "fill", depth=50, **how)["sets"] == 500
        disturb.log_in_by_sasl(server.port)
        assert load(server, "open", rate=1000, seconds=0.2, connections=3, **how)["requests"] > 100
        with pytest.raises(BenchError, match="refuses the login"):
            programs.log_in_by_sasl(server.port, b"bench wrong")


def test_a_closed_connection_is_noticed(loadgen: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        report = run(loadgen, "closed", f"--port={listener.getsockname()[1]}")
    assert report.returncode == 1
    assert re.search(r"closed a connection|reset|Broken pipe", report.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("closed",),
        ("sideways", "--port=1"),
        ("closed", "open", "--port=1"),
        ("closed", "--port=0"),
        ("closed", "--port=1", "--value=9-3"),
        ("closed", "--port=1", "--value=1048577"),
        ("closed", "--port=1", "--value=-3"),
        ("closed", "--port=1", "--depth=0"),
        ("closed", "--port=1", "--depth=1x"),
        ("closed", "--port=1", "--workload=got"),
        ("open", "--port=1", "--rate=-1"),
        ("closed", "--port=1", "--unheard-of"),
    ],
)
def test_bad_arguments_are_refused(loadgen: Path, arguments: tuple[str, ...]) -> None:
    report = run(loadgen, *arguments)
    assert report.returncode == 2
    assert "usage: loadgen" in report.stderr


@pytest.mark.slow
def test_fill_and_count_agree_with_memcached() -> None:
    with peer().running(memory=64) as server:
        fill = load(server, "fill", keys=5000, value="20-1000", depth=64, probe=True)
        assert fill["sets"] == int(server.stats()["curr_items"]) == 5000
        assert fill["probes"] > 0
        assert load(server, "count", keys=6000, value="20-1000", stride=2) == {"gets": 3000, "hits": 2500}


def test_a_server_that_does_not_start_is_an_error() -> None:
    with pytest.raises(BenchError, match="before it served"), peer("false").running():
        pass


def test_pairs_take_turns_in_going_first() -> None:
    order: list[str] = []

    def timed(name: str) -> int:
        order.append(name)
        return len(order)

    pairs = interleave(3, ("a", "b"), timed)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert pairs == [(1, 2), (4, 3), (5, 6)]


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    cell = Cell([(1, 2), (30, 10), (4, 4)])
    assert (cell.subject, cell.peer, cell.ratio) == (4, 4, 1)
    table = Table("Title", ("what", "ours", "theirs", "ratio"))
    table.add("one", cell, ".1f")
    table.add("two", Cell([(4, 1)]), ".1f")
    table.add_means({"both": ["one", "two"]})
    assert "| one  | 4.0  | 4.0    | 1.00  |\n" in table.markdown()
    assert "mean of the ratios: 2.00 (both 2.00). Worst cell: two, 4.00." in table.markdown()


@pytest.mark.slow
def test_the_script_prints_a_table(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [str(ROOT / "scripts/bench"), "--quick", "--pairs=1", "--only=stall", f"--json={report}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=290, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| longest stall +\| \d+\.\d\d +\| \d+\.\d\d +\| \d+\.\d\d +\|$", done.stdout, re.MULTILINE)
    (table,) = json.loads(report.read_text())["tables"].values()
    assert len(table["longest stall"]["pairs"]) == 1


@pytest.mark.slow
def test_a_simulated_fleet_comes_back_when_all_its_sessions_are_lost() -> None:
    fleet = simulate.Simulated(5, simulate.SERVICE, writes=100.0)
    try:
        one, more, away = simulate.lose(fleet, 1), simulate.lose(fleet, 5), simulate.lose(fleet, 5, 15.0)
    finally:
        fleet.world.close()
    assert away.oldest > 10, "no certificate without ZooKeeper"
    for lost, count in ((one, 1), (more, 5), (away, 5)):
        assert 0 < lost.seconds < 5
        assert lost.reads > 5 * count
        assert lost.writes >= 4 * count, "an end, a session, two records; and a candidate"
        assert lost.busiest > 0
        assert lost.peak < 0.5
        assert 0 < lost.oldest < (20 if lost is away else 5)
    assert "All lose them: all back, fresh, and seen by all, after" in simulate._told("All lose them", more)
