"""What `stats` and its kind have in one release of memcached and not in another."""

from __future__ import annotations

from tests.peer import RELEASE

# Keys of memcached 1.6.18 that 1.6.45 no longer has, and keys that came since.
OLD = RELEASE < (1, 6, 45)
GONE = {"slab_reassign_evictions_nomem"} if OLD else set()
NEW = {"slab_reassign_busy_nomem", "slab_reassign_last_busy_status"} if OLD else set()
NEW_SETTINGS = {"client_flags_size", "mcserver_version"} if OLD else {"mcserver_version"}
STORAGE = ("ext_", "slab_automove_freeratio", "proxy_")
"""Debian builds with external storage and the proxy."""
