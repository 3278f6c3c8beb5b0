"""The log of a start: `logging`, which takes its time to load, is loaded with the first line, or when clients are answered.

It decides nothing about a line (logs.py). Where `prepare` was not called (mcserver.testing), it configures nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from types import ModuleType


class EarlyLog:
    """The logger `mcserver`, once somebody has something to say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._as_json: bool | None = None
        """How to configure it; None: not, or it is done."""

    def prepare(self, *, as_json: bool) -> None:
        """Before the first line: it goes to stderr, as text or as JSON."""
        self._as_json = as_json

    def load(self) -> ModuleType:
        """The module logs, loaded and configured."""
        with self._lock:
            from mcserver.system import logs

            if self._as_json is not None:
                logs.configure(as_json=self._as_json)
                self._as_json = None
        return logs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.load().log, name)


early_log = EarlyLog()

if TYPE_CHECKING:
    log: logging.Logger
else:
    log = early_log
