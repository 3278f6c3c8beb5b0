"""The page's figures, as one object of JSON: counters as they are (the page takes differences), nothing a client wrote."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from mcserver import MEMCACHED_VERSION, __version__
from mcserver.admin.stats import general_values

if TYPE_CHECKING:
    from mcserver.admin.context import Context

TOTALS = (
    "get_hits", "get_misses", "cmd_get", "cmd_set", "cmd_touch", "cmd_meta", "cmd_flush", "delete_hits", "delete_misses",
    "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cas_hits", "cas_misses", "cas_badval", "touch_hits",
    "touch_misses", "evictions", "expired_unfetched", "evicted_unfetched", "bytes", "limit_maxbytes", "curr_items",
    "total_items", "curr_connections", "max_connections", "total_connections", "rejected_connections", "bytes_read",
    "bytes_written", "slabs_moved", "slab_global_page_pool", "store_too_large", "store_no_memory", "accepting_conns",
    "conn_yields", "uptime",
)  # fmt: skip
OF_A_CLASS = (
    "chunk_size",
    "total_pages",
    "total_chunks",
    "used_chunks",
    "pages_given",
    "pages_taken",
    "get_hits",
    "cmd_set",
)
OF_A_LIST = ("number", "mem_requested", "evicted", "evicted_time", "page_worth", "hits_share", "age")


class Snapshots:
    """Reads; `latency` is what http.py measured."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.latency: float | None = None

    def take(self) -> dict[str, Any]:
        """Sizes in bytes, times in seconds."""
        context, values = self._context, general_values(self._context)
        classes, _, pages = context.engine.slab_stats()
        return {
            "server": {
                "version": __version__,
                "memcached": MEMCACHED_VERSION,
                "loop": context.loop,
                "pid": os.getpid(),
            },
            "time": time.time(),
            "cpu": float(str(values["rusage_user"])) + float(str(values["rusage_system"])),
            "totals": {key: values.get(key, 0) for key in TOTALS},
            "pages_bytes": pages,
            "classes": self._classes(classes),
            "curve": [
                {"factor": factor, "bytes": size, "ratio": ratio}
                for factor, (size, ratio) in context.engine.mrc_stats()["curve"].items()
            ],
            "latency": self.latency,
            "fleet": self._fleet(),
        }

    def _classes(self, classes: dict[int, dict[str, int]]) -> list[dict[str, Any]]:
        """Slab classes, and behind them the bands of large values, which have items and no pages of their own."""
        lists = self._context.engine.item_stats()
        rows = []
        for number in sorted({*classes, *lists}):
            row: dict[str, Any] = {"id": number}
            row |= {key: classes.get(number, {}).get(key, 0) for key in OF_A_CLASS}
            row |= {key: lists.get(number, {}).get(key, 0) for key in OF_A_LIST}
            rows.append(row)
        return rows

    def _fleet(self) -> dict[str, Any] | None:
        cluster = self._context.cluster
        if cluster is None:
            return None
        from mcserver.coordination.layout import parts

        version, members = cluster.members()
        applied = [parts(each.applied) for each in members]
        return {
            "version": version,
            "leader": cluster.leader(),
            "stats": cluster.stats(),
            "members": [
                {
                    "name": each.name,
                    "address": each.address,
                    "state": each.state,
                    "generation": generation,
                    "sequence": sequence,
                    "self": each.is_self,
                }
                for each, (generation, sequence) in zip(members, applied, strict=True)
            ],
        }
