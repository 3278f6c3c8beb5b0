"""The names that `stats` and its sub-commands print, beside those of Debian's memcached, in each way to start.

`scripts/newest` runs them beside a newer memcached, too: what is only ours follows from its release.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from mcserver.admin.stats import OWN
from tests.conftest import Start
from tests.peer import RELEASE, sasl_memcached_settings
from tests.server.releases import GONE, NEW, NEW_SETTINGS, STORAGE
from tests.serving import Client
from tests.stateful import packets as b
from tests.stateful.packets import Reply, plain, replies, request

LOGIN = b"set auth 0 0 12\r\nalice secret"
WAYS = {
    "plain": "",
    "udp": "-U -1",
    "tls": "-Z -o ssl_chain_cert={folder}/both,ssl_key={folder}/both,ssl_session_cache",
    "tls without a session cache": "-Z -o ssl_chain_cert={folder}/both,ssl_key={folder}/both",
    "login": "-Y {folder}/users",
    "sasl": "-S",
    "idle": "-o idle_timeout=100,no_maxconns_fast",
    "no threads beside": "-o no_lru_crawler,no_lru_maintainer,no_slab_reassign",
    "sizes": "-o track_sizes",
    "less": "-C -F -X -W",
    "temporary": "-o temporary_ttl=50",
}
TLS_SINCE = {"ssl_proto_errors"} if RELEASE < (1, 6, 30) else set()
ONLY_OURS = {
    "": {*OWN, *NEW, *TLS_SINCE},
    "settings": NEW_SETTINGS,
    "items": {"items:N:page_worth", "items:N:hits_share", "items:N:new_worth", "items:N:use_ratio"},
    "slabs": {"N:pages_given", "N:pages_taken"},
}
"""What came after Debian's, and mcserver's own."""
SIZES = (1, 100, 1000, 100_000)


def names(client: Client, sub: str, way: str) -> list[str]:
    """Each once, in order, `N` for the number of a class or a connection. Of connections, those of the clients."""
    found = [
        re.sub(r"^(items:)?(\d+):", lambda match: f"{match[1] or ''}N:", key)
        for key in sorted_by_class(client, sub, way)
    ]
    return list(dict.fromkeys(found))


def by_packets(client: Client, sub: str) -> list[str]:
    """What a binary `stat` tells; nothing if it is refused, as memcached refuses `conns`."""
    client.send(request(b.STAT, sub.encode()))
    got: list[Reply] = []
    while not got or (got[-1].status == 0 and got[-1].key):
        if not client.unread or not replies(client.unread)[0]:
            received = client.socket.recv(1 << 16)
            assert received, "closed"
            client.unread += received
        more, client.unread = replies(client.unread)
        got += more
    return [reply.key.decode() for reply in got[:-1]]


def sorted_by_class(client: Client, sub: str, way: str) -> list[str]:
    keys = by_packets(client, sub) if way == "sasl" else list(client.stats(sub))
    if sub != "conns":
        return keys
    clients = {key.split(":")[0] for key in keys if key.endswith(":listen_addr")}
    return [key for key in keys if key.split(":")[0] in clients]


def sizes(keys: list[str]) -> list[str]:
    """Of `stats sizes` each name is a size, which follows from the items' headers."""
    return ["SIZE" if key.isdigit() else key for key in keys[:1]]


def prepared(client: Client, way: str) -> Client:
    """With items in several classes."""
    if way.startswith("tls"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.socket = context.wrap_socket(client.socket)
    if way == "login":
        assert client.command(LOGIN) == b"STORED\r\n"
    if way == "sasl":
        client.send(plain(b"\0alice\0secret"))
        for size in SIZES:
            client.send(request(b.SETQ, b"k%d" % size, bytes(8), b"x" * size))
        client.send(request(b.NOOP, opaque=b.END))
        answer = b""
        while len(found := replies(answer)[0]) < 2:
            answer += client.socket.recv(1 << 16)
        assert [reply.status for reply in found] == [0, 0]
        return client
    for size in SIZES:
        assert client.command(b"set k%d 0 0 %d\r\n%b" % (size, size, b"x" * size)) == b"STORED\r\n"
    return client


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_names_are_memcacheds(
    start: Start, peer: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tmp_path / "users").write_text("alice:secret\n")
    if way == "sasl":
        for name, value in sasl_memcached_settings(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MEMCACHED_SASL_PWDB", str(tmp_path / "users"))
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both"))
    options = WAYS[way].format(folder=tmp_path).split()
    ours, theirs = prepared(start(*options).connect(), way), prepared(peer(*options), way)
    for sub in ("", "settings", "items", "slabs", "conns"):
        mine, known = names(ours, sub, way), names(theirs, sub, way)
        own = ONLY_OURS.get(sub, set())
        assert [key for key in mine if key not in own] == [
            key for key in known if key not in GONE and not key.startswith(STORAGE)
        ], sub
        assert own - set(mine) <= {*NEW, *TLS_SINCE} or not mine, f"{sub}: what is its own is always there"
        assert not own & set(known), f"{sub}: no longer mcserver's own"
    assert sizes(names(ours, "sizes", way)) == sizes(names(theirs, "sizes", way))
