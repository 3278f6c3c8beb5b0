"""The session: framing, order, quiet commands, limits. Any bytes give replies, a documented error or a closed connection."""

import random

import pytest

from tests.core.harness import MIB, Client, fresh

BAD_LINE = b"CLIENT_ERROR bad command line format\r\n"

CONVERSATION = (
    b"set a 5 0 3\r\nabc\r\nget a\r\ngets a b\r\nadd a 0 0 1\r\nx\r\nappend a 0 0 2 \r\nde\r\nmg a s v f k Oxyz\r\n"
    b"ms m 4 T0 c\r\n\r\n\r\n\r\nmg m v\r\nincr n 1\r\nset n 0 0 1\r\n9\r\nincr n 1\r\ndecr n 100\r\nma n v\r\nmn\r\n"
    b"bogus\r\n\r\nset bad 0 0 3\r\nabcdef\r\nset big 0 0 1048577\r\n" + b"y" * 1048577 + b"\r\nget big\r\n"
    b"set q 0 0 2 noreply\r\nhi\r\ndelete q noreply\r\ndelete q\r\nget " + b" ".join(b"k%d" % i for i in range(700)) + b"\r\n"
    b"ms x\r\nms x 2 Tz\r\nhi\r\nget " + b"k" * 251 + b"\r\ntouch a 100\r\ngat 50 a\r\nmg a t q\r\nmg none q\r\nme none\r\n"
    b"flush_all\r\nget a\r\nversion\r\n"
)  # fmt: skip


def test_any_split_gives_the_same_replies() -> None:
    whole = fresh().send(CONVERSATION)
    assert whole.count(b"\r\n") > 35
    short = CONVERSATION.replace(b"y" * 1048577, b"y" * 1500).replace(b"1048577", b"1500")
    small = {"item_size_max": 1024}
    assert fresh(**small).dribble(short) == fresh(**small).send(short)
    for seed in range(20):
        client, rest, out, dice = fresh(), CONVERSATION, b"", random.Random(seed)
        while rest:
            cut = dice.choice((1, 2, 3, 10, 100, 4000, 70_000))
            out += client.send(rest[:cut])
            rest = rest[cut:]
        assert out == whole


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_both_line_ends(end: bytes) -> None:
    client = fresh()
    assert client.send(b"set a 0 0 1%bx\r\nget a%b" % (end, end)) == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"


@pytest.mark.parametrize("line", [b"\r\n", b"\n", b" \n", b"a\r\n", b"mn\n"])
def test_short_lines_are_errors(line: bytes) -> None:
    client = fresh()
    assert client.send(line) == BAD_LINE
    assert client.send(b"mn\r\n") == b"MN\r\n"


@pytest.mark.parametrize("start", [b"x", b"ge", b"set k 0 0 1", b" " * 101 + b"get a", b"gat 0 ", b"mg "])
def test_a_long_line_without_an_end_closes(start: bytes) -> None:
    client = fresh()
    assert client.send(start + b"x" * (2048 - len(start))) == b""
    assert not client.is_closed
    assert client.send(b"x") == b""
    assert client.close_reason in {"error", "normal"}


@pytest.mark.parametrize("start", [b"get ", b"gets ", b"  get "])
def test_but_a_get_may_be_long(start: bytes) -> None:
    client = fresh()
    client.set(b"k9999", b"x")
    line = start.lstrip() if start.strip() == b"gets" else start
    request = line + b" ".join(b"k%d" % i for i in range(20_000)) + b"\r\n"
    reply = client.dribble(request[:5000]) + client.send(request[5000:])
    if start.startswith(b" "):
        assert reply == b"ERROR\r\n"
    else:
        assert reply.startswith(b"VALUE k9999 0 1")
        assert reply.endswith(b"\r\nx\r\nEND\r\n")


def test_a_multiget_of_a_million_keys() -> None:
    client = fresh()
    client.set(b"1", b"x")
    reply = b""
    reply += client.send(b"get ")
    for _ in range(1000):
        reply += client.send(b"1 " * 1000)
    reply += client.send(b"\r\n")
    assert reply == b"VALUE 1 0 1\r\nx\r\n" * 1_000_000 + b"END\r\n"


def test_replies_come_in_the_order_of_the_commands() -> None:
    client = fresh()
    batch = b"".join(b"set k%d 0 0 %d\r\n%d\r\nget k%d\r\nmn\r\n" % (i, len(str(i)), i, i) for i in range(5000))
    expected = b"".join(b"STORED\r\nVALUE k%d 0 %d\r\n%d\r\nEND\r\nMN\r\n" % (i, len(str(i)), i) for i in range(5000))
    assert client.send(batch) == expected


def test_quit_ends_after_what_came_before() -> None:
    client = fresh()
    assert client.send(b"mn\r\nmn\r\nquit\r\nmn\r\n") == b"MN\r\nMN\r\n"
    assert client.close_reason == "normal"
    assert client.send(b"mn\r\n") == b""


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"x HTTP/2\r\n"])
def test_http_among_commands_is_shown_the_door(line: bytes) -> None:
    client = fresh()
    assert client.send(b"mn\r\n") == b"MN\r\n"
    assert client.send(line + b"Host: a\r\n\r\n") == b""
    assert client.close_reason == "error"


@pytest.mark.parametrize(
    "line",
    [b"set a 0 0 -1\r\n", b"set a 0 0 2147483646\r\n", b"set a 0 0 99999999999\r\n", b"set a 0 0 +1\r\n", b"set a 0 0\r\n",
     b"ms a -1\r\n", b"ms a\r\n", b"ms a 2147483648\r\n"],
)  # fmt: skip
def test_a_line_without_a_length_swallows_nothing(line: bytes) -> None:
    assert fresh().send(line + b"mn\r\n") == BAD_LINE + b"MN\r\n"


@pytest.mark.parametrize("verb", [b"set a 0 0 2147483645", b"append a 0 0 2147483645", b"ms a 2147483645"])
def test_two_gigabytes_are_refused_and_skipped_without_being_kept(verb: bytes) -> None:
    client = fresh()
    assert client.send(verb + b"\r\n") == b"SERVER_ERROR object too large for cache\r\n"
    for _ in range(64):
        assert client.send(b"get a\r\n" * (MIB // 7)) == b""
    assert not client.is_closed


def test_a_refused_value_is_skipped_to_the_byte() -> None:
    client = fresh(item_size_max=1024)
    line = b"set a 0 0 2000\r\n" + b"z" * 2000 + b"\r\nmn\r\n"
    assert client.dribble(line) == b"SERVER_ERROR object too large for cache\r\nMN\r\n"
    assert client.send(b"set a 0 0 2000 noreply\r\n" + b"z" * 2000 + b"\r\nmn\r\n") == b"MN\r\n"


def test_noreply_and_quiet_keep_silent_but_for_what_they_must_say() -> None:
    client = fresh()
    silent = (b"set a 0 0 1 noreply\r\n1\r\nadd a 0 0 1 noreply\r\n1\r\nincr a 1 noreply\r\ntouch a 0 noreply\r\n"
              b"incr none 1 noreply\r\ndelete none noreply\r\nms a 1 q\r\n1\r\nmg none q v\r\nmd a q\r\nbogus noreply\r\n"
              b"set a 0 0 1 noreply\r\n1\r\nma a q v\r\n")  # fmt: skip
    assert client.send(silent + b"mn\r\n") == b"MN\r\n"
    loud = b"mg a q v\r\nmd none q\r\nms a 1 ME q\r\n1\r\nma none q\r\nmg a q z\r\nset a noreply\r\n"
    assert client.send(loud) == b"VA 1\r\n2\r\nNF\r\nNS\r\nNF\r\nCLIENT_ERROR invalid flag\r\n" + BAD_LINE


def test_a_bad_chunk_leaves_the_old_value() -> None:
    client = fresh()
    client.set(b"a", b"old")
    assert client.send(b"set a 0 0 3\r\nabcdef\r\n") == b"CLIENT_ERROR bad data chunk\r\n" + BAD_LINE
    large = b"set a 0 0 100000\r\n" + b"z" * 100_000 + b"!!"
    assert client.send(large) == b"CLIENT_ERROR bad data chunk\r\n"
    assert client.get(b"a") == b"old"


def test_connections_do_not_mix() -> None:
    one = fresh()
    two = Client(one.engine)
    assert one.send(b"set a 0 0 5\r\nab") == b""
    assert two.send(b"set a 0 0 3\r\nxy") == b""
    assert one.send(b"cde\r\nget a\r\n") == b"STORED\r\nVALUE a 0 5\r\nabcde\r\nEND\r\n"
    assert two.send(b"z\r\nget a\r\n") == b"STORED\r\nVALUE a 0 3\r\nxyz\r\nEND\r\n"
    one.session.close()
    assert one.is_closed
    assert two.get(b"a") == b"xyz"


@pytest.mark.slow
def test_a_busy_connection_yields() -> None:
    client = fresh(requests_per_event=20, memory_limit=64 * MIB)
    for i in range(100):
        client.set(b"k%d" % i, b"x" * 10_000)
    batch = b"".join(b"get k%d\r\n" % (i % 100) for i in range(5000))
    out = client.session.feed(batch)
    assert client.session in client.owner.waiting, "50 MB of replies are more than one turn"
    other = Client(client.engine)
    assert other.send(b"mn\r\n") == b"MN\r\n"
    out += client.settle()
    assert out.count(b"END\r\n") == 5000
    assert client.engine.stats()["conn_yields"] > 0


def test_closing_is_told_once() -> None:
    client = fresh()
    client.session.close()
    client.session.close()
    client.session.quit()
    assert [reason for _, reason in client.owner.closes] == ["normal"]


def test_a_closed_session_keeps_no_memory_of_a_value() -> None:
    client = fresh(memory_limit=8 * MIB)
    for _ in range(100):
        other = Client(client.engine)
        other.send(b"set a 0 0 1000000\r\n" + b"x" * 500_000)
        other.session.close()
    assert client.engine.stats()["curr_items"] == 0
    assert client.set(b"a", b"x" * 1_000_000) == b"STORED\r\n"


def test_states_have_memcacheds_names() -> None:
    client = fresh()
    assert client.session.state == "conn_new_cmd", "nothing has come yet"
    client.send(b"m")
    assert client.session.state == "conn_read"
    client.send(b"n\r\n")
    assert client.session.state == "conn_read"
    client.send(b"set a 0 0 5\r\n")
    assert client.session.state == "conn_nread"
    client.send(b"hello\r\nset a 0 0 2000000\r\n")
    assert client.session.state == "conn_swallow"
    other = Client(client.engine)
    other.owner.commands[b"watch"] = lambda session, _line: session.watch() or b"OK\r\n"
    assert other.send(b"watch\r\nget a\r\n") == b"OK\r\n"
    assert other.session.state == "conn_watch"
    assert other.send(b"get a\r\n") == b""
