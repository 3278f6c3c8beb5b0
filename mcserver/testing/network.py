"""What the cold commands see of the sockets of a server in a test (admin's Network).

Owns nothing: it reads what the server has, and ends it when a client says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mcserver.admin.figures import Socket as SocketStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcserver.admin.figures import Figures
    from mcserver.core import Engine, Session
    from mcserver.settings.config import Config
    from mcserver.testing.faults import Faults
    from mcserver.testing.wire import Line


class Networked(Protocol):
    """Whose sockets they are."""

    engine: Engine
    faults: Faults
    figures: Figures
    config: Config
    lines: set[Line]
    most_connections: int

    @property
    def connections(self) -> int:
        """Open sockets: clients and listeners."""

    def end_soon(self) -> None:
        """As if the server had ended."""


class Network:
    """The network of one server, which has no log of its own, no reserve of descriptors and no certificates."""

    log_lines_lost = 0
    reserved_descriptors = 0
    certificate_seconds = 0

    def __init__(self, server: Networked) -> None:
        self._server = server
        self.figures = server.figures

    @property
    def connections(self) -> int:
        return self._server.connections

    @property
    def most_connections(self) -> int:
        return self._server.most_connections

    @property
    def accepting(self) -> bool:
        return not self._server.faults.refusing

    @property
    def full(self) -> bool:
        return len(self._server.lines) >= self._server.config.maxconns

    def sockets(self, asking: Session) -> Iterator[SocketStatus]:
        """Clients by their numbers; no listener, as nobody can do anything with it."""
        now = self._server.engine.now()
        for line in sorted(self._server.lines, key=lambda each: each.conversation.fd):
            session = line.conversation.session
            state = "conn_parse_cmd" if session is asking else session.state
            idle = max(0, int(now - session.last_command))
            yield SocketStatus(line.conversation.fd, line.peer, line.here, state, session.resps_waiting, idle)

    def refresh_certificates(self) -> str:
        raise AssertionError("-Z is not for a server within a process")

    def stop(self, *, graceful: bool) -> None:
        """`shutdown`, with -A."""
        self._server.end_soon()
