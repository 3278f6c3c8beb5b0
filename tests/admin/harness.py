"""An engine with its cold commands and no server: one connection without a socket, and a network that is pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mcserver.admin.commands import Admin
from mcserver.admin.context import Context
from mcserver.admin.figures import Figures, Socket
from mcserver.admin.settings import Settings
from mcserver.admin.watchers import Watchers
from mcserver.core import Engine, Session
from mcserver.server.lives import make_engine
from mcserver.settings.config import Config
from tests.core.harness import Client, RecordingOwner


class PretendedNetwork:
    """One listener and one client."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.figures.total_connections = 2
        self.connections = 2
        self.most_connections = 2
        self.log_lines_lost = 0
        self.reserved_descriptors = 9
        self.accepting = True
        self.full = False
        self.certificate_seconds = 0
        self.stops: list[bool] = []
        self.open = [
            Socket(7, "tcp:127.0.0.1:11211", "", "conn_listening", 0, 3),
            Socket(9, "tcp:127.0.0.1:40000", "tcp:127.0.0.1:11211", "conn_read", 0, 1),
        ]

    def sockets(self, asking: Session) -> Iterator[Socket | None]:
        yield from self.open
        yield None

    def refresh_certificates(self) -> str:
        raise AssertionError("it has no TLS")

    def stop(self, *, graceful: bool) -> None:
        self.stops.append(graceful)


class AdminOwner(RecordingOwner):
    """Answers cold commands as a server does."""

    def __init__(self, engine: Engine, admin: Admin) -> None:
        super().__init__(engine)
        self.admin = admin

    def command(self, session: Any, line: bytes) -> Any:
        return self.admin.command(session, line)


class Timers:
    """Stands in for a loop's `call_later`: what is due runs when a test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def run(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Wire(Client):
    """A client of a whole set of cold commands; `send` returns the reply."""

    def __init__(self, **settings: Any) -> None:
        config = Config(**settings)
        engine = make_engine(config, manual_clock=True)
        self.network = PretendedNetwork()
        self.timers = Timers()
        self.watchers = Watchers(engine, config.watcher_logbuf_size, self.timers.call_later)
        self.context = Context(
            config=config,
            engine=engine,
            network=self.network,
            watchers=self.watchers,
            settings=Settings(config, config.tcpport),
            loop="uvloop-0.0",
        )
        super().__init__(engine, AdminOwner(engine, Admin(self.context)))

    def ask(self, line: bytes) -> bytes:
        """One command's reply."""
        return self.send(line + b"\r\n")

    def stats(self, sub: bytes = b"") -> dict[str, str]:
        reply = self.ask(b"stats " + sub).decode()
        assert reply.endswith("END\r\n"), reply
        lines = [line.split(" ") for line in reply.split("\r\n")[:-2]]
        assert all(line[0] == "STAT" and len(line) == 3 for line in lines), reply
        return {key: value for _, key, value in lines}

    def another(self) -> Client:
        """A second connection to the same engine."""
        return Client(self.engine, self.owner)
