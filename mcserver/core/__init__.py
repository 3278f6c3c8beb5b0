"""The compiled core: one cache engine, from bytes in to bytes out. Knows no asyncio and no ZooKeeper."""

from .engine import (
    BAD_EXPTIME,
    BAD_FORMAT,
    END,
    ERROR,
    MEMORY_LIMIT_MOST,
    OK,
    READ_BUFFERS,
    Engine,
    ItemInfo,
    Session,
    TlsRules,
    Workers,
    forbid_new_privileges,
    lock_all_memory,
    openssl_version,
)

__all__ = [
    "BAD_EXPTIME",
    "BAD_FORMAT",
    "END",
    "ERROR",
    "MEMORY_LIMIT_MOST",
    "OK",
    "READ_BUFFERS",
    "Engine",
    "ItemInfo",
    "Session",
    "TlsRules",
    "Workers",
    "forbid_new_privileges",
    "lock_all_memory",
    "openssl_version",
]
