"""A token that begins with neither letter nor digit is told before anything else about the flags, by `ma` and `me` as well, as in
memcached 1.6.45; and `me` reads a key in base64 only if `b` is the first flag and something follows.
"""

from __future__ import annotations

import pytest

from tests.core.harness import fresh

BAD, TOO_LONG, TWICE = (
    b"CLIENT_ERROR bad command line format\r\n",
    b"CLIENT_ERROR options flags are too long\r\n",
    b"CLIENT_ERROR invalid or duplicate flag\r\n",
)
MANY = b" v" * 17


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"mg a {", BAD),
        (b"mg a { v v", BAD),
        (b"mg a {" + MANY + b" v v v", BAD),
        (b"mg a" + MANY + b" v v v {", BAD),
        (b"mg a" + MANY + b" v v v v { v", TOO_LONG),
        (b"mg a" + MANY + b" v v v v v v v {", TOO_LONG),
        (b"md a" + MANY + b" v v {", BAD),
        (b"ma a {", BAD),
        (b"ma a v \xff", BAD),
        (b"ma a v v", TWICE),
        (b"ma a" + MANY + b" v v {", BAD),
        (b"me a {", BAD),
        (b"me a v {", BAD),
        (b"me a b {", BAD),
    ],
)
def test_what_is_told(line: bytes, reply: bytes) -> None:
    client = fresh()
    assert client.send(line + b"\r\n") == reply


@pytest.mark.parametrize("flags", [b" -", b" Tx {", b" v v \xc3", MANY + b" -", b" MZ -"])
def test_the_data_of_such_a_line_is_no_command(flags: bytes) -> None:
    client = fresh()
    assert client.send(b"ms a 4" + flags + b"\r\nmn\r\n\r\n") == BAD
    assert client.send(b"mg a\r\n") == b"EN\r\n"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"me Zm9v b v", b"ME foo "),
        (b"me Zm9v b b", b"ME foo "),
        (b"me Zm9v b", b"EN\r\n"),
        (b"me Zm9v v b", b"EN\r\n"),
        (b"me foo v b", b"ME foo "),
        (b"me foo b", b"ME foo "),
        (b"me foo b v", BAD),
    ],
)
def test_a_key_in_base64(line: bytes, reply: bytes) -> None:
    client = fresh()
    client.set(b"foo", b"1")
    assert client.send(line + b"\r\n").startswith(reply)
