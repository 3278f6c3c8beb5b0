"""Every figure the machines of coordination go by, with its default. Configuration maps to it; it reads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from .ports import Level


@dataclass(frozen=True)
class Settings:
    """Times are seconds, sizes bytes. The second half is fixed in a server and made small by tests."""

    node_name: str = "mcserver"
    address: str = ""  # HOST:PORT that clients reach, shown to the members
    path: str = "/cache"
    max_stale: float = 10.0  # a cache that was not proved fresh for so long stops serving
    on_stale: str = "miss"  # miss, error, serve
    ack: Level = Level.COMMITTED
    ack_prefixes: tuple[tuple[bytes, Level], ...] = ()
    ack_timeout: float = 5.0
    join: str = "wait"  # until the first certificate: wait (gate closed) or serve
    soft_prefixes: tuple[bytes, ...] = ()  # remote deletes of these mark stale instead
    soft_ttl: int = 30  # how long a softly deleted item may still be served as stale
    flush_prefixes: tuple[bytes, ...] = ()  # on overflow flush only these, when they cover the queue
    refresh_every: float = 0.0  # the leader marks refresh_prefixes stale so often; 0: never
    refresh_prefixes: tuple[bytes, ...] = ()

    reply_deadline: float = 1.5
    write_rate: float = 100.0  # writes a second of the whole fleet
    batch_keys: int = 1000
    batch_bytes: int = 64 << 10
    queue_keys: int = 100_000
    queue_bytes: int = 8 << 20
    slice_keys: int = 256  # applied without giving way to clients
    read_ahead: int = 32  # entries asked for at once while catching up
    retry_delay: float = 0.1
    retry_delay_max: float = 2.0
    trim_every: float = 2.0
    keep_seconds: float = 120.0
    keep_entries: int = 2000
    cap_entries: int = 10_000
    cap_bytes: int = 16 << 20
    trim_batch: int = 100
    rotate_at: int = 1 << 28
    absence_margin: float = 1.05  # clocks may run 5 % apart
    member_margin: float = 10.0  # a dead member's record stays so much longer than it may have served
    direct_max: int = 64  # members of a fleet in which each acknowledges at once; above, by cells
    cell_size: int = 32  # members of a cell, at most on average
    trips: float = 5000.0  # looks at the log a second of the whole fleet that watches may cause
    spread: float = 200.0  # members a second that look at what has changed for all
    lock_buckets: int = 64
    lock_window: float = 0.8  # a commit answered later proves no lock; below any session timeout
