"""TLS as tests see it on the wire: records that can be counted, hellos, where a server listens."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.serving import Client, Server
from tests.tls.certificates import SECONDS


def of(client: Client) -> ssl.SSLSocket:
    assert isinstance(client.socket, ssl.SSLSocket)
    return client.socket


class Wire:
    """A client whose records can be counted."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), SECONDS)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.records: list[int] = []
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def exchange(self) -> None:
        """Sends what waits, and takes one record."""
        self.flush()
        head = self.take(5)
        body = self.take(int.from_bytes(head[3:], "big"))
        self.records.append(len(body))
        self.incoming.write(head + body)

    def take(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            got = self.socket.recv(n - len(data))
            assert got, "closed"
            data += got
        return data

    def until(self, mark: bytes, times: int = 1) -> bytes:
        data = b""
        while data.count(mark) < times:
            try:
                data += self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.exchange()
        return data


def hello(context: ssl.SSLContext) -> bytes:
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def listening(server: Server) -> list[tuple[str, int]]:
    line = next(line for line in server.log().splitlines() if " listens on " in line)
    ports = line.split(" listens on ")[1].split(";")[0]
    return [("127.0.0.1", int(each.rpartition(":")[2])) for each in ports.split(", ")]
