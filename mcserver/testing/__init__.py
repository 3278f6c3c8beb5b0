"""A cache server for the tests of programs that use one: in this process, on a free port, up in a millisecond.

    with Server() as server:                      # unittest, scripts; `async with`, too
        client = Client(server.address)           # any client
        server.clock.advance(61)
        server.faults.error("set", "SERVER_ERROR out of memory storing object").delay("get", 0.2)
        assert server["key"] == b"value"
        assert [str(command) for command in server.commands] == ["set key 0 0 5", "get key"]

It is the engine of a real server, so what it answers is what a server answers. It must never touch what belongs to the process
that it is a guest of: signal handlers, the garbage collector, logging, the event loop policy. pytest's fixtures are in
mcserver.pytest_plugin.
"""

from mcserver.testing.clock import Clock
from mcserver.testing.commands import Command, Commands
from mcserver.testing.faults import Faults
from mcserver.testing.fleet import Fleet
from mcserver.testing.server import Server
from mcserver.testing.sockets import FakeSocket, SocketModule

__all__ = ["Clock", "Command", "Commands", "FakeSocket", "Faults", "Fleet", "Server", "SocketModule"]
