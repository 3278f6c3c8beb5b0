"""The names that `stats` and its sub-commands print, beside those of Debian's memcached, in each way to start."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.conftest import Start
from tests.serving import Client
from tests.test_server_tools import GONE, NEW, NEW_SETTINGS, OWN

LOGIN = b"set auth 0 0 12\r\nalice secret"
WAYS = {
    "plain": "",
    "udp": "-U -1",
    "tls": "-Z -o ssl_chain_cert={folder}/both,ssl_key={folder}/both,ssl_session_cache",
    "tls without a session cache": "-Z -o ssl_chain_cert={folder}/both,ssl_key={folder}/both",
    "login": "-Y {folder}/users",
    "idle": "-o idle_timeout=100,no_maxconns_fast",
    "no threads beside": "-o no_lru_crawler,no_lru_maintainer,no_slab_reassign",
    "sizes": "-o track_sizes",
    "less": "-C -F -X -W",
    "temporary": "-o temporary_ttl=50",
}
ONLY_OURS = {
    "": {*OWN, *NEW, "ssl_proto_errors"},
    "settings": NEW_SETTINGS,
    "items": {"items:N:page_worth", "items:N:hits_share", "items:N:new_worth"},
    "slabs": {"N:pages_given", "N:pages_taken"},
}
"""What came after Debian's, and mcserver's own."""
STORAGE = re.compile("ext_|slab_automove_freeratio")
"""Of external storage, with which Debian builds."""


def names(client: Client, sub: str) -> list[str]:
    """Each once, in order, `N` for the number of a class or a connection. Of connections, those of the clients."""
    found = [
        re.sub(r"^(items:)?(\d+):", lambda match: f"{match[1] or ''}N:", key) for key in sorted_by_class(client, sub)
    ]
    return list(dict.fromkeys(found))


def sorted_by_class(client: Client, sub: str) -> list[str]:
    keys = list(client.stats(sub))
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
    for size in (1, 100, 1000, 100_000):
        assert client.command(b"set k%d 0 0 %d\r\n%b" % (size, size, b"x" * size)) == b"STORED\r\n"
    return client


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_names_are_memcacheds(start: Start, peer: Callable[..., Client], tmp_path: Path, way: str) -> None:
    (tmp_path / "users").write_text("alice:secret\n")
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both"))
    options = WAYS[way].format(folder=tmp_path).split()
    ours, theirs = prepared(start(*options).connect(), way), prepared(peer(*options), way)
    for sub in ("", "settings", "items", "slabs", "conns"):
        mine, known = names(ours, sub), names(theirs, sub)
        own = ONLY_OURS.get(sub, set())
        assert [key for key in mine if key not in own] == [
            key for key in known if key not in GONE and not STORAGE.match(key)
        ], sub
        assert own - set(mine) <= {*NEW, "ssl_proto_errors"}, f"{sub}: what is its own is always there"
        assert not own & set(known), f"{sub}: no longer mcserver's own"
    assert sizes(names(ours, "sizes")) == sizes(names(theirs, "sizes"))
