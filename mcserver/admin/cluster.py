"""The commands of a server in a fleet: `cluster ...`, `config get cluster`, `stats cluster`. Unknown without ZooKeeper.

They show what coordination knows and ask it for what only it can do; replies that have to wait for the other servers are
tied to an event, and held like those of a delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.words import INT32_MAX, LINES_A_PIECE, WRITE_MOST, pieces, stat_lines, unsigned
from mcserver.core import BAD_FORMAT, ERROR, OK
from mcserver.keys import KEY_MAX

if TYPE_CHECKING:
    from mcserver.admin.ports import Cluster
    from mcserver.core import Session
    from mcserver.settings.config import Config

USAGE = b"CLIENT_ERROR usage: cluster members|figures|leader|flush [PREFIX]|refresh PREFIX [TTL]|leave\r\n"


def cluster(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`cluster members|figures|leader|flush [PREFIX]|refresh PREFIX [TTL]|leave`."""
    fleet = context.cluster
    assert fleet is not None
    if len(words) > 1 and words[1] in forbidden(context.config):
        return b"CLIENT_ERROR cluster " + words[1] + b" not allowed\r\n"
    if any(len(word) > KEY_MAX for word in words):
        return BAD_FORMAT
    match words[1:]:
        case [b"members"]:
            return members(fleet)
        case [b"figures"]:
            return figures(fleet)
        case [b"leader"]:
            return b"LEADER " + (fleet.leader() or "none").encode() + b"\r\n"
        case [b"flush"]:
            session.event("cluster flush")
        case [b"flush", prefix]:
            session.event("cluster flush", prefix)
        case [b"refresh", prefix]:
            session.event("cluster refresh", prefix, 0)
        case [b"refresh", prefix, seconds]:
            ttl = unsigned(seconds)
            if ttl is None or ttl > INT32_MAX:
                return BAD_FORMAT
            session.event("cluster refresh", prefix, ttl)
        case [b"leave"]:
            session.event("cluster leave")
        case _:
            return USAGE
    return OK


def forbidden(config: Config) -> set[bytes]:
    """What options have taken away."""
    found = set() if config.flush_enabled else {b"flush"}
    if config.cluster is not None:
        found |= set() if config.cluster.leave_enabled else {b"leave"}
        found |= set() if config.cluster.refresh_enabled else {b"refresh"}
    return found


def members(fleet: Cluster) -> bytes | Iterator[bytes]:
    """`MEMBER address state applied-version name`, and `self` or `leader` where it is so; the version of the list; END.

    States and versions are those that were read last, and are read again: nothing is read while nobody asks.
    """
    from mcserver.coordination.node import show

    fleet.figures()
    version, listed = fleet.members()
    leader = fleet.leader()

    def lines() -> Iterator[bytes]:
        yield b"VERSION %d\r\n" % version
        for member in listed:
            words = ["MEMBER", member.address or "none", member.state, show(member.applied), member.name]
            words += ["self"] if member.is_self else []
            words += ["leader"] if member.name == leader else []
            yield " ".join(words).encode() + b"\r\n"

    return pieces(lines())


def figures(fleet: Cluster) -> bytes | Iterator[bytes]:
    """`READ` and how many ms ago the sheets were read here (-1: not yet); then for each live server `FIGURES address name`
    and pairs: `state`, `applied`, `age_ms` (since its record was written, so its certificate is at most so old), `lag` in
    entries, `queue_keys`, `queue_age_ms`, and a second its `writes` and `reads` (`unlogged`: writes that the log does not
    show). The sheets are read again, so that asking twice shows what is new. END.
    """
    from mcserver.coordination.node import show

    age, rows = fleet.figures()

    def lines() -> Iterator[bytes]:
        yield b"READ %d\r\n" % (round(age * 1000) if age >= 0 else -1)
        for row in rows:
            words = ["FIGURES", row.address or "none", row.name, "state", row.state, "applied", show(row.applied)]
            words += ["age_ms", str(row.age_ms)]
            for name, figure in row.figures.items():
                words += [name, f"{figure:g}"]
            yield " ".join(words).encode() + b"\r\n"

    return pieces(lines())


def config(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`config get cluster`, as Amazon ElastiCache's auto discovery answers it: `host|ip|port` of each live server.

    The version rises with each change of the list, and is the same at every server.
    """
    assert context.cluster is not None
    if words[1:] != [b"get", b"cluster"]:
        return ERROR
    return discovery(*context.cluster.discovery())


def discovery(version: int, addresses: list[str]) -> bytes | Iterator[bytes]:
    """The reply; of a large fleet in pieces, with turns given up before, since its length has to be known first."""
    if len(addresses) <= LINES_A_PIECE:
        return value(version, dict.fromkeys(map(node, addresses)))

    def in_turns() -> Iterator[bytes]:
        nodes: dict[str, None] = {}
        for number, address in enumerate(addresses):
            if number % LINES_A_PIECE == 0:
                yield b""
            nodes[node(address)] = None
        whole = value(version, nodes)
        for begin in range(0, len(whole), WRITE_MOST):
            yield whole[begin : begin + WRITE_MOST]

    return in_turns()


def value(version: int, nodes: Iterable[str]) -> bytes:
    """The reply to `config get cluster`: a version, and a line of nodes."""
    body = f"{version}\n{' '.join(nodes)}\n".encode()
    return b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(body), body)


def node(address: str) -> str:
    """`host|ip|port`; the ip is empty where only a name is known, as ElastiCache allows."""
    import ipaddress

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        ip = str(ipaddress.ip_address(host))
    except ValueError:
        ip = ""
    return f"{host}|{ip}|{port}"


def stats(fleet: Cluster) -> bytes:
    """`stats cluster`."""
    return stat_lines((name, "none" if value == "" else value) for name, value in fleet.stats().items())
