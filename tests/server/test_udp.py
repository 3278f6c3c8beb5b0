"""UDP: replies beside memcached's, datagram for datagram; what is no request; and how much an unproved sender may be sent."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conftest import Start
from tests.datagrams import HEADER, Datagrams, shown, udp_address
from tests.peer import memcached
from tests.ports import free_ports
from tests.serving import Client, eventually, run_to_end
from tests.stateful.packets import request

KEYS = (b"a", b"b", b"n", b"k" * 200, b"none")


@pytest.fixture
def pair(start: Start) -> Iterator[tuple[Datagrams, Datagrams]]:
    """A client of a server and one of memcached, each with one thread."""
    (port,) = free_ports(1)
    server = start("-U", "-1", "-t", "1")
    with (
        memcached("-U", str(port)) as (host, _),
        closing(Datagrams(udp_address(server))) as ours,
        closing(Datagrams((host, port))) as theirs,
    ):
        yield ours, theirs


EXCHANGE = (
    b"set a 0 0 3\r\nabc\r\n", b"get a\r\n", b"get a\n", b"bogus\r\n", b"set big 0 0 1300\r\n" + b"x" * 1300 + b"\r\n",
    b"get big\r\n", b"get big big big big\r\n", b"set fits 0 0 1365\r\n" + b"y" * 1365 + b"\r\n", b"get fits\r\n",
    b"append fits 0 0 1\r\nz\r\n", b"get fits\r\n", b"set huge 0 0 50000\r\n" + b"0123456789" * 5000 + b"\r\n",
    b"get huge\r\n", b"get a huge a\r\n", b"mg huge v f s\r\n", b"get none a\r\n", b"get none none\r\n", b"get a none\r\n",
    b"get none a none\r\n", b"get a a none none\r\n", b"gat 0 a none a\r\n", b"get " + b"none " * 100 + b"\r\n",
    b"get " + b"a " * 40 + b"\r\n", b"quit\r\n",
    b"set a 0 0 3 noreply\r\nxyz\r\n", b"get a\r\n", b"mg a v t f s k O123 q\r\n", b"mg none v\r\n", b"mg none v q\r\n",
    b"ms m 3\r\nabc\r\n", b"ms m 3 q\r\nabc\r\n", b"incr a 5\r\n", b"touch a 0\r\n", b"gat 0 a\r\n", b"add a 0 0 1\r\n1\r\n",
    b"md m q\r\n", b"verbosity 0\r\n", b"verbosity 0 noreply\r\n", b"flush_all\r\n", b"get a\r\n", b"GET / HTTP/1.0\r\n\r\n",
    b"get a", b"g", b"\x81bogus", b"x" * 3000, b"stats nonsense\r\n", b"lru_crawler enable\r\n", b"cas a 0 0 1 99999\r\n1\r\n",
    request(0, b"none"), request(1, b"b", b"\0" * 8, b"value"), request(0, b"b"), request(0xC, b"b"), request(9, b"none"),
    request(0x11, b"b", b"\0" * 8, b"v"), request(0xA), request(0x17), request(0x55), request(0x10, b"nosuch"),
    request(4, b"none"), request(5, b"num", b"\0" * 7 + b"\1" + b"\0" * 7 + b"\5" + b"\0" * 4), request(0x0D, b"b"),
    request(0, b"b") + b"get a\r\n", request(0, b"b")[:20], request(1, b"big", b"\0" * 8, b"v" * 5000), request(0, b"big"),
)  # fmt: skip
SEVERAL = (
    (b"get a\r\n", b"get a\r\n", b"get none\r\n"), (b"mn\r\n", b"mn\r\n"), (b"set a 0 0 1 noreply\r\n1\r\n", b"get a\r\n"),
    (b"delete none noreply\r\n", b"mg none q\r\n", b"mn\r\n"), (b"incr a 5\r\n", b"touch a 0\r\n", b"gat 0 a\r\n"),
    (b"set big 0 0 2000\r\n" + b"x" * 2000 + b"\r\n", b"get big\r\n", b"get a\r\n", b"get big a\r\n", b"mg big v\r\n"),
    (b"mg none v\r\n", b"ms a 0\r\n\r\n", b"mg a v\r\n", b"md a\r\n", b"ma a N0\r\n"),
    (request(0, b"a"), request(0, b"none"), request(1, b"a", b"\0" * 8, b"v"), request(0xC, b"a"), request(0xA)),
)  # fmt: skip


def joined(ours: Datagrams, theirs: Datagrams, parts: tuple[bytes, ...]) -> None:
    """Several requests in one datagram are answered as memcached answers each alone: together it may lose some of its replies."""
    expected = [answer for part in parts for answer in shown(theirs.ask(part))]
    assert [each[2:] for each in shown(ours.ask(b"".join(parts)))] == [each[2:] for each in expected], parts


@pytest.mark.slow
def test_every_datagram_is_memcacheds(pair: tuple[Datagrams, Datagrams]) -> None:
    ours, theirs = pair
    for data in EXCHANGE:
        answers = theirs.ask(data)
        assert shown(ours.ask(data)) == shown(answers), data[:100]
    for parts in SEVERAL:
        joined(ours, theirs, parts)


def test_behind_a_key_that_is_too_long_comes_an_empty_line(start: Start) -> None:
    """As 1.6.45 answers; 1.6.18 leaves the line out, in datagrams and elsewhere."""
    server = start("-U", "-1", "-t", "1")
    with closing(Datagrams(udp_address(server))) as client:
        for verb in (b"get ", b"gets ", b"get a ", b"gat 0 "):
            answers = client.ask(verb + b"k" * 251 + b"\r\n")
            assert [each[HEADER.size :] for each in answers] == [b"CLIENT_ERROR bad command line format\r\n\r\n"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "head", [b"\0\1\0\0\0\2\0\0", b"\0\1\0\1\0\2\0\0", b"\0\1\0\0\0\0\0\0", b"\0\1\0\5\0\1\0\0",
     b"\0\1\0\0\0\1\0\7", b"\0\1\0\0\1\1\0\0"]
)  # fmt: skip
def test_odd_headers_are_treated_as_by_memcached(pair: tuple[Datagrams, Datagrams], head: bytes) -> None:
    """A request in several datagrams is dropped; what memcached doesn't look at is not looked at here."""
    ours, theirs = pair
    assert ours.ask(b"get a\r\n", head) == theirs.ask(b"get a\r\n", head)
    for short in (b"", b"\0\1\0", head):
        assert ours.ask(b"", short) == theirs.ask(b"", short) == []


def some_requests(chance: random.Random) -> tuple[bytes, ...]:
    """Whole requests for one datagram."""
    pick, key = chance.choice, chance.choice(KEYS)
    value = pick(
        (b"", b"1", b"42", b"x" * 30, b"y" * 1360, b"z" * 3000, bytes(chance.randrange(256) for _ in range(20)))
    )
    what = chance.randrange(11)
    if what == 0:
        return (pick((b"get ", b"gat 0 ")) + b" ".join(pick(KEYS) for _ in range(chance.randrange(1, 6))) + b"\r\n",)
    if what == 1:
        extras = b"\0" * 8
        return (
            pick((request(pick((0, 0xC, 9, 4, 0xA, 0x0D)), key), request(pick((1, 2, 3, 0x11)), key, extras, value))),
        )
    count = chance.randrange(1, 5)
    parts = []
    for _ in range(count):
        quiet, q = pick((b"", b"", b" noreply")), pick((b"", b"", b" q"))
        verb = pick((b"set", b"set", b"add", b"replace", b"append", b"prepend"))
        parts.append(
            pick((
                b"%b %b 7 0 %d%b\r\n%b\r\n" % (verb, key, len(value), quiet, value),
                b"%b %b 7 0 %d%b\r\n%b\r\n" % (verb, key, len(value), quiet, value),
                b"get %b\r\n" % key, b"mg %b v s t\r\n" % key, b"mg %b k%b\r\n" % (key, q), b"md %b%b\r\n" % (key, q),
                b"delete %b%b\r\n" % (key, quiet), b"incr %b 3%b\r\n" % (key, quiet), b"touch %b 0%b\r\n" % (key, quiet),
                b"ms %b %d T0 O7 k\r\n%b\r\n" % (key, len(value), value), b"ma %b v N0 J5\r\n" % key,
            ))
        )  # fmt: skip
    return tuple(parts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_requests_are_answered_as_by_memcached(pair: tuple[Datagrams, Datagrams], seed: int) -> None:
    ours, theirs = pair
    chance = random.Random(seed)
    for _ in range(1000):
        joined(ours, theirs, some_requests(chance))


def test_a_value_that_does_not_come_is_forgotten(start: Start) -> None:
    """memcached takes it from whatever datagram comes next, also from somebody else's."""
    server = start("-U", "-1", "-t", "1")
    with closing(Datagrams(udp_address(server))) as client:
        for torn in (
            b"set a 0 0 10\r\nabc",
            b"set a 0 0 2000000\r\nabc",
            b"ms a 10\r\n",
            request(1, b"a", b"\0" * 8, b"long")[:-2],
        ):
            answers = client.ask(torn)
            assert answers in ([], [answer(client, b"SERVER_ERROR object too large for cache\r\n")])
            assert client.text(b"get a\r\n") == b"END\r\n"
    stats = server.connect().stats()
    assert (stats["unfinished_bytes"], stats["read_buf_bytes"]) == ("0", "0")


def answer(client: Datagrams, text: bytes) -> bytes:
    return HEADER.pack(client.number, 0, 1, 0) + text


def test_administration_and_figures(start: Start) -> None:
    server = start("-U", "-1", "-t", "2", "-A")
    tcp = server.connect()
    with closing(Datagrams(udp_address(server))) as client:
        client.socket.send(HEADER.pack(7, 0, 1, 0) + b"stats\r\n")
        parts = [client.socket.recv(2000)]
        total = HEADER.unpack_from(parts[0])[2]
        parts += [client.socket.recv(2000) for _ in range(total - 1)]
        assert [HEADER.unpack_from(part) for part in parts] == [(7, number, total, 0) for number in range(total)]
        assert {len(part) for part in parts[:-1]} == {1400}
        text = b"".join(part[8:] for part in parts)
        assert text.startswith(b"STAT pid ")
        assert text.endswith(b"END\r\n")
        assert client.one(b"watch\r\n") == b"ERROR\r\n"
        before = tcp.stats()
        client.socket.send(HEADER.pack(1, 0, 2, 0) + b"get a\r\n")
        eventually(lambda: int(tcp.stats()["udp_dropped"]) == int(before["udp_dropped"]) + 1)
        assert client.one(b"set a 0 0 1\r\n1\r\n") == b"STORED\r\n"
        assert client.one(b"get a\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
        after = tcp.stats()
        gained = {
            name: int(after[name]) - int(before[name])
            for name in ("cmd_get", "cmd_set", "get_hits", "udp_requests", "udp_dropped")
        }
        assert gained == {"cmd_get": 1, "cmd_set": 1, "get_hits": 1, "udp_requests": 3, "udp_dropped": 1}
        assert int(after["curr_connections"]) == 3, (
            "a UDP socket for each thread, this client; one listener is left out"
        )
        conns = tcp.stats("conns")
        assert [value for name, value in conns.items() if name.endswith(":UDP")] == ["UDP", "UDP"]
        assert sum(value == f"udp:127.0.0.1:{client.socket.getpeername()[1]}" for value in conns.values()) == 2
        tcp.command(b"stats reset")
        assert int(tcp.stats()["udp_requests"]) == 0
        client.socket.send(HEADER.pack(1, 0, 1, 0) + b"shutdown\r\n")
        assert server.end() == 0


def test_bytes_are_counted_as_by_memcached(start: Start) -> None:
    (port,) = free_ports(1)
    server = start("-U", "-1", "-t", "1")
    grown = []
    with memcached("-U", str(port)) as address:
        for tcp, udp in ((server.connect(), udp_address(server)), (Client(address), (address[0], port))):
            with closing(tcp), closing(Datagrams(udp)) as client:
                before = tcp.stats()
                client.ask(b"set a 0 0 3000\r\n%b\r\n" % (b"x" * 3000))
                client.ask(b"get a\r\n")
                after = tcp.stats()
                grown.append(int(after["bytes_read"]) - int(before["bytes_read"]))
    assert grown[0] == grown[1]


def other_address() -> str:
    """An address of this machine that others could reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("everywhere", [True, False])
def test_no_answer_is_much_longer_than_its_request(start: Start, everywhere: bool) -> None:
    """Whoever writes another's address as the sender's gains a factor of 10 at most, unless the socket is loopback's."""
    where = "0.0.0.0" if everywhere else other_address() or "0.0.0.0"
    server = start("-l", where, "-U", "-1", "-t", "1")
    host = "127.0.0.1" if where == "0.0.0.0" else where
    _, port = udp_address(server)
    with closing(Datagrams((host, port))) as client:
        client.ask(b"set a 0 0 200\r\n%b\r\n" % (b"x" * 200))
        client.ask(b"set b 0 0 5000\r\n%b\r\n" % (b"y" * 5000))
        refused = answer(client, b"SERVER_ERROR reply too large for UDP\r\n")[2:]
        for data in (
            b"get a\r\n", b"get b\r\n", b"get b b b b b b\r\n", b"get a a a a a\r\n", b"get b\r\n" * 5, b"stats\r\n",
            b"stats settings\r\n", b"get b" + b" " * 500 + b"\r\n", b"get b" + b" " * 600 + b"\r\n",
            b"mg b v\r\n", request(0, b"b"), b"get none none\r\n", b"\r\n", b"q\n", b"get " + b"none " * 30 + b"\r\n",
        ):  # fmt: skip
            answers = client.ask(data)
            assert sum(map(len, answers)) <= 10 * (8 + len(data)), data
            if data in (b"get b\r\n", b"stats\r\n", b"mg b v\r\n"):
                assert [each[2:] for each in answers] == [refused]
        client.socket.send(HEADER.pack(9, 0, 1, 0) + b"lru_crawler metadump all\r\n")
        assert len(client.socket.recv(2000)) <= 10 * 34
        assert client.text(b"get a" + b" " * 20 + b"\r\n").startswith(b"VALUE a")
        assert len(client.ask(b"get b" + b" " * 600 + b"\r\n")) == 4, "a longer request may have a longer answer"
        binary = client.ask(request(0, b"b", opaque=77))
        assert [each[8:12] + each[14:16] + each[20:24] for each in binary] == [b"\x81\0\0\0\0\3\0\0\0\x4d"]


@pytest.mark.slow
def test_two_servers_never_answer_each_other(start: Start) -> None:
    """What comes from the server's own port is another server's, or claims to be."""
    (port,) = free_ports(1)
    start("-l", "127.0.0.1", "-p", "-1", "-U", str(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, closing(Datagrams(("127.0.0.1", port))) as client:
        other.bind(("127.0.0.2", port))
        other.sendto(HEADER.pack(1, 0, 1, 0) + b"ERROR\r\n", ("127.0.0.1", port))
        other.settimeout(0.2)
        client.until_barrier()
        with pytest.raises(TimeoutError):
            other.recv(100)


@pytest.mark.slow
def test_addresses_as_memcacheds(start: Start) -> None:
    first, second = free_ports(2)
    server = start("-l", f"127.0.0.1:{first}", "-p", "-1", "-U", str(second))
    assert f"udp:127.0.0.1:{first}" in server.log(), "a port in -l is for both, as in memcached"
    alone = run_to_end("-u", "root", "-S", "-U", "11211", environment={"MEMCACHED_SASL_PWDB": "/etc/hosts"})
    assert (alone.returncode, alone.stderr) == (
        64,
        "ERROR: Cannot enable UDP while using binary SASL authentication.\n",
    )
    alone = run_to_end("-u", "root", "-Y", "/etc/hosts", "-U", "11211")
    assert (alone.returncode, alone.stderr) == (
        64,
        "Cannot use UDP with ascii authentication enabled (-U 0 to disable)\n",
    )
    assert run_to_end("-u", "root", "-U", "70000").returncode == 64


@pytest.mark.slow
def test_udp_alone(start: Start, tmp_path: object) -> None:
    (port,) = free_ports(1)
    server = start("-l", "127.0.0.1", "-p", str(port), "-U", str(port))
    taken = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", str(port))
    assert taken.returncode == 71
    assert f"failed to listen on UDP port {port}" in taken.stderr
    assert f"TCP INET: {port}\nUDP INET: {port}\n" == server.port_file.read_text()


def total_of_first(client: Datagrams, data: bytes) -> tuple[int, bytes]:
    """How many datagrams the answer has, and the first one's bytes. Those that the socket has no room for are lost."""
    client.number += 1
    client.socket.send(HEADER.pack(client.number, 0, 1, 0) + data)
    while True:
        first = client.socket.recv(1 << 16)
        if HEADER.unpack_from(first)[0] == client.number:
            return HEADER.unpack_from(first)[2], first[HEADER.size :]


@pytest.mark.slow
def test_an_answer_longer_than_a_turn(start: Start) -> None:
    """What is sent of a large value before others have their turn is no end: the rest comes at the next one."""
    server = start("-U", "-1", "-t", "1", "-m", "128", "-I", "24m")
    tcp = server.connect()
    assert tcp.command(b"set v 0 0 6000000\r\n" + b"v" * 6_000_000) == b"STORED\r\n"
    assert tcp.command(b"set w 0 0 17000000\r\n" + b"w" * 17_000_000) == b"STORED\r\n"
    head, too_long = b"VALUE v 0 6000000\r\n", b"SERVER_ERROR reply too large for UDP\r\n"
    with closing(Datagrams(udp_address(server))) as client:
        total, body = total_of_first(client, b"get v\r\n")
        assert total == -(-(len(head) + 6_000_000 + len(b"\r\nEND\r\n")) // 1392)
        assert body == head + b"v" * (1392 - len(head))
        assert total_of_first(client, b"get w\r\n") == (1, too_long)
    assert tcp.stats()["read_buf_bytes"] == "0"


@pytest.mark.slow
def test_answers_have_no_memory_without_end(start: Start) -> None:
    server = start("-U", "-1", "-t", "1", "-I", "4m", "-o", "read_buf_mem_limit=1")
    tcp = server.connect()
    assert tcp.command(b"set v 0 0 3000000\r\n" + b"v" * 3_000_000) == b"STORED\r\n"
    with closing(Datagrams(udp_address(server))) as client:
        assert total_of_first(client, b"get v\r\n") == (1, b"SERVER_ERROR reply too large for UDP\r\n")
        assert client.text(b"mn\r\n") == b"MN\r\n"
    assert tcp.stats()["read_buf_bytes"] == "0"


@pytest.mark.slow
def test_a_flood_and_junk(start: Start) -> None:
    """Datagrams of any content: the server goes on, and keeps nothing of them."""
    server = start("-U", "-1", "-t", "2")
    chance = random.Random(3)
    tcp = server.connect()
    with closing(Datagrams(udp_address(server))) as client:
        for n in range(3000):
            data = chance.randbytes(chance.randrange(60)) if n % 3 else b"".join(some_requests(chance))
            head = HEADER.pack(n, 0, 1, 0) if n % 2 else chance.randbytes(chance.randrange(9))
            if b"shutdown" not in data:
                client.socket.send(head + data[: chance.randrange(len(data) + 1)])
            if n % 100 == 0:
                assert tcp.command(b"mn") == b"MN\r\n"
        eventually(lambda: (stats := tcp.stats())["unfinished_bytes"] == stats["read_buf_bytes"] == "0")
        stats = tcp.stats()
    assert int(stats["udp_requests"]) > 1000
