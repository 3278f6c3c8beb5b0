"""Puts a server's part in the fleet together from its settings. No behaviour of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .fleet import Fleet
from .kazoo_driver import KazooDriver
from .kazoo_terms import Target
from .layout import is_address
from .node import Node
from .notices import Notices
from .ports import Level
from .runtime import AsyncioRuntime
from .settings import Settings

if TYPE_CHECKING:
    from mcserver.core import Engine
    from mcserver.settings.cluster import ClusterConfig
    from mcserver.settings.config import Config

log = logging.getLogger("mcserver.coordination")

WILDCARDS = {"0.0.0.0", "::"}


def open_cluster(config: Config, engine: Engine, listeners: Sequence[socket.socket]) -> Fleet:
    """To be called on the running loop, before the first connection: sessions learn from the engine what to tell."""
    cluster = config.cluster
    assert cluster is not None
    if exposed := exposure(cluster):
        log.warning("%s", exposed)
    loop = asyncio.get_running_loop()
    settings = make_settings(cluster, listeners)
    notices = Notices(cluster.on_stale, cluster.max_stale, cluster.join)
    driver = KazooDriver(loop, make_target(cluster, settings.reply_deadline), notices.unreachable)
    node = Node(driver, AsyncioRuntime(loop), engine, settings)
    engine.broadcast(True, cluster.broadcast_writes)
    engine.lock_prefixes(cluster.lock_writes)
    engine.hold_off(cluster.hold_off)
    fleet = Fleet(node, notices)
    notices.attach(fleet.stats, fleet.members, fleet.leader)
    return fleet


def make_settings(cluster: ClusterConfig, listeners: Sequence[socket.socket]) -> Settings:
    """What a coordinator goes by; the address is the first that the server listens on unless one is advertised."""
    return Settings(
        node_name=cluster.node_name,
        address=cluster.advertise or first_address(listeners),
        path=cluster.path,
        max_stale=cluster.max_stale,
        on_stale=cluster.on_stale,
        ack=Level(cluster.ack),
        ack_prefixes=tuple((prefix, Level(level)) for prefix, level in cluster.ack_prefixes),
        ack_timeout=cluster.ack_timeout,
        join=cluster.join,
        soft_prefixes=cluster.soft_prefixes,
        refresh_prefixes=cluster.refresh_prefixes,
        refresh_every=cluster.refresh_every,
        write_rate=float(cluster.zk_writes),
    )


def make_target(cluster: ClusterConfig, reply_deadline: float) -> Target:
    """The ensemble, and how it is spoken to; reply_deadline: seconds."""
    return Target(
        hosts=cluster.zookeeper,
        session_timeout=cluster.session_timeout,
        reply_deadline=reply_deadline,
        credentials=cluster.credentials or None,
        tls=bool(cluster.tls_ca or cluster.tls_certificate),
        tls_ca=cluster.tls_ca or None,
        tls_cert=cluster.tls_certificate or None,
        tls_key=cluster.tls_key or None,
        acl=cluster.zk_acl or "creator",
    )


def exposure(cluster: ClusterConfig) -> str:
    """One line on what a start without an ACL, or without TLS, to ZooKeeper means; "" when both are there."""
    text = []
    if not cluster.credentials or cluster.zk_acl == "open":
        text.append(
            "whoever reaches ZooKeeper may empty these caches or keep deletes from them (--zk-auth-file closes that)"
        )
    if not (cluster.tls_ca or cluster.tls_certificate):
        what = "the keys and the password" if cluster.credentials else "the keys"
        text.append(f"whoever is on the way to ZooKeeper can read {what} and change what it says (--zk-ca closes that)")
    return "ZooKeeper: " + "; ".join(text) if text else ""


def first_address(listeners: Sequence[socket.socket]) -> str:
    """HOST:PORT of the first TCP listener; of one that listens everywhere, with this machine's name. "" without TCP, or a name
    that can't be dialled: the others would take this server's record for a stranger's.
    """
    for listener in listeners:
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = listener.getsockname()[:2]
            if host in WILDCARDS:
                host = os.uname().nodename
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            if is_address(address):
                return address
            log.warning("%s is no address that clients can dial: name one with --advertise", ascii(address))
            return ""
    return ""
