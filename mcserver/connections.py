"""The connections: accepting, refusing, closing them, and what the core asks of their owner. Bytes are the core's.

An idle connection costs its core session and what the loop needs to watch it: nothing else is made for it here, and its
addresses are asked of the kernel when somebody wants to know them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcserver.admin import Admin, Cluster, Figures, Reply, Watchers
from mcserver.admin import Socket as SocketStatus
from mcserver.core import Engine, Poller, Session
from mcserver.logs import lost, trace, trace_lines
from mcserver.process import open_descriptors

if TYPE_CHECKING:
    from mcserver.config import Config

log = logging.getLogger("mcserver")

ACCEPTS_A_TURN = 64
"""Connections accepted before the clients that are there already get their turn."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.05, 1.0
"""How long the listeners rest when the system has no descriptor or memory left; each rest that was of no use doubles the next."""
PROCEED_SECONDS = 0.0005
"""How long sessions that have much to do may go on before those get their turn for which something came."""
CLOCK_START = 2
"""The second of the engine's clock at which the server began."""
TOO_MANY = b"ERROR Too many open connections\r\n"
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
NEW_CLIENT = {
    "ascii": "new ascii client connection.",
    "binary": "new binary client connection.",
    "auto-negotiate": "new auto-negotiating client connection",
}
LOGIN_SECONDS = 1.0
"""How long the answer to a failed login is held back: guessing is slow, and costs the others nothing."""
WRONG_DOORS = {
    "binary": "closed %s: it speaks the binary protocol, which -B ascii or -Y switched off",
    "text": "closed %s: it speaks the text protocol, which -B binary or -S switched off",
    "tls": "closed %s: it speaks TLS, and the port is plain",
    "http": "closed %s: it speaks HTTP",
    "resp": "closed %s: it speaks Redis's protocol",
}
"""What is said of a client that came to the wrong door, by the reason for which its session closed."""
IDLE_STATES = {"conn_new_cmd", "conn_read"}
"""States in which -o idle_timeout closes: not in the middle of a value or a reply, not while watching or waiting."""


class Connections:
    """Sessions and listeners by descriptor; the owner of every session (docs/architecture.md), and admin's Network."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        listeners: list[socket.socket],
        stop: Callable[[bool], None],
    ) -> None:
        """stop(graceful) ends the server; the listeners are bound, listening and non-blocking."""
        self.figures = Figures()
        self.watchers = Watchers(engine, config.watcher_logbuf_size, loop.call_later)
        self.admin: Admin
        """Set before listening."""
        self.cluster: Cluster | None = None
        self.reserved_descriptors = 0
        self.all_closed = asyncio.Event()
        """Set when the last connection has gone after the listeners."""
        self._config = config
        self._engine = engine
        self._loop = loop
        self._poller = Poller()
        self._stop = stop
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._sessions: dict[int, Session] = {}
        self._most = len(self._listeners)
        self._waiting: deque[Session] = deque()
        self._proceeding = False
        self._paused_at = 0.0
        self._rest = FIRST_REST_SECONDS
        self._short = False
        self._retry: asyncio.TimerHandle | None = None
        self._accepting = False
        self._ending = False

    # Listening -------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Starts to accept."""
        self.figures.total_connections += len(self._listeners)  # memcached counts them, too
        self.reserved_descriptors = open_descriptors() - self.connections
        self._loop.add_reader(self._poller.fileno(), self._poller.turn)
        self._watch_listeners()

    def _watch_listeners(self) -> None:
        self._accepting = True
        for fd, listener in self._listeners.items():
            self._loop.add_reader(fd, self._accept, listener)

    def close_listeners(self) -> None:
        """For good."""
        if not self._sessions:
            self.all_closed.set()
        self._accepting = False
        for fd, listener in self._listeners.items():
            self._loop.remove_reader(fd)
            listener.close()
        self._listeners.clear()

    def _pause(self) -> None:
        if self._accepting:
            self.figures.listen_disabled_num += 1
            self._stop_accepting()

    def _stop_accepting(self) -> None:
        self._accepting = False
        self._paused_at = time.monotonic()
        for fd, listener in self._listeners.items():
            self._loop.remove_reader(fd)
            listener.listen(0)  # so that who comes now is refused rather than kept waiting

    def _resume(self) -> None:
        if self._accepting or not self._listeners:
            return
        self.figures.time_in_listen_disabled_us += int((time.monotonic() - self._paused_at) * 1e6)
        for listener in self._listeners.values():
            listener.listen(self._config.tcp_backlog)
        self._watch_listeners()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if len(self._sessions) >= self._config.maxconns and not self._config.maxconns_fast:
                self._pause()
                return
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._exhausted(error)
                    return
                continue  # the client has gone again
            self._rest = FIRST_REST_SECONDS
            self._short = False
            if len(self._sessions) >= self._config.maxconns:
                self._refuse(connection)
            else:
                self._open(connection)

    def _exhausted(self, error: OSError) -> None:
        """The listeners rest, ever longer, or until the next connection closes. One line and one count for the whole of it."""
        if not self._short:
            self._short = True
            self.figures.listen_disabled_num += 1
            log.warning("can't accept connections: %s; see -c and `ulimit -n`", error.strerror)
        self._stop_accepting()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(self._rest, self._resume)
        self._rest = min(2 * self._rest, LONGEST_REST_SECONDS)

    def _refuse(self, connection: socket.socket) -> None:
        self.figures.rejected_connections += 1
        connection.setblocking(False)
        try:
            connection.send(TOO_MANY)
        except OSError:
            pass
        connection.close()

    def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # TCP_NODELAY and SO_KEEPALIVE come from the listener
        fd = connection.detach()
        session = Session(self._engine, self, fd)
        self._sessions[fd] = session
        try:
            self._poller.interest(session, read=True, write=False)
        except OSError as error:
            self._unwatchable(session, error)
            return
        self.figures.total_connections += 1
        self._most = max(self._most, self.connections)
        if self._engine.verbosity > 1:
            trace(f"<{fd} {NEW_CLIENT[self._config.binding_protocol]}".encode())
        if self.watchers.connevents:
            self.watchers.connection_event("conn_new", *event_address(fd), fd)

    # What a session asks of its owner --------------------------------------------------------------------------------

    def command(self, session: Session, line: bytes) -> Reply:
        return self.admin.command(session, line)

    def interest(self, session: Session, read: bool, write: bool) -> None:
        try:
            self._poller.interest(session, read and not self._ending, write)
        except OSError as error:
            self._unwatchable(session, error)

    def _unwatchable(self, session: Session, error: OSError) -> None:
        """Nobody would ever hear of this connection again: it is closed, and counted as refused."""
        self.figures.rejected_connections += 1
        log.warning("can't watch a connection, which is closed: %s", error.strerror)
        session.close("error")

    def closed(self, session: Session, reason: str) -> None:
        fd = session.fd
        self._poller.remove(session)
        del self._sessions[fd]
        self.watchers.remove(session)
        if reason in WRONG_DOORS:
            self.figures.wrong_protocol += 1
            log.warning(WRONG_DOORS[reason], address_text(fd, peer=True))
            reason = "error"
        if self.watchers.connevents:
            self.watchers.connection_event("conn_close", *event_address(fd), fd, reason)
        if self._engine.verbosity > 1:
            trace(b"<%d connection closed." % fd)
        os.close(fd)
        if self.cluster is not None:
            self.cluster.closed(session)
        if not self._accepting:
            self._resume()
        if not self._sessions and not self._listeners:
            self.all_closed.set()

    def later(self, session: Session) -> None:
        """Sessions whose turn was cut short go on one after the other, so that many dumps take no more than one."""
        self._waiting.append(session)
        self._proceed_soon()

    def _proceed_soon(self) -> None:
        if self._waiting and not self._proceeding:
            self._proceeding = True
            self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        until = time.monotonic() + PROCEED_SECONDS
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft().proceed()  # it may ask for another turn: then it stands at the end
                if time.monotonic() > until:
                    break
        finally:
            self._proceeding = False
            self._proceed_soon()

    def events(self, session: Session, events: list[tuple[str, bytes, int, int]]) -> bool:
        failed = [event for event in events if event[0] == "login_failed"]
        if failed:
            log.warning("%s: a login failed", address_text(session.fd, peer=True))
            events = [event for event in events if event[0] != "login_failed"]
        if events and self.cluster is not None and self.cluster.events(session, events):
            return True
        if failed:
            self._loop.call_later(LOGIN_SECONDS, session.release)
        return bool(failed)

    def lock(self, session: Session, key: bytes) -> None:
        if self.cluster is not None:
            self.cluster.lock(session, key)

    def trace(self, session: Session, text: bytes) -> None:
        for line in trace_lines(text):
            trace(line)

    # Ending them -----------------------------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """One sweep for -o idle_timeout, in whole seconds as memcached counts them."""
        latest = int(self._engine.now()) - self._config.idle_timeout
        for session in list(self._sessions.values()):
            if session.last_command < latest and session.state in IDLE_STATES and not session.resps_waiting:
                self.figures.idle_kicks += 1
                session.close("idle_timeout")

    def stop_reading(self) -> None:
        """No further command is taken from anyone; replies still go out."""
        self._ending = True
        for session in list(self._sessions.values()):
            self.interest(session, read=False, write=session.state == "conn_mwrite")

    def finish(self) -> None:
        """Closes what has nothing to send, and the others as soon as they have sent it."""
        for session in list(self._sessions.values()):
            if session.unsent or session.resps_waiting or session.state == "conn_mwrite":
                session.quit()
            else:
                session.close("shutdown")

    def close_all(self) -> None:
        """At once. Nothing can be opened afterwards."""
        for session in list(self._sessions.values()):
            session.close("shutdown")
        self._loop.remove_reader(self._poller.fileno())
        self._poller.close()

    # What the cold commands see --------------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """Open client connections."""
        return len(self._sessions)

    @property
    def connections(self) -> int:
        return len(self._sessions) + len(self._listeners)

    @property
    def most_connections(self) -> int:
        return self._most

    @property
    def log_lines_lost(self) -> int:
        return lost()

    @property
    def accepting(self) -> bool:
        return self._accepting

    def sockets(self, asking: Session) -> Iterator[SocketStatus]:
        now = self._engine.now()
        for fd in sorted([*self._listeners, *self._sessions]):
            if fd in self._listeners:
                yield SocketStatus(fd, address_text(fd), "", "conn_listening", 0, int(now - CLOCK_START))
            elif session := self._sessions.get(fd):  # it may have gone since the reply began
                idle = max(0, int(now - session.last_command))
                state, waiting = session.state, session.resps_waiting
                if session is asking:
                    idle, state = 0, "conn_parse_cmd"
                yield SocketStatus(fd, address_text(fd, peer=True), address_text(fd), state, waiting, idle)

    def stop(self, *, graceful: bool) -> None:
        self._stop(graceful)


# Addresses -----------------------------------------------------------------------------------------------------------


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object over a descriptor that stays its owner's."""
    borrowed_socket = socket.socket(fileno=fd)
    try:
        yield borrowed_socket
    finally:
        borrowed_socket.detach()


def address_text(fd: int, *, peer: bool = False) -> str:
    """`tcp:1.2.3.4:5`, `tcp6:[::1]:5`, or `unix:` and the path of the listener, whose clients have none."""
    with borrowed(fd) as sock:
        try:
            address = sock.getpeername() if peer and sock.family != socket.AF_UNIX else sock.getsockname()
        except OSError:
            return "unknown"
        if sock.family == socket.AF_UNIX:
            return f"unix:{address}"
        if sock.family == socket.AF_INET6:
            return f"tcp6:[{address[0]}]:{address[1]}"
        return f"tcp:{address[0]}:{address[1]}"


def event_address(fd: int) -> tuple[str, int, str]:
    """Address, port and transport of a client, as connection events spell them."""
    with borrowed(fd) as sock:
        if sock.family == socket.AF_UNIX:
            return "unix", 0, "local"
        try:
            address = sock.getpeername()
        except OSError:
            return "unknown", 0, "tcp"
        return address[0], address[1], "tcp"
