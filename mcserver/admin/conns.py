"""`stats conns`: every open socket, by descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mcserver.admin.context import Context
from mcserver.core import END

if TYPE_CHECKING:
    from mcserver.core import Session

SOCKETS_A_PIECE = 200
"""Keeps a piece of the reply under 64 KiB, also with the longest addresses."""


def conns(context: Context, session: Session) -> Iterator[bytes]:
    """In pieces: five thousand connections make half a megabyte."""
    lines: list[str] = []
    for count, socket in enumerate(context.network.sockets(session), 1):
        if socket.udp:
            lines.append(f"STAT {socket.fd}:UDP UDP\r\n")
        lines.append(f"STAT {socket.fd}:addr {socket.addr}\r\n")
        if socket.listen_addr:
            lines.append(f"STAT {socket.fd}:listen_addr {socket.listen_addr}\r\n")
        lines.append(f"STAT {socket.fd}:state {socket.state}\r\n")
        if socket.resps_waiting:
            lines.append(f"STAT {socket.fd}:resps_waiting {socket.resps_waiting}\r\n")
        lines.append(f"STAT {socket.fd}:secs_since_last_cmd {socket.secs_since_last_cmd}\r\n")
        if count % SOCKETS_A_PIECE == 0:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode() + END
