"""The replays of `scripts/bench --only hits`: what counts as a hit, the models, the search for memory, and the plot."""

from __future__ import annotations

import gzip
import json
import math
import os
import socket
import subprocess
import threading
from array import array
from pathlib import Path

import pytest
from benchmark import sizes, stress, traces
from benchmark.contest import Contest
from benchmark.curve import memory_for
from benchmark.generator import load
from benchmark.hits import Choice, Hits, policies
from benchmark.models import byte_lru, gdsf
from benchmark.plot import draw
from benchmark.programs import BenchError, Program, Server, peer
from benchmark.replay import Stage
from benchmark.requests import CACHED, READ, SCANNED, STORED_UNASKED, Requests

ROOT = Path(__file__).resolve().parents[1]


def requests(*three: tuple[int, int, int]) -> Requests:
    made = Requests()
    for key, length, kind in three:
        made.add(key, length, kind)
    return made


MIXED = [
    (1, 10, CACHED),  # missed and stored
    (1, 10, CACHED),  # hit, in the same batch
    (2, 20, READ),  # missed, not stored
    (2, 20, READ),  # missed again
    (3, 30, SCANNED),  # not counted, stored
    (3, 30, READ),  # hit
    (4, 40, STORED_UNASKED),
    *[(5, 0, SCANNED)] * 9,  # the end of a batch
    (4, 40, READ),  # hit
    (2, 20, READ),  # missed still
    (1, 10, CACHED),  # hit
]


@pytest.mark.slow
def test_a_replay_counts_what_it_should() -> None:
    outcome = Stage().replay(peer(), requests(*MIXED), 16)
    assert outcome.hits == pytest.approx(100 * 4 / 8)
    assert outcome.byte_hits == pytest.approx(100 * (10 + 30 + 40 + 10) / (10 + 10 + 20 + 20 + 30 + 40 + 20 + 10))
    assert outcome.pages is not None
    assert outcome.pages >= 1


@pytest.mark.parametrize("model", [byte_lru, gdsf])
def test_the_models_count_as_a_replay_does(model: object) -> None:
    assert callable(model)
    tally = model(requests(*MIXED), 16)
    assert (tally.gets, tally.hits, tally.bytes, tally.hit_bytes) == (8, 4, 160, 90)


def test_least_recently_used_leave_by_bytes() -> None:
    half = 400_000  # two of them fit
    order = [1, 2, 1, 3, 1, 2]  # 3 drives out 2
    assert byte_lru(requests(*((key, half, CACHED) for key in order)), 1).hits == 2


def test_gdsf_keeps_what_is_small_or_much_used() -> None:
    large, small = 600_000, 1_000
    small_first = [(1, small, CACHED), (2, large, CACHED), (3, large, CACHED), (1, small, CACHED), (2, large, CACHED)]
    assert gdsf(requests(*small_first), 1).hits == 1
    used = [(1, large, CACHED)] * 4 + [(2, large, CACHED), (1, large, CACHED)]
    assert (
        gdsf(requests(*used), 1).hits == 3
    )  # a large one that is new drives out even a used one of its size: it must fit


def test_gdsf_drives_out_the_least_worth() -> None:
    size = 400_000
    order = [1, 1, 1, 2, 3, 1]  # 3 drives out 2, which was used once, though 1 is older
    assert gdsf(requests(*((key, size, CACHED) for key in order)), 1).hits == 3
    assert byte_lru(requests(*((key, size, CACHED) for key in order)), 1).hits == 2


@pytest.mark.parametrize("answer", [b"HD\r\nHD\r\n", b"VA 1\r\nx\r\n", b"ERROR\r\n"])
def test_a_replay_notices_a_wrong_answer(tmp_path: Path, answer: bytes) -> None:
    file = tmp_path / "requests"
    file.write_bytes(requests((1, 10, CACHED)).packed())
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(100)
                connection.sendall(answer)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(BenchError, match="wrong reply"):
            load(Server("rogue", listener.getsockname()[1], os.getpid()), "replay", file=str(file))
        thread.join(10)


@pytest.mark.parametrize("content", [None, b"", b"12345"])
def test_a_bad_file_of_requests_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "requests"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BenchError, match="requests"):
        load(Server("none", 1, os.getpid()), "replay", file=str(file))


@pytest.mark.slow
def test_a_paced_replay_takes_its_time(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    file.write_bytes(requests(*((key, 10, CACHED) for key in range(320))).packed())
    with peer().running() as server:
        report = load(server, "replay", file=str(file), rate=1000)
    assert report["elapsed_ns"] >= 0.3e9  # the last batch of 16 starts after 304 ms


def curve(memory: int) -> float:
    return 10 * math.log2(memory)


@pytest.mark.parametrize("wanted", [20, 100, 128, 137, 900, 2048])
def test_the_memory_that_is_needed_is_found(wanted: int) -> None:
    found = memory_for(curve(wanted), 128, curve, curve(128))
    assert found == pytest.approx(wanted, rel=0.02)


def test_out_of_range_is_said() -> None:
    assert memory_for(100, 128, lambda _: 50, 50) is None
    assert memory_for(10, 128, lambda _: 50, 50) is None


def test_traces_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.u32.gz").write_bytes(gzip.compress(b"\1\0\0\0\0\1\0\0\7\0\0\0"))
    assert traces.gather(tmp_path, 2) == {"one": array("I", [1, 256])}
    with pytest.raises(BenchError, match="holds no NAME"):
        traces.gather(tmp_path / "nowhere", 2)


@pytest.mark.slow
def test_loads_are_made_where_no_traces_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(traces, "BESIDE", tmp_path / "nowhere")
    loads = traces.gather(None, 3000)
    assert loads == traces.gather(None, 3000)
    assert {f"Zipf {exponent}" for exponent in (0.7, 0.9, 1.0, 1.1)} < set(loads)
    assert all(len(keys) == 3000 for keys in loads.values())
    distinct = [len(set(loads[f"Zipf {exponent}"])) for exponent in (0.7, 0.9, 1.0, 1.1)]
    assert distinct == sorted(distinct, reverse=True)
    scanned = [key for key in loads["scan"] if key >= traces.KEYS]
    assert len(scanned) == len(set(scanned)) == 500


@pytest.mark.parametrize("model", sizes.MODELS)
def test_the_share_of_the_keys_fits(model: str) -> None:
    made = sizes.sized(array("I", range(20_000)), model, 0.2, 64)
    mean = sum(made.lengths) / len(made) + sizes.ITEM
    assert 64 * sizes.MEBIBYTE / (mean * len(made)) == pytest.approx(0.2, rel=0.12)
    largest, smallest = max(made.lengths), min(made.lengths)
    assert largest / smallest == pytest.approx({"equal": 1, "spread": 228, "two": 100}[model], rel=0.02)


@pytest.mark.slow
def test_stress_loads_do_what_they_say() -> None:
    one_size, any_size, shift = stress.loads(4, 20_000).values()
    for made in (one_size, any_size):
        stored = [key for key, _, kind in made if kind == STORED_UNASKED]
        read = {key for key, _, kind in made if kind == READ}
        once = [key for key, _, kind in made if kind == SCANNED]
        assert read <= set(stored)
        assert len(once) == len(set(once))
    assert sum(length for _, length, kind in one_size if kind == SCANNED) > 2.9 * 4 * sizes.MEBIBYTE
    lengths = list(shift.lengths)
    changes = [lengths[at] for at in range(len(lengths)) if at == 0 or lengths[at] != lengths[at - 1]]
    assert changes == [100, 5000, 100]


def test_a_server_that_does_not_know_the_choice_runs_as_it_is() -> None:
    assert policies(peer()) == (peer(),)


@pytest.mark.slow
def test_a_server_that_knows_the_choice_runs_with_both(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text('#!/bin/sh\n[ "$1 ${2%=*}" = "-o room_for" ] || exit 64\nshift 2\nexec memcached "$@"\n')
    script.chmod(0o755)
    contest = Contest(Program("subject", (str(script),)), peer())
    hits = Hits(contest, Choice(small_folder(tmp_path), models=("equal",), shares=(0.2,), most=400))
    (cell,) = hits.play(hits.cells(2), 2)
    assert list(cell.outcomes) == ["subject", "subject for bytes", "memcached", "byte-LRU", "GDSF"]
    assert "subject for bytes over memcached: mean" in hits.table("Title", [cell], "byte_hits").markdown()


def small_folder(path: Path) -> Path:
    (path / "small.u32.gz").write_bytes(gzip.compress(traces.zipf(0.9, 4000, there=2000).tobytes()))
    return path


@pytest.mark.slow
def test_the_memory_of_equal_servers_is_equal(tmp_path: Path) -> None:
    contest = Contest(Program("subject", ("memcached",)), peer())
    choice = Choice(small_folder(tmp_path), models=("equal",), shares=(0.2,), most=4000, bare=True)
    hits = Hits(contest, choice)
    cells = hits.play(hits.cells(4), 4)
    table = hits.needed(cells, 4)
    assert table.data["mean ratio"] == pytest.approx(1, abs=0.1)
    assert table.rows[0][:3] == ("small", "equal", "0.2")


def test_an_unknown_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no trace large; there are small"):
        Hits(Contest(peer(), peer()), Choice(small_folder(tmp_path), names=["large"], bare=True))


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_plot_is_drawn_the_same_again(tmp_path: Path, suffix: str, magic: bytes) -> None:
    panels = {
        "one": {"ours": [1, 2], "theirs": [1, 1], "GDSF": [3, 4]},
        "two": {"ours": [1, 2], "theirs": [1, 1], "GDSF": [2, 3]},
    }
    drawn = []
    for again in range(2):
        path = tmp_path / f"{again}.{suffix}"
        draw(path, (16, 32), panels, ("ours", "theirs"), "sizes")
        drawn.append(path.read_bytes())
    assert drawn[0].startswith(magic)
    assert drawn[0] == drawn[1]


@pytest.mark.slow
def test_the_script_prints_tables_and_draws(tmp_path: Path) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "hits.svg"
    command = [str(ROOT / "scripts/bench"), "--quick", "--only=hits", f"--traces={small_folder(tmp_path)}", "-m", "8"]
    command += [f"--json={report}", f"--plot={picture}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=290, env=os.environ)
    assert done.returncode == 0, done.stderr
    tables = json.loads(report.read_text())["tables"]
    cell = next(iter(tables.values()))["small spread 0.2"]
    assert {"mcserver", "memcached", "byte-LRU", "GDSF"} <= set(cell)
    assert all(0 < figures["hits"] < 100 for figures in cell.values())
    assert "mcserver over memcached: mean " in done.stdout
    assert picture.read_text().startswith("<?xml")
