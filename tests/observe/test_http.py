"""The HTTP side of --metrics: what it answers, what it refuses, and that nobody who uses it badly is noticed by a get."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mcserver import cli
from mcserver.observe.http import REST_SECONDS
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError
from tests.conftest import Start
from tests.ports import free_port
from tests.serving import Server, eventually, run_to_end


class Observed:
    """A server with --metrics."""

    def __init__(self, start: Start, *arguments: str) -> None:
        self.port = free_port()
        self.server: Server = start("--metrics", f"127.0.0.1:{self.port}", *arguments)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        body = reply.read().decode()
        connection.close()
        return reply.status, body, dict(reply.headers)

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(data)
            received = b""
            while piece := connection.recv(65536):
                received += piece
            return received


@pytest.fixture
def observed(start: Start) -> Observed:
    return Observed(start)


@pytest.mark.slow
def test_clients_that_go_before_their_answer_are_no_error(observed: Observed) -> None:
    """They wait for their turn, and have closed with a reset when it comes."""
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", observed.port), 60) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert observed.ask("/healthz")[0] == 200
    assert "internal error" not in observed.server.log()


@pytest.mark.slow
def test_the_log_says_where_it_is(start: Start) -> None:
    server = start("--metrics", "127.0.0.1:0")
    eventually(lambda: "metrics, health and a page at http://127.0.0.1:" in server.log())
    port = int(server.log().partition("a page at http://127.0.0.1:")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.slow
def test_each_path_has_its_type_and_status(observed: Observed) -> None:
    status, body, headers = observed.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "memcached_up 1.0\n" in body
    assert observed.ask("/healthz")[:2] == (200, "ok\n")
    assert observed.ask("/readyz?x=1")[:2] == (200, "ready\n")
    status, body, headers = observed.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'; script-src 'sha256-" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "http://" not in body.replace("http://www.w3.org/", "")  # nothing from elsewhere
    assert "https://" not in body
    assert json.loads(observed.ask("/figures.json")[1])["totals"]["limit_maxbytes"] == 64 << 20


@pytest.mark.slow
def test_head_has_no_body(observed: Observed) -> None:
    status, body, headers = observed.ask("/metrics", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"get foo\r\n\r\n", 400),
        (b"\x80\x0b\r\n\r\n", 400),
        (b"GET / SPDY/9\r\n\r\n", 400),
        (b"GET / HTTP/1.x\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n .evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET http://localhost@evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
    ],
)
def test_bad_requests(observed: Observed, request_line: bytes, status: int) -> None:
    reply = observed.raw(request_line)
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert b"xxxx" not in reply
    assert b"passwd" not in reply
    assert observed.ask("/healthz")[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_head",
    [
        b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",  # what is said to a proxy goes first
        b"GET HTTP://LocalHost:9150/healthz?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",  # as a balancer's health check asks
        b"GET /healthz HTTP/1.1\r\nhost:\tlocalhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_odd_requests_that_are_right(observed: Observed, request_head: bytes) -> None:
    reply = observed.raw(request_head)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nok\n")
    assert reply.count(b"HTTP/1.1") == 1  # one request a connection


@pytest.mark.slow
def test_what_is_refused_is_told_to_who_is_still_sending(observed: Observed) -> None:
    """Unread bytes at the close would reset the connection, and the answer would be lost."""
    body = b"x" * 300_000
    reply = observed.raw(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert reply.startswith(b"HTTP/1.1 405 ")
    assert observed.raw(b"GET / HTTP/1.1\r\nX: " + body).startswith(b"HTTP/1.1 431 ")


@pytest.mark.slow
def test_head_has_no_body_when_it_is_refused(observed: Observed) -> None:
    for request in (
        b"HEAD /nothing HTTP/1.1\r\nHost: a.localhost",
        b"HEAD / HTTP/1.1\r\nHost: evil.example",
        b"HEAD / HTTP/1.1",
    ):
        reply = observed.raw(request + b"\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 4")
        assert reply.endswith(b"\r\n\r\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:9150", 200), ("[::1]", 200), ("[::1]:9150", 200), ("10.1.2.3", 200), ("localhost:1", 200),
        ("LOCALHOST", 200), ("app.localhost", 200), ("cache.example", 200), ("Cache.Example:9150", 200), ("localhost.", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example", 421), ("", 421), ("a:b:c", 421),
    ],
)  # fmt: skip
def test_a_strange_host_is_refused(observed_by_name: Observed, host: str, status: int) -> None:
    found, body, _ = observed_by_name.ask("/metrics", Host=host)
    assert found == status
    assert "evil" not in body
    assert (status == 200) == ("memcached_up" in body)


@pytest.fixture(scope="module")
def observed_by_name() -> Iterator[Observed]:
    from contextlib import ExitStack
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with ExitStack() as running:

        def start_server(*args: str) -> Server:
            server = Server(Path(running.enter_context(TemporaryDirectory())), args)
            running.callback(server.stop)
            return server

        yield Observed(start_server, "--metrics-name", "cache.example")


@pytest.mark.slow
def test_who_is_slow_is_cut_off_and_goes_for_others(observed: Observed) -> None:
    client = observed.server.connect()
    slow = [socket.create_connection(("127.0.0.1", observed.port), 8) for _ in range(40)]
    try:
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\n")
        assert client.command(b"mn") == b"MN\r\n"
        assert observed.ask("/healthz")[0] == 200  # though all places are taken
        assert [is_closed(each) for each in slow[:9]] == [True] * 9
        slow[-1].sendall(b"Host: localhost\r\n\r\n")
        assert slow[-1].recv(12) == b"HTTP/1.1 200"
        assert is_closed(slow[9])  # after five seconds
        eventually(lambda: observed.ask("/healthz")[0] == 200)
    finally:
        for each in slow:
            each.close()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
def test_a_scraper_that_asks_all_the_time_gets_the_last_answer(observed: Observed) -> None:
    began = time.monotonic()
    first = observed.ask("/metrics")[1]
    client = observed.server.connect()
    for _ in range(10):
        client.command(b"get a")
    bodies = {observed.ask("/metrics")[1] for _ in range(20)}
    assert len(bodies | {first}) <= 2 + time.monotonic() - began, "at most one collection a second"
    eventually(lambda: observed.ask("/metrics")[1] not in bodies)


@pytest.mark.slow
def test_who_asks_in_a_loop_waits(observed: Observed) -> None:
    began = time.monotonic()
    for _ in range(10):
        assert observed.ask("/healthz")[0] == 200
    assert time.monotonic() - began >= 9 * REST_SECONDS


@pytest.mark.slow
def test_it_is_not_ready_when_it_takes_no_connections(start: Start) -> None:
    observed = Observed(start, "-c", "1", "-o", "no_maxconns_fast")
    client = observed.server.connect()
    client.command(b"mn")
    waiting = observed.server.connect()
    eventually(lambda: observed.ask("/readyz")[0] == 503)
    assert "accepts no connections" in observed.ask("/readyz")[1]
    assert observed.ask("/healthz")[0] == 200
    client.close()
    assert waiting.command(b"mn") == b"MN\r\n"
    waiting.close()
    eventually(lambda: observed.ask("/readyz")[0] == 200)


@pytest.mark.slow
def test_it_is_not_ready_when_it_refuses_connections(start: Start) -> None:
    observed = Observed(start, "-c", "2")
    clients = [observed.server.connect() for _ in range(2)]
    assert [client.command(b"mn") for client in clients] == [b"MN\r\n"] * 2
    assert observed.server.connect().to_end() == b"ERROR Too many open connections\r\n"
    assert observed.ask("/readyz")[:2] == (503, "it refuses connections: -c is reached\n")
    assert observed.ask("/healthz")[0] == 200
    clients[0].close()
    eventually(lambda: observed.ask("/readyz")[0] == 200)


@pytest.mark.slow
def test_a_member_without_zookeeper_is_alive_and_not_ready(start: Start) -> None:
    observed = Observed(start, "--zookeeper", "127.0.0.1:1")
    assert observed.ask("/healthz")[0] == 200
    status, body, _ = observed.ask("/readyz")
    assert (status, "not proved fresh" in body) == (503, True)
    assert "mcserver_cluster_stale 1.0" in observed.ask("/metrics")[1]


@pytest.mark.parametrize("address", ["127.0.0.1", "9150", ":9150", "h:x", "h:70000", "::1:9150", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--metrics takes HOST:PORT"):
        cli.parse(["--metrics", address], {})


def test_addresses_and_names() -> None:
    config = cli.parse(["--metrics", "[::1]:0", "--metrics-name", "a", "--metrics-name", "b"], {})
    assert isinstance(config, Config)
    assert (config.metrics, config.metrics_names) == ("[::1]:0", ("a", "b"))
    with pytest.raises(ConfigError, match="--metrics-name needs"):
        cli.parse(["--metrics-name", "a"], {})


@pytest.mark.slow
def test_a_port_that_is_taken_stops_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run_to_end("-u", "root", "-p", "0", "--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.returncode == 71
    assert "for --metrics: Address already in use" in result.stderr


@pytest.mark.slow
def test_without_it_nothing_of_it_is_loaded(start: Start) -> None:
    server = start()
    assert "/healthz" not in server.log()
    code = "import sys; import mcserver.server.loop; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True).stdout
    assert not {"prometheus_client", "mcserver.observe.http", "http.client"} & set(loaded.split())
