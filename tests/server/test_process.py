"""The process: signals, the orderly end, pid file, daemon, `shutdown`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.serving import Client, Server, eventually, run_to_end


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_ends_with_open_connections(server: Server, number: signal.Signals) -> None:
    clients = [server.connect() for _ in range(20)]
    assert all(client.command(b"mn") == b"MN\r\n" for client in clients)
    server.signal(number)
    assert server.end() == 0
    assert all(client.is_closed() for client in clients)
    assert ("Gracefully stopping" in server.log()) == (number == signal.SIGUSR1)
    assert "Traceback" not in server.log()


@pytest.mark.slow
def test_signals_while_it_is_loaded() -> None:
    """Before there are handlers SIGINT ends it without a traceback, as the others would; SIGHUP and SIGUSR1 wait for theirs.

    Loading the command line takes most of that time: signals are seen to before.
    """
    code = (
        "import os, signal, sys, types\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # a run of the tests in a shell's background ignores it
        "def main():\n"
        "    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT): os.kill(os.getpid(), number)\n"
        "import mcserver.__main__ as program\n"
        "assert 'mcserver.cli' not in sys.modules\n"
        "mcserver = sys.modules['mcserver']\n"
        "mcserver.cli = sys.modules['mcserver.cli'] = types.SimpleNamespace(main=main)\n"
        "program.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_subcommand_has_pythons_own_signals(ignored: bool) -> None:
    """So that its tidying up takes place; where a shell has SIGINT ignored in the background it stays so."""
    code = (
        "import signal, sys, mcserver.cli as cli\n"
        f"signal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'default_int_handler'})\n"
        "def show(arguments):\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "    print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "    return 0\n"
        "cli.show_config = show; sys.argv = ['mcserver', 'config']\n"
        "from mcserver.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"%s\nset()\n" % str(not ignored).encode()), done.stderr


def is_answered(client: Client) -> None:
    """Waits until the first byte of a reply has come, and leaves it there."""
    assert client.socket.recv(1, socket.MSG_PEEK)


@pytest.mark.slow
def test_ends_although_a_client_never_reads(server: Server) -> None:
    client = server.connect()
    assert client.command(b"set a 0 0 500000\r\n" + b"x" * 500000) == b"STORED\r\n"
    client.send(b"get a\r\n" * 1000)
    is_answered(client)
    server.signal(signal.SIGTERM)
    assert server.end() == 0


@pytest.mark.slow
def test_replies_drain_at_the_end(server: Server) -> None:
    client = server.connect()
    size = 900_000
    assert client.command(b"set a 0 0 %d\r\n" % size + b"x" * size) == b"STORED\r\n"
    client.send(b"get a\r\n" * 8)
    is_answered(client)
    server.signal(signal.SIGTERM)
    eventually(lambda: "SIGTERM" in server.log())
    data = client.to_end()
    first = b"VALUE a 0 %d\r\n" % size
    assert data.startswith(first)
    assert data.endswith(b"x\r\nEND\r\n"), "a reply that was begun must go out whole"
    assert server.end() == 0


@pytest.mark.slow
def test_no_new_connection_at_the_end(server: Server) -> None:
    client = server.connect()
    assert client.command(b"set a 0 0 900000\r\n" + b"x" * 900000) == b"STORED\r\n"
    client.send(b"get a\r\n" * 20)
    is_answered(client)
    server.signal(signal.SIGTERM)
    eventually(lambda: "SIGTERM" in server.log())
    with pytest.raises(ConnectionError):
        server.connect()
    client.close()
    assert server.end() == 0


def test_second_signal_changes_nothing(server: Server) -> None:
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGINT)
    while server.process.poll() is None:  # to the very end, when its loop is closed
        server.signal(signal.SIGINT)
        time.sleep(0.0005)
    assert server.end() == 0


def test_hup_is_survived(server: Server, client: Client) -> None:
    server.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP" in server.log())
    assert client.command(b"mn") == b"MN\r\n"


@pytest.mark.parametrize(("line", "graceful"), [(b"shutdown", False), (b"shutdown graceful", True)])
def test_shutdown_closes_all_and_ends(start: Start, line: bytes, graceful: bool) -> None:
    server = start("-A")
    client, other = server.connect(), server.connect()
    assert other.command(b"mn") == b"MN\r\n"
    client.send(line + b"\r\n")
    assert client.to_end() == b""
    assert other.is_closed()
    assert server.end() == 0
    assert ("Gracefully stopping" in server.log()) is graceful


def test_the_pid_file_stays_unless_it_is_a_daemons(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    server = start("-P", str(path))
    assert path.read_text() == f"{server.pid}\n"
    server.signal(signal.SIGTERM)
    assert server.end() == 0
    assert path.exists(), "only a daemon removes it"


def test_pid_file_that_can_not_be_written_is_a_warning(start: Start) -> None:
    server = start("-P", "/nonexistent/pid")
    assert server.connect().command(b"mn") == b"MN\r\n"
    eventually(lambda: "could not write the pid file /nonexistent/pid" in server.log())


def test_pid_file_of_a_living_process_is_a_warning(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")
    server = start("-P", str(path))
    eventually(lambda: f"named the running process {os.getpid()}" in server.log())
    assert path.read_text() == f"{server.pid}\n"


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"nonsense", b"999999999999999999999", b"-1", b"\xff" * 100])
def test_pid_file_of_nobody(start: Start, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pid"
    path.write_bytes(content)
    server = start("-P", str(path))
    assert "WARNING" not in server.log()
    assert path.read_text() == f"{server.pid}\n"


def test_pid_file_does_not_follow_a_link(start: Start, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    for name in ("pid", "pid.lck"):
        (tmp_path / name).symlink_to(precious)
    server = start("-P", str(tmp_path / "pid"))
    assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
    assert precious.read_text() == "data"


@pytest.mark.slow
def test_threads_have_memcacheds_names(start: Start) -> None:
    server = start("-t", "3")
    names = [file.read_text().strip() for file in Path(f"/proc/{server.pid}/task").glob("*/comm")]
    assert names.count("mc-worker") == 3


def test_no_new_privileges(server: Server) -> None:
    assert "NoNewPrivs:\t1\n" in Path(f"/proc/{server.pid}/status").read_text()
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        assert "NoNewPrivs:\t1\n" in (thread / "status").read_text()


@pytest.mark.slow
def test_a_daemon_serves_and_takes_its_pid_file_away(tmp_path: Path) -> None:
    pid_file, ports = tmp_path / "pid", tmp_path / "ports"
    started = subprocess.run(
        [
            *(sys.executable, "-m", "mcserver", "-u", "root", "-l", "127.0.0.1", "-p", "-1"),
            *("-d", "-P", str(pid_file)),
        ],
        env={**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)},
        timeout=60,
        check=True,
        capture_output=True,
    )
    assert started.returncode == 0
    eventually(pid_file.exists)
    pid = int(pid_file.read_text())
    try:
        client = Client(("127.0.0.1", int(ports.read_text().split()[-1])))
        assert client.stats()["pid"] == str(pid)
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert os.getsid(pid) != os.getsid(0)
        client.close()
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not pid_file.exists())
    eventually(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.slow
def test_daemon_tells_the_terminal_of_a_failed_start(server: Server) -> None:
    ended = run_to_end("-u", "root", "-d", "-l", "127.0.0.1", "-p", str(server.port))
    assert ended.returncode == 71
    assert "Address already in use" in ended.stderr


@pytest.mark.slow
def test_daemon_waits_until_it_serves(tmp_path: Path) -> None:
    """Also of what fails late, and with a pid file that can't be written: a word, and the right exit code."""
    environment = {"MEMCACHED_PORT_FILENAME": "/nonexistent/ports"}
    ended = run_to_end("-u", "root", "-d", "-l", "127.0.0.1", "-p", "-1", environment=environment)
    assert ended.returncode == 71
    assert "/nonexistent/ports" in ended.stderr
    path = tmp_path / "socket"
    ended = run_to_end("-u", "root", "-d", "-s", str(path), "-A", "-P", "/nonexistent/pid")
    assert ended.returncode == 0
    assert "could not write the pid file" in ended.stderr
    client = Client(str(path))  # at once
    client.send(b"shutdown\r\n")
    assert client.to_end() == b""
    client.close()
