"""Sockets without a network, for clients that take a socket module (pymemcache): what they send is answered on the spot.

One thread, no descriptor, no waiting: what is sent takes effect at once; a fault that would delay an answer beyond the socket's
timeout is that timeout when the answer is asked for, and a shorter one takes no time.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from mcserver.testing.conversation import Close, Conversation, Send, Wait

if TYPE_CHECKING:
    from mcserver.core import Engine
    from mcserver.testing.conversation import House


class FakeSocket:
    """A connected or unconnected stream socket whose other end is the server, whatever address it is told."""

    def __init__(self, server: House) -> None:
        if server.cluster is not None:
            raise RuntimeError("a member of a fleet answers on real sockets only")
        self._server = server
        self._conversation: Conversation | None = None
        self._engine: Engine | None = None
        self._timeout: float | None = None
        self._unread = bytearray()
        self._wait: float | None = None
        self._ended = False
        self._reset = False

    def connect(self, address: object) -> None:
        """Raises ConnectionRefusedError under faults.refuse(), and when the server has ended."""
        if not self._server.connectable():
            raise ConnectionRefusedError(111, "Connection refused")
        self._server.figures.total_connections += 1
        self._engine = self._server.engine
        self._conversation = Conversation(self._server)

    def _go(self) -> None:
        """Takes the steps that need no input, up to one that waits."""
        conversation = self._connected()
        while self._wait is None and (step := conversation.next()) is not None:
            if isinstance(step, Send):
                self._unread += step.data
            elif isinstance(step, Wait):
                self._wait = step.seconds
            elif isinstance(step, Close):
                self._ended, self._reset = True, step.reset

    def _go_on(self) -> None:
        """Waits as long as it must, in no time. Raises TimeoutError for a wait that the timeout doesn't allow."""
        while self._wait is not None:
            seconds, self._wait = self._wait, None
            if self._timeout is not None and seconds >= self._timeout:
                raise TimeoutError("timed out")
            self._go()

    def _connected(self) -> Conversation:
        if self._conversation is None:
            raise OSError(107, "Transport endpoint is not connected")
        return self._conversation

    def _look(self) -> None:
        """Whoever was connected when the server ended, or began anew, is no longer."""
        if self._conversation is not None and getattr(self._server, "engine", None) is not self._engine:
            self._ended = self._reset = True

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Takes effect at once, unless a fault holds it up."""
        self._look()
        if self._reset:
            raise ConnectionResetError(104, "Connection reset by peer")
        if self._ended:
            raise BrokenPipeError(32, "Broken pipe")
        self._connected().receive(bytes(data))
        self._go()

    def send(self, data: bytes, flags: int = 0) -> int:
        """All of it."""
        self.sendall(data, flags)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Raises TimeoutError when nothing can come any more: where a real socket would wait."""
        self._look()
        if not self._unread and not self._ended:
            self._go()
            self._go_on()
        if not self._unread:
            if self._reset:
                raise ConnectionResetError(104, "Connection reset by peer")
            if not self._ended:
                raise TimeoutError("timed out")
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """See recv."""
        data = self.recv(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """None: for ever, which is answered as a timeout, too."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """Seconds."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """As settimeout(None) or settimeout(0)."""
        self._timeout = None if flag else 0.0

    def setsockopt(self, *options: object) -> None:
        """Has no effect without a network."""

    def getpeername(self) -> tuple[str, int]:
        """An address that is nobody's."""
        self._connected()
        return ("127.0.0.1", 11211)

    def shutdown(self, how: int) -> None:
        """As close."""
        self.close()

    def close(self) -> None:
        """Sent commands take effect before."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._conversation = conversation
            self._look()
            try:
                if not self._ended:
                    self._go()
                    self._go_on()
            except TimeoutError:
                pass
            self._conversation = None
            conversation.close()

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def fileno(self) -> int:
        """There is none."""
        return -1


class SocketModule:
    """Stands for the module `socket`: its sockets are FakeSockets of one server; names and errors are the real module's."""

    def __init__(self, server: House) -> None:
        self._server = server

    def socket(self, *kind: object, **others: object) -> FakeSocket:
        """Whatever family and type."""
        return FakeSocket(self._server)

    def create_connection(self, address: object, timeout: float | None = None, *others: object) -> FakeSocket:
        """Connected."""
        made = FakeSocket(self._server)
        made.settimeout(timeout)
        made.connect(address)
        return made

    def getaddrinfo(self, host: object, port: object, *others: object, **more: object) -> list[tuple[Any, ...]]:
        """Every name is known."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(host), port))]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)
