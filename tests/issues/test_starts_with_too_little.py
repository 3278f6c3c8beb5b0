"""No directory, /dev/null, memory, thread: each had ended a start with a traceback, or kept ZooKeeper from being asked."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import threading
from typing import Any, NoReturn

import pytest

from mcserver import __main__, cli
from mcserver.coordination import kazoo_driver
from mcserver.coordination.kazoo_terms import Target
from mcserver.coordination.ports import SessionState
from mcserver.coordination.reach import look
from mcserver.server import start as starting
from mcserver.settings.rules import ConfigError
from mcserver.system import files, signals
from mcserver.system.early_log import early_log
from mcserver.system.process import StartError
from tests.conftest import Start
from tests.ports import free_port


@pytest.mark.parametrize("option", ["--config", "-e", "-Y", "--take-over"])
def test_a_directory_that_is_gone(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: os.readlink("/none/at/all"))  # noqa: PTH115  # raises what getcwd does
    with pytest.raises(ConfigError, match=f"{option} x: this was started in a directory that is gone"):
        cli.parse([option, "x"], {})


def test_no_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "devnull", "/none/null")
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    descriptor = files.nowhere()
    assert descriptor == lowest
    assert os.read(descriptor, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(descriptor, b"lost")
    os.close(descriptor)


@pytest.mark.parametrize("error", [MemoryError(), ImportError("failed to map segment")])
def test_no_memory_for_a_step(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    said: list[str] = []

    def refused(_config: object) -> NoReturn:
        raise error

    def failed(failure: StartError, _daemon: object) -> int:
        said.append(str(failure))
        return failure.code

    monkeypatch.setattr(starting, "prepare", refused)
    monkeypatch.setattr(starting, "failed", failed)
    monkeypatch.setattr(early_log, "prepare", lambda **_: None)
    config = cli.parse(["-u", "root"], {})
    assert not isinstance(config, str)
    assert starting._run(config, None) == 71
    assert said == [f"can't start: {str(error) or 'the system has no memory left for this process'}"]


def test_no_memory_to_say_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refused() -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(cli, "main", refused)
    monkeypatch.setattr(signals, "hold", lambda: None)
    assert __main__.main() == 71
    assert capfd.readouterr().err == "can't start: the system has no memory left for this process\n"


class Threads:
    """Says of each thread whether the system has room for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = False
        begin = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if not self.room:
                raise RuntimeError("can't start new thread")
            begin(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


def test_nobody_is_asked_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, server = Threads(monkeypatch), f"127.0.0.1:{free_port()}"
    (seen,) = look(server, 1.0)
    assert (seen.there, seen.text) == (False, "is not asked: the system has no thread for it")
    threads.room = True
    (seen,) = look(server, 1.0)
    assert seen.text == "connection refused"


def test_the_driver_asks_again_when_there_is_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first client, nor the end of one that was given up, nor a look at the ensemble raises, and each comes later."""
    monkeypatch.setattr(kazoo_driver, "PUT_AWAY_AGAIN", 0.01)
    put_away: list[Any] = []
    monkeypatch.setattr(kazoo_driver, "_dispose", put_away.append)
    threads = Threads(monkeypatch)

    async def use() -> None:
        target = Target(f"127.0.0.1:{free_port()}", reply_deadline=0.1)
        driver = kazoo_driver.KazooDriver(asyncio.get_running_loop(), target)
        old = driver._client
        states: list[SessionState] = []
        driver.listen(states.append)
        driver.state = SessionState.SUSPENDED
        driver._rebuild("a test")
        driver._look()
        assert states == [SessionState.LOST]
        assert not driver._probing
        assert put_away == []
        threads.room = True
        driver._look()
        while put_away != [old] or driver._probing:  # noqa: ASYNC110  # neither has an event
            await asyncio.sleep(0.01)
        assert "connection refused" in driver.why
        threads.room = False
        await asyncio.wait_for(driver.close(), 30)

    asyncio.run(asyncio.wait_for(use(), 30))


def test_an_end_without_descriptors(start: Start) -> None:
    """uvloop opens some to close itself, when all is done: that ended with a traceback, 70, and nothing kept."""
    server = start()
    assert server.connect().command(b"mn") == b"MN\r\n"
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (0, hard))
    server.signal(signal.SIGTERM)
    assert server.end() == 0
    assert "the loop is left as it is" in server.log()
    assert "Traceback" not in server.log()


def test_no_descriptor_for_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_name: str) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(starting, "choose_loop", refused)
    config = cli.parse(["-u", "root"], {})
    assert not isinstance(config, str)
    with pytest.raises(StartError, match="can't load the event loop"):
        starting.load_server(config)
