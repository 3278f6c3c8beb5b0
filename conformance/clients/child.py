"""One Python client in a process of its own: `python -m conformance.clients.child MODULE HOST PORT SECOND MUTE [SCENARIO...]`.

SECOND and MUTE are the ports of the relays, see `harness.Server`.
Prints one JSON line for each scenario. The only place that imports a client's file, and with it the client.
"""

from __future__ import annotations

import importlib
import os
import sys

from .harness import Server, run_client

LOOPBACK = "127.0.0.1"


def main(arguments: list[str]) -> None:
    """Run the client that is named; what the client itself prints goes to standard error."""
    name, host, port, second, mute, *only = arguments
    server = Server(host, int(port), (LOOPBACK, int(second)), (LOOPBACK, int(mute)))
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module = importlib.import_module(f".{name}", __package__)
    run_client(module.CLIENT, server, report, only)


if __name__ == "__main__":
    main(sys.argv[1:])
