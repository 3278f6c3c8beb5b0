"""--take-over: a new process gets the sockets and the memory of the one that serves, by way of a Unix socket between the two.

Owns the words that they exchange, and checks them: who is at the other end must be the same user (or root). The one that serves
goes on until the new one says `go`; then it ends its clients' connections, and its record goes over the same connection. It keeps
sockets and memory until the new one serves, and decides alone who does: until it has said `yours` the new one must not change an
item, and if it hears nothing of it, or it has gone, the old one serves again. The new one has no leave from an offer
alone: when it hears nothing more it waits for the old one's end.

    new: mcserver hand-over 2         old: a line of JSON (which descriptors, each listener's prefix in -l, the memory's
                                           layout), and the descriptors
    new: go                           old: a line of JSON (length of the record, place in the fleet, time), and the record;
                                           or no, when that came too late: it goes on
    new: ready                        old: yours, or no: it serves again
    new: serving                      old: ends
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import fcntl
import json
import logging
import math
import os
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mcserver.server.listeners import Listening, Sockets, asked_by, clear_the_way, remove_socket, spoken_at
from mcserver.settings.config import SPOKEN, Secure
from mcserver.system.process import StartError

log = logging.getLogger("mcserver")

HELLO, GO, READY, SERVING = b"mcserver hand-over 2\n", b"go\n", b"ready\n", b"serving\n"
YOURS, NO = b"yours\n", b"no\n"
LINE_MOST = 1 << 20
RECORD_MOST = 8 << 30
DESCRIPTORS_MOST = 200
ANSWER_SECONDS = 10.0
"""How long either side waits for the other's next word."""
REST_SECONDS = 0.5
"""Before the door is tried again, when the system has no room for who asks."""
END_SECONDS = 120.0
"""How long the one that served may take to end: its clients have some seconds for their last replies."""
READY_SECONDS, READY_SECONDS_A_GIB = 10.0, 5.0
"""How long the new process may take to look at what it was handed; it needs about one second for 1 GiB."""
SLICE_SECONDS = 0.05
"""How often who waits for a word looks whether it is to end."""
KINDS = {"listener": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "metrics": socket.SOCK_STREAM}
"""What can be handed over beside the memory."""
FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}


class HandOverError(Exception):
    """The other side said what makes no sense, or nothing."""


class Outcome(enum.Enum):
    """What became of a hand-over, for the process that served."""

    TAKEN = "the other process serves, or this one was told to end"
    UNTOUCHED = "the other process has gone, and has changed nothing that the record does not tell"
    SPOILT = "the other process may have changed the memory, or may yet"


class Offer(NamedTuple):
    """What a serving process has to give: sockets, the memory's descriptor and layout."""

    sockets: Sockets
    memory: int
    layout: bytes


class Legacy(NamedTuple):
    """What the process that served says of its memory: the record, its place in the fleet, for how many seconds nobody serves."""

    record: bytes
    place: dict[str, Any] | None
    away: float


class Inheritance:
    """The new side: what is offered, and the words with which it goes over."""

    def __init__(self, connection: socket.socket, offer: Offer) -> None:
        self.offer = offer
        self.pid = peer_of(connection)[0]
        """Who offers it."""
        self._process = process_of(self.pid)
        self._connection = connection
        self._ours = False

    def take(self) -> Legacy:
        """Has the other process stop. Raises HandOverError when it has ended without its last words: all is ours then.

        Raises StartError when it does not answer, or goes on: two processes must not change the same memory.
        """
        try:
            return self._last_words()
        except HandOverError:
            self._connection.close()
            self._await_end()
            self._ours = True
            raise

    def _last_words(self) -> Legacy:
        connection = self._connection
        try:
            connection.settimeout(END_SECONDS)
            with contextlib.suppress(OSError):  # who is not there to hear it may have said no
                connection.sendall(GO)
            with connection.makefile("rb") as stream:
                line = stream.readline(LINE_MOST)
                if line == NO:
                    raise StartError("--take-over: the server went on, since this process took too long; try again")
                if not line:
                    raise HandOverError("it ended without a word")
                fields = fields_of(line)
                length, place, since = fields.get("length"), fields.get("place"), fields.get("time")
                if (
                    type(length) is not int
                    or not 0 <= length <= RECORD_MOST
                    or not isinstance(place, dict | None)
                    or not isinstance(since, float)
                ):
                    raise HandOverError("its last line makes no sense")
                record = stream.read(length)
        except TimeoutError as error:
            connection.close()
            raise StartError("--take-over: the server doesn't end: end it (kill -9), then start this one") from error
        except OSError as error:
            raise HandOverError(error.strerror or str(error)) from error
        if len(record) != length:
            raise HandOverError("it ended before its record was there")
        return Legacy(record, place, max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since))

    def claim(self) -> None:
        """From here on the memory and the sockets are this process'. Raises StartError when the other one keeps them.

        Who has gone without a word has died: nobody else serves then.
        """
        if self._ours:
            return
        tell(self._connection, READY)  # who is not there to hear it may have said no
        try:
            answer = hear(self._connection, len(NO), END_SECONDS)
        except GoneError:
            self._await_end()
            answer = YOURS
        except (TimeoutError, InterruptedError) as error:
            self._connection.close()
            reason = str(error) or "no answer"
            raise StartError(
                f"--take-over: nothing was handed over: {reason}; try again, or end that server"
            ) from error
        if answer == NO:
            self._connection.close()
            raise StartError("--take-over: the server went on, since this process took too long; try again")
        self._ours = True

    def serving(self) -> None:
        """The other process may end."""
        with self._connection, contextlib.suppress(OSError):
            self._connection.sendall(SERVING)
        if self._process >= 0:
            os.close(self._process)

    def _await_end(self) -> None:
        """Of a process that says nothing more: it may still read what it has. Raises StartError when it goes on.

        One that can't be seen, of another namespace, has ended.
        """
        if self._process < 0:
            return
        until, ended = time.monotonic() + END_SECONDS, select.poll()
        ended.register(self._process, select.POLLIN)
        while not ended.poll(SLICE_SECONDS * 1000):
            if told_to_end():
                raise StartError("--take-over: nothing was handed over: this process was told to end")
            if time.monotonic() > until:
                raise StartError("--take-over: the server goes on, and hands nothing over; see its log")


class GoneError(HandOverError):
    """The other side has closed the connection."""


def nothing() -> None:
    """Is done meanwhile."""


def hear(connection: socket.socket, length: int, seconds: float, meanwhile: Callable[[], None] = nothing) -> bytes:
    """So many bytes. meanwhile: called in each slice of the time that it takes.

    Raises GoneError, TimeoutError, and InterruptedError when a signal waits that is to end this process.
    """
    heard, until = b"", time.monotonic() + seconds
    connection.settimeout(SLICE_SECONDS)
    while len(heard) < length:
        meanwhile()
        if told_to_end():
            raise InterruptedError("this process was told to end")
        try:
            data = connection.recv(length - len(heard))
        except TimeoutError:
            if time.monotonic() > until:
                raise
        except OSError as error:
            raise GoneError(error.strerror or str(error)) from error
        else:
            if not data:
                raise GoneError("the other side left")
            heard += data
    return heard


def told_to_end() -> bool:
    """Whether a signal waits that is to end this process."""
    return bool(signal.sigpending() & {signal.SIGINT, signal.SIGTERM})


def fields_of(line: bytes) -> dict[str, Any]:
    """The object of a line of JSON. Raises HandOverError."""
    try:
        fields = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError) as error:
        raise HandOverError("a line makes no sense") from error
    if not isinstance(fields, dict):
        raise HandOverError("a line makes no sense, or is missing")
    return fields


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is this user's, or root's."""
    return peer_of(connection)[1] in {0, os.geteuid()}


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Pid (0: of another namespace) and user of the process that listened, or connected."""
    pid, uid, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def process_of(pid: int) -> int:
    """A descriptor that can be read from when this process has ended; -1 where there is none."""
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


# The new process -----------------------------------------------------------------------------------------------------


def inherit(path: str) -> Inheritance | None:
    """What the server at this Unix socket offers; None if there is none. Raises StartError for an answer that can't be used."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise StartError(f"can't take over from {path}: {error.strerror or error}; see --take-over") from error
    try:
        if not is_ours(connection):
            raise HandOverError("another user serves there")
        connection.sendall(HELLO)
        return Inheritance(connection, receive_offer(connection))
    except (OSError, HandOverError) as error:
        connection.close()
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise StartError(f"can't take over from {path}: {reason}; end that server, or leave out --take-over") from error


def receive_offer(connection: socket.socket) -> Offer:
    """The line and the descriptors. Raises HandOverError or OSError; no descriptor stays open then."""
    line, descriptors = b"", array.array("i")
    try:
        while not line.endswith(b"\n") and len(line) < LINE_MOST:
            data, ancillary, flags, _ = connection.recvmsg(
                1 << 16, socket.CMSG_LEN(DESCRIPTORS_MOST * 4), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(content[: len(content) // 4 * 4])
            if flags & socket.MSG_CTRUNC:
                raise HandOverError("descriptors are missing")
            if not data:
                break
            line += data
        return sorted_out(fields_of(line), list(descriptors))
    except (OSError, HandOverError):
        for fd in descriptors:
            with contextlib.suppress(OSError):
                os.close(fd)
        raise


def sorted_out(fields: dict[str, Any], descriptors: list[int]) -> Offer:
    """Raises HandOverError unless each descriptor is what it is said to be; all of them are still the caller's then."""
    kinds, layout = fields.get("kinds"), fields.get("layout")
    if (
        not isinstance(kinds, list)
        or len(kinds) != len(descriptors)
        or not all(kind == "memory" or (isinstance(kind, str) and kind in KINDS) for kind in kinds)
        or kinds.count("memory") != 1
        or kinds.count("metrics") > 1
        or not isinstance(layout, str)
    ):
        raise HandOverError("its offer makes no sense")
    secure = fields.get("secure", [""] * kinds.count("listener"))  # who doesn't say it has no prefix
    speaks = fields.get("speaks", [None] * len(kinds))
    try:
        known = bytes.fromhex(layout)
        asked = [Secure(each) for each in secure]
    except (ValueError, TypeError) as error:
        raise HandOverError("its offer makes no sense") from error
    if (
        len(asked) != kinds.count("listener")
        or not isinstance(speaks, list)
        or len(speaks) != len(kinds)
        or not all(each is None or each in SPOKEN.values() for each in speaks)
    ):
        raise HandOverError("its offer makes no sense")
    memory = -1
    found: list[tuple[str, Listening]] = []
    try:
        for kind, fd, its_speech in zip(kinds, descriptors, speaks, strict=True):
            if kind == "memory":
                check_memory(fd)
                memory = fd
            else:
                found.append((kind, Listening(fileno=fd)))
                found[-1][1].speaks = its_speech
                check_socket(kind, found[-1][1])
    except (OSError, HandOverError):
        for _, one in found:
            one.detach()
        raise
    by_kind = {kind: [one for its, one in found if its == kind] for kind in KINDS}
    for one, its_secure in zip(by_kind["listener"], asked, strict=True):
        one.secure = its_secure
    metrics = next(iter(by_kind["metrics"]), None)
    return Offer(Sockets([*by_kind["listener"]], [*by_kind["datagram"]], metrics), memory, known)


def check_memory(fd: int) -> None:
    """Raises HandOverError unless it is a file that may be written."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        raise HandOverError("its memory is no file that can be written")


def check_socket(kind: str, one: socket.socket) -> None:
    """Raises HandOverError unless it is of this kind, and ready to be served."""
    listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if one.type != KINDS[kind] or one.family not in FAMILIES or listens is (kind == "datagram"):
        raise HandOverError("a socket of it is of another kind")
    one.setblocking(False)


# The process that serves ---------------------------------------------------------------------------------------------


def open_door(path: str, *, instead: bool = False) -> socket.socket:
    """The Unix socket at which the next process will ask, for this user alone. Raises StartError.

    instead: of one at which this user's other process, which is ending, may still listen.
    """
    door = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        if instead:
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid():
                    remove_socket(path, found)
        clear_the_way(path)
        door.bind(path)
        door.listen(1)
    except OSError as error:
        door.close()
        raise StartError(f"can't listen at {path} for --take-over: {error.strerror}; choose another path") from error
    except StartError:
        door.close()
        raise
    finally:
        os.umask(before)
    door.setblocking(False)
    return door


class HandOver:
    """Waits at the door for the next process, on the running loop, and ends the server when it is ready."""

    def __init__(self, door: socket.socket, offer: Callable[[], Offer], end: Callable[[], None]) -> None:
        self._door, self._offer, self._end = door, offer, end
        self.heir: socket.socket | None = None
        """Who gets the record, when the server has ended."""
        self._file: os.stat_result | None = None
        with contextlib.suppress(OSError):
            self._file = os.lstat(door.getsockname())
        self._task = asyncio.get_running_loop().create_task(self._wait())

    def close(self) -> None:
        """Nobody is heard any more; the path is the next one's."""
        self._task.cancel()
        if self._door.fileno() >= 0:
            path = self._door.getsockname()
            self._door.close()
            if self._file is not None:
                remove_socket(path, self._file)

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._door)
            except OSError as error:  # no descriptor is left; one may be soon
                log.warning("--take-over: who asks can't be heard: %s", error.strerror or error)
                await asyncio.sleep(REST_SECONDS)
                continue
            connection.setblocking(False)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._hear(connection)
            except (OSError, HandOverError) as error:
                log.warning("--take-over: nothing was handed over: %s", str(error) or "no answer")
                tell(connection, NO)
                connection.close()
                continue
            except asyncio.CancelledError:
                connection.close()
                raise
            self.heir = connection
            log.info("--take-over: another process is ready; it gets the sockets and the memory")
            self._end()
            return

    async def _hear(self, connection: socket.socket) -> None:
        if not is_ours(connection):
            raise HandOverError("another user asked")
        await expect(connection, HELLO)
        offer = self._offer()
        listeners, datagrams, metrics, _ = offer.sockets
        sockets = [("listener", each) for each in listeners] + [("datagram", each) for each in datagrams]
        if metrics is not None:
            sockets.append(("metrics", metrics))
        kinds = [kind for kind, _ in sockets] + ["memory"]
        secure = [asked_by(each).value for each in listeners]
        speaks = [spoken_at(each) for _, each in sockets] + [None]
        words = {"kinds": kinds, "secure": secure, "speaks": speaks, "layout": offer.layout.hex()}
        line = json.dumps(words).encode() + b"\n"
        sent = socket.send_fds(connection, [line], [each.fileno() for _, each in sockets] + [offer.memory])
        await asyncio.get_running_loop().sock_sendall(connection, line[sent:])
        await expect(connection, GO)


async def expect(connection: socket.socket, word: bytes) -> None:
    """Raises HandOverError for anything else."""
    heard = b""
    while len(heard) < len(word):
        data = await asyncio.get_running_loop().sock_recv(connection, len(word) - len(heard))
        if not data or not word.startswith(heard + data):
            raise HandOverError("the other side left" if not data else "the other side is no server of this version")
        heard += data


def bequeath(
    heir: socket.socket,
    record: bytes,
    place: dict[str, Any] | None,
    seconds: float,
    meanwhile: Callable[[], None] = nothing,
) -> Outcome:
    """The last words: the record, and when the other process has looked at it, in so many seconds, that it may serve.

    meanwhile: called in each slice of the time that it takes.
    """
    with heir:
        words = {"length": len(record), "place": place, "time": time.clock_gettime(time.CLOCK_BOOTTIME)}
        try:
            say(heir, json.dumps(words).encode() + b"\n" + record, seconds, meanwhile)
            heard = hear(heir, len(READY), seconds, meanwhile)
        except InterruptedError:
            return Outcome.TAKEN  # it goes on as if this process had died
        except TimeoutError:
            tell(heir, NO)
            return Outcome.SPOILT
        except (OSError, GoneError):
            return Outcome.UNTOUCHED
        if heard != READY:
            tell(heir, NO)
            return Outcome.SPOILT
        if not tell(heir, YOURS):
            return Outcome.UNTOUCHED
        with contextlib.suppress(InterruptedError):
            try:
                hear(heir, len(SERVING), math.inf, meanwhile)
            except GoneError:
                return Outcome.SPOILT
        return Outcome.TAKEN


def say(other: socket.socket, data: bytes, seconds: float, meanwhile: Callable[[], None]) -> None:
    """All of it. Raises OSError, and TimeoutError when it is not taken in this time."""
    left, until = memoryview(data), time.monotonic() + seconds
    other.settimeout(SLICE_SECONDS)
    while left:
        meanwhile()
        try:
            left = left[other.send(left) :]
        except TimeoutError:
            if time.monotonic() > until:
                raise


def tell(other: socket.socket, word: bytes) -> bool:
    """Whether the other side was there to hear it. It never waits."""
    try:
        other.setblocking(False)
        return other.send(word) == len(word)
    except OSError:
        return False
