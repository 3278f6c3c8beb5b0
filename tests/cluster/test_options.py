"""What the options of a fleet do, seen by clients of real servers."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kazoo.exceptions import NoAuthError
from kazoo.security import make_acl

from tests.ports import free_port

from .ensemble import Ensemble
from .fleet import Fleet
from .servers import CacheServer, until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


def test_soft_hold_off_and_broadcast_writes(ensemble: Ensemble, name: str) -> None:
    options = ["--soft", "s:", "--hold-off", "1500", "--broadcast-writes", "w:", "--ack", "applied"]
    with Fleet(ensemble, name, *options, count=2) as fleet:
        first, second = fleet.servers
        with second.client() as client:
            time.sleep(1.6)  # the join's flush holds off, too
            # soft: the value stays, marked stale, and one client wins the right to fetch it again
            assert client.set(b"s:k", b"old") == b"STORED"
            assert first.delete(b"s:k") == b"NOT_FOUND"
            head = client.ask(b"mg s:k v")
            assert head.split()[0] == b"VA"
            assert {b"W", b"X"} <= set(head.split())
            assert client.line() == b"old"
            # hold-off: a plain set after a remote delete is refused for a while
            assert client.set(b"k", b"old") == b"STORED"
            assert first.delete(b"k") == b"NOT_FOUND"
            assert client.set(b"k", b"read before the delete") == b"NOT_STORED"
            time.sleep(1.6)
            assert client.set(b"k", b"new") == b"STORED"
            # broadcast writes: a set elsewhere takes the key out of here
            time.sleep(1.6)
            client.set(b"w:k", b"mine")
            time.sleep(1.6)  # that set was an invalidation at the other server
            assert first.set(b"w:k", b"theirs") == b"STORED"
            assert client.get(b"w:k") is None
            assert first.get(b"w:k") == b"theirs"


@pytest.mark.parametrize(
    ("policy", "get", "stored"),
    [
        ("miss", b"END", b"NOT_STORED"),
        ("error", b"SERVER_ERROR stale", b"SERVER_ERROR stale"),
        ("serve", b"VALUE", b"STORED"),
    ],
)
def test_what_a_stale_server_answers(ensemble: Ensemble, name: str, policy: str, get: bytes, stored: bytes) -> None:
    with Fleet(ensemble, name, "--on-stale", policy, "--ack", "async", count=2) as fleet:
        stale, other = fleet.servers
        stale.set(b"k", b"value")
        other.set(b"gone", b"value")
        for link in fleet.links(stale):
            link.present(False)
        until(lambda: stale.stats()["stale"] == "1")
        with stale.client() as client:
            assert client.ask(b"get k").startswith(get)
        assert stale.set(b"new", b"value") == stored
        assert stale.stats()["stale_serving"] == str(int(policy == "serve"))
        assert stale.delete(b"gone") == b"NOT_FOUND", "done here and queued, whatever gets are answered"
        for link in fleet.links(stale):
            link.present(True)
        fleet.wait_fresh()
        assert stale.get(b"k") == b"value", "what it held is visible again: the log was applied"
        until(lambda: other.get(b"gone") is None)


def test_flush_all_travels_at_once_and_later(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, "--ack", "applied", count=2) as fleet:
        first, second = fleet.servers
        second.set(b"k", b"old")
        assert first.ask(b"flush_all") == b"OK"
        assert second.get(b"k") is None
        second.set(b"k", b"old")
        assert first.ask(b"flush_all 2") == b"OK"
        assert second.get(b"k") == b"old"
        until(lambda: second.get(b"k") is None)


def test_cluster_flush_and_refresh_a_prefix(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, count=2) as fleet:
        first, second = fleet.servers
        for server in fleet.servers:
            server.set(b"p:k", b"1")
            server.set(b"q:k", b"1")
        assert first.ask(b"cluster flush p:") == b"OK"
        assert [server.get(b"p:k") for server in fleet.servers] == [None, None]
        assert [server.get(b"q:k") for server in fleet.servers] == [b"1", b"1"]
        assert first.ask(b"cluster refresh q: 30") == b"OK"
        with second.client() as client:
            assert {b"W", b"X"} <= set(client.ask(b"mg q:k v").split())
        assert first.ask(b"cluster refresh q: x").startswith(b"CLIENT_ERROR")
        assert first.ask(b"cluster").startswith(b"CLIENT_ERROR usage")
        assert first.ask(b"config get other") == b"ERROR"
        assert first.ask(b"cluster leader").split()[1].startswith((b"s0.", b"s1."))
        with first.client() as client:
            lines = client.lines(b"cluster members")
        assert lines[0].startswith(b"VERSION ")
        assert sum(line.endswith(b"self") or b" self " in line for line in lines) == 1


def test_the_leader_refreshes_a_prefix_again_and_again(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, "--refresh", "q:", "--refresh-every", "1", count=2) as fleet:
        for _ in range(2):
            for server in fleet.servers:
                server.set(b"p:k", b"1")
                server.set(b"q:k", b"1")
                with server.client() as client:
                    until(lambda client=client: b"X" in client.ask(b"mg q:k v").split())
                    assert b"X" not in client.ask(b"mg p:k v").split()


@pytest.mark.parametrize("how", ["TERM", "leave"])
def test_the_end_of_a_server_takes_its_queue_along(ensemble: Ensemble, name: str, how: str) -> None:
    with Fleet(ensemble, name, "--zk-session-timeout", "20", count=2) as fleet:
        first, second = fleet.servers
        with second.client() as client:
            for number in range(3000):
                client.send(b"set n:%d 0 0 1 noreply\r\nx\r\n" % number)
            assert client.get(b"n:2999") == b"x"
        with first.client() as client:
            client.send(b"".join(b"delete n:%d noreply\r\n" % number for number in range(3000)))
            assert client.get(b"none") is None
            if how == "leave":
                assert client.ask(b"cluster leave") == b"OK"
                assert client.get(b"none") is None
                assert client.stats()["state"] == "left"
            else:
                assert first.end(signal.SIGTERM) == 0
        with second.client() as client:
            until(lambda: all(client.get(b"n:%d" % number) is None for number in range(3000)))
            until(
                lambda: client.stats()["members"] == "1", 15, "it has not signed off: its session would last for 20 s"
            )


def test_locked_writes_one_server_at_a_time(ensemble: Ensemble, name: str) -> None:
    """After writes from all sides at most the last writer still holds a key: every write took it from the others."""
    answers: Counter[bytes] = Counter()
    with Fleet(ensemble, name, "--lock-writes", "l:", quick=False) as fleet:
        assert fleet.servers[0].set(b"l:k", b"0") == b"STORED"

        def work(server: CacheServer) -> None:
            with server.client(60) as client:
                for number in range(20):
                    answers[client.set(b"l:%d" % (number % 3), b"%d" % number)] += 1

        threads = [threading.Thread(target=work, args=(server,)) for server in fleet.servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert fleet.servers[0].delete(b"a:barrier") == b"NOT_FOUND"
        for number in range(3):
            holders = [server for server in fleet.servers if server.get(b"l:%d" % number) is not None]
            assert len(holders) <= 1, "none, when the last writer was told that its lock was lost"
        assert set(answers) <= {b"STORED", b"SERVER_ERROR lock lost"}
        assert answers[b"STORED"] >= 30, answers


def test_a_lost_lock_is_an_error_without_effect(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name, "--lock-writes", "l:", "--ack-timeout", "2", count=2) as fleet:
        server = fleet.servers[0]
        assert server.set(b"l:k", b"old") == b"STORED"
        for link in fleet.links(server):
            link.blackhole()
        ensemble.kill_session(server.session)
        assert server.set(b"l:k", b"new") == b"SERVER_ERROR lock lost"
        for link in fleet.links(server):
            link.heal()
        fleet.wait_fresh()
        assert server.get(b"l:k") in {b"old", None}
        until(lambda: server.set(b"l:k", b"newer") == b"STORED")


def test_credentials_from_a_file_and_from_the_environment(ensemble: Ensemble, name: str, tmp_path: Path) -> None:
    secret = tmp_path / "auth"
    secret.write_text("cache:secret\n")
    secret.chmod(0o600)
    with Fleet(ensemble, name, "--zk-auth-file", str(secret), count=1) as fleet:
        hosts = f"{ensemble.hosts}/{name}"
        with CacheServer(hosts, name="env") as knows, CacheServer(hosts, name="stranger") as stranger:
            knows.end()
            knows.environment["MCSERVER_ZK_AUTH"] = "cache:secret"
            knows.start()
            until(lambda: knows.is_fresh)
            until(lambda: fleet.servers[0].stats()["members"] == "2")
            assert stranger.stats()["stale"] == "1", "without the credentials nobody joins"
            with stranger.client() as client:
                until(lambda: any(b"--zk-auth-file" in line for line in client.lines(b"stats cluster")))
            until(lambda: "--zk-auth-file" in stranger.log)
            with ensemble.client() as client, pytest.raises(NoAuthError):
                client.get(f"/{name}/cache/invalidation")
            assert "secret" not in knows.log + fleet.servers[0].log


def test_a_chroot_that_is_refused_is_named_and_one_that_is_there_is_taken(ensemble: Ensemble, name: str) -> None:
    with ensemble.client() as client:
        look_only = [make_acl("world", "anyone", read=True)]
        client.create(f"/{name}")
        client.create(f"/{name}/there")
        client.set_acls(f"/{name}", look_only)
    with CacheServer(f"{ensemble.hosts}/{name}/other/deep", name="refused") as refused:
        words = f"the chroot /{name}/other/deep of --zookeeper can't be made"
        until(lambda: words in refused.log)
        assert words in refused.stats()["why"]
        time.sleep(2)
        assert refused.log.count("can't be made") == 1
    with CacheServer(f"{ensemble.hosts}/{name}/there", name="taken") as taken:
        until(lambda: taken.is_fresh)
        assert taken.stats()["why"] == "none"
        assert "can't be" not in taken.log


def test_tls_to_zookeeper(name: str, tmp_path: Path) -> None:
    """Both sides prove who they are; a server whose certificate nobody trusts is not spoken to."""
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other-ca.pem")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # all that ZooKeeper reads
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    (tmp_path / "zookeeper.pem").write_bytes(pkcs8 + chain)
    port = free_port()
    settings = (
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"secureClientPort={port}",
        "secureClientPortAddress=127.0.0.1",
        f"ssl.keyStore.location={tmp_path}/zookeeper.pem",
        f"ssl.trustStore.location={tmp_path}/ca.pem",
    )
    tls = ["--zk-ca", str(tmp_path / "ca.pem"), "--zk-cert", str(tmp_path / "both.pem")]
    with Ensemble(size=1, settings=settings) as secure:
        with Fleet(secure, name, *tls, count=2, hosts=f"127.0.0.1:{port}") as fleet:
            first, second = fleet.servers
            second.set(b"a:k", b"old")
            assert first.delete(b"a:k") == b"NOT_FOUND"
            assert second.get(b"a:k") is None
        wrong = ["--zk-ca", str(tmp_path / "other-ca.pem"), "--zk-cert", str(tmp_path / "both.pem")]
        with CacheServer(f"127.0.0.1:{port}/{name}", *wrong) as refused:
            until(lambda: "look at --zk-ca" in refused.log)
            with refused.client() as client:
                why = next(line for line in client.lines(b"stats cluster") if line.startswith(b"STAT why "))
            assert b"certificate" in why
            assert refused.stats()["session"] == "lost"
        with CacheServer(f"127.0.0.1:{port}/{name}") as plain:
            until(lambda: "wants TLS (--zk-ca)" in plain.log)
