"""What a cold command is given: the engine, the settings in force, and what the server shows. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from mcserver.admin.settings import Settings
    from mcserver.admin.watchers import Watchers
    from mcserver.config import Config
    from mcserver.coordination.ports import Member, MemberFigures
    from mcserver.core import Engine, Session

Reply = bytes | Iterator[bytes] | None
"""All of a reply (b"" for none); or its pieces, of at most 64 KiB each; or None: this is no command."""

Command = Callable[["Context", "Session", list[bytes]], Reply]
"""A command gets the words of its line, the verb first, at least one."""


class Figures:
    """What the server counts, and the engine doesn't. Names are those of `stats`."""

    def __init__(self) -> None:
        self.total_connections = 0
        self.rejected_connections = 0
        self.idle_kicks = 0
        self.listen_disabled_num = 0
        self.time_in_listen_disabled_us = 0
        self.wrong_protocol = 0
        """Connections that spoke what is not spoken here: HTTP, TLS or none of it, Redis's protocol, one that -B switched off."""
        self.ssl_new_sessions = 0
        self.ssl_handshake_errors = 0
        self.ssl_proto_errors = 0

        self.udp_requests = 0
        """Datagrams that came."""
        self.udp_dropped = 0
        """Those of them that were no request, or came from another server's port, and were not answered."""

    def reset(self) -> None:
        """`stats reset`: every figure here is a counter."""
        vars(self).update(vars(Figures()))


class Socket(NamedTuple):
    """One open socket, as `stats conns` shows it. `listen_addr` is "" for a listener."""

    fd: int
    addr: str
    listen_addr: str
    state: str
    resps_waiting: int
    secs_since_last_cmd: int
    udp: bool = False


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
        """Version of the list (rises with each change) and the live servers, by name."""

    def figures(self) -> tuple[float, list[MemberFigures]]:
        """Seconds since everybody's figures were read here (-1: not yet), and those, by name; has them read again."""

    def leader(self) -> str | None:
        """The leader's name, as last seen."""


class Context:
    """One for each server; every command gets it."""

    def __init__(
        self,
        *,
        config: Config,
        engine: Engine,
        network: Network,
        watchers: Watchers,
        settings: Settings,
        loop: str,
        cluster: Cluster | None = None,
    ) -> None:
        """loop: name and version of the event loop, without a space."""
        self.config = config
        self.engine = engine
        self.network = network
        self.watchers = watchers
        self.settings = settings
        self.loop = loop
        self.cluster = cluster
