"""A UDP client, and what its datagrams say."""

from __future__ import annotations

import re
import socket
import struct

from tests.serving import REPLY_SECONDS, Server

HEADER = struct.Struct("!HHHH")
BARRIER = 0xFFFF


class Datagrams:
    """A UDP client. A request behind what is asked tells that all of the answer is there, if the server has one thread."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.connect(address)
        self.socket.settimeout(REPLY_SECONDS)
        self.number = 0

    def close(self) -> None:
        self.socket.close()

    def ask(self, data: bytes, head: bytes | None = None) -> list[bytes]:
        """All datagrams that answer it, whole."""
        self.number = self.number % 60000 + 1
        self.socket.send((HEADER.pack(self.number, 0, 1, 0) if head is None else head) + data)
        return self.until_barrier()

    def one(self, data: bytes) -> bytes:
        """The reply to it, which is one datagram. With several threads another one may answer the barrier sooner."""
        self.number = self.number % 60000 + 1
        head = HEADER.pack(self.number, 0, 1, 0)
        self.socket.send(head + data)
        received = self.socket.recv(1 << 16)
        assert received[: HEADER.size] == head, received
        return received[HEADER.size :]

    def until_barrier(self) -> list[bytes]:
        self.socket.send(HEADER.pack(BARRIER, 0, 1, 0) + b"verbosity 0\r\n")  # Python answers it, behind all before
        found: list[bytes] = []
        while True:
            received = self.socket.recv(1 << 16)
            if received[:2] == b"\xff\xff":
                assert received[2:] == b"\0\0\0\1\0\0OK\r\n"
                return found
            found.append(received)

    def text(self, data: bytes) -> bytes:
        """The replies to it, joined, when they came in one datagram each."""
        answers = self.ask(data)
        assert all(HEADER.unpack_from(each) == (self.number, 0, 1, 0) for each in answers), answers
        return b"".join(each[HEADER.size :] for each in answers)


def udp_address(server: Server) -> tuple[str, int]:
    found = re.search(r"udp:([\d.]+):(\d+)", server.log())
    assert found, server.log()
    return found[1], int(found[2])


def shown(datagrams: list[bytes]) -> list[bytes]:
    """Without the CAS unique of a binary reply: the servers count each in its own way."""
    return [each[:24] + each[32:] if each[8:9] == b"\x81" else each for each in datagrams]
