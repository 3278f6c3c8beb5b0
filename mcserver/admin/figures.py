"""What the server itself counts and shows of its sockets. It is loaded before clients are answered."""

from __future__ import annotations

from typing import NamedTuple


class Figures:
    """What the server counts, and the engine doesn't. Names are those of `stats`."""

    def __init__(self) -> None:
        self.total_connections = 0
        self.rejected_connections = 0
        self.idle_kicks = 0
        self.listen_disabled_num = 0
        self.time_in_listen_disabled_us = 0
        self.wrong_protocol = 0
        """Connections that spoke what is not spoken here: HTTP, TLS or none of it, Redis's protocol, one that -B switched off."""
        self.ssl_new_sessions = 0
        self.ssl_handshake_errors = 0
        self.ssl_proto_errors = 0

        self.udp_requests = 0
        """Datagrams that came."""
        self.udp_dropped = 0
        """Those of them that were no request, or came from another server's port, and were not answered."""

    def reset(self) -> None:
        """`stats reset`: every figure here is a counter."""
        vars(self).update(vars(Figures()))


class Socket(NamedTuple):
    """One open socket, as `stats conns` shows it. `listen_addr` is "" for a listener."""

    fd: int
    addr: str
    listen_addr: str
    state: str
    resps_waiting: int
    secs_since_last_cmd: int
    udp: bool = False
