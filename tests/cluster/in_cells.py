"""mcserver, that acknowledges by cells of two from two members on: `python -m tests.cluster.in_cells`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import replace

from mcserver.cli import main
from mcserver.coordination import opening
from mcserver.coordination.settings import Settings
from mcserver.settings.cluster import ClusterConfig


def in_cells() -> None:
    made = opening.make_settings

    def make_settings(cluster: ClusterConfig, listeners: Sequence[socket.socket]) -> Settings:
        return replace(made(cluster, listeners), direct_max=0, cell_size=2)

    opening.make_settings = make_settings


if __name__ == "__main__":
    in_cells()
    sys.exit(main())
