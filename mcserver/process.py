"""The process in its system: limits, user, daemon, pid file. It runs before the event loop and knows no connections."""

from __future__ import annotations

import os
import pwd
import resource
from pathlib import Path

EX_NOUSER = 67
EX_OSERR = 71
SPARE_DESCRIPTORS = 64
"""Descriptors beside the clients': listeners, the loop's own, log files, the connections to ZooKeeper."""


class StartError(Exception):
    """The server can't start; `code` is memcached's exit code for it (sysexits.h), the text says what to change."""

    def __init__(self, text: str, code: int = EX_OSERR) -> None:
        super().__init__(text)
        self.code = code


def raise_descriptor_limit(connections: int) -> None:
    """Makes room for so many connections. Raises StartError when the hard limit forbids it, as memcached does (71)."""
    wanted = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError) as error:
        raise StartError(
            f"failed to set the limit of open files to {wanted} (it is {hard}). "
            "Start as root, raise it with `ulimit -n`, or ask for fewer connections with -c"
        ) from error


def allow_core_dumps() -> None:
    """-r: the soft limit of a core file becomes the hard one. Raises StartError when core files stay forbidden."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    if hard == 0:
        raise StartError("failed to ensure core file creation: the hard limit is 0 (`ulimit -H -c`)")


def find_user(name: str | None) -> pwd.struct_passwd | None:
    """The user to switch to (-u); None for root, and when not started as root: then -u does nothing, as in memcached."""
    if name is None or (os.getuid() != 0 and os.geteuid() != 0):
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise StartError(f"can't find the user {name} to switch to; name an existing one with -u", EX_NOUSER) from None
    return user if user.pw_uid != 0 else None


def switch_user(user: pwd.struct_passwd) -> None:
    """Gives up root. What is imported later must be readable for that user, so nothing that serving needs may be left."""
    import encodings.idna  # noqa: F401  # the resolver of names asks for it

    try:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        raise StartError(f"failed to assume identity of user {user.pw_name}: {error.strerror}") from error


def daemonize(*, keep_output: bool) -> None:
    """Goes on in a child without a terminal, in `/`; the parent exits 0. keep_output keeps stdout and stderr open."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0,) if keep_output else (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def open_descriptors(most: int = 256) -> int:
    """How many of the lowest descriptors are open. Asks for each: a process that gave up root can't list its own."""
    count = 0
    for descriptor in range(most):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        count += 1
    return count


def write_atomically(path: Path, text: str) -> None:
    """Writes the file so that a reader finds it whole or not at all."""
    draft = path.with_name(path.name + ".lck")
    draft.write_text(text)
    draft.replace(path)


def write_pid_file(path: Path) -> None:
    """Writes -P's file. Raises StartError when it can't be written."""
    try:
        write_atomically(path, f"{os.getpid()}\n")
    except OSError as error:
        raise StartError(f"could not write the pid file {path}: {error.strerror}; choose another with -P") from error
