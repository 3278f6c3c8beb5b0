"""Servers to run clients against: one that is there, or one started by a command. Knows no server by name."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from ..ports import free_port

SECONDS_TO_START = 20.0
SECONDS_TO_STOP = 10.0
TRIES = 3  # another process may take the free port first


class NoServerError(Exception):
    """Nothing answers at the address, or the command did not start a server."""


@dataclass(frozen=True)
class Target:
    """A server that answers: its column's name in the table, its address, the number that `version` gives.

    `tls` is the port on which the same server speaks TLS, 0 for none; `udp` tells whether it takes datagrams at `port`. `sasl` is
    the port of another one of its kind, which wants alice's login by SASL (password: secret), 0 for none.
    """

    name: str
    host: str
    port: int
    version: str
    tls: int = 0
    udp: bool = False
    sasl: int = 0


Asks = Callable[[str, str, int], Awaitable[Target]]
"""`reach`, or what asks in its place."""


async def reach(name: str, host: str, port: int) -> Target:
    """Ask the server at an address for its version and its UDP port. Raises NoServerError."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        writer.write(b"version\r\nstats settings\r\n")
        line = await asyncio.wait_for(reader.readline(), 5)
        settings = await _settings(reader) if line.startswith(b"VERSION ") else {}
        writer.close()
    except (OSError, TimeoutError) as error:
        raise NoServerError(f"no answer at {host}:{port}: {str(error) or 'time-out'}") from error
    if not line.startswith(b"VERSION "):
        raise NoServerError(f"{host}:{port} answers `version` with {line[:80]!r}")
    udp = settings.get(b"udpport", b"0") != b"0"
    return Target(name, host, port, line.split()[1].decode("ascii", "replace"), udp=udp)


async def reach_binary(name: str, host: str, port: int) -> Target:
    """Ask a server for its version by the binary protocol. Raises NoServerError."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        writer.write(b"\x80\x0b" + bytes(22))
        header = await asyncio.wait_for(reader.readexactly(24), 5)
        version = await asyncio.wait_for(reader.readexactly(int.from_bytes(header[8:12], "big")), 5)
        writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise NoServerError(f"no answer at {host}:{port}: {str(error) or 'time-out'}") from error
    return Target(name, host, port, version.decode("ascii", "replace"))


async def _settings(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    """The answer to `stats settings`; none of a server that has no such thing."""
    settings: dict[bytes, bytes] = {}
    while (line := await asyncio.wait_for(reader.readline(), 5)).startswith(b"STAT "):
        _, name, *value = line.split(maxsplit=2)
        settings[name] = b"".join(value).strip()
    return settings


@asynccontextmanager
async def started(name: str, command: str) -> AsyncIterator[Target]:
    """Start a server by its command, in which `{port}` stands for a free port; stop it at the end.

    `{tls}` is another one, on which the server speaks TLS.

    Raises NoServerError when it ends at once or doesn't answer in SECONDS_TO_START.
    """
    tls = free_port() if "{tls}" in command else 0
    async with _running(name, command.replace("{tls}", str(tls)), reach) as target:
        yield replace(target, tls=tls)


@asynccontextmanager
async def started_with_logins(name: str, command: str) -> AsyncIterator[int]:
    """As `started`, a server that wants a login by SASL; its port."""
    async with _running(name, command, reach_binary) as target:
        yield target.port


@asynccontextmanager
async def _running(name: str, command: str, ask: Asks) -> AsyncIterator[Target]:
    """The server of a command, as soon as it answers `ask`."""
    for left in reversed(range(TRIES)):
        port = free_port()
        words = [word.replace("{port}", str(port)) for word in shlex.split(command)]
        try:
            process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            raise NoServerError(f"cannot run {words[0]}: {error.strerror}") from error
        try:
            target = await _wait_for(name, port, process, ask)
        except NoServerError:
            await _stop(process)
            if not left:
                raise
            continue
        break
    try:
        yield target
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the server: by TERM, and by KILL where that is not enough."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), SECONDS_TO_STOP)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _wait_for(name: str, port: int, process: asyncio.subprocess.Process, ask: Asks) -> Target:
    """The server once it answers."""
    deadline = asyncio.get_running_loop().time() + SECONDS_TO_START
    while True:
        if process.returncode is not None:
            raise NoServerError(f"{name} ended at once, with status {process.returncode}")
        try:
            return await ask(name, "127.0.0.1", port)
        except NoServerError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise NoServerError(f"{name} does not answer after {SECONDS_TO_START:g} s: {error}") from error
        await asyncio.sleep(0.05)
