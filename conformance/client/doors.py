"""How a server with TLS lets its clients in: as it should, or not.

Owns the handshake, and the authorities and certificates of one run. It knows no request.
"""

from __future__ import annotations

import socket
import ssl

from .certificate import Authority
from .misbehaving import Door

PLAIN = b"ERROR this port speaks no TLS\r\n"


class Doors:
    """The doors by name. certificate: the authority that clients are told of, as PEM."""

    def __init__(self) -> None:
        authority = Authority("mcconform")
        self.certificate = authority.certificate
        right = authority.server()
        self.by_name: dict[str, Door] = {
            "right": _shakes(right),
            "stranger": _shakes(Authority("mcconform").server()),
            "elsewhere": _shakes(authority.server("elsewhere.example")),
            "silent": _silent_first(right),
            "plain": _plain,
        }


def _shakes(context: ssl.SSLContext) -> Door:
    return lambda sock, number: context.wrap_socket(sock, server_side=True)


def _silent_first(context: ssl.SSLContext) -> Door:
    def door(sock: socket.socket, number: int) -> socket.socket | None:
        if number:
            return context.wrap_socket(sock, server_side=True)
        while sock.recv(1 << 16):
            pass
        return None

    return door


def _plain(sock: socket.socket, number: int) -> None:
    sock.recv(1 << 16)
    sock.sendall(PLAIN)
