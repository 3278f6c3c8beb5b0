"""compare: streams, what counts as the same, shrinking, and the command on real servers."""

from __future__ import annotations

import re
from random import Random

import pytest

from conformance.compare.__main__ import DIFFERENT, SAME, UNREACHABLE, Tally, excused, filters, main, sift
from conformance.compare.pair import Difference, Side, same
from conformance.compare.shrink import Writes, as_case, shrink
from conformance.compare.streams import length, parted, stream
from conformance.faults import Fault, Proxy, Talk, faults
from conformance.notation import read
from conformance.text import parse
from conformance.wire import Address
from tests.peer import memcached
from tests.ports import free_port

PEER = "memcached -u root -U 0 -t 1 -o no_lru_maintainer,no_lru_crawler"


def test_a_stream_is_its_seed() -> None:
    assert stream(Random(7)) == stream(Random(7))
    assert stream(Random(7)) != stream(Random(8))


@pytest.mark.slow
def test_streams_are_readable_and_reach_everything() -> None:
    verbs = set()
    for seed in range(300):
        for commands in stream(Random(seed)):
            for command in commands:
                parse(command)
                verbs.add(command.split(" ")[0])
    wanted = "set add replace append prepend cas get gets gat gats incr decr touch delete mg ms md ma me"
    assert set(wanted.split()) <= verbs


def test_lengths_count_runs_and_escapes() -> None:
    assert length("{y*30}\\r\\nx\\xff") == 34


def test_a_count_on_a_key_just_read_starts_a_new_write() -> None:
    assert parted(["get {a}\\r\\n", "incr {b} 1\\r\\n"]) == [["get {a}\\r\\n", "incr {b} 1\\r\\n"]]
    assert parted(["get {a}\\r\\n", "incr {a} 1\\r\\n"]) == [["get {a}\\r\\n"], ["incr {a} 1\\r\\n"]]


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (b"HD t100\r\n", b"HD t97\r\n", True),
        (b"HD t100\r\n", b"HD t96\r\n", False),
        (b"HD l0 c#1\r\n", b"HD l1 c#1\r\n", True),
        (b"HD c#1\r\n", b"HD c#2\r\n", False),
        (b"STORED\r\n", b"NOT_STORED\r\n", False),
        (b"HD t100 t5\r\n", b"HD t100\r\n", False),
    ],
)
def test_what_counts_as_the_same(first: bytes, second: bytes, alike: bool) -> None:
    assert same(first, second) is alike


def test_uniques_compare_by_first_sight() -> None:
    left, right = (Side(Address("h", 1), 1.0, "p", 0) for _ in range(2))
    assert left.plain(b"VALUE a 0 1 7\r\nx\r\nHD s1 c9\r\n") == right.plain(b"VALUE a 0 1 70\r\nx\r\nHD s1 c90\r\n")
    assert left.plain(b"HD c7\r\n") != right.plain(b"HD c90\r\n")


def test_shrinking_finds_the_two_commands_that_matter() -> None:
    writes = [[f"get k{i}\\r\\n" for i in range(5)] for _ in range(20)]
    writes[7][2] = "set {a} 0 0 1 noreply\\r\\nx\\r\\n"
    writes[15][4] = "incr  {a}  1 foo bar\\r\\n"
    tried = 0

    def differs(candidate: Writes) -> bool:
        nonlocal tried
        tried += 1
        flat = [command for commands in candidate for command in commands]
        stores = [at for at, command in enumerate(flat) if command.startswith("set {a} 0 0 1")]
        counts = [at for at, command in enumerate(flat) if command.replace("  ", " ").startswith("incr {a}")]
        return bool(stores and counts and stores[0] < counts[-1])

    short = shrink(writes, differs)
    assert [command for commands in short for command in commands] == [
        "set {a} 0 0 1\\r\\nx\\r\\n",
        "incr {a}\\r\\n",
    ]
    assert tried < 500


def test_shrinking_gives_up_in_time() -> None:
    assert shrink([["a"], ["b"]], lambda candidate: len(candidate) == 2) == [["a"], ["b"]]


def test_a_difference_is_printed_as_a_case() -> None:
    lines = as_case("compare/x", [["set {a} 0 0 1\\r\\nx\\r\\n"], ["get {a}\\r\\n"]], b"END\r\n", b"")
    (case,) = read("f", "\n".join([*lines, "  rule: x.y"]))
    assert case.id == "compare/x"


def test_known_differences_are_left_out_between_versions_only() -> None:
    writes = [["get\\r\\n", "get {a}\\r\\n"], ["ms {a} 2 C1 s\\r\\nhi\\r\\n"], ["set {a} 0 0 1\\r\\nx\\r\\n"]]
    assert sift(writes, filters("1.6.18", "1.6.18"), Tally()) == writes
    tally = Tally()
    assert sift(writes, filters("1.6.45", "1.6.18"), tally) == [["get {a}\\r\\n"], ["set {a} 0 0 1\\r\\nx\\r\\n"]]
    assert sum(tally.left_out.values()) == 2


def test_an_excuse_needs_the_number_in_the_stream() -> None:
    refusal = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
    difference = Difference(0, b"9\r\n", refusal)
    assert excused([["set {a} 0 0 20\\r\\n18446744073709551615\\r\\n"]], difference)
    assert not excused([["set {a} 0 0 1\\r\\n5\\r\\n"]], difference)
    assert not excused([["set {a} 0 0 20\\r\\n18446744073709551615\\r\\n"]], Difference(0, b"9\r\n", b"8\r\n"))


def test_who_speaks_http_may_be_told() -> None:
    told = Difference(0, b"<closed>", b"HTTP/1.0 400 Bad Request\r\n\r\n<closed>")
    assert excused([["POST / HTTP/1.0\\r\\n"]], told)
    assert not excused([["mn\\r\\n"]], told)


@pytest.mark.slow
def test_two_memcached_do_not_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([PEER, PEER, "--streams", "1500", "--seed", "500000"]) == SAME
    assert "0 differences" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["append-prepends", "two-winners", "no-padding"])
def test_a_fault_is_found_and_shrunk(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fault = next(fault for fault in faults() if fault.id == name)
    options = ("-o", "no_lru_maintainer,no_lru_crawler")
    with memcached(*options) as right, memcached(*options) as behind:
        proxy = Proxy(Address(*behind), fault)
        code = main([str(Address(*right)), str(proxy.address), "--streams", "4000", "--limit", "1"])
        proxy.close()
    out = capsys.readouterr().out
    assert code == DIFFERENT
    assert out.count("  >> ") <= 6


@pytest.mark.slow
def test_without_meta_a_fault_is_found_and_shrunk_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides know no meta commands: the fence is another, uniques are read by gets, and the stream still shrinks."""
    fault = next(fault for fault in faults() if fault.id == "append-prepends")
    assert fault.request
    wrong = fault.request

    def old(data: bytes, talk: Talk) -> bytes:
        return re.sub(rb"(?m)^m[gsdane]( .*)?\r\n", b"bogus\r\n", data)

    right = Fault("old", "knows no meta commands", "framing", (), request=old)
    behind = Fault("both", "and prepends", "framing", (), request=lambda data, talk: wrong(old(data, talk), talk))
    options = ("-o", "no_lru_maintainer,no_lru_crawler")
    with memcached(*options) as first, memcached(*options) as second:
        sides = [Proxy(Address(*first), right), Proxy(Address(*second), behind)]
        code = main([*(str(side.address) for side in sides), "--streams", "4000", "--limit", "1"])
        sides.append(Proxy(Address(*second), right))
        same = main([str(sides[0].address), str(sides[2].address), "--streams", "300"])
        for side in sides:
            side.close()
    out = capsys.readouterr().out
    assert (code, same) == (DIFFERENT, SAME), out
    assert 0 < out.count("  >> ") <= 6
    assert not re.search(r">> m[gsdane] ", out)


def test_unreachable_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"127.0.0.1:{free_port()}", PEER]) == UNREACHABLE
    assert capsys.readouterr().err.count("\n") == 1
