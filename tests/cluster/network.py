"""TCP links that misbehave on demand, between servers under test and ZooKeeper, and between ZooKeeper servers.

Owns one thread with one event loop; every public method may be called from any other thread and returns when the change
is in force. It never loses or reorders bytes inside a stream: a fault is silence (bytes wait, as behind a broken route)
or the end of the connection, as TCP knows no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple, TypeVar

from tests.ports import free_port

T = TypeVar("T")
Direction = Literal["up", "down"]  # up: towards ZooKeeper; down: towards whoever connected
BOTH: tuple[Direction, Direction] = ("up", "down")
CHUNK = 64 * 1024
OP_CREATE, OP_EXISTS, OP_GET, OP_SET, OP_CHILDREN, OP_MULTI, OP_CREATE2 = 1, 3, 4, 5, 12, 14, 15


class Frame(NamedTuple):
    """One message of ZooKeeper's client protocol, as a tamper function sees it."""

    direction: Direction
    xid: int  # below 0: watch events (-1), pings (-2), authentication (-4)
    op: int  # of a reply: the operation it answers; 0 if unknown
    body: bytes  # the whole message without its four bytes of length


class CutError(Exception):
    """Raised by a tamper function: the connection ends here and the frame is not forwarded."""


Tamper = Callable[[Frame], bytes | None]  # the frame's new body, or None to swallow it


class Network:
    """A thread that runs links. Use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links: list[Link] = []
        self._thread.start()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        for link in self._links:
            self.run(link._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def link(self, target: int, *, rewrite: tuple[bytes, bytes] | None = None) -> Link:
        """A new link to 127.0.0.1:`target`. `rewrite` replaces bytes in the first chunk sent up (see ensemble.py)."""
        link = Link(self, target, rewrite)
        self.run(link._listen())
        self._links.append(link)
        return link


class Link:
    """One listening port and the connections made through it."""

    def __init__(self, network: Network, target: int, rewrite: tuple[bytes, bytes] | None) -> None:
        self._network, self.target, self._rewrite = network, target, rewrite
        self.port = free_port()  # its own also while nobody listens
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._pairs: set[_Pair] = set()
        self._flowing = {direction: asyncio.Event() for direction in BOTH}
        for event in self._flowing.values():
            event.set()
        self._delay = 0.0
        self._rate = 0.0
        self._refusing = False
        self._half_open = False
        self._tamper: Tamper | None = None
        self.connections = 0  # accepted since the start
        self.bytes = {"up": 0, "down": 0}

    # -- faults; each returns when it is in force

    def heal(self) -> None:
        """Back to passing everything on; what a blackhole held back flows now."""
        self._network.run(self._set(delay=0.0, rate=0.0, refusing=False, half_open=False, tamper=None, flowing=BOTH))

    def delay(self, seconds: float) -> None:
        """Each chunk arrives so much later, in each direction; order and throughput stay."""
        self._network.run(self._set(delay=seconds))

    def throttle(self, bytes_per_second: float) -> None:
        self._network.run(self._set(rate=bytes_per_second))

    def blackhole(self, *directions: Direction) -> None:
        """Silence in these directions (both if none is named), for old and new connections; nobody is told."""
        self._network.run(self._set(silent=directions or BOTH))

    def half_open(self) -> None:
        """The far end has forgotten its connections; the near end believes in them, hears nothing, as do new ones."""
        self._network.run(self._set(half_open=True))

    def refuse(self) -> None:
        """Reset all connections and each new one."""
        self._network.run(self._set(refusing=True))

    def present(self, yes: bool) -> None:
        """Whether anybody listens at all: a port without a process refuses, where this one would accept, then end."""
        self._network.run(self._listen() if yes else self._close())

    def reset(self) -> None:
        """Reset all connections once; new ones pass."""
        self._network.run(self._reset())

    def tamper(self, function: Tamper | None) -> None:
        """Pass each message of ZooKeeper's protocol through `function`, called on the links' thread.

        Only new connections are framed, from their first byte: set it, then reset().
        """
        self._network.run(self._set(tamper=function))

    def cut_after(self, count: int = 1, ops: tuple[int, ...] = (OP_CREATE, OP_CREATE2, OP_MULTI)) -> threading.Event:
        """End the connection when the reply to a request of these kinds comes, `count` times, once a connection.

        ZooKeeper has committed and the client cannot know. Returns an event that is set after the last cut.
        """
        done, left = threading.Event(), count

        def cut(frame: Frame) -> bytes | None:
            nonlocal left
            if left > 0 and frame.direction == "down" and frame.xid > 0 and frame.op in ops:
                left -= 1
                if left == 0:
                    done.set()
                raise CutError
            return frame.body

        self.tamper(cut)
        return done

    # -- on the links' thread

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def _close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._reset()
        for task in self._tasks:
            task.cancel()  # one that waits in a blackhole would not notice
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a transport that was aborted closes its socket in the loop's next turn

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        task = asyncio.ensure_future(self._run(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: connection.close() if task.cancelled() else None)  # perhaps before it began

    async def _reset(self) -> None:
        for pair in list(self._pairs):
            pair.abort()

    async def _set(
        self,
        *,
        delay: float | None = None,
        rate: float | None = None,
        refusing: bool | None = None,
        half_open: bool | None = None,
        tamper: Tamper | Literal["keep"] | None = "keep",
        flowing: tuple[Direction, ...] = (),
        silent: tuple[Direction, ...] = (),
    ) -> None:
        self._delay = self._delay if delay is None else delay
        self._rate = self._rate if rate is None else rate
        if refusing is not None:
            self._refusing = refusing
            if refusing:
                await self._reset()
        if tamper != "keep":
            self._tamper = tamper
        if half_open is not None:
            for pair in list(self._pairs):
                if half_open:
                    pair.forget()
                elif pair.forgotten:
                    pair.abort()  # the far end answers a reset to the first byte it gets now
            self._half_open = half_open
        for direction in flowing:
            self._flowing[direction].set()
        for direction in silent:
            self._flowing[direction].clear()

    async def _run(self, connection: socket.socket) -> None:
        self.connections += 1
        reader, writer = await asyncio.open_connection(sock=connection, limit=CHUNK)
        if self._refusing:
            _abort(writer)
            return
        pair = _Pair(self, reader, writer)
        self._pairs.add(pair)
        try:
            if await pair.run():
                pair.close()
            else:
                pair.abort()
        except asyncio.CancelledError:
            pair.abort()
            raise
        finally:
            self._pairs.discard(pair)


class _Pair:
    """One connection: two pumps, each a reader and a writer with a queue of (due time, bytes) between them."""

    def __init__(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.link = link
        self.near = (reader, writer)
        self.far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.forgotten = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ops: dict[int, int] = {}

    async def run(self) -> bool:
        """Until the end; whether that was the polite end of a stream."""
        try:
            await self.link._flowing["up"].wait()
            if self.link._half_open:
                self.forgotten = True
                await self._swallow()
                return False
            self.far = await self._connect()
        except OSError:
            return False
        near, far = self.near, self.far
        queues: dict[Direction, asyncio.Queue[tuple[float, bytes]]] = {d: asyncio.Queue(256) for d in BOTH}
        self._tasks = [
            asyncio.ensure_future(self._read("up", near[0], queues["up"])),
            asyncio.ensure_future(self._write("up", far[1], queues["up"])),
            asyncio.ensure_future(self._read("down", far[0], queues["down"])),
            asyncio.ensure_future(self._write("down", near[1], queues["down"])),
        ]
        # The end of one direction, or an error, ends the connection: nothing here needs half-closed ones.
        for task in self._tasks:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in self._tasks:
                task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        if any(isinstance(end, EOFError) for end in ends) and not self.forgotten:
            return True
        if self.forgotten:
            await self._swallow()
        return False

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Patient: a port that is not open yet would refuse; this connection was accepted already."""
        tries = 60
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self.link.target, limit=CHUNK)
            except ConnectionRefusedError:
                tries -= 1
                if tries == 0:
                    raise
                await asyncio.sleep(0.05)

    async def _swallow(self) -> None:
        with contextlib.suppress(OSError):
            while await self.near[0].read(CHUNK):
                pass

    async def _read(
        self, direction: Direction, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        link, loop = self.link, asyncio.get_running_loop()
        framed, first = link._tamper is not None, True
        while True:
            if framed:
                data = await self._frame(direction, reader, first)
            else:
                data = await reader.read(CHUNK)
                if first and direction == "up" and link._rewrite is not None:
                    data = data.replace(*link._rewrite)
            first = False
            await link._flowing[direction].wait()  # a connection that ends inside a blackhole ends silently, too
            await queue.put((loop.time() + link._delay, data))
            if not data and not framed:
                return

    async def _frame(self, direction: Direction, reader: asyncio.StreamReader, first: bool) -> bytes:
        """One message, tampered with; b"" when it was swallowed. The first of each direction opens the session."""
        size = await reader.readexactly(4)
        body = await reader.readexactly(struct.unpack(">i", size)[0])
        tamper = self.link._tamper
        if first or tamper is None:
            return size + body
        xid = struct.unpack_from(">i", body)[0]
        if direction == "up":
            op = struct.unpack_from(">i", body, 4)[0]
            self._ops[xid] = op
        else:
            op = self._ops.pop(xid, 0)
        changed = tamper(Frame(direction, xid, op, body))
        return b"" if changed is None else struct.pack(">i", len(changed)) + changed

    async def _write(
        self, direction: Direction, writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        link, loop = self.link, asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data and link._tamper is None:
                raise EOFError
            if link._rate:
                await asyncio.sleep(len(data) / link._rate)
            await link._flowing[direction].wait()
            link.bytes[direction] += len(data)
            writer.write(data)
            await writer.drain()

    def forget(self) -> None:
        self.forgotten = True
        if self.far is not None:
            _abort(self.far[1])

    def close(self) -> None:
        for end in (self.near, self.far):
            if end is not None:
                end[1].close()

    def abort(self) -> None:
        for end in (self.near, self.far):
            if end is not None:
                _abort(end[1])


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, not with a polite end."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
