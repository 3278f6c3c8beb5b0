"""What the cold commands are given by others: the server's sockets, and the fleet. For the type checker alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mcserver.admin.figures import Figures, Socket
    from mcserver.coordination.ports import Member, MemberFigures
    from mcserver.core import Session


class Network(Protocol):
    """The server's sockets, as the cold commands see them."""

    @property
    def figures(self) -> Figures:
        """What the server counts, brought up to date."""

    @property
    def connections(self) -> int:
        """Open sockets: clients and listeners."""

    @property
    def most_connections(self) -> int:
        """The most that were open at once."""

    @property
    def reserved_descriptors(self) -> int:
        """Descriptors that the process holds beside its sockets."""

    @property
    def log_lines_lost(self) -> int:
        """Lines of the log that were not written: dropped, or counted as repetitions."""

    @property
    def accepting(self) -> bool:
        """False while the listeners are paused because of -c."""

    @property
    def full(self) -> bool:
        """Whether there are as many clients as -c allows: with maxconns_fast further ones are refused by a line."""

    @property
    def certificate_seconds(self) -> int:
        """How long ago the certificates of TLS were read."""

    def refresh_certificates(self) -> str:
        """Reads the certificates of TLS again, for new connections. Returns "", or why they stay as they are."""

    def sockets(self, asking: Session) -> Iterator[Socket | None]:
        """Listeners and clients, by descriptor; the one that asks is in the middle of a command. None: others have their turn."""

    def stop(self, *, graceful: bool) -> None:
        """Ends the server soon, as SIGINT does, or SIGUSR1."""


class Cluster(Protocol):
    """What the server asks of coordination, when ZooKeeper is configured; without it there is none of this."""

    def start(self) -> None:
        """Joins in the background, on the running loop."""

    def place(self) -> dict[str, Any] | None:
        """Where the cache stands in what the peers tell each other, for the process that serves it next (-e)."""

    def resume(self, place: Mapping[str, Any] | None) -> None:
        """Before start: the cache has what another process left there; it is served when it is proved fresh, or flushed."""

    async def leave(self) -> None:
        """Drains what is queued for the peers, then leaves. Called when no further command is taken."""

    def events(self, session: Session | None, events: list[tuple[str, bytes, int, int]]) -> bool:
        """What a batch changed (None: it isn't known who changed it; nothing waits).

        True holds its replies until `session.release` (docs/architecture.md).
        """

    def lock(self, session: Session, key: bytes) -> None:
        """A write under a locked prefix waits for `session.grant` or `session.refuse`."""

    def closed(self, session: Session) -> None:
        """The session is gone: nothing is to be released or granted any more."""

    def stats(self) -> dict[str, int | float | str]:
        """The figures of `stats cluster`."""

    def members(self) -> tuple[int, list[Member]]:
        """Version of the list (rises with each change) and the live servers, by name, as last seen."""

    def discovery(self) -> tuple[int, list[str]]:
        """The version, and the addresses of its list, by name: the same at every server that tells this version."""

    def figures(self) -> tuple[float, list[MemberFigures]]:
        """Seconds since everybody's figures were read here (-1: not yet), and those, by name; has them read again."""

    def leader(self) -> str | None:
        """The leader's name, as last seen."""
