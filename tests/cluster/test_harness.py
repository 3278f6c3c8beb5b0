"""The harness itself: a fault that does not happen proves nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, SessionExpiredError
from kazoo.protocol.states import KazooState

from .ensemble import Ensemble, session_password
from .network import OP_GET, Frame, Link, Network


@pytest.fixture
def echo() -> Iterator[int]:
    """A port that answers each connection with what it hears."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connect(link: Link, timeout: float = 60.0) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", link.port))
    client.settimeout(timeout)
    return client


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = client.recv(65536)
        if not piece:
            break
        got += piece
    return got


def test_pass_and_delay(network: Network, echo: int) -> None:
    link = network.link(echo)
    with connect(link) as client:
        assert ask(client, b"x" * 200_000) == b"x" * 200_000
        link.delay(0.1)
        started = time.monotonic()
        assert ask(client, b"y") == b"y"
        assert time.monotonic() - started >= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_blackhole_is_silence_and_heals(network: Network, echo: int, direction: str) -> None:
    link = network.link(echo)
    with connect(link) as client:
        assert ask(client, b"a") == b"a"
        link.blackhole("up" if direction == "up" else "down")
        client.sendall(b"b")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        link.heal()
        client.settimeout(60)
        assert client.recv(1) == b"b"


def test_reset_and_refuse(network: Network, echo: int) -> None:
    link = network.link(echo)
    with connect(link) as client:
        assert ask(client, b"a") == b"a"
        link.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(link) as client:
        assert ask(client, b"a") == b"a"
    link.refuse()
    with pytest.raises(ConnectionResetError), connect(link) as client:
        client.recv(1)
    link.present(False)
    with pytest.raises(ConnectionRefusedError):
        connect(link)


def test_half_open_hears_nothing(network: Network, echo: int) -> None:
    link = network.link(echo)
    with connect(link) as client:
        assert ask(client, b"a") == b"a"
        link.half_open()
        client.sendall(b"b")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        link.heal()
        client.settimeout(60)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_end_of_a_stream_loses_nothing(network: Network) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = network.link(listener.getsockname()[1])
        for _ in range(20):
            with connect(link) as client:
                far, _ = listener.accept()
                with far:
                    far.sendall(b"x" * 50_000)
                got = 0
                while piece := client.recv(65536):
                    got += len(piece)
                assert got == 50_000


@pytest.mark.slow
def test_throttle(network: Network, echo: int) -> None:
    link = network.link(echo)
    link.throttle(100_000)
    with connect(link) as client:
        started = time.monotonic()
        assert len(ask(client, b"x" * 30_000)) == 30_000
        assert time.monotonic() - started >= 0.5


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ensemble_faults(network: Network) -> None:
    with Ensemble(network) as ensemble:
        states: list[str] = []
        client = KazooClient(ensemble.hosts_for("a", order=(1,)), timeout=10.0)
        client.add_listener(states.append)
        client.start(60)
        link = ensemble.peer_links["a"][0]
        cut_then_committed(client, link)
        bad_reply_kills_kazoo_thread(ensemble, network)
        client.create("/mine", ephemeral=True)
        assert client.client_id is not None
        assert session_password(client.client_id[0]) == client.client_id[1]
        ensemble.kill_session(client.client_id[0])
        until(lambda: KazooState.LOST in states)
        until(lambda: client.connected)
        assert client.exists("/mine") is None
        client.stop()
        client.close()
        led = ensemble.leader
        ensemble.isolate(led.number)
        until(lambda: led.role() != "leader")
        until(lambda: "leader" in [server.role() for server in ensemble.servers])
        ensemble.heal()
        ensemble.wait_quorum()
        ensemble.leader.end()
        assert ensemble.wait_quorum() < 10


def cut_then_committed(client: KazooClient, link: Link) -> None:
    done = link.cut_after()
    link.reset()
    until(lambda: client.connected)
    while not done.is_set():
        try:
            client.create("/cut-", sequence=True)
        except (ConnectionLoss, SessionExpiredError):
            pass
    link.heal()
    until(lambda: client.connected)
    created = client.retry(client.get_children, "/")
    assert [name for name in created if name.startswith("cut-")], "committed, though the client never heard of it"


def bad_reply_kills_kazoo_thread(ensemble: Ensemble, network: Network) -> None:
    """An error code that kazoo does not know ends its connection thread for good."""
    client = KazooClient(ensemble.hosts_for("b", order=(2,)), timeout=10.0)
    link = ensemble.peer_links["b"][1]

    def spoil(frame: Frame) -> bytes:
        if frame.direction == "down" and frame.op == OP_GET:
            return frame.body[:12] + (-999).to_bytes(4, "big", signed=True)
        return frame.body

    link.tamper(spoil)
    client.start(60)
    asked = client.get_async("/")
    until(lambda: client.client_state == "CLOSED")
    assert not asked.ready() or asked.exception is not None
    link.heal()
    client.stop()
    client.close()


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
