"""--take-over: either process dies or stops at each step of the exchange, under load. One of them serves, and never both."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcserver.server import handover
from mcserver.server.handover import GO, HELLO, NO, READY, YOURS, Outcome, bequeath, fields_of, receive_offer
from mcserver.system.process import is_alive
from tests.conftest import Start
from tests.serving import Client, Server, eventually

STEPPING = str(Path(__file__).parent / "stepping")
ITEMS = 2000
OLD_STEPS = ("before offer", "after offer", "before end", "after end", "before record", "before yours", "after yours")
NEW_STEPS = (
    *(
        "before receiving",
        "after receiving",
        "before go",
        "after record",
        "before claim",
        "before ready",
        "after ready",
    ),
    *("after claim", "before serving", "after serving"),
)
SPOILT = {"after ready", "after claim", "before serving", "after serving"}
"""Where the new process has the memory, or may have it."""


class Load:
    """A client that writes and reads what it wrote, on connection after connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address, self._ending = address, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.refused: list[str] = []
        self.wrong: list[str] = []
        self.rounds = 0
        self._thread.start()

    def _run(self) -> None:
        unanswered: set[bytes] = set()
        """Each may yet be stored: its connection may wait in the queue."""
        number = 0
        while not self._ending.is_set():
            try:
                with socket.create_connection(self._address, 0.5) as one:
                    for _ in range(20):
                        number += 1
                        value = b"%09d" % number
                        unanswered.add(value)
                        one.sendall(b"set counter 0 0 9\r\n%b\r\n" % value)
                        if line(one) != b"STORED":
                            break
                        unanswered.remove(value)
                        one.sendall(b"mg counter v\r\n")
                        head = line(one)
                        if head == b"VA 9":
                            found = line(one)
                            if found != value and found not in unanswered:
                                self.wrong.append(f"{found!r}, not {value!r}")
                        elif head != b"EN":
                            break
                        self.rounds += 1
            except ConnectionRefusedError as error:
                self.refused.append(str(error))
            except OSError:
                pass  # it was closed, or nobody has an answer yet

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


def line(one: socket.socket) -> bytes:
    """Without its end; raises OSError when the connection is closed."""
    data = b""
    while not data.endswith(b"\r\n"):
        byte = one.recv(1)
        if not byte:
            raise ConnectionResetError
        data += byte
    return data[:-2]


@contextlib.contextmanager
def loaded(server: Server) -> Iterator[Load]:
    client = server.connect()
    client.command(b"".join(b"set k%d 0 0 5\r\n%05d\r\n" % (n, n) for n in range(ITEMS)) + b"mn", b"MN\r\n")
    client.close()
    load = Load(server.tcp)
    try:
        yield load
    finally:
        load.end()


def stepping(step: str, number: int, seconds: float = 60) -> dict[str, str]:
    return {
        "PYTHONPATH": STEPPING,
        "MCSERVER_TEST_STEP": step,
        "MCSERVER_TEST_SIGNAL": str(int(number)),
        "MCSERVER_TEST_SECONDS": str(seconds),
    }


def answer(server: Server) -> tuple[int, int]:
    """Who serves, and how many items there are."""
    client = Client(server.address)
    try:
        stats = client.stats()
    finally:
        client.close()
    return int(stats["pid"]), int(stats["curr_items"])


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Upgrade(Server):
    """A process that takes over; it may not come so far as to listen."""

    def _await_start(self) -> None:
        self.address = ("127.0.0.1", 0)

    def __init__(self, folder: Path, args: tuple[str, ...], environment: dict[str, str]) -> None:
        with contextlib.suppress(AssertionError):  # it has not said where it listens
            super().__init__(folder, args, environment=environment)


@contextlib.contextmanager
def upgrade(*args: str, environment: dict[str, str]) -> Iterator[Upgrade]:
    with TemporaryDirectory() as folder:
        new = Upgrade(Path(folder), args, environment)
        try:
            yield new
        finally:
            new.process.kill()
            new.process.wait(60)


def gets_on(load: Load) -> None:
    before = load.rounds
    eventually(lambda: load.rounds > before + 40)


@pytest.fixture(params=["memory", "file"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """--take-over, with -e and without."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        file = ["-e", str(Path(folder, "items"))] if request.param == "file" else []
        yield ["--take-over", str(tmp_path / "door"), "-t", "2", *file]


@pytest.mark.slow
@pytest.mark.parametrize("step", NEW_STEPS)
def test_the_new_process_is_killed(start: Start, options: list[str], step: str) -> None:
    """The old one serves, with all items unless the new one may have changed them; when both had gone nobody would."""
    old = start(*options, environment=stepping("", 0))
    with loaded(old) as load:
        with upgrade(*options, "-p", str(old.port), environment=stepping(step, signal.SIGKILL)) as new:
            assert new.process.wait(60) == -signal.SIGKILL, new.log()
        if step == "after serving":  # as when any server dies: it was alone
            assert old.end() == 0
            return
        gets_on(load)
        assert not load.wrong
        pid, items = answer(old)
        assert pid == old.pid
        if step != "after ready":  # then it depends on whether the old one could still say so
            assert (items >= ITEMS) is (step not in SPOILT), old.log()
        third = start(*options, "-p", str(old.port), environment=stepping("", 0))
        assert old.end() == 0, old.log()
        gets_on(load)
        assert not load.wrong
        assert not load.refused
        assert answer(third) == (third.pid, items)


@pytest.mark.slow
@pytest.mark.parametrize("step", OLD_STEPS)
def test_the_old_process_is_killed(start: Start, options: list[str], step: str) -> None:
    """The new one serves if it had been told that it gets the memory; before it could not know, and starts anew or not at all."""
    old = start(*options, environment=stepping(step, signal.SIGKILL))
    with loaded(old) as load, upgrade(*options, "-p", str(old.port), environment=stepping("", 0)) as new:
        assert old.end() == -signal.SIGKILL
        if step in {"before offer", "after offer"}:
            eventually(lambda: new.process.poll() is not None or " listens on " in new.log())
            if new.process.poll() is not None:
                assert "can't take over" in new.log()
                return
        gets_on(load)
        assert not load.wrong
        if step != "before offer":
            assert not load.refused
        pid, items = answer(old)
        assert pid == new.pid
        assert (items >= ITEMS) is (step in {"before yours", "after yours"}), new.log()


@pytest.mark.slow
@pytest.mark.parametrize("step", NEW_STEPS)
def test_the_new_process_stops_and_goes_on(start: Start, options: list[str], step: str) -> None:
    """One of the two serves when it goes on, and never both."""
    old = start(*options, environment=stepping("", 0, 1.0))
    with (
        loaded(old) as load,
        upgrade(*options, "-p", str(old.port), environment=stepping(step, signal.SIGSTOP)) as new,
    ):
        eventually(lambda: is_stopped(new.pid))
        if step not in SPOILT:  # the old one goes on meanwhile
            gets_on(load)
            assert answer(old)[0] == old.pid
        new.signal(signal.SIGCONT)
        if step in SPOILT:
            assert old.end() == 0, old.log()
            gets_on(load)
            assert answer(old)[0] == new.pid
        else:
            eventually(lambda: (old.process.poll() is None) is not (new.process.poll() is None))
            gets_on(load)
            assert answer(old)[0] == (old.pid if old.process.poll() is None else new.pid)
        assert not load.wrong
        assert not load.refused


@pytest.mark.slow
@pytest.mark.parametrize("step", OLD_STEPS)
def test_the_old_process_stops_and_goes_on(start: Start, options: list[str], step: str) -> None:
    """The new one gives up, or serves, if it has been told that it may."""
    old = start(*options, environment=stepping(step, signal.SIGSTOP))
    with loaded(old) as load, upgrade(*options, "-p", str(old.port), environment=stepping("", 0, 1.0)) as new:
        eventually(lambda: is_stopped(old.pid))
        if step == "after yours":
            gets_on(load)
            old.signal(signal.SIGCONT)
            assert old.end() == 0, old.log()
        else:
            with contextlib.suppress(Exception):
                new.process.wait(15)
            old.signal(signal.SIGCONT)
            eventually(lambda: (old.process.poll() is None) is not (new.process.poll() is None))
        gets_on(load)
        pid, items = answer(old)
        assert pid == (old.pid if old.process.poll() is None else new.pid)
        assert is_alive(pid)
        assert items >= ITEMS, old.log() + new.log()
        assert not load.wrong
        assert not load.refused


@pytest.mark.slow
@pytest.mark.parametrize("step", ["after receiving", "before go"])
def test_who_says_go_too_late_gets_nothing(start: Start, options: list[str], step: str) -> None:
    """The old one goes on, with its memory, and alone."""
    old = start(*options, environment={**stepping("", 0), "MCSERVER_TEST_ANSWER_SECONDS": "1"})
    with (
        loaded(old) as load,
        upgrade(*options, "-p", str(old.port), environment=stepping(step, signal.SIGSTOP)) as new,
    ):
        eventually(lambda: is_stopped(new.pid))
        eventually(lambda: "nothing was handed over: no answer" in old.log())
        new.signal(signal.SIGCONT)
        assert new.process.wait(60) == 71
        assert "the server went on, since this process took too long; try again" in new.log()
        gets_on(load)
        pid, items = answer(old)
        assert pid == old.pid
        assert items >= ITEMS
        assert not load.wrong
        assert not load.refused


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_who_ends_meanwhile_has_its_memory_to_the_end(start: Start, options: list[str], number: signal.Signals) -> None:
    """A client that takes its time holds it up. The new one waits, and serves what SIGUSR1 leaves in the file of -e."""
    old = start(*options, environment=stepping("after offer", number))
    client = old.connect()
    client.command(
        b"".join(b"set k%d 0 0 900000\r\n%s\r\n" % (n, b"x" * 900_000) for n in range(20)) + b"mn", b"MN\r\n"
    )
    client.send(b"".join(b"get k%d\r\n" % n for n in range(20)))
    with upgrade(*options, "-p", str(old.port), environment=stepping("", 0)) as new:
        assert old.end() == 0, old.log()
        eventually(lambda: " listens on " in new.log())
        pid, items = answer(old)
        assert pid == new.pid
        assert items == (20 if number is signal.SIGUSR1 and "-e" in options else 0), new.log()


def asked(path: str) -> socket.socket:
    """A connection to the door, at which all was offered."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(60)
    one.connect(path)
    one.sendall(HELLO)
    offer = receive_offer(one)
    for each in (*offer.sockets.listeners, *offer.sockets.datagrams, offer.sockets.metrics):
        if each is not None:
            each.close()
    os.close(offer.memory)
    return one


def legacy(one: socket.socket) -> None:
    """Reads the record."""
    with one.makefile("rb", buffering=0) as stream:
        length = fields_of(stream.readline())["length"]
        while length:
            length -= len(stream.read(min(length, 1 << 16)) or b"")


@pytest.mark.slow
@pytest.mark.parametrize("told", [b"what\n", b"ready", b"rea", b"", HELLO])
def test_who_says_something_else_gets_no_memory(start: Start, tmp_path: Path, told: bytes) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path, environment=stepping("", 0, 0.3))
    old.connect().command(b"set k 0 0 1\r\n1")
    with asked(path) as one:
        one.sendall(GO)
        legacy(one)
        one.sendall(told)
        assert one.recv(100) in {NO, b""}
        eventually(lambda: answer(old)[0] == old.pid)
    with asked(path) as one:
        one.sendall(GO)
        legacy(one)
        one.sendall(READY)
        assert one.recv(100) == YOURS
    assert answer(old) == (old.pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_serves_again_has_one_memory(start: Start, tmp_path: Path, loop: str) -> None:
    """The one that is another's is let go: it may be as large as all that the machine has."""
    path = str(tmp_path / "door")
    old = start("--take-over", path, "--loop", loop)
    for _ in range(2):
        with asked(path) as one:
            one.sendall(GO)
            legacy(one)
            one.sendall(READY)
            assert one.recv(100) == YOURS
        assert answer(old) == (old.pid, 0)
        assert Path(f"/proc/{old.pid}/maps").read_text().count("memfd:mcserver") == 1


@pytest.mark.slow
def test_who_can_not_begin_its_file_anew_serves_without_one(start: Start, tmp_path: Path) -> None:
    """Where other users may write its directory nothing is removed by its name; the next start begins empty."""
    path = str(tmp_path / "door")
    with TemporaryDirectory(dir="/dev/shm") as name:
        Path(name).chmod(0o777)
        options = ("--take-over", path, "-e", f"{name}/items", "-t", "2")
        old = start(*options)
        old.connect().command(b"set k 0 0 1\r\n1")
        with asked(path) as one:
            one.sendall(GO)
            legacy(one)
            one.sendall(READY)
            assert one.recv(100) == YOURS
        assert answer(old) == (old.pid, 0)
        assert "the memory has no file until the next start: can't start anew in" in old.log()
        old.connect().command(b"set k 0 0 1\r\n2")
        new = start(*options, "-p", str(old.port))
        assert old.end() == 0, old.log()
        assert "starting empty: -e names another file" in new.log()
        new.signal(signal.SIGUSR1)
        assert new.end() == 0, new.log()
        assert "0 items are kept" in new.log()


@pytest.mark.slow
def test_who_waits_for_the_next_one_can_be_ended(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    old = start("--take-over", path)
    with asked(path) as one:
        one.sendall(GO)
        legacy(one)
        old.signal(signal.SIGTERM)
        assert old.end() == 0


@pytest.mark.slow
def test_who_serves_again_is_what_it_was(start: Start, tmp_path: Path) -> None:
    """Expiries went on meanwhile, datagrams and the page of --metrics are answered, SIGTERM ends it, and -e keeps all."""
    path, pid_file = str(tmp_path / "door"), tmp_path / "pid"
    with TemporaryDirectory(dir="/dev/shm") as folder:
        options = ["-e", f"{folder}/items", "--take-over", path, "-P", str(pid_file), "-U", "-1"]
        old = start(*options, "--metrics", "127.0.0.1:0")
        sets = b"set long 0 1000 1\r\n1\r\nset short 0 2 1\r\n1\r\nset big 0 0 900000\r\n" + b"b" * 900000
        old.connect().command(sets + b"\r\nmn", b"MN\r\n")
        for _ in range(3):
            with asked(path) as one:
                one.sendall(GO)
                legacy(one)
                pid_file.write_text("1\n")
            eventually(lambda: answer(old)[0] == old.pid)
        assert pid_file.read_text() == f"{old.pid}\n"
        client = old.connect()
        eventually(lambda: client.command(b"mg short") == b"EN\r\n")
        assert client.command(b"mg big s") == b"HD s900000\r\n"
        for each in old.clients:
            each.close()
        old.signal(signal.SIGUSR1)
        assert old.end() == 0
        client = start("-e", f"{folder}/items").connect()
        assert client.command(b"mg big s") == b"HD s900000\r\n"
        assert 900 < int(client.command(b"mg long t").split(b"t")[1]) <= 1000


def forget_what_came(manager: socket.socket) -> None:
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while manager.recv(4096):
            pass
    manager.settimeout(60)


@pytest.mark.slow
def test_the_watchdog_is_fed_while_the_next_one_is_waited_for(start: Start, tmp_path: Path) -> None:
    """Before its first word, before its last, and when this process serves again."""
    path = str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)

        def is_fed() -> None:
            """What comes after all that had come."""
            forget_what_came(manager)
            for _ in range(5):
                while manager.recv(4096) != b"WATCHDOG=1":
                    pass

        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        old = start("--take-over", path, environment=told)
        with asked(path) as one:
            one.sendall(GO)
            legacy(one)
            is_fed()
            one.sendall(READY)
            assert one.recv(100) == YOURS
            is_fed()
        assert answer(old)[0] == old.pid
        is_fed()


@pytest.mark.slow
def test_the_watchdog_is_fed_while_all_is_looked_at_again(start: Start, tmp_path: Path) -> None:
    """A memory of many GiB takes longer than the manager waits; that it works is said all the time until it serves."""
    path = str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        old = start("--take-over", path, environment={**stepping("", 0), **told, "MCSERVER_TEST_REGAIN_SECONDS": "2"})
        while not manager.recv(4096).startswith(b"READY=1"):
            pass
        with asked(path) as one:
            one.sendall(GO)
            legacy(one)
        eventually(lambda: "serves again" in old.log())
        forget_what_came(manager)
        heard = [manager.recv(4096)]
        while not heard[-1].startswith(b"READY=1"):
            heard.append(manager.recv(4096))
        assert heard.count(b"WATCHDOG=1") > 5
        assert answer(old)[0] == old.pid


def test_who_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the time that there is, and in slices."""
    monkeypatch.setattr(handover, "SLICE_SECONDS", 0.001)
    slices: list[None] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert bequeath(ours, b"x" * (4 << 20), None, 0.02, lambda: slices.append(None)) is Outcome.SPOILT
    assert len(slices) > 1
