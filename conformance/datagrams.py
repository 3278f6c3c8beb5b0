"""UDP in the clothes of a socket: each write is a datagram with memcached's frame header, replies are put together.

Owns the frame: request id, sequence number, number of datagrams, 0; 16 bits each. It knows no commands.
"""

from __future__ import annotations

import socket
import struct

HEADER = struct.Struct("!HHHH")
FIRST = 0xFEFF  # before the first request id: in those that come both bytes matter, and are not the same
LARGEST = 1400  # bytes of a request: a datagram that no network cuts


class HeaderError(OSError):
    """A datagram came whose header is malformed, or whose request is another."""


class Datagrams:
    """What a connection needs of a socket, over UDP. Replies to a request come out whole and in order."""

    def __init__(self, host: str, port: int) -> None:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.connect(where)
        self.request = FIRST
        self.pieces: dict[int, bytes] = {}  # of the reply that comes in, by number

    def settimeout(self, seconds: float | None) -> None:
        self.socket.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        """One datagram, with a request id of its own; OSError when it is too large for one."""
        if len(data) > LARGEST:
            raise OSError(f"{len(data)} bytes do not fit into a datagram")
        self.request = self.request % 65535 + 1
        self.pieces.clear()
        self.socket.send(HEADER.pack(self.request, 0, 1, 0) + data)

    def recv(self, size: int) -> bytes:
        """The next whole reply; HeaderError when a header is malformed, or answers another request than the last."""
        while True:
            data = self.socket.recv(size)
            if len(data) < HEADER.size:
                raise HeaderError("one without its header of 8 bytes came")
            request, number, total, zero = HEADER.unpack_from(data)
            if request != self.request:
                raise HeaderError(f"one for request {request} came, {self.request} was asked")
            if (
                total == 0 and not zero
            ):  # so memcached 1.6 numbers parts of an answer about several keys; some are empty
                if data[HEADER.size :]:
                    return data[HEADER.size :]
                continue
            if zero or not number < total:
                raise HeaderError(f"a header that cannot be came: {data[:8].hex(' ')}")
            self.pieces[number] = data[HEADER.size :]
            if len(self.pieces) == total:
                return b"".join(self.pieces[number] for number in range(total))

    def close(self) -> None:
        self.socket.close()
