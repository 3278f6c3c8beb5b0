"""The command line of a server in a test: memcached's flags, but for those of a process of its own.

Owns which of them are refused. It never guesses what a flag was meant to be.
"""

from __future__ import annotations

import warnings

from mcserver.cli import parse
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError

NOT_WITHIN = {
    "ephemeral": "--ephemeral", "udpport": "-U", "tcpport": "-p", "inter": "-l", "domain_socket": "-s", "umask": "-a",
    "daemonize": "-d", "pid_file": "-P", "cluster": "--zookeeper", "ssl_enabled": "-Z", "auth_file": "-Y", "sasl": "-S",
    "memory_file": "-e", "take_over": "--take-over", "metrics": "--metrics", "idle_timeout": "-o idle_timeout",
}  # fmt: skip
"""Settings of a process, its sockets and its logins, by how they are written."""


def config_of(flags: tuple[str, ...]) -> Config:
    """The settings of these flags; refuses those that a server within a process can't follow. Raises ConfigError."""
    for flag in flags:
        if flag.startswith("-") and " " in flag:
            raise ConfigError(
                f"{flag!r} is several words, and each is an argument of its own: {', '.join(flag.split())}"
            )
    chosen = parse(["-u", "root", *flags], {})
    if isinstance(chosen, str):
        raise ConfigError(f"--{chosen} is a page to read, and no flag of a server")
    base = parse(["-u", "root"], {})
    for setting, option in NOT_WITHIN.items():
        if getattr(chosen, setting) != getattr(base, setting):
            raise ConfigError(
                f"{option} is not for a server within a process: `mcserver --ephemeral` starts a real one"
            )
    if chosen.binding_protocol == "binary":
        raise ConfigError("-B binary is not for a server within a process, which is looked into in text")
    for warning in chosen.warnings:
        if "left out" in warning:
            raise ConfigError(warning)
        warnings.warn(warning, stacklevel=4)
    return chosen
