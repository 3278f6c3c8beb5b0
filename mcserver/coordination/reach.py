"""Which ZooKeeper servers can be reached, by ZooKeeper's four-letter word `srvr`. It blocks: never call it on the loop."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import NamedTuple

LONGEST = 1.25  # times as long as a step may take: what is waited for at all
ANSWER_MAX = 65536  # bytes; ours is a page


class Seen(NamedTuple):
    """What one server answered. `serving`: it has a quorum; `there`: it accepts connections, and may have one."""

    server: str
    serving: bool
    there: bool
    text: str


_asking: dict[str, threading.Thread] = {}
"""Who is asked now. To resolve a name has no time limit: neither the end of the process nor the next look waits for that."""


def look(hosts: str, timeout: float, tls: ssl.SSLContext | None = None) -> list[Seen]:
    """Asks all of HOST:PORT,... at the same time, for at most `timeout` seconds a step. With TLS: only the handshake.

    Returns after LONGEST steps at most.
    """
    servers = [host for host in hosts.split(",") if host]
    found: dict[str, Seen] = {}

    def ask(server: str) -> None:
        found[server] = _ask(server, timeout, tls)

    for server in servers:
        if server not in _asking or not _asking[server].is_alive():
            thread = threading.Thread(target=ask, args=(server,), name="zookeeper-reach", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                found[server] = Seen(server, False, False, "is not asked: the system has no thread for it")
            else:
                _asking[server] = thread
    until = time.monotonic() + LONGEST * timeout
    for server in servers:
        if server not in found:
            _asking[server].join(max(0.0, until - time.monotonic()))
    late = "does not answer in time, or its name is not resolved"
    return [found.get(server) or Seen(server, False, False, late) for server in servers]


def describe(found: list[Seen]) -> str:
    """For one line of a log."""
    return ", ".join(f"{seen.server} {seen.text}" for seen in found)


def _ask(server: str, timeout: float, tls: ssl.SSLContext | None) -> Seen:
    host, colon, port = server.strip().rpartition(":")
    if not colon:
        host, port = server.strip(), "2181"
    host = host.strip("[]")
    try:
        link = socket.create_connection((host, int(port)), timeout)
    except TimeoutError:
        return Seen(server, False, False, "does not answer")
    except OSError as error:
        return Seen(server, False, False, (error.strerror or str(error)).lower())
    except UnicodeError:  # a part of it is too long
        return Seen(server, False, False, "is no name of a host")
    with link:
        link.settimeout(timeout)
        return _shake(server, host, link, tls) if tls else _word(server, link, timeout)


def _shake(server: str, host: str, link: socket.socket, tls: ssl.SSLContext) -> Seen:
    try:
        with tls.wrap_socket(link, server_hostname=host):
            return Seen(server, False, True, "speaks TLS")
    except ssl.SSLCertVerificationError as error:
        return Seen(
            server, False, True, f"has a certificate that is not taken ({error.verify_message}): look at --zk-ca"
        )
    except TimeoutError:
        return Seen(
            server, False, True, "accepts connections but does not speak TLS: look at its port (secureClientPort)"
        )
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error) or "closed"
        text = (
            f"refuses TLS ({str(reason).lower()}): look at --zk-cert and --zk-key, and at its port (secureClientPort)"
        )
        return Seen(server, False, True, text)


def _word(server: str, link: socket.socket, timeout: float) -> Seen:
    """Of the whole answer `timeout` seconds: one who sends a byte now and then would keep us for ever, and the process' end."""
    answer, until = b"", time.monotonic() + timeout
    try:
        link.sendall(b"srvr")
        while len(answer) < ANSWER_MAX and (piece := link.recv(4096)):
            answer += piece
            if time.monotonic() > until:
                break
            link.settimeout(max(0.001, until - time.monotonic()))
    except TimeoutError:
        if not answer:
            return Seen(
                server,
                False,
                False,
                "accepts connections but says nothing: it is stopped, wants TLS (--zk-ca), or is not ZooKeeper",
            )
    except ConnectionError:
        pass  # it hung up on us: with what it has said, or without a word
    except OSError as error:
        return Seen(server, False, False, (error.strerror or str(error)).lower())
    if b"Mode: " in answer:
        return Seen(server, True, True, "serves")
    if b"whitelist" in answer:
        return Seen(server, False, True, "is there")
    if b"not currently serving" in answer:
        return Seen(server, False, False, "has no quorum: start the other servers of the ensemble")
    if not answer:
        return Seen(server, False, True, "closes the connection: it wants TLS (--zk-ca), or is not ZooKeeper")
    return Seen(server, False, True, "is not ZooKeeper: correct --zookeeper")
