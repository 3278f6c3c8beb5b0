"""The service manager's protocols, with a manager that the test plays and with systemd's own tools."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcserver.system.process import StartError
from mcserver.system.systemd import Manager, inherited
from tests.ports import free_port
from tests.serving import Client, eventually

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "packaging/systemd"
PASS_SOCKETS = """
import os, sys
pairs = [int(each) for each in sys.argv[1].split(",") if each]
for number, descriptor in enumerate(pairs):
    os.dup2(descriptor, 100 + number)
for number in range(len(pairs)):
    os.dup2(100 + number, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "mcserver", *sys.argv[2:]])
"""
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


class Supervisor:
    """A service manager: opens sockets, starts a server, hears what it tells."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(self.path)
        self.heard.settimeout(20)
        self.process: subprocess.Popen[bytes]
        self.log = folder / "log"

    def start(self, *arguments: str, sockets: list[socket.socket] | None = None, **environment: str) -> None:
        passed = sockets or []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PASS_SOCKETS, ",".join(str(each.fileno()) for each in passed), "-u", "root", *arguments],
                pass_fds=[each.fileno() for each in passed],
                env={**os.environ, "NOTIFY_SOCKET": self.path, "LISTEN_FDS": str(len(passed)), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )  # fmt: skip

    def hear(self, wanted: str) -> dict[str, str]:
        """The next message that has this key; the others are skipped."""
        while True:
            lines = self.heard.recv(4096).decode().splitlines()
            told = dict(line.split("=", 1) for line in lines)
            if wanted in told:
                return told

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path)
    yield found
    found.stop()
    found.heard.close()


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_it_is_ready_when_it_serves_and_tells_its_end(supervisor: Supervisor) -> None:
    port = free_port()
    supervisor.start("-l", "127.0.0.1", "-p", str(port))
    told = supervisor.hear("READY")
    assert told["MAINPID"] == str(supervisor.process.pid)
    client = Client(("127.0.0.1", port))
    assert client.command(b"mn") == b"MN\r\n"
    client.close()
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.hear("STOPPING") == {"STOPPING": "1"}
    assert supervisor.process.wait(10) == 0


def test_sockets_that_the_manager_opened_are_served(supervisor: Supervisor, tmp_path: Path) -> None:
    with listener() as cache, listener() as metrics, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "cache"))
        unix.listen()
        early = Client(cache.getsockname())  # before anybody serves it
        early.send(b"mn\r\n")
        supervisor.start("-p", "1", sockets=[cache, metrics, unix], LISTEN_FDNAMES="cache:metrics:cache")
        supervisor.hear("READY")
        assert early.until(b"\r\n") == b"MN\r\n"
        other = Client(str(tmp_path / "cache"))
        assert other.command(b"mn") == b"MN\r\n"
        with socket.create_connection(metrics.getsockname()) as asking:
            asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert asking.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert supervisor.stop() == 0
        early.close()
        other.close()


@pytest.mark.slow
def test_the_ports_stay_open_over_a_restart(supervisor: Supervisor) -> None:
    with listener() as cache:
        for _ in range(2):
            supervisor.start(sockets=[cache])
            supervisor.hear("READY")
            client = Client(cache.getsockname())
            assert client.command(b"mn") == b"MN\r\n"
            client.close()
            assert supervisor.stop() == 0


@pytest.mark.parametrize("kind", ["file", "datagram", "not listening"])
def test_a_socket_that_cannot_be_served_stops_the_start(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: object
    if kind == "file":
        found = (tmp_path / "x").open("w")
    elif kind == "datagram":
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        found = socket.socket()
    descriptor = os.dup(found.fileno())
    found.close()
    monkeypatch.setattr("mcserver.system.systemd.FIRST_DESCRIPTOR", descriptor)
    with pytest.raises(StartError, match="can't be served") as caught:
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    assert caught.value.code == 71
    os.close(descriptor)


def test_variables_for_somebody_else_are_taken_out_and_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "PATH": "/bin"}
    assert inherited(environment) is None
    assert environment == {"PATH": "/bin"}
    for odd in ("x", "²", "9" * 5000, "-1"):
        assert inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": odd}) is None
        Manager({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": odd})


@pytest.mark.slow
def test_the_watchdog_hears_it_twice_in_its_time(supervisor: Supervisor) -> None:
    with listener() as cache:
        supervisor.start(sockets=[cache], WATCHDOG_USEC="200000")
        supervisor.hear("READY")
        for _ in range(5):
            assert supervisor.hear("WATCHDOG") == {"WATCHDOG": "1"}
        supervisor.process.send_signal(signal.SIGSTOP)  # it hangs: nobody hears anything
        time.sleep(0.1)
        supervisor.heard.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while supervisor.heard.recv(4096):
                pass
        supervisor.heard.settimeout(0.3)
        with pytest.raises(TimeoutError):
            supervisor.heard.recv(4096)
        supervisor.process.send_signal(signal.SIGCONT)
        supervisor.heard.settimeout(20)
        supervisor.hear("WATCHDOG")


def test_a_watchdog_of_another_process_is_not_fed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    monkeypatch.setattr(manager, "_tell", told.append)
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        manager.ready(loop, "x")
    assert [text.split("\n")[0] for text in told] == ["READY=1"]


def test_who_works_is_alive_no_longer_than_he_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that hangs there is started anew; and one for whom the system has no thread works all the same."""
    told: list[str] = []
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "4000"})
    monkeypatch.setattr(manager, "_tell", told.append)
    with manager.working(0.05):
        eventually(lambda: len(told) > 3)
        time.sleep(0.1)
        count = len(told)
        time.sleep(0.05)
        assert len(told) == count
    assert set(told) == {"WATCHDOG=1"}
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError))
    with manager.working(60):
        pass
    assert len(told) == count + 1
    silent = Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with silent.working(60):
        pass


@pytest.mark.slow
def test_a_reload_is_told(supervisor: Supervisor, tmp_path: Path) -> None:
    file = tmp_path / "mcserver.toml"
    file.write_text("conn-limit = 100")
    with listener() as cache:
        supervisor.start("--config", str(file), sockets=[cache])
        supervisor.hear("READY")
        for text, status in [
            ("conn-limit = 200\nthreads = 9", "threads needs a new start"),
            ("conn-limit = 0", "nothing has changed"),
        ]:
            file.write_text(text + "\n")
            supervisor.process.send_signal(signal.SIGHUP)
            assert int(supervisor.hear("RELOADING")["MONOTONIC_USEC"]) > 0
            assert status in supervisor.hear("READY")["STATUS"]


def test_a_manager_that_has_gone_stops_nobody(tmp_path: Path) -> None:
    for address in (str(tmp_path / "nobody"), "@nobody-there"):
        Manager({"NOTIFY_SOCKET": address}).stopping()
    Manager({}).stopping()


def test_an_abstract_socket_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0mcserver-test-{os.getpid()}")
        Manager({"NOTIFY_SOCKET": f"@mcserver-test-{os.getpid()}"}).stopping()
        heard.settimeout(5)
        assert heard.recv(100) == b"STOPPING=1"


# systemd's own tools -------------------------------------------------------------------------------------------------------


def test_systemds_own_socket_activation_starts_it() -> None:
    port = free_port()
    process = subprocess.Popen(
        ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", sys.executable, "-m", "mcserver", "-u", "root"],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client = Client(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        client.socket.settimeout(20)
        assert client.stats()["pid"] == str(process.pid)  # it became the server
        client.close()
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_the_units_are_right_and_tight(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():  # with a program that is there
        text = unit.read_text().replace("/usr/bin/mcserver", sys.executable)
        (tmp_path / unit.name).write_text(text)
    paths = [str(tmp_path / unit.name) for unit in UNITS.iterdir()]
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert [line for line in checked.stderr.splitlines() if "mcserver" in line] == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(tmp_path / "mcserver.service")],
        capture_output=True, text=True, timeout=60, check=True, env={**environment, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    exposure = re.search(r"Overall exposure level for mcserver.service: ([\d.]+)", rated.stdout)
    assert exposure
    assert float(exposure[1]) <= 2.0


@pytest.mark.slow
def test_it_serves_without_new_executable_memory(supervisor: Supervisor) -> None:
    """MemoryDenyWriteExecute=yes, by the kernel's own switch."""
    libc = ctypes.CDLL(None, use_errno=True)
    with listener() as cache:
        child = os.fork()
        if child == 0:  # the switch is for this child and what it starts
            assert libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
            supervisor.start(sockets=[cache])
            os._exit(supervisor.process.wait())
        told = supervisor.hear("READY")
        client = Client(cache.getsockname())
        assert client.command(b"mn") == b"MN\r\n"
        client.close()
        os.kill(int(told["MAINPID"]), signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == 0
    supervisor.process = subprocess.Popen(["true"])


def test_the_sample_of_a_configuration_is_one() -> None:
    from mcserver import cli

    config = cli.configured(["-u", "root", "--config", str(ROOT / "packaging/mcserver.toml")])
    assert (config.tcpport, config.inter) == (11211, "127.0.0.1")
