"""The answers to the few paths of --metrics, made at most once a second each: who asks more often gets the last one.

A scraper, however often it asks, costs the server's loop no more than one collection a second, and that in slices.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from mcserver.observe import metrics
from mcserver.observe.snapshot import Snapshots

if TYPE_CHECKING:
    from mcserver.admin.context import Context

FRESH_SECONDS = 0.9
SLICE_SECONDS = 0.0002
"""How long a collection works before clients have their turn."""
TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """Status, type of the content, content; and what a browser may load for it, besides nothing."""

    status: int
    kind: str
    body: bytes
    policy: str = ""


def policy_of(page: bytes) -> str:
    """Its own script and style by their hashes, its own figures, an icon in itself; nothing else."""

    def source(tag: bytes) -> str:
        text = page.partition(b"<%s>" % tag)[2].partition(b"</%s>" % tag)[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"

    return f"; script-src {source(b'script')}; style-src {source(b'style')}; connect-src 'self'; img-src data:"


PAGE = files("mcserver.observe").joinpath("page.html").read_bytes()
"""Read when this is loaded: the user that the server becomes may not be able to."""


class Answers:
    """What stands behind each path."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._snapshots = Snapshots(context)
        self._page = Answer(200, "text/html; charset=utf-8", PAGE, policy_of(PAGE))
        self._figures_kept: tuple[float, Answer] | None = None
        self._metrics_kept: tuple[float, asyncio.Task[Answer]] | None = None
        self.ending = False
        """Set when the server takes no further connections: it is alive, but not ready."""
        self.watched = 0.0
        """When somebody last asked for the page's figures, on the monotonic clock."""
        self._paths: dict[str, Callable[[], Answer]] = {
            "/": lambda: self._page,
            "/healthz": lambda: Answer(200, TEXT, b"ok\n"),
            "/readyz": self._ready,
            "/figures.json": self._figures,
        }

    def latency(self, seconds: float | None) -> None:
        """What a round trip through the server's own port took last; None: there is none to be had."""
        self._snapshots.latency = seconds

    async def answer(self, path: str) -> Answer:
        """404 for a path that is not there."""
        if path == "/metrics":
            return await self._metrics()
        make = self._paths.get(path)
        return make() if make else Answer(404, TEXT, b"there is /, /metrics, /healthz and /readyz\n")

    async def _metrics(self) -> Answer:
        now = time.monotonic()
        if self._metrics_kept is None or now - self._metrics_kept[0] > FRESH_SECONDS:
            self._metrics_kept = now, asyncio.get_running_loop().create_task(self._collect(), name="metrics")
        return await asyncio.shield(self._metrics_kept[1])

    async def _collect(self) -> Answer:
        """In slices: between two of them clients have their turn."""
        parts: list[bytes] = []
        began = time.perf_counter()
        for piece in metrics.pieces(self._context):
            parts.append(piece)
            if time.perf_counter() - began > SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
        return Answer(200, "text/plain; version=0.0.4; charset=utf-8", b"".join(parts))

    def _figures(self) -> Answer:
        self.watched = now = time.monotonic()
        if self._figures_kept is None or now - self._figures_kept[0] > FRESH_SECONDS:
            body = json.dumps(self._snapshots.take()).encode()
            self._figures_kept = now, Answer(200, "application/json", body)
        return self._figures_kept[1]

    def _ready(self) -> Answer:
        why = self._why_not_ready()
        return Answer(503 if why else 200, TEXT, f"{why or 'ready'}\n".encode())

    def _why_not_ready(self) -> str:
        if self.ending:
            return "it ends"
        if not self._context.network.accepting:
            return "it accepts no connections: -c is reached, or no descriptor is left"
        if self._context.network.full:
            return "it refuses connections: -c is reached"
        if self._context.cluster is not None:
            figures = self._context.cluster.stats()
            if figures.get("stale"):
                return f"the cache is not proved fresh: {figures.get('why') or figures.get('session')}"
            if figures.get("state") != "ready":
                return f"its state in the fleet is {figures.get('state')}"
        return ""
