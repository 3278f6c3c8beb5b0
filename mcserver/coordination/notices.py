"""What coordination puts into the log: a line for each change of state, never a flood. It changes nothing.

An ensemble that flaps changes state many times a minute: of more than a few lines in a row on one subject the rest is
counted, and the count told with the next line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from .ports import Member

log = logging.getLogger("mcserver.coordination")

SOME = 16  # addresses in one line
BURST = 4  # lines on one subject at once, then
REFILL = 5.0  # seconds for one more


def _some(addresses: Sequence[str], without: Sequence[str]) -> str:
    """Those that are not among the others; of many the first few."""
    wanted = [address for address in addresses if address not in set(without)]
    text = ", ".join(wanted[:SOME]) or "none"
    return f"{text} and {len(wanted) - SOME} more" if len(wanted) > SOME else text


class Allowance:
    """How many lines a subject may still have, and how many were left out."""

    def __init__(self, now: float) -> None:
        self.lines, self.since, self.left_out = float(BURST), now, 0


class Notices:
    """Knows what it showed last, so that nothing is said twice."""

    def __init__(self, policy: str, max_stale: float, join: str, clock: Callable[[], float] = time.monotonic) -> None:
        """The policies are those of --on-stale and --join; `clock` in seconds."""
        self._policy, self._max_stale, self._join, self._clock = policy, max_stale, join, clock
        self._stats: Callable[[], Mapping[str, int | float | str]] = dict
        self._members: Callable[[], tuple[int, list[Member]]] = lambda: (0, [])
        self._leader: Callable[[], str | None] = lambda: None
        self._shown: dict[str, object] = {}
        self._allowances: dict[str, Allowance] = {}
        self._certified = False
        self._addresses: list[str] | None = None  # of the members, as last seen
        self._broken_at: float | None = None

    def attach(
        self,
        stats: Callable[[], Mapping[str, int | float | str]],
        members: Callable[[], tuple[int, list[Member]]],
        leader: Callable[[], str | None],
    ) -> None:
        """Where to look when something has changed."""
        self._stats, self._members, self._leader = stats, members, leader

    def changed(self, kind: str) -> None:
        """`Coordinator.on_change` calls it with members, leader, state, stale, fresh or alarm (which logs itself)."""
        if kind == "state":
            self._session()
        elif kind == "members":
            self._fleet(sorted(member.address for member in self._members()[1]))
        elif kind == "leader":
            leader = self._leader()
            self._show("leader", leader, f"leader: {leader or 'none'}")
        elif kind in {"stale", "fresh"}:
            self._gate(kind)

    def _fleet(self, addresses: list[str]) -> None:
        before: list[str] = self._addresses or []
        news = (
            [f"joined: {_some(addresses, before)}"]
            if set(addresses) - set(before) and self._addresses is not None
            else []
        )
        news += [f"left: {_some(before, addresses)}"] if set(before) - set(addresses) else []
        self._addresses = addresses
        text = f"members: {len(addresses)} ({_some(addresses, ())})"
        self._show("members", addresses, "; ".join([text, *news]))

    def unreachable(self, tried: str) -> None:
        """`tried` says of each server what came of it."""
        self._say("unreachable", logging.WARNING, f"ZooKeeper can't be used: {tried}; trying on. {self._consequence()}")

    def _consequence(self) -> str:
        if self._policy == "serve":
            return "Without ZooKeeper this server serves as if it were fresh, without any guarantee."
        answer = {"miss": "answers as if it were empty", "error": "answers SERVER_ERROR stale"}[self._policy]
        if self._certified:
            return f"{self._max_stale:g} s after its last proof of being fresh this server {answer}."
        if self._join == "serve":
            return "Until it has joined, this server serves without any guarantee (--join serve)."
        return f"Until it has joined, this server {answer}."

    def _session(self) -> None:
        stats = self._stats()
        state = str(stats["session"])
        text, level = f"ZooKeeper: session {state}", logging.WARNING
        if state == "connected":
            level, text = logging.INFO, f"ZooKeeper: connected to {stats['server']}, session {stats['session_id']}"
            if "session_timeout_ms" in stats:
                text += f", which ends {float(stats['session_timeout_ms']) / 1000:g} s after the last contact"
            if self._broken_at is not None:
                text += f", {self._clock() - self._broken_at:.1f} s after the connection was lost"
            self._broken_at = None
        elif self._broken_at is None:
            self._broken_at = self._clock()
            text = f"ZooKeeper: connection lost. {self._consequence()}"
        self._show("session", (state, stats["server"], stats["session_id"]), text, level)

    def _gate(self, kind: str) -> None:
        if kind == "fresh":
            self._certified = True
            self._show("gate", kind, "fresh: all invalidations are applied")
        elif self._certified:
            self._show("gate", kind, f"stale: no proof of being fresh for {self._max_stale:g} s. This server "
                       + {"miss": "answers as if it were empty", "error": "answers SERVER_ERROR stale",
                          "serve": "serves all the same, without any guarantee"}[self._policy], logging.WARNING)  # fmt: skip

    def _show(self, subject: str, value: object, text: str, level: int = logging.INFO) -> None:
        if self._shown.get(subject) != value:
            self._shown[subject] = value
            self._say(subject, level, text)

    def _say(self, subject: str, level: int, text: str) -> None:
        now = self._clock()
        allowance = self._allowances.setdefault(subject, Allowance(now))
        allowance.lines = min(float(BURST), allowance.lines + (now - allowance.since) / REFILL)
        allowance.since = now
        if allowance.lines < 1:
            allowance.left_out += 1
            return
        allowance.lines -= 1
        if allowance.left_out:
            text += f" ({allowance.left_out} changes before this one were not shown)"
            allowance.left_out = 0
        log.log(level, "%s", text)
