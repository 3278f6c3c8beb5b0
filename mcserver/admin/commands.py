"""The table of the cold commands, and who finds the function for a line. `flush_all`, `version`, `quit`, `mn` are the core's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver.admin import cluster
from mcserver.admin.context import Command, Context, Reply
from mcserver.admin.control import cache_memlimit, debugtime, refresh_certs, shutdown, verbosity
from mcserver.admin.crawler import lru_crawler
from mcserver.admin.lru import lru
from mcserver.admin.slabs import slabs
from mcserver.admin.stats import stats
from mcserver.admin.watch import watch

if TYPE_CHECKING:
    from mcserver.core import Session

COMMANDS: dict[bytes, Command] = {
    b"stats": stats,
    b"verbosity": verbosity,
    b"cache_memlimit": cache_memlimit,
    b"lru": lru,
    b"lru_crawler": lru_crawler,
    b"slabs": slabs,
    b"watch": watch,
    b"refresh_certs": refresh_certs,
    b"shutdown": shutdown,
    b"debugtime": debugtime,
}


class Admin:
    """Finds the function for a cold command's line."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._commands = dict(COMMANDS)
        if context.cluster is not None:
            self._commands |= {b"cluster": cluster.cluster, b"config": cluster.config}

    def command(self, session: Session, line: bytes) -> Reply:
        """The line comes without its end. None: not a command. Spaces may come before all verbs but `stats` and `watch`."""
        words = [word for word in line.split(b" ") if word]
        command = self._commands.get(words[0]) if words else None
        if command is None or (command in (stats, watch) and line.startswith(b" ")):
            return None
        return command(self.context, session, words)
