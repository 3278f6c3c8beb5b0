"""Which ZooKeeper servers can be reached, by ZooKeeper's four-letter word `srvr`. It blocks: never call it on the loop."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Seen(NamedTuple):
    """What one server answered. `serving`: it has a quorum; `there`: it accepts connections, and may have one."""

    server: str
    serving: bool
    there: bool
    text: str


def look(hosts: str, timeout: float, tls: bool = False) -> list[Seen]:
    """Asks each of HOST:PORT,... in turn, for at most `timeout` seconds each. A TLS port is only connected to."""
    return [_ask(host, timeout, tls) for host in hosts.split(",") if host]


def describe(found: list[Seen]) -> str:
    return ", ".join(f"{seen.server} {seen.text}" for seen in found)


def _ask(server: str, timeout: float, tls: bool) -> Seen:
    host, colon, port = server.strip().rpartition(":")
    if not colon:
        host, port = server.strip(), "2181"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as link:
            if tls:
                return Seen(server, False, True, "accepts connections")
            link.settimeout(timeout)
            link.sendall(b"srvr")
            answer = b""
            while piece := link.recv(4096):
                answer += piece
    except TimeoutError:
        return Seen(server, False, False, "does not answer")
    except OSError as error:
        return Seen(server, False, False, (error.strerror or str(error)).lower())
    if b"Mode: " in answer:
        return Seen(server, True, True, "serves")
    if b"whitelist" in answer:
        return Seen(server, False, True, "is there")
    return Seen(server, False, False, "has no quorum")
