"""The directory of a file that is to be written or removed, opened step by step, so that nobody but root can lead us elsewhere.

A directory is a stranger's when it belongs to another user, or when, before the last one on the way, another user may give its
names a new meaning. The last one others may write: what is done there is done by its descriptor, and follows no link.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LINKS_MOST = 40
"""As many links as the kernel follows."""


class Folder:
    """The directory of `path`, held open; `name` is the file's in it. Use it with `with`, or close it."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        """Raises OSError, also when the way there is a stranger's: its text says what to change."""
        path = os.fspath(file)
        whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118  # pathlib takes its time
        way, _, self.name = whole.rpartition("/")
        if self.name in {"", ".", ".."}:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.fd, self.others_may_write = _walk(way)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)

    def mode(self, name: str = "") -> int:
        """The mode of what is there, a link's own; 0: nothing. Raises OSError."""
        try:
            return self.stat(name).st_mode
        except FileNotFoundError:
            return 0

    def stat(self, name: str = "") -> os.stat_result:
        """Raises OSError."""
        return os.stat(name or self.name, dir_fd=self.fd, follow_symlinks=False)

    def open(self, flags: int, name: str = "", mode: int = 0o600) -> int:
        """A descriptor; never by way of a link, and without waiting for a pipe's other end. Raises OSError."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name or self.name, flags, mode, dir_fd=self.fd)

    def replace(self, draft: str, name: str = "") -> None:
        """What `draft` names gets the name. Raises OSError."""
        os.replace(draft, name or self.name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def remove(self, name: str = "") -> None:
        """Raises OSError."""
        os.unlink(name or self.name, dir_fd=self.fd)


def _walk(way: str) -> tuple[int, bool]:
    """The last directory's descriptor, and whether others may put something at its names. Raises OSError."""
    trusted = {0, os.geteuid(), os.stat("/").st_uid}  # noqa: PTH116  # in a container root's files may be nobody's
    left, links, at, so_far = way.split("/")[::-1], 0, os.open("/", STEP), ""
    try:
        while True:
            found = os.fstat(at)
            if found.st_uid not in trusted:
                raise _strangers(so_far, f"belongs to user {found.st_uid}, not to root or the server's own")
            while left and left[-1] in {"", "."}:
                left.pop()
            if not left:
                return at, _is_open(found)
            if _is_open(found):
                raise _strangers(so_far, "may be written by other users (chmod o-w or +t)")
            name = left.pop()
            try:
                below = os.open(name, STEP, dir_fd=at)
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                    raise
                target = _target(at, name, f"{so_far}/{name}", trusted)
                links += 1
                if links > LINKS_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), way) from None
                left += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                below, name = os.open("/", STEP), ""
            os.close(at)
            at, so_far = below, f"{so_far}/{name}" if name else ""
    except OSError:
        os.close(at)
        raise


def _target(folder: int, name: str, path: str, trusted: set[int]) -> str:
    """Where a link leads. In a sticky directory only its owner may replace it, so that must be one of ours. Raises OSError."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if found.st_uid not in trusted and os.fstat(folder).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _strangers(path, f"is a link of user {found.st_uid}, not of root or the server's own")
    return os.readlink(name, dir_fd=folder)


def _is_open(found: os.stat_result) -> bool:
    """Whether others may rename or remove what is in the directory: neither its owner nor of a group that is ours."""
    if found.st_mode & stat.S_ISVTX:
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid not in {0, os.getegid(), *os.getgroups()}


def _strangers(path: str, why: str) -> OSError:
    return OSError(errno.EPERM, f"{path or '/'} {why}", path)
