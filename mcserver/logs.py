"""Logging: the format of a line, as text or as JSON, and the trace of -vv. Nothing here decides what is worth a line.

Everything goes to stderr through the standard library's `logging`. The logger `mcserver.trace` carries memcached's own
trace (`<28 get a`, `>28 END`): as text its lines stand bare, exactly as memcached prints them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator

log = logging.getLogger("mcserver")
trace_log = logging.getLogger("mcserver.trace")

LISTS = (b"STAT ", b"ITEM ", b"PREFIX ")
"""How replies begin that the trace leaves out, as memcached's does."""


class TextFormatter(logging.Formatter):
    """`2026-01-31T23:59:59.123Z INFO text`; a trace line is its bare text."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == trace_log.name:
            return record.getMessage()
        line = f"{timestamp(record.created)} {record.levelname} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message; and traceback, where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def timestamp(seconds: float) -> str:
    """UTC, with milliseconds, as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def configure(*, as_json: bool) -> None:
    """Sends this project's log to stderr. Called once, before anything is logged."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    trace_log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # a closed stderr must not disturb the server


def trace_lines(text: bytes) -> Iterator[bytes]:
    """What memcached prints for a command or a reply, `<28 ...` or `>28 ...`: for each value `sending key`, never the value."""
    mark, _, rest = text.partition(b" ")
    while rest.startswith(b"VALUE "):
        head, _, rest = rest.partition(b"\r\n")
        words = head.split()
        yield mark + b" sending key " + words[1]
        rest = rest[int(words[3]) + 2 :]
    if not rest.startswith(LISTS) and (line := rest.partition(b"\r\n")[0]):
        yield mark + b" " + line


def trace(text: bytes) -> None:
    """One line of -vv's trace. Callers test the verbosity first, so that it costs nothing when off."""
    line = text.decode("utf-8", "backslashreplace")
    if not line.isprintable():  # what clients send must not command a terminal
        line = "".join([each if each.isprintable() else ascii(each)[1:-1] for each in line])
    trace_log.debug("%s", line)
