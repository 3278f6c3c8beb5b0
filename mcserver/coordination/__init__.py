"""Coherent caches through ZooKeeper. Knows the few verbs of the cache, never the protocol.

The server opens its part in the fleet with `open_cluster`; what it gets is in `fleet`, the rest of the package is the way
there: `ports` names the edges, `node` puts the machines together, `kazoo_driver` speaks to ZooKeeper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from mcserver.coordination.fleet import Fleet
    from mcserver.core import Engine
    from mcserver.settings.config import Config


def open_cluster(config: Config, engine: Engine, listeners: Sequence[socket.socket]) -> Fleet:
    """This server's part in the fleet that `config.cluster` describes; kazoo is loaded only here."""
    from .opening import open_cluster as opened

    return opened(config, engine, listeners)
