"""What is shown of a running server over HTTP (--metrics): Prometheus' metrics, health, a page. It reads, and changes nothing.

Nothing here is loaded without --metrics. `http` is the server, `answers` knows the paths, `metrics` and `snapshot` read.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcserver.admin.context import Context
    from mcserver.observe.http import Observer


def open_observer(listener: socket.socket, names: tuple[str, ...], context: Context) -> Observer:
    """Serves on this bound, listening socket; to be called on the running loop, and to be started."""
    from mcserver.observe.answers import Answers
    from mcserver.observe.http import Observer

    return Observer(listener, Answers(context), names)
