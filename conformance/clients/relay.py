"""Relays to a server: a second address of it, and one that never brings an answer back. Knows nothing of the protocol."""

from __future__ import annotations

import asyncio
from types import TracebackType

PIECE = 65_536


class Relay:
    """An asynchronous context: while it lasts, connections to `port` on loopback go on to the server at `host`, `port`.

    With `mute` the server's answers are read and dropped. Needs a running loop.
    """

    port: int

    def __init__(self, host: str, port: int, *, mute: bool = False) -> None:
        self._upstream = (host, port)
        self._mute = mute
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            await asyncio.gather(
                self._pump(reader, up_writer, drop=False), self._pump(up_reader, writer, drop=self._mute)
            )
        except OSError:
            writer.close()
        finally:
            self._tasks.discard(task)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, drop: bool) -> None:
        """Move bytes one way until either side ends, then end the other side."""
        try:
            while data := await reader.read(PIECE):
                if not drop:
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
