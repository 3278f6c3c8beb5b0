"""The command line of a server in a test: memcached's flags, but for those of a process of its own.

Owns which of them are refused. It never guesses what a flag was meant to be.
"""

from __future__ import annotations

import warnings

from mcserver.cli import parse
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError

NOT_WITHIN = {
    "ephemeral": "--ephemeral", "udpport": "-U", "tcpport": "-p", "inter": "-l", "domain_socket": "-s", "umask": "-a",
    "daemonize": "-d", "pid_file": "-P", "cluster": "--zookeeper", "ssl_enabled": "-Z", "auth_file": "-Y", "sasl": "-S",
    "memory_file": "-e", "take_over": "--take-over", "metrics": "--metrics", "idle_timeout": "-o idle_timeout",
}  # fmt: skip
"""Settings of a process, its sockets and its logins, by how they are written."""
NOT_IN_A_FLEET = {
    "zookeeper": "--zookeeper", "node_name": "--node-name", "advertise": "--advertise", "credentials": "--zk-auth-file",
    "zk_acl": "--zk-acl", "tls_ca": "--zk-ca", "tls_certificate": "--zk-cert", "tls_key": "--zk-key",
}  # fmt: skip
"""Settings of the way to a ZooKeeper that is not there, by how they are written."""


def parsed(flags: tuple[str, ...], *before: str) -> Config:
    """What these flags say, behind others of our own. Raises ConfigError, also for what a real server leaves out."""
    for flag in flags:
        if flag.startswith("-") and " " in flag:
            raise ConfigError(
                f"{flag!r} is several words, and each is an argument of its own: {', '.join(flag.split())}"
            )
    chosen = parse(["-u", "root", *before, *flags], {})
    if isinstance(chosen, str):
        raise ConfigError(f"--{chosen} is a page to read, and no flag of a server")
    for warning in chosen.warnings:
        if "is no option and is left out" in warning:
            raise ConfigError(
                warning.replace(" and is left out", ": flags are memcached's, each word an argument of its own")
            )
        if "left out" in warning:
            raise ConfigError(warning)
    return chosen


def config_of(flags: tuple[str, ...]) -> Config:
    """The settings of these flags; refuses those that a server within a process can't follow. Raises ConfigError."""
    chosen = parsed(flags)
    base = parse(["-u", "root"], {})
    for setting, option in NOT_WITHIN.items():
        if getattr(chosen, setting) != getattr(base, setting):
            raise ConfigError(
                f"{option} is not for a server within a process: `mcserver --ephemeral` starts a real one"
            )
    if chosen.binding_protocol == "binary":
        raise ConfigError("-B binary is not for a server within a process, which is looked into in text")
    for warning in chosen.warnings:
        warnings.warn(warning, stacklevel=4)
    return chosen


def fleet_config_of(flags: tuple[str, ...], *before: str) -> ClusterConfig:
    """The fleet's settings of these flags, behind others of our own. Raises ConfigError."""
    chosen, base = parsed(flags, *before).cluster, parsed((), *before).cluster
    assert chosen is not None
    for setting, option in NOT_IN_A_FLEET.items():
        if getattr(chosen, setting) != getattr(base, setting):
            raise ConfigError(f"{option} is not for a fleet within a process: its members find each other")
    return chosen
