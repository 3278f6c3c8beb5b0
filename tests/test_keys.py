"""How keys are written into lines: every byte, in every reply and log that is made of lines."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import unquote_to_bytes

import pytest

from mcserver.keys import escaped, plain, plain_or_escaped, printable
from tests.conftest import Start
from tests.serving import Server

KEYS = [b"k" + bytes([byte]) + b"y" for byte in range(256)]


def test_one_function_for_each_place() -> None:
    for key in KEYS:
        assert (plain(key) is None) == (key[1] in b"\0\n\r ")
        assert unquote_to_bytes(escaped(key)) == key
        assert re.fullmatch(r"[\w.~%-]+", escaped(key), re.ASCII)
        assert not re.search(rb"[\0\n\r ]", plain_or_escaped(key))
        assert printable(key).isprintable()


@pytest.fixture
def full(start: Start) -> Server:
    """A server that holds every one-byte variation of a key, encoded, and its text forms where there are such."""
    server = start("-vv")
    client = server.connect()
    client.command(b"stats detail on")
    for key in KEYS:
        assert client.command(b"ms %b 1 b\r\nx" % b64encode(key)) == b"HD\r\n"
        assert client.command(b"ms %b 1 b\r\nx" % b64encode(b"p" + key + b":1")) == b"HD\r\n"
        if key[1] not in b"\n \0":
            assert client.command(b"set t%b 0 0 1\r\nx" % key) == b"STORED\r\n"
    return server


def test_every_byte_in_every_line(full: Server) -> None:
    client = full.connect()
    dump = client.command(b"stats cachedump 1 0", b"END\r\n") + client.command(b"stats cachedump 2 0", b"END\r\n")
    lines = [line for line in dump.split(b"\r\n") if line not in (b"", b"END")]
    assert lines
    assert all(re.fullmatch(rb"ITEM tk[^\r\n\0 ]y \[1 b; 0 s\]", line) for line in lines)
    for name, end, shape in (
        (b"lru_crawler metadump all", b"END\r\n", rb"key=[\w.~%-]+ exp=-1 .*flags=0 |OK\r|END\r"),
        (b"lru_crawler mgdump all", b"EN\r\n", rb"mg [^\r\n\0 ]+( b)?\r|OK\r|EN\r"),
        (b"stats detail dump", b"END\r\n", rb"PREFIX [^\r\n\0 ]+ get \d+ hit \d+ set \d+ del \d+\r|END\r"),
    ):
        reply = client.command(name, end)
        for line in reply.split(b"\n")[:-1]:
            assert re.fullmatch(shape, line), (name, line)
    assert client.command(b"mn") == b"MN\r\n", "the connection is in step"


@pytest.mark.slow
def test_every_byte_before_a_watcher_and_in_the_log(full: Server) -> None:
    watcher, client = full.connect(), full.connect()
    assert watcher.command(b"watch fetchers mutations deletions") == b"OK\r\n"
    for key in KEYS:
        client.command(b"mg %b b v" % b64encode(key))
        client.command(b"md %b b" % b64encode(key))
    seen = [watcher.until(b"\n") for _ in range(2 * len(KEYS))]
    shape = rb"ts=\d+\.\d+ gid=\d+ type=(item_get|deleted) key=k[\w.~%-]+y [a-z_=\d ]+\n"
    assert all(re.fullmatch(shape, line) for line in seen)
    assert all(line.isprintable() for line in full.log().split("\n"))


@pytest.mark.slow
def test_a_key_does_not_forge_a_line(start: Start) -> None:
    client = start().connect()
    assert client.command(b"ms eA0KRU5EDQpJVEVNIGZha2UgWzEgYjsgMCBzXQ0K 1 b\r\nx") == b"HD\r\n"
    assert client.command(b"stats cachedump 1 0", b"END\r\n") == b"END\r\n"
    assert client.command(b"mn") == b"MN\r\n"
