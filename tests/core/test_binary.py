"""The binary protocol in the core: what only mcserver knows (gate, holds, locks, hold-off), large values, logins, the trace.

That its answers are memcached's, tests/stateful/test_binary_against_memcached.py and conformance/ say.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from mcserver.core import Session
from tests.core.harness import Client, RecordingOwner, fresh
from tests.stateful import packets as b
from tests.stateful.packets import Reply, replies, request

PLAIN = b.STORE.pack(0, 0)
ONE = b.ARITHMETIC.pack(1, 7, 0)
NEVER = b.ARITHMETIC.pack(1, 7, 0xFFFFFFFF)
STALE = (0x86, b"stale")
MISS = (1, b"Not found")


def ask(client: Client, *packets: bytes) -> list[Reply]:
    """Replies to some requests that are sent at once."""
    got, rest = replies(client.send(b"".join(packets)))
    assert not rest
    return got


def said(reply: Reply) -> tuple[int, bytes]:
    return reply.status, reply.value


def stocked(**options: object) -> Client:
    client = fresh(**options)
    assert ask(client, request(b.SET, b"a", PLAIN, b"1"))[0].status == 0
    return client


DATA = [
    *(request(opcode, b"a") for opcode in (b.GET, b.GETQ, b.GETK, b.GETKQ)),
    *(request(opcode, b"a", b"\0\0\0\0") for opcode in (b.TOUCH, b.GAT, b.GATQ, b.GATK, b.GATKQ)),
    *(request(opcode, b"a", PLAIN, b"2") for opcode in (b.SET, b.SETQ, b.ADD, b.REPLACE)),
    *(request(opcode, b"a", b"", b"2") for opcode in (b.APPEND, b.PREPEND)),
    *(request(opcode, b"a", ONE) for opcode in (b.INCREMENT, b.DECREMENT)),
]


@pytest.mark.parametrize("packet", DATA)
def test_a_gate_that_answers_errors(packet: bytes) -> None:
    client = stocked()
    client.engine.set_gate("error", 0)
    assert [said(reply) for reply in ask(client, packet, request(b.NOOP))] == [STALE, (0, b"")]
    client.engine.set_gate(None)
    assert ask(client, request(b.GET, b"a"))[0].value == b"1", "a refused request has no effect"


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (request(b.GET, b"a"), [MISS]),
        (request(b.GETQ, b"a"), []),
        (request(b.GAT, b"a", b"\0\0\0\0"), [MISS]),
        (request(b.SET, b"a", PLAIN, b"2"), [(5, b"Not stored.")]),
        (request(b.SET, b"a", PLAIN, b"2", cas=9), [MISS]),
        (request(b.REPLACE, b"a", PLAIN, b"2"), [MISS]),
        (request(b.INCREMENT, b"a", NEVER), [MISS]),
        (request(b.INCREMENT, b"n", ONE), [MISS]),
        (request(b.DELETE, b"z"), [MISS]),
    ],
)
def test_a_gate_that_answers_as_an_empty_cache(packet: bytes, expected: list[tuple[int, bytes]]) -> None:
    client = stocked()
    client.engine.set_gate("miss", 0)
    assert [said(reply) for reply in ask(client, packet, request(b.NOOP))] == [*expected, (0, b"")]
    client.engine.set_gate(None)
    assert [reply.value for reply in ask(client, request(b.GET, b"a"), request(b.GETQ, b"n"))] == [b"1"]


def test_a_remote_delete_holds_off_plain_stores() -> None:
    client = stocked()
    client.engine.hold_off(60_000)
    client.engine.delete(b"a")
    assert said(ask(client, request(b.SET, b"a", PLAIN, b"2"))[0]) == (5, b"Not stored.")
    assert said(ask(client, request(b.INCREMENT, b"a", ONE))[0]) == (5, b"Not stored.")
    assert said(ask(client, request(b.GET, b"a"))[0]) == MISS


# Held replies


def holding() -> Client:
    client = stocked()
    client.engine.broadcast(True, (b"w:",))
    client.owner.hold = True
    return client


def test_deletes_and_flushes_are_told_and_held() -> None:
    client = holding()
    flush = request(b.FLUSH, extras=(30).to_bytes(4, "big"), opaque=3)
    assert [reply.value for reply in ask(client, request(b.GET, b"a"), request(b.DELETE, b"a", opaque=2), flush)] == [
        b"1"
    ]
    assert client.owner.batches == [[("delete", b"a", 1, -1), ("flush_later", b"30", 2, 30)]]
    client.session.release()
    assert [reply.opaque for reply in replies(client.session.drain())[0]] == [2, 3]


def test_what_is_not_confirmed_is_a_binary_error_in_its_place() -> None:
    client = holding()
    packets = [request(b.NOOP, opaque=1), request(b.DELETE, b"a", opaque=2), request(b.GETK, b"z", opaque=3)]
    before = ask(client, *packets, request(b.DELETE, b"b", opaque=4), request(b.NOOP, opaque=5))
    client.session.release(errors={1: b"SERVER_ERROR not confirmed\r\n"})
    got = before + replies(client.session.drain())[0]
    assert [(each.opcode, each.opaque, *said(each)) for each in got] == [
        (b.NOOP, 1, 0, b""),
        (b.DELETE, 2, 0x86, b"not confirmed"),
        (b.GETK, 3, 1, b""),
        (b.DELETE, 4, 1, b"Not found"),
        (b.NOOP, 5, 0, b""),
    ]


def test_a_quiet_delete_is_told_but_has_no_reply_to_hold() -> None:
    client = holding()
    assert (
        ask(client, request(b.DELETEQ, b"a"), request(b.SETQ, b"w:x", PLAIN, b"1"), request(b.NOOP))[0].opcode == b.NOOP
    )
    assert client.owner.batches == [[("delete", b"a", -1, -1), ("write", b"w:x", -1, -1)]]


# Locked writes

LOCKED = [
    request(b.SET, b"l:a", PLAIN, b"new"),
    request(b.APPEND, b"l:a", b"", b"new"),
    request(b.DELETE, b"l:a"),
    request(b.INCREMENT, b"l:n", ONE),
    request(b.SET, b"l:a", PLAIN, b"new", cas=77),
]


@pytest.mark.parametrize("packet", LOCKED)
@pytest.mark.parametrize("dribbled", [False, True])
def test_a_locked_write_waits_for_its_lock(packet: bytes, dribbled: bool) -> None:
    client, free = fresh(), fresh()
    for each in (client, free):
        ask(each, request(b.SET, b"l:a", PLAIN, b"old"), request(b.SET, b"l:n", PLAIN, b"1"))
    client.engine.lock_prefixes([b"l:"])
    sent = packet + request(b.NOOP)
    assert (client.dribble(sent) if dribbled else client.send(sent)) == b""
    assert client.owner.locks == [packet[24 + packet[4] :][:3]]
    other = Client(client.engine)
    assert [reply.value for reply in ask(other, request(b.GET, b"l:a"), request(b.GET, b"l:n"))] == [b"old", b"1"]
    client.session.grant()
    assert client.session.drain() + client.settle() == free.send(sent)
    assert other.send(request(b.GET, b"l:a") + request(b.GET, b"l:n")) == free.send(
        request(b.GET, b"l:a") + request(b.GET, b"l:n")
    )


@pytest.mark.parametrize("packet", LOCKED)
def test_a_lost_lock_is_a_binary_error_and_no_effect(packet: bytes) -> None:
    client = fresh()
    client.engine.lock_prefixes([b"l:"])
    assert client.send(packet + request(b.NOOP)) == b""
    client.session.refuse(b"SERVER_ERROR lock lost\r\n")
    got, _ = replies(client.session.drain() + client.settle())
    assert [said(reply) for reply in got] == [(0x86, b"lock lost"), (0, b"")]
    assert ask(client, request(b.GETQ, b"l:a"), request(b.GETQ, b"l:n")) == []


# Values


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000, 1_000_000])
def test_values_of_all_sizes_over_a_socket(size: int) -> None:
    """The value is received straight into its item, with nothing behind it."""
    client = fresh()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        session = Session(client.engine, RecordingOwner(client.engine), near.fileno())
        value = bytes(i * 7 % 251 for i in range(size))
        sent = request(b.SET, b"v", PLAIN, value)
        got = b""
        at = far.send(sent[:30])
        while at < len(sent):
            session.readable()
            with contextlib.suppress(BlockingIOError):  # full: it reads little before it knows where a long value goes
                at += far.send(sent[at:])
        for _ in range(3):
            session.readable()
        far.send(request(b.GET, b"v", opaque=5) + request(b.NOOP))
        session.readable()
        for _ in range(1000):
            try:
                got += far.recv(1 << 20)
            except BlockingIOError:
                session.writable()
            found, rest = replies(got)
            if found and found[-1].opcode == b.NOOP:
                break
        session.close()
    assert not rest
    assert [(reply.opcode, reply.status) for reply in found] == [(b.SET, 0), (b.GET, 0), (b.NOOP, 0)]
    assert found[1].value == value


def test_a_large_value_among_others() -> None:
    client = stocked()
    ask(client, request(b.SET, b"v", PLAIN, b"L" * 300_000))
    got = ask(
        client, request(b.GETK, b"v"), request(b.GET, b"a"), request(b.GETKQ, b"v"), request(b.TOUCH, b"v", b"\0\0\0\0")
    )
    assert [len(reply.value) for reply in got] == [300_000, 1, 300_000, 0]


def test_without_memory_a_store_is_refused_with_0x82() -> None:
    client = fresh(memory_limit=2 << 20, evictions=False)
    stored = refused = 0
    for i in range(60):
        (reply,) = ask(client, request(b.SET, b"k%d" % i, PLAIN, b"x" * 100_000))
        stored += reply.status == 0
        if reply.status:
            refused += 1
            assert said(reply) == (0x82, b"Out of memory allocating item")
    assert stored
    assert refused
    assert ask(client, request(b.NOOP))[0].status == 0, "the value was skipped"


@pytest.mark.parametrize("size", [251, 65_535])
def test_a_key_that_is_too_long_closes_the_connection(size: int) -> None:
    client = fresh()
    assert [said(reply) for reply in ask(client, request(b.GET, b"k" * size))] == [(4, b"Invalid arguments")]
    assert client.close_reason == "error"


# Statistics

LINES = b"".join(b"STAT key%d value %d\r\n" % (i, i) for i in range(6000)) + b"END\r\n"


@pytest.mark.parametrize("streamed", [False, True])
def test_long_statistics_become_packets(streamed: bool) -> None:
    client = fresh()
    lines = LINES.splitlines(keepends=True)
    pieces = [b"".join(lines[at : at + 500]) for at in range(0, len(lines), 500)]
    client.owner.commands[b"stats"] = lambda _session, _line: iter(pieces) if streamed else LINES
    got = ask(client, request(b.STAT, b"items", opaque=9), request(b.NOOP))
    assert [(reply.key, reply.value) for reply in got[:-2]] == [(b"key%d" % i, b"value %d" % i) for i in range(6000)]
    assert got[-2] == Reply(b.STAT, 0, 9, 0, b"", b"", b"")
    assert got[-1].opcode == b.NOOP


def test_which_statistics_there_are() -> None:
    client = fresh()
    asked: list[bytes] = []

    def note(_session: Session, line: bytes) -> bytes:
        asked.append(line)
        return b"RESET\r\n"

    client.owner.commands[b"stats"] = note
    for key in (b"", b"reset", b"resetting", b"settings", b"items", b"detail on", b"mrc"):
        assert said(ask(client, request(b.STAT, key))[0]) == (0, b""), key
    assert asked == [
        b"stats",
        b"stats reset",
        b"stats reset",
        b"stats settings",
        b"stats items",
        b"stats detail on",
        b"stats mrc",
    ]
    for key in (b"item", b"r", b"c", b"conns", b"cachedump 1 1", b"detail"):
        assert said(ask(client, request(b.STAT, key))[0]) == MISS, key


# Logins


def sasl() -> Client:
    client = fresh()
    client.engine.require_login("sasl", [(b"alice", b"secret"), (b"bob", b"")])
    return Client(client.engine)


def auth(
    client: Client, said_by_client: bytes, opcode: int = b.SASL_AUTH, mechanism: bytes = b"PLAIN"
) -> tuple[int, bytes]:
    return said(ask(client, request(opcode, mechanism, b"", said_by_client))[0])


def test_sasl_lets_in_who_is_known() -> None:
    client = sasl()
    assert said(ask(client, request(b.SASL_LIST))[0]) == (0, b"PLAIN")
    assert auth(client, b"\0alice\0secret") == (0, b"Authenticated")
    assert said(ask(client, request(b.GET, b"a"))[0]) == MISS
    assert auth(sasl(), b"alice\0alice\0secret") == (0, b"Authenticated")
    assert auth(sasl(), b"\0bob\0") == (0, b"Authenticated")


@pytest.mark.parametrize(
    "wrong",
    [b"\0alice\0", b"\0alice\0secre", b"\0alice\0secrets", b"\0bob\0secret", b"\0\0secret", b"bob\0alice\0secret", b"alice",
     b"\0alice", b"\0alice\0secret\0", b"\0alic\0esecret", b"\0" * 300],
)  # fmt: skip
def test_sasl_lets_in_nobody_else(wrong: bytes) -> None:
    client = sasl()
    assert auth(client, wrong) == (0x20, b"Auth failure.")
    assert client.owner.batches == [[("login_failed", b"", 0, -1)]], "the owner may hold the answer back"
    stats = client.engine.stats()
    assert (stats["auth_cmds"], stats["auth_errors"]) == (1, 1)
    assert said(ask(client, request(b.GET, b"a"))[0]) == (0x20, b"Auth failure.")
    assert client.close_reason == "error"


def test_sasl_in_steps() -> None:
    client = sasl()
    assert auth(client, b"\0alice\0secret", b.SASL_STEP) == (0x20, b"Auth failure."), "there was no start"
    assert auth(client, b"") == (0x21, b"")
    assert auth(client, b"\0alice\0secret", b.SASL_STEP) == (0, b"Authenticated")
    assert said(ask(client, request(b.SASL_LIST))[0]) == (0, b"PLAIN")
    assert said(ask(client, request(b.GET, b"a"))[0]) == (0x20, b"Auth failure."), "who asks for mechanisms begins anew"


def test_sasl_of_other_mechanisms_and_sizes() -> None:
    client = sasl()
    assert auth(client, b"x", mechanism=b"CRAM-MD5") == (0x20, b"Auth failure.")
    assert auth(client, b"x", mechanism=b"M" * 33) == (4, b"Invalid arguments")
    assert auth(client, b"x" * 900_000) == (4, b"Invalid arguments")
    assert auth(client, b"\0alice\0secret") == (0, b"Authenticated")
    assert client.engine.stats()["curr_items"] == 0


def test_users_are_pairs_of_bytes() -> None:
    client = fresh()
    with pytest.raises(ValueError, match="ascii, sasl or None"):
        client.engine.require_login("oauth", [])
    client.engine.require_login("ascii", [])
    assert Client(client.engine).send(b"set x 0 0 3\r\na b\r\n") == b"CLIENT_ERROR authentication failure\r\n"
    client.engine.require_login(None)
    assert Client(client.engine).get(b"a") is None


# The trace


def test_the_trace_shows_headers_and_no_password() -> None:
    client = sasl()
    client.engine.verbosity = 2
    assert auth(client, b"\0alice\0secret") == (0, b"Authenticated")
    lines = b"\n".join(client.owner.traces)
    header = struct.pack("!BBH", 0x80, b.SASL_AUTH, 5).hex().encode()
    assert lines.startswith(b"<-1 binary " + header)
    assert b">-1 binary 8121" in lines
    assert b"secret" not in lines
    assert b"secret".hex().encode() not in lines.replace(b" ", b"")
