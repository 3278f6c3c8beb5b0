"""The process in its system: limits, user, daemon, pid file. It runs before the event loop and knows no connections."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import resource
import stat
from os import EX_NOUSER, EX_OSERR

from mcserver.system.files import nowhere
from mcserver.system.folders import Folder

STANDARD_STREAMS = 3
DESCRIPTORS_OF_A_THREAD = 3
SPARE_DESCRIPTORS = 64
"""Descriptors beside the clients': listeners, the loop's own, log files, the connections to ZooKeeper."""


class StartError(Exception):
    """The server can't start; `code` is memcached's exit code for it (sysexits.h), the text says what to change."""

    def __init__(self, text: str, code: int = EX_OSERR) -> None:
        super().__init__(text)
        self.code = code


def raise_descriptor_limit(connections: int, threads: int, inherited: int = 0) -> None:
    """Makes room for so many connections, the three descriptors of each thread, and those that whoever started us left open.

    Raises StartError when the hard limit forbids it, as memcached does (71).
    """
    wanted = connections + DESCRIPTORS_OF_A_THREAD * threads + SPARE_DESCRIPTORS + inherited
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError, OverflowError) as error:
        left_open = f", and {inherited} were open before the start" if inherited else ""
        raise StartError(
            f"failed to set the limit of open files to {wanted} (it is {hard}{left_open}). "
            "Start as root, raise it with `ulimit -n`, or ask for fewer connections with -c"
        ) from error


def inherited_descriptors() -> int:
    """How many descriptors are open beside the standard streams, before anything is opened."""
    try:
        count = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  # that of the list itself; pathlib takes its time
    except OSError:
        count = open_descriptors()
    return max(0, count - STANDARD_STREAMS)


def allow_core_dumps() -> None:
    """-r: the soft limit of a core file becomes the hard one. Raises StartError when core files stay forbidden."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    if hard == 0:
        raise StartError(
            "failed to ensure core file creation: the hard limit is 0 (`ulimit -H -c`): raise it, or leave out -r"
        )


def raise_lock_limit() -> None:
    """-k: as much memory as there is may be locked, also by the user to come, if whoever starts may say so."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def lock_memory() -> str:
    """-k: what this process uses, now and later, is never swapped. Returns what to warn of, or "".

    That stops no start, as in memcached. What is only reserved takes no memory by it, but counts against the limit.
    """
    from mcserver.core import lock_all_memory

    try:
        lock_all_memory()
    except OSError as error:
        return f"-k: could not lock the memory: {error.strerror}; start as root, or raise the limit (`ulimit -l unlimited`)"
    return ""


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


class Daemon:
    """The process that goes on in the background, while the one that was started waits to hear how the start went."""

    def __init__(self, tell: int, *, keep_output: bool) -> None:
        self._tell = tell
        self._keep_output = keep_output

    def ready(self) -> None:
        """The start succeeded: the waiting process ends with 0, and the terminal is let go."""
        null = nowhere()
        for descriptor in (0,) if self._keep_output else (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        self.failed(0)

    def failed(self, code: int) -> None:
        """The waiting process ends with this exit code; what is to be said was said to the terminal, which is still there."""
        with contextlib.suppress(OSError):  # whoever waited was killed meanwhile: that ends nobody else
            os.write(self._tell, bytes([code]))
        os.close(self._tell)


def daemonize(*, keep_output: bool) -> Daemon:
    """Goes on in a child without a terminal, in `/`. The parent ends when the child is ready or has failed.

    keep_output keeps stdout and stderr open also then. The standard streams must be open, and there must be no thread.
    """
    hear, tell = os.pipe()
    if os.fork():
        os.close(tell)
        code = os.read(hear, 1)
        os._exit(code[0] if code else EX_OSERR)
    os.close(hear)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    return Daemon(tell, keep_output=keep_output)


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


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Writes the file so that a reader finds it whole or not at all, by way of a new file with a name of its own.

    A file or a link there is replaced; a pipe, a socket or a device (/dev/null!) stays, and is an OSError. So is a stranger's
    directory.
    """
    with Folder(path) as folder:
        found = folder.mode()
        if found and not (stat.S_ISREG(found) or stat.S_ISLNK(found)):
            raise OSError(errno.EEXIST, "something that is no file is there", os.fspath(path))
        draft = f"{folder.name}.{os.urandom(8).hex()}.lck"  # tempfile, with what it brings, takes long to load
        descriptor = folder.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, draft)
        try:
            with open(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
            folder.replace(draft)
        except OSError:
            with contextlib.suppress(OSError):
                folder.remove(draft)
            raise


def write_pid_file(path: str | os.PathLike[str], predecessor: int = 0) -> str:
    """Writes -P's file. Returns what to warn of, or "": a file that can't be written, or that names a living process.

    Neither stops the start, as in memcached. predecessor: a process that is ending, whose place this one takes.
    """
    warning = ""
    with contextlib.suppress(OSError, ValueError, OverflowError), Folder(path) as folder:
        pid = int(_content(folder))
        if pid > 0 and pid not in {os.getpid(), predecessor} and is_alive(pid):
            warning = f"the pid file {path} named the running process {pid}; it was replaced"
    try:
        write_atomically(path, f"{os.getpid()}\n")
    except OSError as error:
        return f"could not write the pid file {path}: {error.strerror}; choose another with -P"
    return warning


def remove_pid_file(path: str | os.PathLike[str]) -> None:
    """Removes -P's file if it still names this process."""
    with contextlib.suppress(OSError), Folder(path) as folder:
        if _content(folder) == b"%d\n" % os.getpid():
            folder.remove()


def _content(folder: Folder) -> bytes:
    """What a pid file can have. Its directory may be another user's: a pipe there must not hold us, nor a device fill memory.

    Raises OSError.
    """
    if not stat.S_ISREG(folder.mode()):
        raise OSError(errno.EINVAL, "no file", folder.name)
    descriptor = folder.open(os.O_RDONLY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no file", folder.name)
        return os.read(descriptor, 32)
    finally:
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
