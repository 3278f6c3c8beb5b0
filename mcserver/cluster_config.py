"""The settings of a fleet that ZooKeeper keeps coherent: default, unit, meaning, what is valid. It never speaks to ZooKeeper."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from .rules import EX_USAGE, ConfigError, check_rules, setting

LEVELS = ("async", "committed", "applied")


def is_level(value: str) -> bool:
    return value in LEVELS


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """How this server takes part in a fleet kept coherent through ZooKeeper (docs/coherence.md). Prefixes are of keys."""

    zookeeper: str = setting(
        "",
        "ZooKeeper's servers, HOST:PORT,...[/CHROOT]; joins the fleet there and turns all of this on",
        status=EX_USAGE,
    )
    path: str = setting(
        "/cache",
        "znode under which the fleet lives",
        lambda path: path.startswith("/") and len(path) > 1 and not path.endswith("/") and "//" not in path,
        "--cluster-path must be an absolute path of a znode, such as /cache, not '{}'",
        status=EX_USAGE,
    )
    node_name: str = setting(
        "",
        "name of this server among the members (default: the host's name)",
        lambda name: 0 < len(name) <= 64 and all(c.isalnum() or c in "._-" for c in name) and name.isascii(),
        "--node-name takes 1 to 64 letters, digits, '.', '_' and '-', not '{}'",
        status=EX_USAGE,
    )
    advertise: str = setting(
        "",
        "HOST:PORT at which clients reach this server (default: the first address that it listens on)",
        lambda address: bool(address.rpartition(":")[0]) and address.rpartition(":")[2].isdigit(),
        "--advertise takes HOST:PORT, not '{}'",
        status=EX_USAGE,
    )
    session_timeout: float = setting(
        10.0,
        "seconds without contact after which ZooKeeper takes this server off the list; longer than any pause you expect",
        lambda seconds: 1 <= seconds <= 3600,
        "--zk-session-timeout must be from 1 to 3600 seconds, not {}",
        status=EX_USAGE,
    )
    max_stale: float = setting(
        10.0,
        "seconds that this server goes on serving without proof that it saw all deletes",
        lambda seconds: 1 <= seconds <= 86400,
        "--max-stale must be from 1 to 86400 seconds, not {}",
        status=EX_USAGE,
    )
    on_stale: str = setting(
        "miss",
        "what gets answer after that: miss, error or serve (the old value)",
        lambda policy: policy in ("miss", "error", "serve"),
        "--on-stale takes miss, error or serve, not '{}'",
        status=EX_USAGE,
    )
    ack: str = setting(
        "committed",
        "when a delete is answered: async (at once), committed (no member can miss it) or applied (every member has done it); "
        "PREFIX=LEVEL for keys with a prefix; repeatable",
        is_level,
        "--ack takes async, committed or applied, alone or as PREFIX=LEVEL, not '{}'",
        status=EX_USAGE,
    )
    ack_prefixes: tuple[tuple[bytes, str], ...] = setting(
        (),
        "levels of keys with a prefix; the longest prefix decides",
        lambda pairs: all(is_level(level) for _, level in pairs),
        "--ack takes PREFIX=async, PREFIX=committed or PREFIX=applied, not {}",
        status=EX_USAGE,
    )
    ack_timeout: float = setting(
        5.0,
        "seconds after which a delete that waits for its level is answered with SERVER_ERROR",
        lambda seconds: 0 < seconds <= 3600,
        "--ack-timeout must be above 0 and at most 3600 seconds, not {}",
        status=EX_USAGE,
    )
    join: str = setting(
        "wait",
        "until this server has joined: wait (gets follow --on-stale) or serve",
        lambda policy: policy in ("wait", "serve"),
        "--join takes wait or serve, not '{}'",
        status=EX_USAGE,
    )
    hold_off: int = setting(
        0,
        "milliseconds after another member's delete during which plain stores of the key are refused (0: off)",
        lambda milliseconds: 0 <= milliseconds <= 3_600_000,
        "--hold-off must be from 0 to 3600000 milliseconds, not {}",
        status=EX_USAGE,
    )
    soft_prefixes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys that another member's delete marks stale; repeatable"
    )
    broadcast_writes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys whose writes, too, take the key out of the other members; repeatable"
    )
    lock_writes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys that only one member at a time may write, under a lock; repeatable"
    )
    credentials: str = field(default="", repr=False)
    """`user:password` for ZooKeeper's digest scheme; from a file or the environment, never from the command line."""
    tls_ca: str = setting("", "PEM file of the authorities that signed ZooKeeper's certificates; turns on TLS")
    tls_certificate: str = setting("", "PEM file of this server's own certificate for ZooKeeper; turns on TLS")
    tls_key: str = setting("", "PEM file of that certificate's key, when it is not in the same file")

    def __post_init__(self) -> None:
        check_rules(self)
        for address in self.zookeeper.partition("/")[0].split(","):
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) <= 65535:
                raise ConfigError(f"--zookeeper takes HOST:PORT,HOST:PORT,...[/CHROOT]: '{address}' is no HOST:PORT")
        if self.tls_key and not self.tls_certificate:
            raise ConfigError("--zk-key needs --zk-cert, the certificate that the key belongs to")
        if self.credentials and not self.credentials.partition(":")[2]:
            raise ConfigError("the credentials for ZooKeeper must be one line, user:password")
        if not self.node_name:
            object.__setattr__(self, "node_name", os.uname().nodename[:64])
