"""What a cold command is given: the engine, the settings in force, and what the server shows. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcserver.admin.ports import Cluster, Network
    from mcserver.admin.settings import Settings
    from mcserver.admin.watchers import Watchers
    from mcserver.core import Engine, Session
    from mcserver.settings.config import Config

Reply = bytes | Iterator[bytes] | None
"""All of a reply (b"" for none); or its pieces, of at most 64 KiB each; or None: this is no command."""

Command = Callable[["Context", "Session", list[bytes]], Reply]
"""A command gets the words of its line, the verb first, at least one."""


class Context:
    """One for each server; every command gets it."""

    def __init__(
        self,
        *,
        config: Config,
        engine: Engine,
        network: Network,
        watchers: Watchers,
        settings: Settings,
        loop: str,
        cluster: Cluster | None = None,
    ) -> None:
        """loop: name and version of the event loop, without a space."""
        self.config = config
        self.engine = engine
        self.network = network
        self.watchers = watchers
        self.settings = settings
        self.loop = loop
        self.cluster = cluster
