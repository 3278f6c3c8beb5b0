"""--take-over: a new process gets the sockets and the memory of the one that serves, under load and without a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcserver.server import handover
from mcserver.server.handover import HELLO, NO, HandOverError, Inheritance, Offer, fields_of, receive_offer
from mcserver.server.listeners import Sockets
from mcserver.system.process import StartError, is_alive, open_descriptors
from tests.conftest import Start
from tests.datagrams import Datagrams
from tests.serving import Server, eventually, run_to_end


@pytest.mark.slow
def test_an_upgrade_under_load(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path, "-t", "2")
    client = old.connect()
    client.command(b"".join(b"set k%d 0 0 5\r\n%05d\r\n" % (n, n) for n in range(20000)) + b"mn", b"MN\r\n")
    client.close()
    refused: list[OSError] = []
    served, ending = [0], threading.Event()

    def load() -> None:
        while not ending.is_set():
            try:
                with socket.create_connection(old.tcp, 30) as one:
                    for n in range(50):
                        one.sendall(b"get k%d\r\n" % n)
                        if not one.recv(100):
                            break
                        served[0] += 1
            except ConnectionRefusedError as error:
                refused.append(error)
            except OSError:
                pass  # a connection that was open ends

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        new = start("--take-over", path, "-t", "2", "-p", str(old.port))
        assert old.end() == 0, old.log()
        before = served[0]
        with socket.create_connection(old.tcp, 30) as one:
            one.sendall(b"get k1\r\n")
            assert one.recv(100) == b"VALUE k1 0 5\r\n00001\r\nEND\r\n"
        client = new.connect()
        stats = client.stats()
        assert int(stats["pid"]) == new.pid
        assert int(stats["curr_items"]) == 20000
        while served[0] < before + 200:
            threads[0].join(0.01)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert not refused
    third = start("--take-over", path, "-I", "2m", "-p", str(old.port))
    assert new.end() == 0
    assert "starting empty: -I differs" in third.log()
    assert third.connect().command(b"mg k1") == b"EN\r\n"


@pytest.fixture
def memory() -> Iterator[Path]:
    """A file on a tmpfs."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder, "memory")


def upgrade(start: Start, old: Server, *args: str) -> Server:
    """The next process, when the one before has ended."""
    for client in old.clients:
        client.close()
    new = start("-p", str(old.port), *args)
    assert old.end() == 0, old.log()
    return new


def nameless(server: Server) -> int:
    """How many memories without a name the process has open."""
    found = Path(f"/proc/{server.pid}/fd").iterdir()
    return sum(str(each.readlink()).startswith("/memfd:mcserver") for each in found)


@pytest.mark.slow
def test_with_a_memory_file(start: Start, tmp_path: Path, memory: Path) -> None:
    options = ("--take-over", str(tmp_path / "door"), "-e", str(memory))
    server = start(*options)
    server.connect().command(b"set k 0 0 5\r\nhello")
    for _ in range(2):
        server = upgrade(start, server, *options)
        assert server.connect().command(b"mg k v") == b"VA 5\r\n"
    assert not memory.with_name("memory.meta").exists(), "nothing is kept of what another process has"
    second = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-e", str(memory))
    assert "another server has its memory in" in second.stderr, "the lock is handed over, too"
    for client in server.clients:
        client.close()
    server.signal(signal.SIGUSR1)
    assert server.end() == 0
    server = start(*options)
    assert server.connect().command(b"mg k v") == b"VA 5\r\n", "and the last one keeps it"


@pytest.mark.slow
def test_another_memory_file_starts_empty_and_lets_the_old_memory_go(
    start: Start, tmp_path: Path, memory: Path
) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path)
    assert nameless(old) == 2, "the engine's, and that which is offered"
    old.connect().command(b"set k 0 0 5\r\nhello")
    new = upgrade(start, old, "--take-over", path, "-e", str(memory))
    assert "starting empty: -e names another file" in new.log()
    assert new.connect().command(b"mg k v") == b"EN\r\n"
    assert nameless(new) == 0


@pytest.mark.slow
def test_datagrams_are_answered_by_the_new_process(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path, "-U", "-1", "-t", "2")
    port = next(int(line.split()[-1]) for line in old.port_file.read_text().splitlines() if line.startswith("UDP"))
    with contextlib.closing(Datagrams(("127.0.0.1", port))) as client:
        assert client.one(b"set k 0 0 5\r\nhello\r\n") == b"STORED\r\n"
        new = upgrade(start, old, "--take-over", path, "-U", str(port), "-t", "2")
        assert client.one(b"get k\r\n") == b"VALUE k 0 5\r\nhello\r\nEND\r\n"
        assert f"UDP INET: {port}" in new.port_file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("login", ["-Y", "-S"])
def test_datagrams_are_not_handed_to_who_wants_a_login(start: Start, tmp_path: Path, login: str) -> None:
    """-U is refused with a login: nobody can log in by UDP. The one that serves goes on."""
    path, users = str(tmp_path / "door"), tmp_path / "users"
    users.write_text("alice:secret\n")
    old = start("--take-over", path, "-U", "-1")
    options = ["-Y", str(users)] if login == "-Y" else ["-S"]
    new = run_to_end("-u", "root", "--take-over", path, *options, environment={"MEMCACHED_SASL_PWDB": str(users)})
    assert new.returncode == 71
    assert "the other server has a UDP port, where nobody can log in" in new.stderr
    assert old.connect().command(b"mn") == b"MN\r\n"
    eventually(lambda: "nothing was handed over: the other side left" in old.log())


@pytest.mark.slow
def test_who_may_be_idle_is_said_by_the_socket_that_was_handed_over(start: Start, tmp_path: Path) -> None:
    """-o idle_timeout is for TCP: what the new process is told of -s and -p has no effect, on that neither."""
    path = str(tmp_path / "door")
    old = start("--take-over", path, "-s", str(tmp_path / "socket"))
    new = start("--take-over", path, "-o", "idle_timeout=1")
    assert old.end() == 0, old.log()
    assert new.address == old.address
    by_unix = new.connect()
    path = str(tmp_path / "another")
    old = start("--take-over", path)
    new = start("--take-over", path, "-s", str(tmp_path / "none"), "-o", "idle_timeout=1")
    assert old.end() == 0, old.log()
    assert new.address == old.address
    assert new.connect().to_end() == b""
    time.sleep(1)
    assert by_unix.command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_the_settings_say_where_it_really_listens(start: Start, tmp_path: Path) -> None:
    path, by_unix = str(tmp_path / "door"), str(tmp_path / "socket")
    old = start("--take-over", path, "-s", by_unix)
    new = start("--take-over", path, "-p", "11999")
    assert old.end() == 0, old.log()
    settings = new.connect().stats("settings")
    assert [settings[name] for name in ("domain_socket", "tcpport", "udpport")] == [by_unix, "0", "0"]
    path = str(tmp_path / "another")
    old = start("--take-over", path, "-U", "-1")
    port, ports = str(old.port), old.port_file.read_text()
    for options in (["-p", "11999"], ["-s", str(tmp_path / "none")], ["-p", "-1", "-U", "11998"]):
        old, new = new, start("--take-over", path, *options)
        settings = new.connect().stats("settings")
        assert [settings[name] for name in ("domain_socket", "tcpport")] == ["NULL", port]
        assert f"UDP INET: {settings['udpport']}" in ports
        assert new.port_file.read_text() == ports


@pytest.mark.slow
def test_the_pid_file_names_the_one_that_serves(start: Start, tmp_path: Path) -> None:
    path, file = str(tmp_path / "door"), tmp_path / "pid"
    options = ("--take-over", path, "-P", str(file))
    server = start(*options)
    for _ in range(2):
        server = upgrade(start, server, *options)
        assert file.read_text() == f"{server.pid}\n"
        assert "named the running process" not in server.log()
    upgrade(start, server, "--take-over", path)
    assert file.read_text() == f"{server.pid}\n", "nobody is told to change it, and only a daemon removes its own"


@pytest.mark.slow
def test_a_start_that_fails_late_leaves_the_pid_file_to_the_one_that_serves(start: Start, tmp_path: Path) -> None:
    path, file = str(tmp_path / "door"), tmp_path / "pid"
    options = ("--take-over", path, "-P", str(file))
    server = start(*options)
    command = [sys.executable, "-m", "mcserver", "-u", "root", *options, "-m", "8000"]
    late = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "can't set up the memory" in late.stderr
    assert file.read_text() == f"{server.pid}\n"
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_a_daemon_removes_its_pid_file_before_the_next_one_writes_its_own(start: Start, tmp_path: Path) -> None:
    path, file, ports = str(tmp_path / "door"), tmp_path / "pid", tmp_path / "ports"
    options = ("-P", str(file), "--take-over", path)
    daemon = run_to_end(
        *("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-d", *options),
        environment={"MEMCACHED_PORT_FILENAME": str(ports)},
    )
    assert daemon.returncode == 0, daemon.stderr
    eventually(file.exists)
    pid = int(file.read_text())
    try:
        new = start(*options, "-p", ports.read_text().split()[-1])
        eventually(lambda: not is_alive(pid))
        assert file.read_text() == f"{new.pid}\n"
        assert "named the running process" not in new.log()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def locked(server: Server) -> int:
    """KiB of memory that the process has locked."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck"))


@pytest.mark.slow
@pytest.mark.parametrize("file", [False, True])
def test_locked_memory_stays_locked(start: Start, tmp_path: Path, memory: Path, file: bool) -> None:
    """Whoever may not lock it serves and says so."""
    options = ("--take-over", str(tmp_path / "door"), "-k", *(["-e", str(memory)] if file else []))
    server = start(*options)
    server.connect().command(b"set k 0 0 100000\r\n" + b"x" * 100000)
    for _ in range(2):
        assert (locked(server) > 100) is ("-k: could not lock the memory" not in server.log())
        assert "has no effect" not in server.log()
        server = upgrade(start, server, *options)
        assert server.connect().command(b"mg k s") == b"HD s100000\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-k"], ["-k", "-e"], ["-k", "--take-over"]])
def test_memory_that_is_too_much_is_given_back(start: Start, tmp_path: Path, memory: Path, options: list[str]) -> None:
    path = {"-e": str(memory), "--take-over": str(tmp_path / "door")}
    server = start("-m", "100", *options, *([path[options[-1]]] if options[-1:] not in ([], ["-k"]) else []))
    client = server.connect()
    for n in range(80):
        client.command(b"set k%d 0 0 1000000\r\n" % n + b"x" * 1_000_000)
    before = server.resident()
    assert client.command(b"cache_memlimit 16") == b"OK\r\n"
    eventually(lambda: server.resident() < before - (40 << 20))


@pytest.mark.slow
def test_what_was_counted_by_prefix_begins_anew(start: Start, tmp_path: Path) -> None:
    options = ("--take-over", str(tmp_path / "door"), "-D", ":")
    server = start(*options)
    client = server.connect()
    client.command(b"set a:k 0 0 1\r\n1")
    assert b"PREFIX a get 0 hit 0 set 1 del 0" in client.command(b"stats detail dump", b"END\r\n")
    client = upgrade(start, server, *options).connect()
    assert client.command(b"stats detail dump", b"END\r\n") == b"END\r\n"
    assert client.command(b"get a:k", b"END\r\n") == b"VALUE a:k 0 1\r\n1\r\nEND\r\n"
    assert b"PREFIX a get 1 hit 1 set 0 del 0" in client.command(b"stats detail dump", b"END\r\n")


@pytest.mark.slow
def test_the_port_of_metrics_is_handed_over(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"

    def items() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as page:
            lines: list[str] = page.read().decode().splitlines()
        return next(line for line in lines if line.startswith("memcached_current_items "))

    old = start("--take-over", path, "--metrics", address)
    old.connect().command(b"set k 0 0 5\r\nhello")
    assert items() == "memcached_current_items 1.0"
    upgrade(start, old, "--take-over", path, "--metrics", address)
    assert items() == "memcached_current_items 1.0"


@pytest.mark.slow
def test_who_was_full_when_it_ended_leaves_no_narrow_door(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path, "-c", "1", "-o", "no_maxconns_fast")
    client = old.connect()
    with socket.create_connection(old.tcp, 60):
        eventually(lambda: client.stats()["listen_disabled_num"] == "1")
        new = start("--take-over", path, "-p", str(old.port))
        assert old.end() == 0, old.log()
    new.signal(signal.SIGSTOP)
    try:
        for _ in range(5):
            new.connect()
    finally:
        new.signal(signal.SIGCONT)
    assert new.clients[-1].command(b"mn") == b"MN\r\n"


def test_whoever_asks_wrongly_gets_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "door"
    server = start("--take-over", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    for word in (b"", b"GET / HTTP/1.1\r\n\r\n", HELLO[:-3] + b"9\n", HELLO + b"no\n"):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
            one.sendall(word)
            one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while one.recv(4096):
                    pass
    assert server.connect().command(b"mn") == b"MN\r\n"


def test_a_server_that_leaves_who_asks_is_named_in_words(tmp_path: Path) -> None:
    """So does one that just hands over to somebody else."""
    path = str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(1)

        def leave() -> None:
            with door.accept()[0] as asking:
                asking.recv(1)  # what else was said stays unread

        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(StartError, match=r"can't take over from .*door: Connection reset by peer; end that server"):
            handover.inherit(path)
        leaving.join()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b"x\n",
        b'{"kinds": ["memory"], "layout": "00"}\n',
        b'{"kinds": 7, "layout": "00"}\n',
        b'{"kinds": ["memory"], "secure": [""], "layout": "00"}\n',
        b'{"kinds": ["memory"], "secure": ["ssl"], "layout": "00"}\n',
        b'{"kinds": ["memory"], "secure": [[]], "layout": "00"}\n',
        b'{"kinds": ["memory"], "secure": 7, "layout": "00"}\n',
        b'{"kinds": ["memory"], "speaks": 7, "layout": "00"}\n',
        b'{"kinds": ["memory"], "speaks": [], "layout": "00"}\n',
        b'{"kinds": ["memory"], "speaks": ["sasl"], "layout": "00"}\n',
        b'{"kinds": ["memory"], "speaks": [[]], "layout": "00"}\n',
    ],
)
def test_an_offer_that_makes_no_sense(line: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, open(os.devnull, "rb") as null:
        if line:
            socket.send_fds(theirs, [line], [null.fileno()])
        theirs.close()
        with pytest.raises(HandOverError):
            receive_offer(ours)


@pytest.mark.parametrize("kind", ["listener", "datagram", "metrics", "memory", "other", [], {}, 7])
def test_a_descriptor_that_is_something_else_is_closed(kind: object) -> None:
    """Of a right memory and a socket that is connected, which nobody can serve."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    one, other = socket.socketpair(socket.AF_UNIX)
    memory = os.memfd_create("test")
    before = open_descriptors()
    with ours, theirs, one, other:
        line = json.dumps({"kinds": ["memory", kind], "layout": "00"}).encode() + b"\n"
        socket.send_fds(theirs, [line], [memory, one.fileno()])
        with pytest.raises(HandOverError):
            receive_offer(ours)
        assert open_descriptors() == before
    os.close(memory)


def test_a_door_without_a_descriptor_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who asked while none was left closed it for ever, in silence."""
    monkeypatch.setattr(handover, "REST_SECONDS", 0.001)

    async def ask() -> bytes:
        loop, path = asyncio.get_running_loop(), str(tmp_path / "door")
        accept, refusals = loop.sock_accept, [OSError(errno.EMFILE, "none left")] * 3

        async def short(door: socket.socket) -> tuple[socket.socket, object]:
            if refusals:
                raise refusals.pop()
            return await accept(door)

        monkeypatch.setattr(loop, "sock_accept", short)
        with os.fdopen(os.memfd_create("test"), "wb") as memory:
            offer = Offer(Sockets([], [], None), memory.fileno(), b"layout")
            door = handover.HandOver(handover.open_door(path), lambda: offer, lambda: None)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(HELLO)
            try:
                return await asyncio.wait_for(reader.readline(), 30)
            finally:
                writer.close()
                door.close()

    assert json.loads(asyncio.run(ask()))["layout"] == b"layout".hex()


def test_a_server_that_does_not_end_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "END_SECONDS", 0.01)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs, pytest.raises(StartError, match="doesn't end: end it"):
        Inheritance(ours, Offer(Sockets([], [], None), -1, b"")).take()
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("step", "said", "why"),
    [
        (Inheritance.take, b"", "goes on, and hands nothing over"),
        (Inheritance.take, b"7\n", "goes on, and hands nothing over"),
        (Inheritance.take, NO, "took too long; try again"),
        (Inheritance.claim, b"", "goes on, and hands nothing over"),
        (Inheritance.claim, NO, "took too long; try again"),
    ],
)
def test_who_goes_on_keeps_all(
    monkeypatch: pytest.MonkeyPatch, step: Callable[[Inheritance], object], said: bytes, why: str
) -> None:
    """Else two would serve the same, or one would empty what the other reads. The other process is this one, here."""
    monkeypatch.setattr(handover, "END_SECONDS", 0.01)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        heir = Inheritance(ours, Offer(Sockets([], [], None), -1, b""))
        theirs.sendall(said)
        theirs.close()
        with pytest.raises(StartError, match=why):
            step(heir)
    os.close(heir._process)


def test_an_offer_brings_sockets_memory_and_layout() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    memory = os.memfd_create("test")
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        line = json.dumps({"kinds": ["listener", "memory", "datagram", "metrics"], "layout": "0a"}).encode() + b"\n"
        socket.send_fds(theirs, [line], [one.fileno(), memory, other.fileno(), one.fileno()])
        sockets, offered, layout = receive_offer(ours)
        assert os.path.samestat(os.fstat(offered), os.fstat(memory))
        assert layout == b"\n"
        assert sockets.metrics is not None
        received = [*sockets.listeners, *sockets.datagrams, sockets.metrics]
        assert [each.getsockname() for each in received] == [each.getsockname() for each in (one, other, one)]
        assert not any(os.get_inheritable(fd) for fd in [offered, *(each.fileno() for each in received)])
        assert not any(each.getblocking() for each in received)
        for each in received:
            each.close()
    os.close(memory)
    os.close(offered)


@pytest.mark.parametrize("line", [b"", b"{}", b"7\n", b"\xff\n", b"[" * 100000 + b"\n"])
def test_a_line_that_makes_no_sense(line: bytes) -> None:
    with pytest.raises(HandOverError):
        fields_of(line)
