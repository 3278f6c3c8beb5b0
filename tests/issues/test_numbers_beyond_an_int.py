"""Every number that a cold command takes, at the ends of 32 bits: `stats cachedump 1 2147483648` was an internal error."""

from __future__ import annotations

import pytest

from tests.serving import Client, Server

ENDS = [b"2147483647", b"2147483648", b"4294967294", b"4294967295"]
COMMANDS = """stats cachedump 1 {}/stats cachedump {} 1/lru_crawler tocrawl {}/lru_crawler crawl all/lru_crawler sleep {}
lru_crawler crawl {}/lru_crawler metadump {}/lru_crawler mgdump {}/lru tune {} 20 0.1 2/lru tune 10 {} 0.1 2/lru tune 10 20 {} 2
lru tune 10 20 0.1 {}/lru temp_ttl {}/lru temp_ttl -{}/slabs reassign {} 1/slabs reassign 1 -{}/slabs automove {}/verbosity {}
cache_memlimit {}""".replace("\n", "/").split("/")


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS, ids=bytes.decode)
def test_no_number_is_an_internal_error(server: Server, client: Client, number: bytes) -> None:
    assert client.command(b"set k 0 0 1\r\nx") == b"STORED\r\n"
    for command in COMMANDS:
        client.send(command.encode().replace(b"{}", number) + b"\r\nmn\r\n")
        assert b"SERVER_ERROR" not in client.until(b"MN\r\n")
    assert client.command(b"verbosity 0") == b"OK\r\n"
    assert "Traceback" not in server.log()


def test_so_many_items_are_all_of_them(client: Client) -> None:
    assert client.command(b"set k 0 0 1\r\nx") == b"STORED\r\n"
    for number in (b"0", *ENDS):
        assert client.command(b"stats cachedump 1 " + number, b"END\r\n") == b"ITEM k [1 b; 0 s]\r\nEND\r\n"
