"""The sockets that a server listens on, opened as configured. They accept nothing yet and need no event loop."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from mcserver.settings.config import Config, Listener, Secure
from mcserver.system.folders import Folder
from mcserver.system.process import StartError, write_atomically

METRICS_BACKLOG = 16
SEND_BUFFER = 16 << 20
"""Bytes that a UDP socket may have on their way, as far as the system allows: a large value is sent in one go."""
FIRST_UNPRIVILEGED_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class Sockets(NamedTuple):
    """All at which a server is asked."""

    listeners: list[socket.socket]
    datagrams: list[socket.socket]
    metrics: socket.socket | None
    handed_over: bool = False
    """The process that served opened them (--take-over): what the options of this one say of addresses has no effect."""


class Kind(NamedTuple):
    """What _open is to open, and the option that says at which port."""

    name: str
    type: socket.SocketKind
    option: str


TCP, UDP = Kind("TCP", socket.SOCK_STREAM, "-p"), Kind("UDP", socket.SOCK_DGRAM, "-U")


class Listening(socket.socket):
    """A listener of -l, which knows what it asks of its clients."""

    secure = Secure.DEFAULT
    speaks: str | None = None
    """What -B says, unless its prefix says something else."""


def spoken_at(listener: socket.socket) -> str | None:
    """What its prefix in -l says (-B's words), if it has one."""
    return listener.speaks if isinstance(listener, Listening) else None


def asked_by(listener: socket.socket) -> Secure:
    """What its prefix in -l says; one that the service manager opened has none."""
    return listener.secure if isinstance(listener, Listening) else Secure.DEFAULT


def need_root(config: Config) -> bool:
    """Whether one of the ports is below those that anybody may open (1024, or what the system says)."""
    if config.domain_socket is not None:
        return False
    try:
        with open(FIRST_UNPRIVILEGED_PORT) as file:
            first = int(file.read())
    except (OSError, ValueError):
        first = 1024
    ports = [config.tcpport if each.port is None else each.port for each in config.listeners()]
    return any(0 < port < first for port in [*ports, config.udpport])


def open_listeners(config: Config) -> list[socket.socket]:
    """Bound, listening, non-blocking; none with -p 0 alone, as in memcached.

    Raises StartError (71, as memcached) with what to change; what was opened is closed then.
    """

    def bind(listener: socket.socket, address: tuple[Any, ...]) -> None:
        _bind(listener, address, config.tcp_backlog)

    with contextlib.ExitStack() as opened:
        listeners: list[socket.socket] = []
        if config.domain_socket is not None:
            listeners.append(opened.enter_context(_unix(config.domain_socket, config)))
        elif config.tcpport != 0 or any(listener.port for listener in config.listeners()):
            for listener in config.listeners():
                port = config.tcpport if listener.port is None else listener.port
                if port != 0 or (listener.port == 0 and config.tcpport != 0):  # any that is free, but for -p 0
                    listeners += map(opened.enter_context, _open(listener, max(port, 0), TCP, bind))
        opened.pop_all()
        return listeners


def open_datagrams(config: Config) -> list[socket.socket]:
    """The UDP sockets, bound and non-blocking: at the addresses of -l, whose ports, as in memcached, go before that of -U.

    Raises StartError (71), as open_listeners.
    """
    with contextlib.ExitStack() as opened:
        bound: list[socket.socket] = []
        if config.udpport != 0 and config.domain_socket is None:
            for listener in config.listeners():
                port = config.udpport if listener.port is None else listener.port
                bound += map(opened.enter_context, _open(listener, max(port, 0), UDP, _bind_datagrams))
        opened.pop_all()
        return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    import ipaddress

    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def _open(
    wanted: Listener, port: int, kind: Kind, bind: Callable[[socket.socket, tuple[Any, ...]], None]
) -> list[Listening]:
    """One socket for each address of the host; port 0 takes any that is free, the same for all where that can be.

    Raises StartError; none stays open then.
    """
    where = wanted.host or "any address"
    found = _resolve(wanted.host, port, kind.type, where, "give an address of this machine with -l")
    with contextlib.ExitStack() as opened:
        bound: list[Listening] = []
        for family, type_, protocol, _, address in found:
            try:
                one = Listening(family, type_, protocol)
            except OSError:
                continue  # the kernel may lack IPv6
            one.secure, one.speaks = wanted.secure, wanted.speaks
            if port == 0 and bound:
                port = bound[0].getsockname()[1]
            try:
                bind(one, (address[0], port, *address[2:]))
            except OSError as error:
                one.close()
                if wanted.host is None and error.errno == errno.EADDRNOTAVAIL:
                    continue  # this machine has no address of the family
                raise StartError(
                    f"failed to listen on {kind.name} port {port} of {where}: {error.strerror}. "
                    f"Choose another port with {kind.option}, or another address with -l"
                ) from error
            bound.append(opened.enter_context(one))
        if not bound:
            raise StartError(f"can't listen on {where}: no usable address; give another with -l")
        opened.pop_all()
        return bound


def _resolve(host: str | None, port: int, kind: socket.SocketKind, where: str, advice: str) -> list[Any]:
    """The addresses of a host, or of all interfaces. Raises StartError."""
    try:
        # As bytes where it can be: for a str Python loads its codec of international names, which takes a start's time.
        name = host.encode() if host is not None and host.isascii() else host
        return socket.getaddrinfo(name, port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # a name whose parts are too long
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise StartError(f"can't resolve {where}: {reason}; {advice}") from error


def open_metrics(address: str) -> socket.socket:
    """The socket of --metrics, listening and non-blocking. Raises StartError (71)."""
    host, _, port = address.rpartition(":")
    found = _resolve(host.strip("[]"), int(port), socket.SOCK_STREAM, f"{address} for --metrics", "choose another")
    family, kind, protocol, _, where = found[0]
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"can't listen on {address} for --metrics: {error.strerror}; choose another") from error
    try:
        _bind(listener, where, METRICS_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"can't listen on {address} for --metrics: {error.strerror}; choose another") from error
    return listener


def _bind(listener: socket.socket, address: tuple[Any, ...], backlog: int) -> None:
    """Options are set before listening: accepted sockets inherit them."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.listen(backlog)
    listener.setblocking(False)


def _bind_datagrams(one: socket.socket, address: tuple[Any, ...]) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    one.bind(address)
    one.setblocking(False)


def _unix(path: str, config: Config) -> socket.socket:
    """Replaces a socket that a server of this user left behind; anything else at the path stays, and is an error."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(~config.umask & 0o777)
    try:
        clear_the_way(path)
        listener.bind(path)
        listener.listen(config.tcp_backlog)
    except OSError as error:
        listener.close()
        raise StartError(
            f"failed to listen on the Unix socket {path}: {error.strerror or error}. Choose another path with -s"
        ) from error
    except StartError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def clear_the_way(path: str) -> None:
    """Removes a socket that is ours and that nobody serves, from a directory where nobody else can put something there.

    Raises StartError when there is a socket that must not be taken away, OSError for what the system refuses.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        return  # binding will say that it is in use
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer in {0, errno.EAGAIN, errno.EINPROGRESS}:
        raise StartError(f"a server listens on the Unix socket {path}: end it, or choose another path with -s")
    if found.st_uid != os.geteuid():
        raise StartError(f"the Unix socket {path} is another user's: remove it, or choose another path with -s")
    if answer != errno.ECONNREFUSED:  # a datagram's, such as /dev/log, is of another type while it lives
        raise StartError(f"the Unix socket {path} is in use ({os.strerror(answer)}): choose another path with -s")
    if (why := _remove(path, found)) is not None:
        raise StartError(
            f"an old Unix socket is at {path}, and {why}: remove it, "
            "or choose a path with -s in a directory of the server's own"
        )


def remove_socket(path: str, ours: os.stat_result) -> None:
    """At the end: removes the socket of `ours` if it is still there, where nobody else can put something there."""
    with contextlib.suppress(OSError):
        _remove(path, ours)


def _remove(path: str, ours: os.stat_result) -> str | None:
    """Why it was not done, or None. Raises OSError for what the system refuses."""
    try:
        folder = Folder(path)
    except PermissionError as error:
        return error.strerror
    with folder:
        if folder.others_may_write:
            return "other users may write its directory"
        if not os.path.samestat(folder.stat(), ours):
            return "something else was put there just now"
        folder.remove()
    return None


def own_address(listeners: list[socket.socket]) -> tuple[str, int] | str | None:
    """How this process reaches its first listener: host and port, or the path of a Unix socket; None without one."""
    for listener in listeners:
        address = listener.getsockname()
        if isinstance(address, str):
            return address
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return loopback.get(address[0], address[0]), address[1]
    return None


def write_port_file(path: str, listeners: list[socket.socket]) -> None:
    """MEMCACHED_PORT_FILENAME: `TCP INET: 11211`, a line a socket, as memcached writes it. Raises StartError."""
    names = {socket.AF_INET: "INET", socket.AF_INET6: "INET6"}
    kinds = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}
    lines = [
        f"{kinds[each.type]} {names[each.family]}: {each.getsockname()[1]}\n"
        for each in listeners
        if each.family in names
    ]
    try:
        write_atomically(path, "".join(lines))
    except OSError as error:
        raise StartError(
            f"could not write the port file {path}: {error.strerror}; see MEMCACHED_PORT_FILENAME"
        ) from error


def addresses(config: Config, sockets: Sockets) -> dict[str, object]:
    """Where it listens, as `stats settings` says it: as the options do, with the port that was found for -p -1, or as it is."""
    ports = [each.getsockname()[1] for each in sockets.listeners if each.family != socket.AF_UNIX]
    if not sockets.handed_over:
        return {"tcpport": ports[0]} if config.tcpport < 0 and ports else {}
    paths = [each.getsockname() for each in sockets.listeners if each.family == socket.AF_UNIX]
    return {
        "tcpport": ports[0] if ports else 0,
        "udpport": sockets.datagrams[0].getsockname()[1] if sockets.datagrams else 0,
        "domain_socket": paths[0] if paths else "NULL",
    }
