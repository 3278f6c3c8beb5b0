"""One epoll for all connections, which the event loop watches as a single descriptor. It only says who can read or write.

Why not the loop's own add_reader for each connection: with uvloop a connection that is reset never tells its reader, so it
would stay for ever; and a handle for each connection costs memory and time.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcserver.core import Session

EVENTS_A_TURN = 256
"""Connections served before the loop's other work gets its turn."""


class Poller:
    """Level-triggered. A session with neither interest is not watched at all: its end would wake the loop again and again."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sessions: dict[int, Session] = {}

    def fileno(self) -> int:
        """What the loop is to watch; `turn` is to be called when it can be read."""
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def interest(self, session: Session, read: bool, write: bool) -> None:
        """From now on waits for these; both False: for nothing."""
        fd = session.fd
        events = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
        if not events:
            self.remove(session)
        elif fd in self._sessions:
            self._epoll.modify(fd, events)
        else:
            self._sessions[fd] = session
            self._epoll.register(fd, events)

    def remove(self, session: Session) -> None:
        """To be called before the descriptor is closed."""
        if self._sessions.pop(session.fd, None) is not None:
            self._epoll.unregister(session.fd)

    def turn(self) -> None:
        """Serves those that are ready. An error or the other end's leaving shows when the session reads or writes."""
        sessions = self._sessions
        for fd, events in self._epoll.poll(0, EVENTS_A_TURN):
            session = sessions.get(fd)
            if session is None:  # closed by one that was served before it
                continue
            if events & select.EPOLLOUT:
                session.writable()
            elif events & select.EPOLLIN:
                session.readable()
            else:  # an error, or both directions are closed: whichever is waited for will see it
                session.writable() if session.state == "conn_mwrite" else session.readable()
