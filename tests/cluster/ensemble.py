"""A real ZooKeeper ensemble on this machine: three servers from Debian's packages, loopback only, ports of its own.

Owns the java processes it starts and ends each by its own process id; with a Network, every link between two ZooKeeper
servers, and from any named peer to ZooKeeper, can be made to fail. It never touches another process and writes only
below its own temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kazoo.client import KazooClient

from tests.ports import free_ports

from .network import Link, Network

JAVA = [
    "java",
    "-Xmx96m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
]
# The manifest of the first names all the rest but the logger, and not all of netty (which TLS needs).
CLASSPATH = ":".join(f"/usr/share/java/{jar}.jar" for jar in ("zookeeper", "slf4j-simple", "netty-codec"))
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
TICK_MS = 500
SYNC_LIMIT = 4


def session_password(session: int) -> bytes:
    """The password of a session: java.util.Random's bytes, seeded with the id and a constant.

    Source: ZooKeeperServer.generatePasswd. So any session whose id is known can be taken over.
    """
    mask = (1 << 48) - 1
    state = ((session ^ 0xB3415C00) ^ 0x5DEECE66D) & mask
    words = []
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & mask
        words.append((state >> 16) & 0xFFFFFFFF)
    return struct.pack("<4I", *words)


def memory() -> str | None:
    """Where files are kept in memory: who writes to a disk that is busy with a build may wait longer than a quorum does."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class ZooKeeperServer:
    """One java process and its directory."""

    def __init__(self, number: int, directory: Path, ports: tuple[int, int, int]) -> None:
        self.number, self.directory = number, directory
        self.client_port, self.quorum_port, self.election_port = ports
        self.process: subprocess.Popen[bytes] | None = None
        self.links: list[Link] = []  # the links that lead to this server
        self._log: IO[bytes] | None = None
        directory.mkdir(parents=True)
        (directory / "myid").write_text(f"{number}\n")

    @property
    def log_path(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        assert self.process is None
        for link in self.links:
            link.present(True)
        self._log = self.log_path.open("ab")
        command = [*JAVA, "-cp", CLASSPATH, MAIN, str(self.directory / "zoo.cfg")]
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            start_new_session=True,
        )

    def end(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill -9 (the default) or TERM; returns when the process is gone."""
        if self.process is None:
            return
        self.process.send_signal(sig)
        self.process.send_signal(signal.SIGCONT)  # one that was stopped can end only when it runs
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
        self.process = None
        for link in self.links:
            link.present(False)
        if self._log is not None:
            self._log.close()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, word: bytes, timeout: float = 1.0) -> str:
        """The answer to a four-letter word; empty when the server does not answer."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.client_port), timeout) as link:
            link.settimeout(timeout)
            link.sendall(word)
            return b"".join(iter(lambda: link.recv(65536), b"")).decode()
        return ""

    def role(self) -> str:
        """leader, follower, or empty while it serves nobody."""
        for line in self.ask(b"srvr").splitlines():
            if line.startswith("Mode: "):
                return line[6:]
        return ""

    def wipe(self) -> None:
        """Forget everything it ever stored; only while it is not running."""
        assert self.process is None
        shutil.rmtree(self.directory / "version-2", ignore_errors=True)


class Ensemble:
    """Three ZooKeeper servers. Use it as a context manager: start() on entry, close() on exit."""

    def __init__(
        self,
        network: Network | None = None,
        *,
        size: int = 3,
        observers: int = 0,
        fsync: bool = False,
        settings: tuple[str, ...] = (),
    ) -> None:
        """`observers`: so many of the `size` servers, the last ones, have no vote. `fsync` as in production; `settings` are
        further lines for each server's zoo.cfg.
        """
        self.network, self.fsync, self._settings = network, fsync, settings
        self._voters = size - observers
        self.directory = Path(tempfile.mkdtemp(prefix="zk-ensemble-", dir=None if fsync else memory()))
        ports = iter(free_ports(3 * size))
        self.servers = [
            ZooKeeperServer(i, self.directory / str(i), (next(ports), next(ports), next(ports)))
            for i in range(1, size + 1)
        ]
        self.peer_links: dict[str, list[Link]] = {}
        self.server_links: dict[tuple[int, int], list[Link]] = {}  # (from, to): quorum and election link
        self._make_server_links()
        for server in self.servers:
            self._configure(server)

    # -- life

    def __enter__(self) -> Ensemble:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout: float = 120.0) -> None:
        for server in self.servers:
            if server.process is None:
                server.start()
        self.wait_quorum(timeout)

    def close(self) -> None:
        for server in self.servers:
            server.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def wait_quorum(self, timeout: float = 120.0) -> float:
        """Wait until every running server serves and one of them leads; the seconds it took."""
        started = time.monotonic()
        while time.monotonic() - started < timeout:
            roles = [server.role() for server in self.servers if server.process is not None]
            if roles and all(roles) and ("leader" in roles or roles == ["standalone"]):
                return time.monotonic() - started
            time.sleep(0.05)
        logs = "\n".join(f"{s.log_path}: {s.log_path.read_text(errors='replace')[-2000:]}" for s in self.servers)
        raise TimeoutError(f"no quorum after {timeout} s\n{logs}")

    # -- who is who

    @property
    def hosts(self) -> str:
        """For a client that needs no faults."""
        return ",".join(f"127.0.0.1:{server.client_port}" for server in self.servers)

    @property
    def leader(self) -> ZooKeeperServer:
        """Of a quorum, when it has one: on a busy machine they may be electing."""
        deadline = time.monotonic() + 60
        while True:
            for server in self.servers:
                if server.process is not None and server.role() == "leader":
                    return server
            assert time.monotonic() < deadline, "the ensemble elects no leader"
            time.sleep(0.05)

    @property
    def followers(self) -> list[ZooKeeperServer]:
        return [server for server in self.servers if server.process is not None and server.role() == "follower"]

    def hosts_for(self, peer: str, *, order: tuple[int, ...] | None = None) -> str:
        """Addresses for this peer alone, each a link of its own. `order` picks servers by number, most wanted first."""
        assert self.network is not None
        if peer not in self.peer_links:
            self.peer_links[peer] = [self._link(server, server.client_port) for server in self.servers]
        chosen = order or tuple(server.number for server in self.servers)
        return ",".join(f"127.0.0.1:{self.peer_links[peer][number - 1].port}" for number in chosen)

    # -- faults

    def isolate(self, number: int) -> None:
        """Cut one ZooKeeper server off from the others, silently, in both directions."""
        for ends, links in self.server_links.items():
            if number in ends:
                for link in links:
                    link.blackhole()

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A connected kazoo client, for looking and for meddling."""
        client = KazooClient(self.hosts, timeout=10.0)
        client.start(60)
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def kill_session(self, session: int) -> None:
        """End a session from outside: a second client takes it over and closes it; its ephemeral znodes go at once."""
        client = KazooClient(
            self.hosts, client_id=(session, session_password(session)), timeout=10.0, randomize_hosts=False
        )
        client.start(60)
        client.stop()
        client.close()

    def heal(self) -> None:
        """All links pass, all processes run."""
        for links in [*self.server_links.values(), *self.peer_links.values()]:
            for link in links:
                link.heal()
        for server in self.servers:
            if server.process is not None:
                server.resume()

    # -- construction

    def _make_server_links(self) -> None:
        if self.network is None:
            return
        for a in self.servers:
            for b in self.servers:
                if a is not b:
                    links = [self._link(b, b.quorum_port), self._link(b, b.election_port)]
                    self.server_links[a.number, b.number] = links
        for (a_number, b_number), (_, election) in self.server_links.items():
            # The first message of an election connection tells the sender's own election address, and the receiver
            # connects back to it: let it be the address of the link that leads back.
            sender, back = self.servers[a_number - 1], self.server_links[b_number, a_number][1]
            election._rewrite = (b"127.0.0.1:%d" % sender.election_port, b"127.0.0.1:%d" % back.port)

    def _link(self, server: ZooKeeperServer, port: int) -> Link:
        assert self.network is not None
        link = self.network.link(port)
        server.links.append(link)
        return link

    def _configure(self, server: ZooKeeperServer) -> None:
        lines = [
            f"tickTime={TICK_MS}",
            "initLimit=10",
            f"syncLimit={SYNC_LIMIT}",
            "minSessionTimeout=1000",
            "maxSessionTimeout=20000",
            "maxClientCnxns=0",
            "4lw.commands.whitelist=*",
            "admin.enableServer=false",
            "quorumListenOnAllIPs=false",
            f"forceSync={'yes' if self.fsync else 'no'}",
            f"dataDir={server.directory}",
            f"clientPort={server.client_port}",
            "clientPortAddress=127.0.0.1",
            *self._settings,
        ]
        if server.number > self._voters:
            lines.append("peerType=observer")
        for other in self.servers if len(self.servers) > 1 else []:
            quorum, election = other.quorum_port, other.election_port
            if other is not server and self.network is not None:
                quorum, election = (link.port for link in self.server_links[server.number, other.number])
            role = "" if other.number <= self._voters else ":observer"
            lines.append(f"server.{other.number}=127.0.0.1:{quorum}:{election}{role}")
        (server.directory / "zoo.cfg").write_text("\n".join(lines) + "\n")
