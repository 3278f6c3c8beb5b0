"""Numbers as nobody spells them, in every command that takes one: what is answered, here and by memcached.

The answers are 1.6.45's. 1.6.18 reads with strtol where 1.6.45 counts digits itself, so it is asked only where it says the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.admin.harness import Wire
from tests.peer import RELEASE, memcached
from tests.serving import Client

OK, ERROR, FORMAT = "OK", "ERROR", "CLIENT_ERROR bad command line format"
BAD_CLASS, NOTHING = "BADCLASS invalid class id", "NOTSTARTED no items to crawl"
TOKEN = "CLIENT_ERROR bad token in command line format"

C_UNSIGNED = [
    "+1",
    "01",
    "00000000000001",
    "\t1",
    "1\t",
    "\t1\t2",
    "\v1",
    "\f1",
    "\r1",
    "1\r",
    "1\0",
    "1\x002",
    "1,",
    ",1",
    "1,,2",
    "1,+2",
]
C_UNSIGNED += ["1,\t2", "1\t,2", "63", "4294967297", "-18446744073709551615", "1," * 255 + "12", "all\0x"]
NO_CLASS = [
    "0",
    "-1",
    "-0",
    "+",
    "-",
    "+-1",
    "--1",
    "0x1",
    "1x",
    "x",
    "1.0",
    "1e0",
    "1_0",
    "1,x",
    "64",
    "0,1",
    "1,all",
    "al",
    "\xb2",
    "+\t1",
]
NO_CLASS += ["18446744073709551616", "-18446744073709551616", "9" * 400]
DOUBLES = [
    "1",
    "+1",
    "01",
    ".5",
    "5.",
    "1e0",
    "1E-2",
    "0x1",
    "0X1P-4",
    "0x.8",
    "0x1p+3",
    "inf",
    "+INFINITY",
    "nan",
    "-nan",
    "nan(1)",
    "\t1",
]
DOUBLES += [
    "1\t",
    "1\t2",
    "1\0",
    "1\x00x",
    "\r1",
    "\v1",
    "\f1",
    "0x1p-1022",
    "0x1p-1074",
    "2.2250738585072014e-308",
    "1e308",
    "0" * 30 + "1",
]
NO_DOUBLES = [
    "x",
    "+",
    "-",
    ".",
    "e1",
    "1e",
    "1e+",
    "0x",
    "0xg",
    "0x1p",
    "1x",
    "1,5",
    "1_0",
    "infi",
    "nan(",
    "- 1",
    "--1",
    "1e309",
    "1e-400",
]
NO_DOUBLES += ["5e-324", "0x1p-1075", "0x1p1024", "0x1.8p-1074", "\xb2", "0" * 31 + "1"]
FEW = ["0", "-0.0", "-1", "-inf", "-0x1p-3", "0x0p0"]
U32, NO_U32 = (
    ["0", "1", "01", "00000000001"],
    ["+1", "-1", "-0", "-", "+", "\t1", "1\t", "1\r", "1\0", "0x1", "1.0", "1e0", "1,", "1_0", "000000000001"],
)
NO_U32 += ["4294967296", "\xb2"]
NO_I32 = [word for word in NO_U32 if word not in {"-1", "-0", "-"}] + ["-2147483649", "2147483648", "--1", "+-1"]

NO_U64 = ["+1", "-1", "-", "\t1", "1\t", "0x1", "1.0", "18446744073709551616", "0" * 22 + "1"]

TABLE: list[tuple[str, str, list[str]]] = [
    ("lru_crawler crawl {}", OK, C_UNSIGNED),
    ("lru_crawler crawl {}", BAD_CLASS, NO_CLASS),
    ("lru_crawler crawl {}", NOTHING, [",", ",,", "\0", "\x001"]),
    ("lru_crawler metadump {}", "dump", C_UNSIGNED),
    ("lru_crawler metadump {}", BAD_CLASS, NO_CLASS),
    ("lru_crawler mgdump {}", "dump", C_UNSIGNED),
    ("lru_crawler mgdump {}", BAD_CLASS, NO_CLASS),
    ("lru_crawler tocrawl {}", OK, U32),
    ("lru_crawler tocrawl {}", FORMAT, NO_U32),
    ("lru_crawler sleep {}", OK, U32),
    ("lru_crawler sleep {}", FORMAT, NO_U32),
    ("lru tune 10 20 {} 2", OK, DOUBLES),
    ("lru tune 10 20 {} 2", ERROR, NO_DOUBLES),
    ("lru tune 10 20 {} 2", "ERROR hot/warm age factors must be greater than 0", FEW),
    ("lru tune 10 20 0.1 {}", OK, DOUBLES),
    ("lru tune 10 20 0.1 {}", ERROR, NO_DOUBLES),
    ("lru tune {} 20 0.1 2", ERROR, NO_U32),
    ("lru tune 10 {} 0.1 2", ERROR, NO_U32),
    ("slabs automove ratio {}", OK, DOUBLES + FEW),
    ("slabs automove ratio {}", ERROR, NO_DOUBLES),
    ("slabs automove freeratio {}", OK, DOUBLES + FEW),
    ("slabs automove freeratio {}", ERROR, NO_DOUBLES),
    ("slabs automove window {}", FORMAT, NO_U32),
    ("slabs automove {}", FORMAT, NO_U32),
    ("slabs reassign {} {}", FORMAT, NO_I32),
    ("slabs reassign {} {}", "SAME src and dst class are identical", ["-", "-0", "-1", "01", "2147483647", "-2147483648"]),
    ("lru temp_ttl {}", OK, ["-", "-0", "-1", "0", "007"]),
    ("lru temp_ttl {}", ERROR, NO_I32),
    ("verbosity {}", FORMAT, NO_U32),
    ("cache_memlimit {}", ERROR, NO_U32),
    ("stats cachedump {} 1", FORMAT, NO_U32),
    ("stats cachedump 1 {}", FORMAT, NO_U32),
    ("incr n {}", "CLIENT_ERROR invalid numeric delta argument", NO_U64),
    ("flush_all {}", "CLIENT_ERROR invalid exptime argument", NO_I32),
    ("flush_all {}", OK, ["-", "-1", "0"]),
    ("touch zz {}", "CLIENT_ERROR invalid exptime argument", NO_I32),
    ("touch zz {}", "NOT_FOUND", ["-", "-1", "0"]),
    ("gat {} zz", "CLIENT_ERROR invalid exptime argument", NO_I32),
    ("gat {} zz", "END", ["-", "-1", "0"]),
    ("mg zz T{}", TOKEN, NO_I32),
    ("mg zz T{}", "EN", ["-", "-1", "0"]),
    ("md zz T{}", "NF", ["-", "-1", "0"]),
    ("ma zz N{} J1", "HD", ["-"]),
    ("set z 0 0 {}\r\n", "STORED", ["-", "-0", "0"]),
    ("ms z {}\r\n", "HD", ["-", "-0", "0"]),
    ("lru_crawler crawl\0x {}", OK, ["1"]),
    ("lru mode flat\0{}", OK, ["x"]),
    ("lru mode fl\0{}", ERROR, ["x"]),
    ("refresh_certs {}", "Error TLS not enabled", ["noreply", "x", "x noreply"]),
    ("extstore {}", ERROR, ["1", "free_memchunks", "free_memchunks 1", "item_size", "free_memchunks a b", "1 2 3"]),
    ("extstore {}", "", ["noreply", "free_memchunks 1 noreply", "x noreply"]),
]  # fmt: skip
OLD = RELEASE < (1, 6, 45)
ALIKE = (
    "lru_crawler crawl {}",
    "lru tune 10 20 {} 2",
    "lru tune 10 20 0.1 {}",
    "slabs automove ratio {}",
    "refresh_certs {}",
)
SINCE_THEN = {"all\0x", "1\x002", "1\0", "1\x00x", "\0", "\x001", "0" * 31 + "1", "+\t1"}
"""1.6.18 knew no NUL, and had room for longer numbers."""


def lines(command: str, reply: str, words: list[str]) -> list[tuple[bytes, str]]:
    return [(command.replace("{}", word).encode("latin-1") + b"\r\n", reply) for word in words]


def check(ask: Callable[[bytes], bytes], line: bytes, reply: str) -> None:
    got = ask(line)
    if reply == "dump":
        assert re.match(rb"OK\r\n((key=k |mg k\r).*)?(END|EN)\r\n\Z", got, re.DOTALL), (line, got)
    else:
        assert got == (reply + "\r\n" if reply else "").encode(), line


@pytest.mark.parametrize(("command", "reply", "words"), TABLE)
def test_an_odd_number_is_answered_so(command: str, reply: str, words: list[str]) -> None:
    for line, expected in lines(command, reply, words):
        wire = Wire(slab_automove=0)
        wire.set(b"k", b"x")
        check(wire.send, line, expected)
        assert wire.ask(b"mn") == b"MN\r\n", "the connection must stay in step"


def of_memcached(client: Client, data: bytes) -> bytes:
    while True:
        client.send(data)
        client.send(b"mn\r\n")
        got = client.until(b"MN\r\n")[:-4]
        if not got.startswith(b"BUSY"):
            return got


@pytest.mark.slow
@pytest.mark.parametrize(("command", "reply", "words"), [row for row in TABLE if not OLD or row[0] in ALIKE])
def test_memcached_answers_so(command: str, reply: str, words: list[str]) -> None:
    with memcached("-o", "slab_automove=0") as address:
        client = Client(address)
        client.command(b"set k 0 0 1\r\nx")
        for line, expected in lines(command, reply, [word for word in words if not OLD or word not in SINCE_THEN]):
            check(lambda data: of_memcached(client, data), line, expected)
        client.close()


@pytest.mark.parametrize(
    ("word", "shown"),
    [("0x1p-1", "0.50"), ("inf", "inf"), ("nan", "nan"), ("-nan", "-nan"), ("1e3", "1000.00"), ("1\t2", "1.00")],
)
def test_settings_show_them_as_c_prints_them(word: str, shown: str) -> None:
    wire = Wire()
    assert wire.ask(b"lru tune 10 20 %s 2" % word.encode()) == b"OK\r\n"
    assert wire.stats(b"settings")["hot_max_factor"] == shown


def test_shares_whose_sum_wraps_are_too_many() -> None:
    """memcached adds them in 32 bits, and takes them: docs/compatibility.md."""
    for shares in (b"4294967295 20", b"10 4294967295"):
        assert Wire().ask(b"lru tune " + shares + b" 0.1 2") == b"ERROR hot and warm pcts must not exceed 80\r\n"
