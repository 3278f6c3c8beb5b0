"""Clients of a fleet, all at once: they cache rows of a database, change rows and delete what is cached, and note it all.

Keys begin with their level and how they are filled: `a:l:3` is deleted at level applied and filled with a lease, `c:p:3` at
level committed with a plain get and set. OPTIONS tells the servers so. The database is a dict of versions in this process.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from .history import Fill, History, Invalidation, Read, now
from .servers import PATIENCE, CacheServer, Client

LEVELS = {b"a:": "applied", b"c:": "committed", b"n:": "async"}
OPTIONS = ("--ack", "a:=applied", "--ack", "n:=async")
KEYS = [level + how + b"%d" % number for level in LEVELS for how in (b"l:", b"p:") for number in range(4)]


class Database:
    """A linearizable store: each key has a version that only rises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[bytes, int] = {}

    def read(self, key: bytes) -> int:
        with self._lock:
            return self._versions.get(key, 0)

    def write(self, key: bytes) -> int:
        with self._lock:
            version = self._versions[key] = self._versions.get(key, 0) + 1
            return version


class Workload:
    """Threads that work until the end of the `with`; `history` is complete then."""

    def __init__(
        self,
        servers: Sequence[CacheServer],
        *,
        seed: int,
        max_stale: float = 2.0,
        writers: int = 3,
        readers: int = 3,
    ) -> None:
        """Writers wait for confirmations, so reads have threads of their own. A seed repeats choices, not timing."""
        self.servers, self.history, self.database = list(servers), History(max_stale), Database()
        self._stop = threading.Event()
        self._final = False
        self.away: set[str] = set()  # servers that clients leave alone for now
        self._boots: dict[str, int] = {server.name: 0 for server in servers}
        names = [("writer", number) for number in range(writers)] + [("reader", number) for number in range(readers)]
        self._threads = [
            threading.Thread(target=self._work, args=(role == "writer", random.Random(f"{seed} {role} {number}")))
            for role, number in names
        ]

    def __enter__(self) -> Workload:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def restarted(self, server: CacheServer) -> None:
        """To be called between the end of a server's process and its next start."""
        self._boots[server.name] += 1

    def read_everything(self) -> None:
        """After the end, and after everything has healed: what each server still holds."""
        self._final = True
        worker = _Worker(self, random.Random(0))
        for server in self.servers:
            for key in KEYS:
                worker.read(server, key)
        worker.close()

    def _work(self, writes: bool, chance: random.Random) -> None:
        worker = _Worker(self, chance)
        while not self._stop.is_set():
            server, key = chance.choice(self.servers), chance.choice(KEYS)
            if server.process is None or server.name in self.away:
                time.sleep(0.01)
            elif not writes:
                worker.read(server, key)
                time.sleep(0.002)
            elif chance.random() < 0.99:
                worker.change(server, key)
                time.sleep(0.01)
            else:
                worker.flush(server, chance.choice([b"", b"a:", b"c:l:"]))
        worker.close()


class _Worker:
    """One thread's connections."""

    def __init__(self, workload: Workload, chance: random.Random) -> None:
        self._workload, self._history, self._chance = workload, workload.history, chance
        self._clients: dict[str, tuple[int, Client]] = {}

    def close(self) -> None:
        for _, client in self._clients.values():
            client.close()

    def _client(self, server: CacheServer) -> tuple[int, Client]:
        """A connection, and the life of the server that it belongs to."""
        if server.name not in self._clients:
            boot = self._workload._boots[server.name]
            client = server.client(10)
            if boot != self._workload._boots[server.name]:
                client.close()
                raise ConnectionError("restarted meanwhile")
            self._clients[server.name] = boot, client
        return self._clients[server.name]

    def _failed(self, server: CacheServer, error: Exception) -> None:
        self._history.failures[f"{type(error).__name__} at {server.name}"] += 1
        if server.name in self._clients:
            self._clients.pop(server.name)[1].close()

    def change(self, server: CacheServer, key: bytes) -> None:
        """A new version in the database, then the delete."""
        self._workload.database.write(key)
        invoked, level, answer = now(), "", "no answer"
        try:
            answer = self._client(server)[1].delete(key).decode()
            if answer in {"DELETED", "NOT_FOUND"}:
                level = LEVELS[key[:2]]
        except (OSError, ConnectionError) as error:
            self._failed(server, error)
        self._history.invalidations.append(Invalidation(key, False, server.name, level, invoked, now(), answer))

    def flush(self, server: CacheServer, prefix: bytes) -> None:
        """`flush_all` (at the default level, committed), or `cluster flush PREFIX` (confirmed as applied)."""
        invoked, level, answer = now(), "", "no answer"
        try:
            answer = self._client(server)[1].ask(b"cluster flush " + prefix if prefix else b"flush_all").decode()
            if answer == "OK":
                level = "applied" if prefix else "committed"
        except (OSError, ConnectionError) as error:
            self._failed(server, error)
        self._history.invalidations.append(Invalidation(prefix, True, server.name, level, invoked, now(), answer))

    def read(self, server: CacheServer, key: bytes) -> None:
        """Cache-aside: a hit is noted, a miss filled from the database."""
        try:
            boot, client = self._client(server)
            if key[2:4] == b"l:":
                self._read_with_lease(server, boot, client, key)
            else:
                self._read_plainly(server, boot, client, key)
        except (OSError, ConnectionError, RuntimeError) as error:
            self._failed(server, error)

    def _read_with_lease(self, server: CacheServer, boot: int, client: Client, key: bytes) -> None:
        invoked = now()
        head = client.ask(b"mg " + key + b" v c N30 t").split()
        granted = now()
        if head[0] == b"EN":
            self._history.misses += 1
            return
        if head[0] != b"VA":
            raise RuntimeError(" ".join(word.decode() for word in head))
        value = client.line()
        if b"W" in head:
            self._history.misses += 1
            cas = next(word[1:] for word in head[2:] if word[:1] == b"c")
            number = self._history.new_fill(Fill(key, server.name, boot, self._workload.database.read(key), granted))
            body = self._body(number)
            client.send(b"ms %s %d C%s T300\r\n%s\r\n" % (key, len(body), cas, body))
            client.line()
        elif value:
            self._hit(server, boot, key, value, invoked)
        else:
            self._history.misses += 1  # somebody else has the lease

    def _read_plainly(self, server: CacheServer, boot: int, client: Client, key: bytes) -> None:
        invoked = now()
        value = client.get(key)
        if value is not None:
            self._hit(server, boot, key, value, invoked)
            return
        self._history.misses += 1
        fill = Fill(key, server.name, boot, self._workload.database.read(key))
        body = self._body(self._history.new_fill(fill))
        if client.set(key, body) == b"STORED":
            fill.stored = now()

    def _hit(self, server: CacheServer, boot: int, key: bytes, value: bytes, invoked: int) -> None:
        number = int(value.split()[0])
        read = Read(key, server.name, boot, number, invoked, now(), self._workload._final)
        self._history.reads.append(read)

    def _body(self, number: int) -> bytes:
        return b"%d %s" % (number, b"." * self._chance.choice([5, 50, 500]))
