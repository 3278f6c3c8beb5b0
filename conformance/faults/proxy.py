"""The proxy that plants a fault between the suite and a right server.

Owns the sockets in between: one listener for each server lent, two threads a connection. What passes is given to the
fault piece by piece as it arrives, and passed on as the fault returns it. Without a fault nothing is changed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from ..notation import Case
from ..servers import Lease, Servers
from ..wire import Address, connect
from .planted import Fault, Talk

CHUNK = 1 << 18


class Proxy:
    """A listener on 127.0.0.1 that passes every connection on to `server`, through `fault`."""

    def __init__(self, server: Address, fault: Fault | None) -> None:
        self.server = server
        self.fault = fault
        self.notes: dict[bytes, bytes] = {}  # what the fault remembers over all connections
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = Address("127.0.0.1", self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stops listening; connections end with their clients."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                server = connect(self.server, 5.0)
            except Exception:  # noqa: BLE001  # whatever it is, the client sees a closed connection
                client.close()
                continue
            server.settimeout(None)
            talk = Talk(self.notes, server.sendall, client.sendall)
            threading.Thread(target=self._up, args=(client, server, talk), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server, talk), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, talk: Talk) -> None:
        """From the client to the server."""
        change = self.fault.request if self.fault else None
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                data = change(data, talk) if change else data
                talk.asked(data)
                server.sendall(data)
            if self.fault and self.fault.hangup:
                server.sendall(self.fault.hangup)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR if not (self.fault and self.fault.hangup) else socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket, talk: Talk) -> None:
        """From the server to the client; ends both."""
        change = self.fault.reply if self.fault else None
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                client.sendall(change(data, talk) if change else data)
                if talk.closing:
                    break
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxied(Servers):
    """Lends another's servers through a proxy with a fault."""

    def __init__(self, inner: Servers, fault: Fault | None) -> None:
        self.inner = inner
        self.fault = fault
        self.shared_by_all = inner.shared_by_all

    def reason_to_skip(self, case: Case) -> str:
        return self.inner.reason_to_skip(case)

    @contextlib.contextmanager
    def lend(self, case: Case) -> Iterator[Lease]:
        with self.inner.lend(case) as lease:
            proxy = Proxy(lease.address, self.fault)
            try:
                yield Lease(proxy.address, lease.process)
            finally:
                proxy.close()
