"""A command that closes its own session (shutdown does) must leave the buffers that are being worked on alone."""

from mcserver.core import Engine, Session


class ClosingOwner:
    """Closes the session on every cold command."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def command(self, session: Session, line: bytes) -> bytes:
        session.close("shutdown")
        return b""

    def interest(self, session: Session, read: bool, write: bool) -> None: ...

    def closed(self, session: Session, reason: str) -> None:
        self.reasons.append(reason)

    def later(self, session: Session) -> None: ...


def test_a_command_closes_its_own_session_in_the_middle_of_kept_input() -> None:
    engine, owner = Engine(manual_clock=True), ClosingOwner()
    session = Session(engine, owner)  # type: ignore[arg-type]  # all that is asked of one
    session.feed(b"set big 0 0 70000\r\n" + b"x" * 70000 + b"\r\n")
    session.limit(0)
    session.feed(b"get big\r\n" + b"mn\r\n" * 100 + b"shutdown\r\n" + b"get big\r\n" * 1000)
    session.limit(None)  # the input that was kept runs now, out of the session's own buffer
    assert owner.reasons == ["shutdown"]
    session.drain()  # what was answered before
    assert session.feed(b"mn\r\n") == b""
