"""The certificate: since when this cache is known to be fresh, and what the cache may do without one.

A certificate is the time at which a round began: whatever was committed before that time has been applied. The gate itself is
in the cache, which compares its own clock with `fresh_until` once for each batch of commands, after it has read them: a timer
would be too late after a pause of the process.
"""

from __future__ import annotations

from .context import Context
from .ports import SECOND


class Gate:
    """Owns `fresh`. The only one that calls `cache.set_gate`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._max_stale = int(context.settings.max_stale * SECOND)
        self._shown: bool | None = None
        self.fresh: int | None = None

    def close(self) -> None:
        """No certificate yet, or no more: the policy holds from now on."""
        self.fresh = None
        self._context.cache.set_gate(self._context.settings.on_stale, 0)

    def open_until_certified(self) -> None:
        """Serves without any certificate until the first (`--join serve`): no guarantee holds until then."""
        self._context.cache.set_gate(None)

    def certify(self, began: int) -> None:
        """A round that began at `began` has applied all of the log."""
        self.fresh = began
        self._context.cache.set_gate(self._context.settings.on_stale, began + self._max_stale)
        self._context.trace("certified", began)

    @property
    def fresh_age(self) -> float:
        """Seconds since the last certificate; -1 without one."""
        return -1.0 if self.fresh is None else (self._context.now() - self.fresh) / SECOND

    @property
    def is_stale(self) -> bool:
        return self.fresh is None or self._context.now() > self.fresh + self._max_stale

    async def watch(self) -> None:
        """Reports when the gate closes and opens; it has no part in either."""
        while True:
            stale = self.is_stale
            if stale is not self._shown:
                self._shown = stale
                self._context.changed("stale" if stale else "fresh")
            await self._context.sleep(self._context.settings.max_stale / 8)
