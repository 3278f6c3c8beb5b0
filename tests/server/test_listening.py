"""Where a server listens, what it writes about it, and what it says when it can't."""

from __future__ import annotations

import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcserver.cli import parse
from mcserver.server.listeners import clear_the_way
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError
from mcserver.system.process import StartError
from tests.conftest import Start
from tests.ports import free_port
from tests.serving import Client, Server, eventually, run_to_end


def test_start_up_line(server: Server) -> None:
    assert re.search(
        rf"INFO mcserver \S+ \(memcached 1\.6\.45\) listens on tcp:127\.0\.0\.1:{server.port}; memory 64 MiB, "
        rf"1024 connections; uvloop-\S+, Python 3\.\d+\.\d+; pid {server.pid}\n",
        server.log(),
    )


def test_asyncio_loop_serves_too(start: Start) -> None:
    client = start("--loop", "asyncio").connect()
    assert client.command(b"set a 0 0 1\r\nx") == b"STORED\r\n"
    assert client.command(b"get a", b"END\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
    assert client.stats()["libevent"].startswith("asyncio-")


def test_stats_show_the_process(server: Server, client: Client) -> None:
    stats = client.stats()
    assert stats["pid"] == str(server.pid)
    assert stats["curr_connections"] == "1"
    assert stats["total_connections"] == "2", "memcached counts the listener, too"
    assert stats["libevent"].startswith("uvloop-")
    assert client.stats("settings")["tcpport"] == str(server.port)


def test_first_stats_has_written_nothing(client: Client) -> None:
    assert client.stats()["bytes_written"] == "0"
    assert client.stats()["bytes_written"] != "0"


def test_it_listens_at_each_address_of_l(start: Start) -> None:
    server = start("-l", "127.0.0.1,127.0.0.2", "-l", "127.0.0.3")
    listening = re.findall(r"tcp:(127\.0\.0\.\d):(\d+)", server.log())
    assert [host for host, _ in listening] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert server.port_file.read_text() == "".join(f"TCP INET: {port}\n" for _, port in listening)
    for host, port in listening:
        client = Client((host, int(port)))
        assert client.command(b"version") == b"VERSION 1.6.45\r\n"
        client.close()


@pytest.mark.parametrize("inter", ["::1", "[::1]"])
def test_it_listens_at_an_ipv6_address(start: Start, inter: str) -> None:
    server = start("-l", inter)
    assert server.port_file.read_text() == f"TCP INET6: {server.port}\n"
    assert f"tcp6:[::1]:{server.port};" in server.log()
    client = server.connect()
    assert client.command(b"version") == b"VERSION 1.6.45\r\n"
    assert f"tcp6:[::1]:{server.port}" in client.stats("conns").values()


def test_a_star_is_every_interface(start: Start) -> None:
    server = start("-l", "*")
    assert f"tcp:0.0.0.0:{server.port}" in server.log()
    assert server.connect().command(b"version") == b"VERSION 1.6.45\r\n"


def test_port_of_the_address_wins(start: Start) -> None:
    port = free_port()
    server = start("-p", "11211", "-l", f"127.0.0.1:{port}")
    assert f":{port};" in server.log()


def test_port_0_of_an_address_is_any_that_is_free(start: Start) -> None:
    """As in memcached, where -p 0 alone is none."""
    server = start("-l", "127.0.0.1:0", "-p", "11999")
    assert server.port not in {0, 11999}
    assert server.connect().command(b"mn") == b"MN\r\n"


def test_port_file_goes_with_any_name(start: Start) -> None:
    server = start()
    assert server.port_file.read_text() == f"TCP INET: {server.port}\n"


@pytest.mark.slow
def test_port_in_use_says_what_to_change(server: Server) -> None:
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", str(server.port))
    assert ended.returncode == 71
    assert f"port {server.port} of 127.0.0.1: Address already in use" in ended.stderr
    assert "-p" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_address_that_does_not_resolve() -> None:
    ended = run_to_end("-u", "root", "-p", "-1", "-l", "no.such.host.invalid")
    assert ended.returncode == 71
    assert "no.such.host.invalid" in ended.stderr
    assert "-l" in ended.stderr


def test_nothing_to_listen_on_is_a_warning_as_in_memcached(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "mcserver", "-u", "root", "-p", "0"], stderr=log)
    eventually(lambda: " listens on nothing;" in (tmp_path / "log").read_text())
    assert "WARNING nothing to listen on: give a TCP port with -p" in (tmp_path / "log").read_text()
    process.terminate()
    assert process.wait(10) == 0


def test_port_file_that_can_not_be_written() -> None:
    environment = {"MEMCACHED_PORT_FILENAME": "/nonexistent/ports"}
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", environment=environment)
    assert ended.returncode == 71
    assert "/nonexistent/ports" in ended.stderr


def test_an_unknown_user_ends_the_start_of_root_alone() -> None:
    ended = run_to_end("-u", "no_such_user", "-l", "127.0.0.1", "-p", "-1")
    assert ended.returncode == (67 if os.getuid() == 0 else 0)
    assert "no_such_user" in ended.stderr


def test_memory_that_can_not_be(start: Start) -> None:
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-m", "100000000")
    assert ended.returncode == 64
    assert "-m" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_unix_socket_has_its_mode_and_is_never_idle(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "mcserver.sock"
    server = start("-s", str(path), "-a", "0755", "-o", "idle_timeout=1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    client = server.connect()
    assert client.command(b"version") == b"VERSION 1.6.45\r\n"
    assert client.stats("settings")["domain_socket"] == str(path)
    addresses = {value for key, value in client.stats("conns").items() if key.endswith("addr")}
    assert addresses == {f"unix:{path}"}


def test_unix_socket_mode_is_private_by_default(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "mcserver.sock"
    start("-s", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_unix_socket_left_behind_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "mcserver.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert start("-s", str(path)).connect().command(b"version") == b"VERSION 1.6.45\r\n"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_living_socket_of_another_kind_stays(tmp_path: Path, kind: socket.SocketKind) -> None:
    """Such as /dev/log. Left behind it is like any other."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(str(path))
        if kind == socket.SOCK_SEQPACKET:
            living.listen()
        with pytest.raises(StartError, match="is in use"):
            clear_the_way(str(path))
        assert path.is_socket()
    clear_the_way(str(path))
    assert not path.exists()


@pytest.mark.parametrize("option", ["-s", "--take-over"])
@pytest.mark.parametrize("name", ["", "\0", "\0name"])
def test_a_socket_without_a_file(option: str, name: str) -> None:
    """The system would open one that no file's rights guard, under a name of its own."""
    with pytest.raises(ConfigError, match=f"{option} takes the path"):
        parse([option, name], {})


def test_an_address_that_is_empty_is_not_every_interface() -> None:
    """`-l "$ADDRESS"` without such a variable: nothing, as memcached."""
    config = parse(["-l", "", "-p", "11999"], {})
    assert isinstance(config, Config)
    assert config.listeners() == ()


def test_a_file_in_the_sockets_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    ended = run_to_end("-u", "root", "-s", str(path))
    assert ended.returncode == 71
    assert "-s" in ended.stderr
    assert path.read_text() == "data"


def test_unix_socket_with_a_name_that_is_too_long(tmp_path: Path) -> None:
    ended = run_to_end("-u", "root", "-s", str(tmp_path / ("x" * 120)))
    assert ended.returncode == 71
    assert "AF_UNIX path too long" in ended.stderr
    assert "None" not in ended.stderr


@pytest.mark.slow
def test_socket_of_a_living_server_stays(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("-s", str(path))
    client = server.connect()
    ended = run_to_end("-u", "root", "-s", str(path))
    assert ended.returncode == 71
    assert "a server listens on" in ended.stderr
    assert client.command(b"mn") == b"MN\r\n"
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that anybody may write, in directories that anybody may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_old_socket_where_others_may_write_stays(open_folder: Path) -> None:
    path = open_folder / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    ended = run_to_end("-u", "root", "-s", str(path))
    assert ended.returncode == 71
    assert "other users may write" in ended.stderr
    assert path.is_socket()


def test_socket_of_another_user_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    os.chown(path, 65534, 65534)
    ended = run_to_end("-u", "root", "-s", str(path))
    assert ended.returncode == 71
    assert "another user's" in ended.stderr
    assert path.is_socket()


def test_what_needs_no_root_is_opened_without_it(start: Start, open_folder: Path) -> None:
    path = open_folder / "socket"
    client = start("-u", "nobody", "-s", str(path)).connect()
    assert client.command(b"mn") == b"MN\r\n"
    assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    pid = int(client.stats()["pid"])
    assert "NoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_text()


def test_a_port_that_needs_root_is_opened_before(start: Start) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        return  # every port is anybody's here
    for port in range(1023, 900, -1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                break
    server = start("-u", "nobody", "-p", str(port), environment={"MEMCACHED_PORT_FILENAME": ""})
    assert server.port == port
    assert server.connect().command(b"mn") == b"MN\r\n"


@pytest.mark.slow
def test_runs_as_the_given_user(start: Start) -> None:
    if os.getuid() != 0:  # only root can change its user; anybody else's -u is ignored
        assert start("-u", "nobody").connect().command(b"mn") == b"MN\r\n"
        return
    server = start("-u", "nobody", environment={"MEMCACHED_PORT_FILENAME": ""})
    status = Path(f"/proc/{server.pid}/status").read_text()
    uids = re.search(r"Uid:\s+(\d+)\s+(\d+)", status)
    assert uids
    assert "0" not in uids.groups()


@pytest.mark.slow
def test_stats_conns_shows_addresses_states_and_idle_times(server: Server) -> None:
    client, other = server.connect(), server.connect()
    assert other.command(b"mn") == b"MN\r\n"
    own = f"tcp:127.0.0.1:{client.socket.getsockname()[1]}"
    before = int(client.stats()["uptime"])
    stats = client.stats("conns")
    fds = sorted({int(key.split(":")[0]) for key in stats})
    assert len(fds) == 3
    listener = fds[0]
    assert stats[f"{listener}:addr"] == f"tcp:127.0.0.1:{server.port}"
    assert stats[f"{listener}:state"] == "conn_listening"
    after = int(client.stats()["uptime"])
    assert before - 3 <= int(stats[f"{listener}:secs_since_last_cmd"]) <= after - 2, "since it began, at second 2"
    assert f"{listener}:listen_addr" not in stats
    mine = next(fd for fd in fds if stats[f"{fd}:addr"] == own)
    assert stats[f"{mine}:listen_addr"] == f"tcp:127.0.0.1:{server.port}"
    assert stats[f"{mine}:state"] == "conn_parse_cmd", "it is in the middle of this one"
    assert stats[f"{mine}:secs_since_last_cmd"] == "0"
    time.sleep(2.1)
    stats = client.stats("conns")
    assert stats[f"{mine}:secs_since_last_cmd"] == "0", "of the asking connection, however long it paused"
    idle = next(fd for fd in fds if fd not in {listener, mine})
    assert 2 <= int(stats[f"{idle}:secs_since_last_cmd"]) < 20
    assert stats[f"{idle}:state"] == "conn_read"


@pytest.mark.slow
def test_watchers_hear_of_connections(server: Server) -> None:
    watcher = server.connect()
    assert watcher.command(b"watch connevents") == b"OK\r\n"
    client = server.connect()
    port = client.socket.getsockname()[1]
    client.close()
    opened, closed = watcher.until(b"\n"), watcher.until(b"\n")
    assert re.search(rb"type=conn_new rip=127\.0\.0\.1 rport=%d transport=tcp cfd=\d+\n" % port, opened)
    assert re.search(rb"type=conn_close rip=127\.0\.0\.1 rport=%d transport=tcp reason=normal cfd=\d+\n" % port, closed)


@pytest.mark.slow
def test_watcher_that_leaves_is_forgotten(server: Server) -> None:
    watcher, client = server.connect(), server.connect()
    assert watcher.command(b"watch") == b"OK\r\n"
    assert client.stats()["log_watchers"] == "1"
    watcher.close()
    eventually(lambda: client.stats()["log_watchers"] == "0")


@pytest.mark.slow
def test_more_connections_than_the_system_allows() -> None:
    ended = run_to_end("-u", "root", "-l", "127.0.0.1", "-p", "-1", "-c", "2000000000")
    assert ended.returncode == 71
    assert "-c" in ended.stderr
    assert "ulimit -n" in ended.stderr
