"""The listeners, and what the workers ask of Python: cold commands, events, locks, traces. It never touches a connection's bytes.

Connections belong to the core's workers (docs/architecture.md): this room hands over what a listener accepts, and hears of one
only when a worker writes. Addresses are asked of the kernel when somebody wants to know them.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcserver.admin.figures import Figures
from mcserver.admin.figures import Socket as SocketStatus
from mcserver.admin.watchers import Watchers
from mcserver.core import TOO_MANY, Engine, Session, TlsRules, Workers
from mcserver.server.listeners import is_loopback, spoken_at
from mcserver.server.tls import load, security
from mcserver.system.early_log import early_log, log
from mcserver.system.process import StartError, open_descriptors

if TYPE_CHECKING:
    import asyncio

    from mcserver.admin.commands import Admin
    from mcserver.admin.context import Reply
    from mcserver.admin.ports import Cluster
    from mcserver.settings.config import Config

REFUSALS_A_TURN = 64
"""Connections refused before the loop's other work gets its turn."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.05, 1.0
"""How long the listeners rest when the system has no descriptor or memory left; each rest that was of no use doubles the next."""
GIVE_UP_AGAIN = 0.1
"""Seconds until a connection is closed for which there was no memory."""
PROCEED_SECONDS = 0.0003
"""How long long replies may go on before those get their turn for which something came. With the piece that is under way then,
less than a millisecond."""
FULL = -1
"""What Workers.accept answers when -c is reached."""
SOCKETS_A_TURN = 20
"""Of `stats conns`: asking for the addresses of so many takes half a millisecond."""
TOO_MANY_TLS = b"\x15\x03\x01\x00\x02\x02\x50"
"""A fatal alert, internal_error: where TLS is spoken, words would only be taken for a wrong version."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
NEW_CLIENT = {
    "ascii": "new ascii client connection.",
    "binary": "new binary client connection.",
    "auto-negotiate": "new auto-negotiating client connection",
}
LOGIN_SECONDS = 1.0
"""How long the answer to a failed login is held back: guessing is slow, and costs the others nothing."""
WRONG_DOORS = {
    "binary": "closed %s: it speaks the binary protocol, which -B ascii, -Y or proto[ascii] in -l switched off",
    "text": "closed %s: it speaks the text protocol, which -B binary, -S or proto[binary] in -l switched off",
    "tls": "closed %s: it speaks TLS, and the port is plain",
    "http": "closed %s: it speaks HTTP",
    "resp": "closed %s: it speaks Redis's protocol",
    "plain": "closed %s: it doesn't speak TLS, and the port does",
}
"""What is said of a client that came to the wrong door, by the reason for which its session closed."""
TLS_TROUBLES = {
    "tls_handshake": "closed %s: the TLS handshake failed: %s",
    "tls_slow": "closed %s: its TLS handshake took longer than ssl_handshake_timeout%s",
    "tls_record": "closed %s: TLS: %s",
}
"""... and of one that speaks TLS, but not well; the second is OpenSSL's reason."""


class Connections:
    """The listeners and the workers; the owner of every session (docs/architecture.md), and admin's Network."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        listeners: list[socket.socket],
        datagrams: list[socket.socket] | None = None,
    ) -> None:
        """The listeners are bound, listening and non-blocking, the datagrams' sockets bound."""
        self.workers = Workers(engine, self, config.num_threads)
        self.watchers = Watchers(engine, config.watcher_logbuf_size, self._later, self.workers.tell_closed)
        self.admin: Admin
        """Set before listening."""
        self.cluster: Cluster | None = None
        self.reserved_descriptors = 0
        self.all_closed: asyncio.Event
        """Set when the last connection has gone after the listeners."""
        self._config = config
        self._engine = engine
        self._began = int(engine.now())
        self._loop: asyncio.AbstractEventLoop
        self._stop: Callable[[bool], None]
        self._figures = Figures()
        self._idle_kicks = self._unwatched = 0
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._security = {listener.fileno(): security(config, listener) for listener in listeners}
        self._spoken = {listener.fileno(): self._spoken_at(listener) for listener in listeners}
        self._tls_before = (0, 0, 0)
        self.tls_rules: TlsRules | None = None
        """What new connections get."""
        self._tls_loaded = 0.0
        self._datagrams = datagrams or []
        self._datagrams_seen = 0, 0
        self._doors: dict[int, str] = {}
        """The UDP sockets of the workers: descriptor, address."""
        self._accepted = self._accepted_before = 0
        self._waiting: deque[Session] = deque()
        self._proceeding = False
        self._paused_at = 0.0
        self._rest = FIRST_REST_SECONDS
        self._short = False
        self._retry: asyncio.TimerHandle | None = None
        self._accepting = False
        self._ending = False
        self._open = False

    def attach(self, loop: asyncio.AbstractEventLoop, stop: Callable[[bool], None]) -> None:
        """Before listening, on the running loop. stop(graceful) ends the server."""
        import asyncio

        self._loop, self._stop = loop, stop
        self.all_closed = asyncio.Event()

    def _later(self, seconds: float, call: Callable[[], None]) -> object:
        return self._loop.call_later(seconds, call)

    def reconfigure(self, config: Config) -> None:
        """What a reload changed: how many connections, and how long they may idle."""
        self._config = config
        self.workers.set_idle_timeout(self._config.idle_timeout)
        if self._accepting:
            self._watch_listeners()
        else:
            self._resume()

    # TLS -------------------------------------------------------------------------------------------------------------

    def set_tls(self, rules: TlsRules) -> None:
        """From now on new connections are made with these certificates."""
        self.tls_rules = rules
        self.workers.set_tls(rules, self._config.ssl_handshake_timeout)
        self._tls_loaded = self._engine.now()

    def refresh_certificates(self, extra: Mapping[str, object] | None = None) -> str:
        """Reads the files again. Those that are connected notice nothing; an error changes nothing, and is returned.

        extra: the log's, of whoever asked for it.
        """
        try:
            self.set_tls(load(self._config))
        except StartError as error:
            log.error("%s; the certificates stay as they were", error, extra=extra)
            return str(error)
        log.info("the certificates are read again", extra=extra)
        return ""

    @property
    def certificate_seconds(self) -> int:
        return int(self._engine.now() - self._tls_loaded)

    # Listening -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Starts the workers: from now on datagrams are answered, and who is accepted. Raises StartError."""
        self._open = True
        self.workers.set_idle_timeout(self._config.idle_timeout)
        for each in self._datagrams:
            doors = self.workers.answer_datagrams(
                each.fileno(), each.getsockname()[1], is_loopback(each), self._spoken_at(each)
            )
            self._doors.update(dict.fromkeys(doors, address_text(each.fileno())))
        try:
            self.workers.start()
        except OSError as error:
            threads = self._config.num_threads
            raise StartError(
                f"can't start {threads} threads: {error.strerror}; raise `ulimit -u`, or ask for fewer with -t"
            ) from error

    def _spoken_at(self, listener: socket.socket) -> str:
        """What its prefix in -l says, or -B; where one protocol has to log in (-Y, -S), the other is never spoken."""
        here = None if self._config.auth_file or self._config.sasl else spoken_at(listener)
        return here or self._config.binding_protocol

    def _asked(self, listener: int) -> tuple[int, str]:
        """Of the clients of this listener."""
        return self._security[listener], self._spoken[listener]

    def accept_early(self, listener: int) -> bool:
        """Accepts at this listener before there is a loop. False: it has to wait for the loop."""
        reason = self.workers.accept(listener, self._config.maxconns, None, *self._asked(listener))
        return reason in {0, errno.EAGAIN}

    def listen(self) -> None:
        """Starts to accept, and to hear what the workers have to tell. Raises StartError."""
        if not self._open:
            self.open()
        self._figures.total_connections += len(self._listeners) + len(self._doors)  # memcached counts them, too
        self.reserved_descriptors = open_descriptors() - self.connections
        self._loop.add_reader(self.workers.fileno(), self.workers.turn)
        self._watch_listeners()

    def _watch_listeners(self) -> None:
        self._accepting = True
        for fd in self._listeners:
            self._loop.add_reader(fd, self.workers.admit, fd, self._config.maxconns, *self._asked(fd))

    def close_listeners(self, *, keep: bool = False) -> None:
        """For good. keep: they stay open, for another to accept."""
        self._accepting = False
        for fd, listener in self._listeners.items():
            self._loop.remove_reader(fd)
            if not keep:
                listener.close()
        self._listeners.clear()
        if not keep:
            for each in self._datagrams:
                each.close()

    def _pause(self) -> None:
        if self._accepting:
            self._figures.listen_disabled_num += 1
            self._stop_accepting()
            if self.workers.clients < self._config.maxconns:  # one has gone before we wanted to know
                self._resume()

    def _stop_accepting(self) -> None:
        self._accepting = False
        self._paused_at = time.monotonic()
        for fd, listener in self._listeners.items():
            self._loop.remove_reader(fd)
            listener.listen(0)  # so that who comes now is refused rather than kept waiting
        self.workers.rest(True)

    def _resume(self) -> None:
        if self._accepting or not self._listeners:
            return
        self.workers.rest(False)
        self._figures.time_in_listen_disabled_us += int((time.monotonic() - self._paused_at) * 1e6)
        for listener in self._listeners.values():
            listener.listen(self._config.tcp_backlog)
        self._watch_listeners()

    def accepted(self, listener: int, reason: int, descriptors: list[int]) -> None:
        """From Workers.admit: somebody wants to know who came, or there is no room."""
        for client in descriptors:
            self._tell_new(client, self._spoken[listener])
        if reason == FULL:
            if self._config.maxconns_fast:
                self._refuse_some(self._listeners[listener])
            else:
                self._pause()
        elif reason > 0 and reason != errno.EAGAIN:
            self._exhausted(reason)

    def _tell_new(self, fd: int, spoken: str) -> None:
        if self._engine.verbosity > 1:
            early_log.load().trace(f"<{fd} {NEW_CLIENT[spoken]}".encode())
        if self.watchers.connevents:
            self.watchers.connection_event("conn_new", *event_address(fd), fd)

    def _exhausted(self, error: int) -> None:
        """The listeners rest, ever longer, or until the next connection closes. One line and one count for the whole of it."""
        if self.workers.accepted > self._accepted_before:  # somebody got in since the last time
            self._rest = FIRST_REST_SECONDS
            self._short = False
        self._accepted_before = self.workers.accepted
        if not self._short:
            self._short = True
            self._figures.listen_disabled_num += 1
            log.warning("can't accept connections: %s; see -c and `ulimit -n`", os.strerror(error))
        self._stop_accepting()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(self._rest, self._resume)
        self._rest = min(2 * self._rest, LONGEST_REST_SECONDS)

    def _refuse_some(self, listener: socket.socket) -> None:
        """With -o maxconns_fast: who comes while there are as many as -c allows is told so."""
        for _ in range(REFUSALS_A_TURN):
            if self.workers.clients < self._config.maxconns:
                return
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._exhausted(error.errno)
                    return
                continue  # the client has gone again
            self._figures.rejected_connections += 1
            connection.setblocking(False)
            try:
                connection.send(TOO_MANY_TLS if self._security[listener.fileno()] else TOO_MANY)
            except OSError:
                pass
            connection.close()

    # What a session asks of its owner --------------------------------------------------------------------------------

    def command(self, session: Session, line: bytes) -> Reply:
        return self.admin.command(session, line)

    def closed(self, session: Session, reason: str) -> None:
        """Its descriptor stays open until this returns."""
        fd = session.fd
        if session.datagram:
            if self.cluster is not None:
                self.cluster.closed(session)
            return
        self.watchers.remove(session)
        if reason in WRONG_DOORS:
            self._figures.wrong_protocol += 1
            log.warning(WRONG_DOORS[reason], Peer(fd))
            reason = "error"
        elif reason in TLS_TROUBLES:
            why = session.why.decode("ascii", "replace")
            log.warning(TLS_TROUBLES[reason], Peer(fd), why)
            if self.watchers.connevents:
                self.watchers.tls_error(fd, why or "handshake timed out")
            reason = "error"
        if self.watchers.connevents:
            self.watchers.connection_event("conn_close", *event_address(fd), fd, reason)
        if self._engine.verbosity > 1:
            early_log.load().trace(b"<%d connection closed." % fd)
        if self.cluster is not None:
            self.cluster.closed(session)

    def gone(self) -> None:
        """A connection has closed while we wanted to know, or could not be watched."""
        refused = self.workers.unwatched - self._unwatched
        if refused:
            self._unwatched += refused
            self._figures.rejected_connections += refused
            log.warning(
                "can't watch a connection, which is closed: no room in the system's table (fs.epoll.max_user_watches)"
            )
        if not self._accepting:
            self._resume()
        if self._ending and not self.workers.clients:
            self.all_closed.set()

    def unknown_change(self) -> None:
        """For want of memory it is not known what was deleted: the others have to take it that all was."""
        log.error("out of memory: a change can't be told to the others, who are told to flush")
        if self.cluster is not None:
            self.cluster.events(None, [("flush", b"", -1, -1)])

    def interest(self, session: Session, read: bool, write: bool) -> None:
        raise AssertionError("workers watch their connections by themselves")

    def later(self, session: Session) -> None:
        """Long replies go on one after the other, so that many dumps take no more than one."""
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
                session = self._waiting.popleft()
                try:
                    session.proceed()  # it may ask for another turn: then it stands at the end
                except MemoryError:
                    self._give_up(session)
                if time.monotonic() > until:
                    break
        finally:
            self._proceeding = False
            self._proceed_soon()

    def _give_up(self, session: Session) -> None:
        """Closes a connection whose reply can't go on for want of memory, as soon as there is some for that."""
        try:
            session.close("error")
        except MemoryError:
            self._loop.call_later(GIVE_UP_AGAIN, self._give_up, session)

    def events(self, session: Session | None, events: list[tuple[str, bytes, int, int]]) -> bool:
        failed = [event for event in events if event[0] == "login_failed"]
        if failed and session is not None:
            log.warning("%s: a login failed", Peer(session.fd))
            events = [event for event in events if event[0] != "login_failed"]
        if events and self.cluster is not None and self.cluster.events(session, events):
            return True
        if failed and session is not None:
            self._loop.call_later(LOGIN_SECONDS, session.release)
        return bool(failed)

    def lock(self, session: Session, key: bytes) -> None:
        if self.cluster is not None:
            self.cluster.lock(session, key)

    def trace(self, session: Session | None, text: bytes) -> None:
        logs = early_log.load()
        for line in logs.trace_lines(text):
            logs.trace(line)

    # Ending them -----------------------------------------------------------------------------------------------------

    def stop_reading(self) -> None:
        """No further command is taken from anyone; replies still go out."""
        self.workers.stop_reading()

    def finish(self) -> None:
        """Closes what has nothing to send, and the others as soon as they have sent it; then sets `all_closed`."""
        self._ending = True
        self.watchers.flush()
        self.workers.finish()
        if not self.workers.clients:
            self.all_closed.set()

    def close_all(self) -> None:
        """At once, and ends the workers. Nothing can be opened afterwards."""
        self._loop.remove_reader(self.workers.fileno())
        self.workers.close()

    # What the cold commands see --------------------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """Open client connections."""
        return self.workers.clients

    @property
    def listeners(self) -> list[int]:
        """Their descriptors."""
        return list(self._listeners)

    @property
    def connections(self) -> int:
        return self.workers.clients + len(self._listeners) + len(self._doors)

    @property
    def figures(self) -> Figures:
        kicks = self.workers.idle_kicks - self._idle_kicks
        self._idle_kicks += kicks
        self._figures.idle_kicks += kicks
        shakes, protos, sessions = now = self.workers.tls_figures()
        self._figures.ssl_handshake_errors += shakes - self._tls_before[0]
        self._figures.ssl_proto_errors += protos - self._tls_before[1]
        self._figures.ssl_new_sessions += sessions - self._tls_before[2]
        self._tls_before = now
        self._figures.total_connections += self.workers.accepted - self._accepted
        self._accepted = self.workers.accepted
        came, dropped = self.workers.datagrams
        self._figures.udp_requests += came - self._datagrams_seen[0]
        self._figures.udp_dropped += dropped - self._datagrams_seen[1]
        self._datagrams_seen = came, dropped
        return self._figures

    @property
    def most_connections(self) -> int:
        return self.workers.most_clients + len(self._security) + len(self._doors)

    @property
    def log_lines_lost(self) -> int:
        return int(early_log.load().lost())

    @property
    def accepting(self) -> bool:
        return self._accepting

    @property
    def full(self) -> bool:
        return self.workers.clients >= self._config.maxconns

    def sockets(self, asking: Session) -> Iterator[SocketStatus | None]:
        now = self._engine.now()
        listening = deque(sorted(self._listeners))  # those stand between the others, by descriptor
        for found in self.workers.sockets(SOCKETS_A_TURN):
            for fd, state, waiting, last in found:
                while listening and listening[0] < fd:
                    yield self._listener(listening.popleft(), now)
                if not is_open(fd):  # it has gone since the list was made: its worker waits for nobody
                    continue
                if fd in self._doors:
                    yield SocketStatus(fd, self._doors[fd], "", "conn_read", 0, max(0, int(now - last)), udp=True)
                elif fd == asking.fd:
                    yield SocketStatus(fd, address_text(fd, peer=True), address_text(fd), "conn_parse_cmd", waiting, 0)
                else:
                    idle = max(0, int(now - last))
                    yield SocketStatus(fd, address_text(fd, peer=True), address_text(fd), state, waiting, idle)
            yield None
        for fd in listening:
            yield self._listener(fd, now)

    def _listener(self, fd: int, now: float) -> SocketStatus:
        return SocketStatus(fd, address_text(fd), "", "conn_listening", 0, int(now - self._began))

    def stop(self, *, graceful: bool) -> None:
        self._stop(graceful)


# Addresses -----------------------------------------------------------------------------------------------------------


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object over a descriptor that stays its owner's. OSError: it was closed, or given to something else."""
    borrowed_socket = socket.socket(fileno=fd)
    try:
        yield borrowed_socket
    finally:
        borrowed_socket.detach()


def address_text(fd: int, *, peer: bool = False) -> str:
    """`tcp:1.2.3.4:5`, `tcp6:[::1]:5`, or `unix:` and the path of the listener, whose clients have none."""
    try:
        with borrowed(fd) as sock:
            address = sock.getpeername() if peer and sock.family != socket.AF_UNIX else sock.getsockname()
            family, kind = sock.family, "udp" if sock.type == socket.SOCK_DGRAM else "tcp"
    except OSError:
        return "unknown"
    if family == socket.AF_UNIX:
        return f"unix:{address}"
    if family == socket.AF_INET6:
        return f"{kind}6:[{address[0]}]:{address[1]}"
    return f"{kind}:{address[0]}:{address[1]}"


class Peer:
    """A client's address in a message, which is found out only if somebody is told: most are held back in a flood."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __str__(self) -> str:
        return address_text(self._fd, peer=True)


def event_address(fd: int) -> tuple[str, int, str]:
    """Address, port and transport of a client, as connection events spell them."""
    try:
        with borrowed(fd) as sock:
            if sock.family == socket.AF_UNIX:
                return "unix", 0, "local"
            address = sock.getpeername()
    except OSError:
        return "unknown", 0, "tcp"
    return address[0], address[1], "tcp"


def is_open(fd: int) -> bool:
    """Whether this descriptor is anything's."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
