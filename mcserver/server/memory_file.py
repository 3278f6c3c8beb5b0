"""The file of -e, in which the items lie, and the record beside it (FILE.meta) with which the next process serves them.

Owns both files: their names, rights, lock, and what stands in them but for the engine's own part. A record is good once: it is
removed before anything is done with the memory, so that a crash leaves none. It must never decide what a fleet makes of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mcserver.server.memory_kind import THEIR_RECORD, is_memory
from mcserver.system.folders import Folder
from mcserver.system.process import StartError

KIND = b"mcserver memory "
MAGIC = KIND + b"1\n"
"""How the file begins, in each version, and in this one; the name of its content follows."""
NAME_BYTES = 16
HEAD = 2 << 20
"""Bytes in front of the items."""
META_MAGIC = b"mcserver kept 1\n"
"""How the record begins; a line with the checksum of the rest, a line of JSON, and the engine's record follow."""
META_MOST = 64 << 20
"""Bytes: more than a record has besides what grows with the memory, of which that is less than half."""
JSON_MOST = 1 << 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class UnusableError(Exception):
    """Nothing was kept that could be served; the text says why."""


class Kept(NamedTuple):
    """What a process left: the engine's record, for how many seconds it has been away, and its place in the fleet, if any."""

    record: bytes
    away: float
    fleet: dict[str, Any] | None


class MemoryFile:
    """The file of -e, ours alone for as long as this process and those that it hands the descriptor to have it open."""

    def __init__(self, path: str, inherited: int = -1) -> None:
        """Opens or makes the file; `inherited`, of a process that hands its memory over, is taken if it is this file.

        Raises StartError for one that can't be, or must not be, this server's memory.
        """
        self.path = Path(path)
        self.meta = self.path.with_name(self.path.name + ".meta")
        try:
            self._folder = Folder(path)
        except OSError as error:
            raise StartError(f"can't open {self.path} for -e: {error.strerror}; name a file on a tmpfs") from error
        with contextlib.suppress(OSError):
            if inherited >= 0 and os.path.samestat(os.fstat(inherited), self._folder.stat()):
                self.fd = inherited
                return
        try:
            self.fd = self._folder.open(os.O_RDWR | os.O_CREAT)
        except OSError as error:
            self._folder.close()
            raise StartError(f"can't open {self.path} for -e: {error.strerror}; name a file on a tmpfs") from error
        try:
            self._check()
        except StartError:
            os.close(self.fd)
            self._folder.close()
            raise

    def close(self) -> None:
        """Gives up its directory; the file's descriptor is whoever's it was given to."""
        self._folder.close()

    def _check(self) -> None:
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            raise StartError(f"{self.path} is no file: name another with -e")
        if found.st_uid != os.geteuid():
            raise StartError(f"{self.path} is another user's: name another file with -e, or remove it")
        if found.st_nlink > 1:  # somebody may have given a name here to a file that is to stay as it is
            raise StartError(f"{self.path} has another name, too: name another file with -e, or remove it")
        if not os.access(".", os.W_OK, dir_fd=self._folder.fd):
            raise StartError(f"{self.meta} can't be written later: make the directory the server's own (-e)")
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_named(self._folder):  # whoever had it locked until now has another one there
                raise StartError(f"{self.path} was replaced just now: start again, or name another file with -e")
            if not (is_memory(self.fd, KIND, HEAD) or self._has_record()):
                raise StartError(
                    f"{self.path} has something else in it than a cache's memory, which would be lost: "
                    "name another file with -e, or remove it"
                )
            os.fchmod(self.fd, 0o600)
            os.posix_fallocate(self.fd, 0, len(MAGIC))
        except BlockingIOError:
            raise StartError(f"another server has its memory in {self.path}: name another file with -e") from None
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}:
                raise StartError(
                    f"the file system of {self.path} can't hold it: name a file on a tmpfs (-e)"
                ) from error
            raise StartError(f"can't write to {self.path}: {error.strerror}; name another file with -e") from error

    def _is_named(self, folder: Folder) -> bool:
        """Whether the name there is this file's. Raises OSError."""
        try:
            return os.path.samestat(os.fstat(self.fd), folder.stat())
        except FileNotFoundError:
            return False

    def _has_record(self) -> bool:
        """Whether there is a record beside it, ours or memcached's: then the file is a memory, whatever became of it."""
        with contextlib.suppress(OSError), self._open_record() as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read(len(META_MAGIC)).startswith((META_MAGIC, THEIR_RECORD))
        return False

    def _open_record(self) -> BinaryIO:
        return open(self.meta.name, "rb", opener=lambda name, flags: self._folder.open(flags, name))

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever in it."""
        return os.fstat(self.fd).st_size <= len(MAGIC) and not any(os.pread(self.fd, len(MAGIC), 0))

    def read(self) -> Kept | None:
        """What was kept; None for a new file. The record is gone then. Raises UnusableError."""
        try:
            with self._open_record() as file:
                found, most = os.fstat(file.fileno()), META_MOST + os.fstat(self.fd).st_size
                if found.st_uid == os.geteuid():
                    self._remove(self.meta.name)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > most:
                    raise UnusableError(f"{self.meta} is no record of this server")
                data = file.read()
        except FileNotFoundError:
            if self.is_new:
                return None
            raise UnusableError(
                "there is no record of it: the last server did not end by SIGUSR1 or `shutdown graceful`"
            ) from None
        except OSError as error:
            raise UnusableError(f"can't read {self.meta}: {error.strerror}") from error
        name, kept = unpack(data)
        if os.pread(self.fd, len(MAGIC) + NAME_BYTES, 0) != MAGIC + name:
            raise UnusableError("the file and its record don't belong together")
        os.pwrite(self.fd, bytes(NAME_BYTES), len(MAGIC))  # a copy of the record is good for nothing
        return kept

    def clear(self) -> None:
        """Gives all its memory back, for an empty start. Raises StartError."""
        try:
            self._remove(self.meta.name)
            os.ftruncate(self.fd, 0)
        except OSError as error:
            raise StartError(
                f"can't start anew in {self.path}: {error.strerror}; remove {self.meta}, or name another file with -e"
            ) from error

    def _remove(self, name: str) -> None:
        """What has this name in its directory, if anything has. Raises OSError, also when that is another user's."""
        with contextlib.suppress(FileNotFoundError):
            if self._folder.stat(name).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"{name} is another user's")
            self._folder.remove(name)

    def anew(self) -> MemoryFile:
        """Another file under this name, for who can't be sure that nobody else writes to this one. Raises StartError.

        Nothing else than this one is removed for it; where others could put something else there, nothing is.
        """
        try:
            with Folder(self.path) as folder:
                if self._is_named(folder):
                    if folder.others_may_write:
                        raise PermissionError(errno.EPERM, "other users may write its directory")
                    folder.remove()
        except OSError as error:
            raise StartError(
                f"can't start anew in {self.path}: {error.strerror}; remove it, or name another file with -e"
            ) from error
        finally:
            self.close()
        return MemoryFile(str(self.path))

    def write(self, record: bytes, fleet: dict[str, Any] | None) -> None:
        """Leaves a record behind; the last thing that is done with the memory. Raises OSError."""
        name = os.urandom(NAME_BYTES)
        os.pwrite(self.fd, MAGIC + name, 0)
        draft = self.meta.name + ".new"
        for each in (draft, self.meta.name):  # what is replaced is removed, too
            self._remove(each)
        try:
            with open(self._folder.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, draft), "wb") as file:
                file.writelines(pack(name, record, fleet))
            self._folder.replace(draft, self.meta.name)
        except OSError:
            with contextlib.suppress(OSError):
                self._folder.remove(draft)  # a full disk keeps nothing of it
            raise


def pack(name: bytes, record: bytes, fleet: dict[str, Any] | None) -> list[bytes]:
    """The record in parts, for a memory of this name."""
    fields = {
        "name": name.hex(),
        "boot": boot_id(),
        "boot_time": time.clock_gettime(time.CLOCK_BOOTTIME),
        "wall_time": time.time(),
        "fleet": fleet,
    }
    head = json.dumps(fields).encode() + b"\n"
    checksum = hashlib.blake2b(head, digest_size=32)
    checksum.update(record)
    return [META_MAGIC, checksum.hexdigest().encode() + b"\n", head, record]


def unpack(data: bytes) -> tuple[bytes, Kept]:
    """The memory's name, and what was kept, of a record. Raises UnusableError."""
    if not data.startswith(META_MAGIC):
        raise UnusableError("its record is of another program or version")
    at = data.find(b"\n", len(META_MAGIC), len(META_MAGIC) + 128)
    if (
        at < 0
        or hashlib.blake2b(memoryview(data)[at + 1 :], digest_size=32).hexdigest().encode()
        != data[len(META_MAGIC) : at]
    ):
        raise UnusableError("its record is damaged")
    end = data.find(b"\n", at + 1, at + 1 + JSON_MOST)
    try:
        fields: dict[str, Any] = json.loads(data[at + 1 : end]) if end > 0 else {}
        name, fleet, away = bytes.fromhex(fields["name"]), fields["fleet"], away_since(fields)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UnusableError("its record makes no sense") from error
    if fleet is not None and not isinstance(fleet, dict):
        raise UnusableError("its record makes no sense")
    return name, Kept(data[end + 1 :], away, fleet)


def away_since(fields: dict[str, Any]) -> float:
    """Seconds since the record was written: by the clock that nobody sets, unless the machine was started meanwhile."""
    boot, boot_time, wall_time = fields["boot"], fields["boot_time"], fields["wall_time"]
    if not (isinstance(boot, str) and isinstance(boot_time, float) and isinstance(wall_time, float)):
        raise TypeError("no times")
    if boot and boot == boot_id():
        since = time.clock_gettime(time.CLOCK_BOOTTIME) - boot_time
        if since < 0:
            raise ValueError("the record is of a time to come")
    else:
        since = max(0.0, time.time() - wall_time)
    if not since < 1e9:
        raise ValueError("the record is too old")
    return since


def boot_id() -> str:
    """What this run of the machine is called; "" where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
