"""`stats conns`: every open socket, by descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mcserver.admin.context import Context
from mcserver.core import END

if TYPE_CHECKING:
    from mcserver.core import Session


def conns(context: Context, session: Session) -> Iterator[bytes]:
    """In pieces: five thousand connections make half a megabyte, and to ask for their addresses takes time."""
    lines: list[str] = []
    for socket in context.network.sockets(session):
        if socket is None:
            yield "".join(lines).encode()
            lines.clear()
            continue
        if socket.udp:
            lines.append(f"STAT {socket.fd}:UDP UDP\r\n")
        lines.append(f"STAT {socket.fd}:addr {socket.addr}\r\n")
        if socket.listen_addr:
            lines.append(f"STAT {socket.fd}:listen_addr {socket.listen_addr}\r\n")
        lines.append(f"STAT {socket.fd}:state {socket.state}\r\n")
        if socket.resps_waiting:
            lines.append(f"STAT {socket.fd}:resps_waiting {socket.resps_waiting}\r\n")
        lines.append(f"STAT {socket.fd}:secs_since_last_cmd {socket.secs_since_last_cmd}\r\n")
    yield "".join(lines).encode() + END
