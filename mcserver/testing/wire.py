"""Sockets of the servers in a test's process: one Line carries one Conversation on the host's loop. It knows no command."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from mcserver.testing.conversation import Conversation, Send, Wait

if TYPE_CHECKING:
    from mcserver.testing.conversation import House

READ_BYTES = 1 << 16
UNSENT_MOST = 1 << 20
"""Bytes of replies that wait for a client before no more of its commands are taken."""
BACKLOG = 128
RESET = struct.pack("ii", 1, 0)


class Line:
    """One accepted socket. Lives on the loop's thread, but for `wake`, `watch` and `acknowledge`, which any thread may call.

    What it reads takes effect under the house's lock: who holds that sees nothing half done.
    """

    def __init__(
        self,
        house: House,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        number: int,
        gone: Callable[[Line], None],
    ) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer, self.here = _address(connection.getpeername()), _address(connection.getsockname())
        self.conversation = Conversation(house, self.wake, number)
        self._socket = connection
        self._loop = loop
        self._lock = house.lock
        self._gone = gone
        self._unsent = bytearray()
        self._closed = False
        self._ending = False
        self._waiting: asyncio.TimerHandle | None = None
        self._woken = False
        loop.add_reader(connection, self.read)

    def wake(self) -> None:
        """There is something to do without new input."""
        if not self._woken and not self._closed:
            self._woken = True
            self._loop.call_soon_threadsafe(self._wake_now)

    def _wake_now(self) -> None:
        self._woken = False
        self._go()

    def watch(self, waiting: select.poll) -> None:
        """Has it wait for input here."""
        with contextlib.suppress(OSError):
            if not self._closed:
                waiting.register(self._socket, select.POLLIN)

    def acknowledge(self) -> bool:
        """Lets a client that holds back small pieces (Nagle) send them at once. Whether it can: not on Unix sockets."""
        if self._closed or self._socket.family == socket.AF_UNIX:
            return False
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return True

    def read(self) -> None:
        """Takes what there is, if anything."""
        with self._lock:
            if not self._closed:
                self._readable()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
            self.acknowledge()  # no test waits 40 ms for a delayed one
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.conversation.receive(data)
        self._go()

    def _go(self) -> None:
        """Takes steps until there are none, the client is slow, or one asks to wait."""
        while not self._closed and self._waiting is None and not self._ending and len(self._unsent) < UNSENT_MOST:
            step = self.conversation.next()
            if step is None:
                break
            if isinstance(step, Send):
                self._unsent += step.data
                self._send()
            elif isinstance(step, Wait):
                self._waiting = self._loop.call_later(step.seconds, self._waited)
            elif step.reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.close()
            else:
                self._ending = True
        if self._ending and not self._unsent:
            self.close()

    def _waited(self) -> None:
        self._waiting = None
        self._go()

    def _send(self) -> None:
        if not self._unsent or self._closed:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._unsent:
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._send()
        self._go()

    def close(self) -> None:
        """At once."""
        if self._closed:
            return
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self.conversation.close()
        self._gone(self)


def _address(address: object) -> str:
    return f"tcp:{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"


def listen_again(holder: socket.socket) -> socket.socket:
    """A listener at the address of a socket that only holds it: while nobody listens, clients are refused there."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(holder.getsockname())
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def refuse(loop: asyncio.AbstractEventLoop, listeners: list[socket.socket]) -> None:
    """Closes the listeners of TCP."""
    for listener in listeners:
        if listener.family == socket.AF_INET:
            loop.remove_reader(listener)
            listener.close()
