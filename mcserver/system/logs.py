"""Logging: the format of a line, the trace of -vv, and the way out, on which no client ever waits.

Everything goes to stderr through the standard library's `logging`. The logger `mcserver.trace` carries memcached's own
trace (`<28 get a`, `>28 END`): as text its lines stand bare, exactly as memcached prints them. Nothing here decides what is
worth a line, only how often: whatever a client or a peer can cause is said at once, and then counted for a minute. What the
operator asked for by a signal (`extra=ASKED`) is said each time.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from mcserver.keys import bounded, printable, said

log = logging.getLogger("mcserver")
trace_log = logging.getLogger("mcserver.trace")

LISTS = (b"STAT ", b"ITEM ", b"PREFIX ")
"""How replies begin that the trace leaves out, as memcached's does."""

QUEUE_BYTES = 1 << 20
"""What may wait for a stderr that nobody reads; lines beyond it are dropped and counted."""
WRITE_BYTES = 1 << 16
"""Lines are gathered up to here for one system call."""
REPEAT_SECONDS = 60.0
"""A message of one kind is said once in this time; then how many there were since."""
ASKED = {"asked": True}
"""`extra` of a message that answers the operator's own signal: he reads each, though it says what the last one said."""
KINDS_MOST = 256
"""Kinds of messages that are told apart; further ones share one count."""
LOCK_SECONDS = 1.0
"""How long a line waits for the queue, which nobody holds for longer than some instructions take."""
LAST_WORDS_SECONDS = 0.5
"""How long the end of the process waits for stderr."""


class TextFormatter(logging.Formatter):
    """`2026-01-31T23:59:59.123Z INFO text`; a trace line is its bare text. Whoever wrote the text, it is one line."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == trace_log.name:
            return record.getMessage()
        line = f"{timestamp(record.created)} {record.levelname} {said(record.getMessage())}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message; and traceback, where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        entry = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def timestamp(seconds: float) -> str:
    """UTC, with milliseconds, as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


class Kind:
    """Messages of one kind: until when they are only counted, how many were, and one of the last."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.last = ""


class Repeats(logging.Filter):
    """Lets the first message of a kind through, then counts for a minute, and says the count with the next one.

    The kind is the text before its arguments are put in, so what a client writes into a message makes no new kind.
    Nothing is held back before `begin`: a start says each of its warnings. The trace has its own switch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.held_back = 0
        """Messages that were not said for themselves."""
        self._clock = clock
        self._began = False
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str], Kind] = {}

    def begin(self) -> None:
        """From now on the messages are those of serving."""
        self._began = True

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._began or record.name == trace_log.name or hasattr(record, "asked"):
            return True
        text = str(record.msg)
        kind = (record.name, record.getMessage() if text == "%s" else text)
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= KINDS_MOST:
                kind = ("", "")
            now = self._clock()
            known = self._kinds.get(kind)
            if known is not None and now < known.until:
                known.count += 1
                if known.count & (known.count - 1) == 0:  # to spell each would be the most of what a flood costs
                    known.last = record.getMessage()
                self.held_back += 1
                return False
            self._kinds[kind] = Kind(now + REPEAT_SECONDS)
        if known is not None and known.count:
            record.msg, record.args = f"{record.getMessage()} ({known.count} more like it since the last)", None
        return True

    def overdue(self) -> list[str]:
        """The counts of what was held back, and whose minute is over; each is told once."""
        with self._lock:
            now = self._clock()
            over = [kind for kind, known in self._kinds.items() if now >= known.until]
            ended = [self._kinds.pop(kind) for kind in over]
        return [f"{each.last} ({each.count} like it in the last minute)" for each in ended if each.count]


class Writer(logging.Handler):
    """A bounded queue of lines, and a thread that writes them to a descriptor. `emit` never waits for the descriptor.

    The thread starts with the first line, so that a process may fork before.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.dropped = 0
        """Lines that found the queue full, or that the descriptor refused."""
        self._descriptor = descriptor
        self._lines: deque[bytes | int] = deque()  # a number: so many were dropped there
        self._waiting = 0
        self._untold = 0
        self._cut = False  # what was written last ends within a line
        self._changed = threading.Condition(threading.Lock())
        self._thread: int | None = None
        self._writing = False
        self._stuck = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # a message that can't be spelled must not disturb whoever logs it
            line = f"a message that can't be spelled: {record.msg!r}"
        self.put(line.encode("utf-8", "backslashreplace") + b"\n")

    def createLock(self) -> None:  # noqa: N802  # logging's name for it
        """None: what is shared has its own."""
        self.lock = None

    def put(self, line: bytes) -> None:
        if not self._changed.acquire(timeout=0 if self._stuck else LOCK_SECONDS):
            self._stuck = True  # its holder had no memory to let it go: nobody waits for that twice
            self._lost(1)
            return
        try:
            self._stuck = False
            if self._waiting + len(line) > QUEUE_BYTES:
                self._lost(1)
                return
            if self._untold:
                self._lines.append(self._untold)
                self._untold = 0
            self._lines.append(line)
            self._waiting += len(line)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        finally:
            self._changed.release()

    def _start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are never the thread's
        try:
            with suppress(RuntimeError, MemoryError):  # the system has no thread for us: the next line tries again
                # Thread.start would wait for the thread, for ever if that has no memory for its first steps.
                self._thread = _thread.start_new_thread(self._run, ())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _lost(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _spelled(self, line: bytes | int) -> bytes:
        if isinstance(line, bytes):
            return line
        text = "%d lines of the log were dropped: stderr was not read, or had no room"
        return self.format(logging.LogRecord(log.name, logging.WARNING, "", 0, text, (line,), None)).encode() + b"\n"

    def _run(self) -> None:
        batch: list[bytes | int] = []
        try:
            while True:
                size = self._take(batch)
                self._account(batch, size)
                batch.clear()
        except (MemoryError, RuntimeError):  # no memory for a step, or for the lock of a wait
            with self._changed:  # the next line begins anew
                self._lost(sum(isinstance(each, bytes) for each in batch))
                self._waiting = sum(len(each) for each in self._lines if isinstance(each, bytes))
                self._writing = False
                self._thread = None

    def _take(self, batch: list[bytes | int]) -> int:
        """Waits for lines and moves some into the batch; the bytes they have."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            while not self._lines:
                self._changed.wait()
            size = 0
            while self._lines and size < WRITE_BYTES:
                batch.append(self._lines.popleft())
                size += len(batch[-1]) if isinstance(batch[-1], bytes) else 0
            self._writing = True
        return size

    def _account(self, batch: list[bytes | int], size: int) -> None:
        """Writes a batch; what the descriptor refused, a full disk for one, is told with the next line that gets through."""
        texts = [self._spelled(each) for each in batch]
        left = self._write(b"".join(texts))
        with self._changed:
            self._waiting -= size
            while left > 0:
                left -= len(texts.pop())
                each = batch.pop()
                if isinstance(each, int):
                    self._untold += each
                else:
                    self._lost(1)

    def _write(self, data: bytes) -> int:
        """All of it, however long that takes; how many bytes at its end an error has lost."""
        view = memoryview(b"\n" + data if self._cut else data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # somebody made the descriptor non-blocking
                time.sleep(0.05)
            except OSError:
                break
        left = min(len(view), len(data))
        if len(view) <= len(data):
            self._cut = left not in (0, len(data)) and data[-left - 1] != ord("\n")
        return left

    def finish(self, seconds: float = LAST_WORDS_SECONDS) -> None:
        """Waits until everything is written, but no longer than that."""
        if not self._changed.acquire(timeout=seconds):
            return
        try:
            self._changed.wait_for(lambda: self._thread is None or not (self._lines or self._writing), seconds)
            while self._thread is None and self._lines and select.select([], [self._descriptor], [], 0)[1]:
                self._write(
                    self._spelled(self._lines.popleft())[: select.PIPE_BUF]
                )  # so many bytes a pipe takes without a wait
        finally:
            self._changed.release()


class Log:
    """This process's log: what `configure` made."""

    repeats = Repeats()
    writer = Writer(2)


def configure(*, as_json: bool) -> None:
    """Sends this project's log to stderr. Called once, before anything is logged."""
    Log.repeats = Repeats()
    Log.writer = Writer(2)
    Log.writer.setFormatter(JsonFormatter() if as_json else TextFormatter())
    Log.writer.addFilter(Log.repeats)
    root = logging.getLogger()
    root.handlers[:] = [Log.writer]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    trace_log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False
    sys.unraisablehook = _unraisable


def _unraisable(caught: sys.UnraisableHookArgs, /) -> None:
    """Python's own last words would wait for stderr."""
    error = caught.exc_value
    details = (caught.exc_type, error, caught.exc_traceback) if error is not None else None
    log.error("internal error: %s", caught.err_msg or "nobody could be told", exc_info=details)


def serving() -> None:
    """The start is over: from now on repeated messages are counted."""
    Log.repeats.begin()


def tell_counts() -> None:
    """Says how often a message came again that nobody has repeated since; called now and then."""
    for text in Log.repeats.overdue():
        Log.writer.emit(logging.LogRecord(log.name, logging.WARNING, "", 0, "%s", (text,), None))


def lost() -> int:
    """Lines that were not written: dropped because stderr was not read, or held back as repetitions."""
    return Log.writer.dropped + Log.repeats.held_back


def finish() -> None:
    """The last lines, if stderr takes them soon."""
    Log.writer.finish()


def trace_lines(text: bytes) -> Iterator[bytes]:
    """What memcached prints for a command or a reply, `<28 ...` or `>28 ...`: for each value `sending key`, never the value.

    A value is skipped by its length: the header is `VALUE key flags length [cas]`, its fields are parted by single spaces,
    and a key may hold any other byte. A header that doesn't read so ends the trace of that reply.
    """
    mark, _, rest = text.partition(b" ")
    while rest.startswith(b"VALUE "):
        head, _, rest = rest.partition(b"\r\n")
        words = head.split(b" ")
        yield mark + b" sending key " + words[1]
        if len(words) < 4 or not words[3].isdigit():
            return
        rest = rest[int(words[3]) + 2 :]
    if not rest.startswith(LISTS) and (line := rest.partition(b"\r\n")[0]):
        yield mark + b" " + line


def trace(text: bytes) -> None:
    """One line of -vv's trace. Callers test the verbosity first, so that it costs nothing when off."""
    trace_log.debug("%s", printable(text))
