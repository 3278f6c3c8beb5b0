"""The settings of a fleet that ZooKeeper keeps coherent: default, unit, meaning, what is valid. It never speaks to ZooKeeper."""

from __future__ import annotations

import os
import re
from os import EX_USAGE

from mcserver.settings.rules import ConfigError, Settings, check_rules, secret, setting
from mcserver.system import files

CREDENTIALS_MAX = 4096  # bytes
LEVELS = ("async", "committed", "applied")
"""What --ack takes."""

ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%]{1,100}\]|[A-Za-z0-9._-]{1,255}):[0-9]{1,5}")
CREDENTIALS = re.compile(r"[^:\s]+:[^\r\n\0]+")


def is_address(address: str) -> bool:
    """HOST:PORT: a name, an IPv4 address, or an IPv6 address in brackets; a port above 0. Members' records are read likewise."""
    return ADDRESS.fullmatch(address) is not None and 0 < int(address.rpartition(":")[2]) <= 65535


def is_path(path: str) -> bool:
    """Whether ZooKeeper takes it as the path of a znode that is not its own."""
    parts = path.split("/")[1:]
    plain = all(part and part not in {".", ".."} and part.isprintable() for part in parts)
    return path.startswith("/") and plain and parts[0] != "zookeeper"


def check_tls(config: ClusterConfig) -> None:
    """Reads the files of TLS, now rather than at the first connection. Raises ConfigError for one that can't be used."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if config.tls_ca:
        try:
            files.check(config.tls_ca)
            context.load_verify_locations(config.tls_ca)
        except OSError as error:
            raise ConfigError(f"--zk-ca {config.tls_ca} is no PEM file of authorities: {error.strerror}") from None
    if config.tls_certificate:
        try:
            for path in filter(None, (config.tls_certificate, config.tls_key)):
                files.check(path)
            context.load_cert_chain(config.tls_certificate, config.tls_key or None, password=lambda: "")
        except (OSError, ValueError) as error:
            which = f"--zk-cert {config.tls_certificate}" + (f" or --zk-key {config.tls_key}" if config.tls_key else "")
            raise ConfigError(f"{which} can't be used, PEM files without a password are needed: {error}") from None


def read_credentials(path: str) -> str:
    """The one line, user:password, of a file that only its owner and group may read. ConfigError, OSError."""
    data, mode = files.read_with_mode(path, CREDENTIALS_MAX)
    if mode & 0o027:
        raise ConfigError(f"{path} may be read by others, or changed by its group (mode {mode:04o}): chmod 600 it")
    try:
        line = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        line = ""
    if not CREDENTIALS.fullmatch(line):
        raise ConfigError(f"{path} must hold one line, user:password, and nothing else")
    return line


class ClusterConfig(Settings):
    """How this server takes part in a fleet kept coherent through ZooKeeper (docs/coherence.md). Prefixes are of keys."""

    zookeeper: str = setting(
        "",
        "ZooKeeper's servers, HOST:PORT,...[/CHROOT]; joins the fleet there and turns all of this on",
        status=EX_USAGE,
    )
    path: str = setting(
        "/cache",
        "znode under which the fleet lives",
        is_path,
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
        is_address,
        "--advertise takes HOST:PORT that clients can reach, a port from 1 to 65535, an IPv6 address in [], not '{}'",
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
        choices=("miss", "error", "serve"),
        error="--on-stale takes miss, error or serve, not '{}'",
        status=EX_USAGE,
    )
    ack: str = setting(
        "committed",
        "when a delete is answered: async (at once), committed (no member can miss it) or applied (every member has done it); "
        "PREFIX=LEVEL for keys with a prefix; repeatable",
        choices=LEVELS,
        error="--ack takes async, committed or applied, alone or as PREFIX=LEVEL, not '{}'",
        status=EX_USAGE,
    )
    ack_prefixes: tuple[tuple[bytes, str], ...] = setting(
        (),
        "levels of keys with a prefix; the longest prefix decides",
        lambda pairs: all(level in LEVELS for _, level in pairs),
        "--ack takes PREFIX=async, PREFIX=committed or PREFIX=applied",
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
        choices=("wait", "serve"),
        error="--join takes wait or serve, not '{}'",
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
    refresh_prefixes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys that the leader marks stale everywhere, each --refresh-every seconds; repeatable"
    )
    refresh_every: float = setting(
        0.0,
        "seconds between two refreshes of the keys of --refresh, while this server leads (0: never)",
        lambda seconds: seconds == 0 or 1 <= seconds <= 86400,
        "--refresh-every must be 0, or from 1 to 86400 seconds, not {}",
        status=EX_USAGE,
    )
    broadcast_writes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys whose writes, too, take the key out of the other members; repeatable"
    )
    lock_writes: tuple[bytes, ...] = setting(
        (), "PREFIX of keys that only one member at a time may write, under a lock; repeatable"
    )
    credentials: str = secret("")
    """`user:password` for ZooKeeper's digest scheme; from a file or the environment, never from the command line."""
    zk_writes: int = setting(
        100,
        "writes a second that the whole fleet may ask of ZooKeeper, certificates and acknowledgements included; above "
        "that deletes wait for larger batches",
        lambda writes: 1 <= writes <= 100_000,
        "--zk-writes must be from 1 to 100000 a second, not {}",
        status=EX_USAGE,
    )
    zk_acl: str = setting(
        "",
        "who may use the znodes that this server makes: creator (those with these credentials; the default with "
        "credentials), read (the same, and all may read) or open (all may do all; the default without)",
        choices=("creator", "read", "open"),
        error="--zk-acl takes creator, read or open, not '{}'",
        status=EX_USAGE,
    )
    leave_enabled: bool = setting(True, "allow `cluster leave`")
    refresh_enabled: bool = setting(True, "allow `cluster refresh`")
    tls_ca: str = setting("", "PEM file of the authorities that signed ZooKeeper's certificates; turns on TLS")
    tls_certificate: str = setting("", "PEM file of this server's own certificate for ZooKeeper; turns on TLS")
    tls_key: str = setting("", "PEM file of that certificate's key, when it is not in the same file")

    def __post_init__(self) -> None:
        check_rules(self)
        servers, slash, chroot = self.zookeeper.partition("/")
        for address in servers.split(","):
            if not is_address(address):
                raise ConfigError(f"--zookeeper takes HOST:PORT,HOST:PORT,...[/CHROOT]: '{address}' is no HOST:PORT")
        if slash and chroot and not is_path("/" + chroot):
            raise ConfigError(f"--zookeeper takes HOST:PORT,HOST:PORT,...[/CHROOT]: '/{chroot}' is no path of a znode")
        if bool(self.refresh_prefixes) != bool(self.refresh_every):
            raise ConfigError("--refresh PREFIX and --refresh-every SECONDS need each other")
        if self.tls_key and not self.tls_certificate:
            raise ConfigError("--zk-key needs --zk-cert, the certificate that the key belongs to")
        if self.credentials and not CREDENTIALS.fullmatch(self.credentials):
            raise ConfigError("the credentials for ZooKeeper must be one line, user:password")
        if self.zk_acl in ("creator", "read") and not self.credentials:
            raise ConfigError(f"--zk-acl {self.zk_acl} needs --zk-auth-file: without credentials there is no creator")
        if not self.node_name:
            # Linux takes any bytes as a host's name, and has "(none)" before there is one.
            vars(self)["node_name"] = re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename)[:64] or "mcserver"
