"""Workers with an owner on a thread of its own, and clients of theirs: what a server is to its engine, without a server."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from mcserver.core import Engine, Session, Workers
from tests.core.harness import Event


class Owner:
    """Answers letters on a thread of its own, as the server's loop does."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self.engine = engine
        self.workers = Workers(engine, self, threads)
        self.commands: dict[bytes, Callable[[Session, bytes], Any]] = {}
        self.told: list[Event] = []
        self.closes: list[str] = []
        self.locks: list[tuple[Session, bytes]] = []
        self.traces: list[bytes] = []
        self.peers: list[Peer] = []
        self.hold = False
        self.on_events: Callable[[Session, list[Event]], None] = lambda session, events: None
        self._waiting: list[Session] = []
        self._jobs: list[Callable[[], None]] = []
        self._wake, self._woken = os.pipe()
        self._ending = False
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self) -> Owner:
        self.workers.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for peer in self.peers:
            peer.sock.close()
        os.close(self._wake)
        os.close(self._woken)

    def stop(self) -> None:
        """Ends the threads; the clients see the end of their connections."""
        if not self._ending:
            self._ending = True
            os.write(self._woken, b".")
            self._thread.join()
            self.workers.close()

    def _loop(self) -> None:
        while not self._ending:
            select.select([self.workers.fileno(), self._wake], [], [], None if not self._waiting else 0)
            if select.select([self._wake], [], [], 0)[0]:
                os.read(self._wake, 1)
            while self._jobs:
                self._jobs.pop(0)()
            self.workers.turn()
            waiting, self._waiting = self._waiting, []
            for session in waiting:
                session.proceed()

    def do(self, job: Callable[[], None]) -> None:
        """Runs it on the thread that may touch sessions."""
        self._jobs.append(job)
        os.write(self._woken, b".")

    def connect(self, security: int = 0) -> Peer:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        peer = Peer(ours)
        self.peers.append(peer)
        assert self.workers.open(theirs.detach(), security)
        return peer  # not the last of them: several threads connect

    def command(self, session: Session, line: bytes) -> Any:
        verb = line.split(b" ", 1)[0]
        return self.commands[verb](session, line) if verb in self.commands else None

    def events(self, session: Session, events: list[Event]) -> bool:
        self.told += events
        self.on_events(session, events)
        return self.hold

    def lock(self, session: Session, key: bytes) -> None:
        self.locks.append((session, key))

    def closed(self, session: Session, reason: str) -> None:
        self.closes.append(reason)

    def later(self, session: Session) -> None:
        self._waiting.append(session)

    def trace(self, session: Session | None, text: bytes) -> None:
        self.traces.append(text)

    def interest(self, session: Session, read: bool, write: bool) -> None:
        raise AssertionError

    def gone(self) -> None: ...

    def unknown_change(self) -> None:
        raise AssertionError

    def accepted(self, listener: int, reason: int, descriptors: list[int]) -> None:
        raise AssertionError


class Peer:
    """The client's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(60)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            data = self.sock.recv(1 << 16)
            assert data, (self.buffer, "closed")
            self.buffer += data
        reply, _, self.buffer = self.buffer.partition(end)
        return reply + end

    def ask(self, line: bytes, end: bytes = b"\r\n") -> bytes:
        self.send(line + b"\r\n")
        return self.until(end)

    def is_closed(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return self.sock.recv(1) == b""
        return True
