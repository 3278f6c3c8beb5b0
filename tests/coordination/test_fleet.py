"""Held replies and locked writes, with a real engine and a coordinator whose confirmations the test gives by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from mcserver.coordination.fleet import Fleet
from mcserver.coordination.notices import Notices
from mcserver.coordination.ports import Change, Level, LockLost, Member, MemberFigures, NotConfirmed
from mcserver.core import Engine, Session

NOT_CONFIRMED = b"SERVER_ERROR invalidation not confirmed\r\n"


class ByHand:
    """A coordinator: keeps what it is told, and the futures of those who wait."""

    def __init__(self) -> None:
        self.told: list[tuple[Change, Level]] = []
        self.waiting: list[asyncio.Future[int]] = []
        self.locks: list[tuple[bytes, Callable[[], None], asyncio.Future[None]]] = []
        self.left = False

    def place(self) -> dict[str, Any] | None:
        return None

    def resume(self, place: Mapping[str, Any] | None) -> None: ...

    def start(self) -> None: ...

    def level(self, key: bytes) -> Level:
        return {b"a:": Level.APPLIED, b"n:": Level.ASYNC}.get(key[:2], Level.COMMITTED)

    def submit(self, changes: Sequence[Change], level: Level) -> Awaitable[int] | None:
        for change in changes:
            if change.key.startswith(b"bad"):
                raise ValueError("can't be told")
            self.told.append((change, level))
        if self.left:
            failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            failed.set_exception(NotConfirmed("left"))
            return failed
        return None if level is Level.ASYNC else self._wait()

    def _wait(self) -> asyncio.Future[int]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def locked(self, key: bytes, write: Callable[[], None]) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.locks.append((key, write, future))
        return future

    def flush(self, prefix: bytes = b"") -> Awaitable[int]:
        if prefix.startswith(b"bad"):
            raise ValueError("can't be told")
        self.told.append((Change("prefix", prefix), Level.APPLIED))
        return self._wait()

    def refresh(self, prefix: bytes, ttl: int) -> Awaitable[int]:
        self.told.append((Change("refresh", prefix, ttl), Level.APPLIED))
        return self._wait()

    async def leave(self, seconds: float) -> None:
        self.left = True

    def members(self) -> tuple[int, list[Member]]:
        return 1, []

    def discovery(self) -> tuple[int, list[str]]:
        return 1, []

    def figures(self) -> tuple[float, list[MemberFigures]]:
        return -1.0, []

    def leader(self) -> str | None:
        return None

    def stats(self) -> dict[str, int | float | str]:
        return {}

    def on_change(self, callback: Callable[[str], None]) -> None: ...

    async def confirm(self, *which: int) -> None:
        for number in which or range(len(self.waiting)):
            self.waiting[number].set_result(7)
        await asyncio.sleep(0)

    async def fail(self, number: int) -> None:
        self.waiting[number].set_exception(NotConfirmed)
        await asyncio.sleep(0)


class Owner:
    """A session's owner, with the fleet where a server has it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def command(self, session: Session, line: bytes) -> bytes:
        words = line.split()
        session.event(" ".join(word.decode() for word in words[:2]), b"".join(words[2:3]))
        return b"OK\r\n"

    def events(self, session: Session, events: list[tuple[str, bytes, int, int]]) -> bool:
        return self.fleet.events(session, events)

    def lock(self, session: Session, key: bytes) -> None:
        self.fleet.lock(session, key)

    def closed(self, session: Session, reason: str) -> None:
        self.fleet.closed(session)

    def interest(self, session: Session, read: bool, write: bool) -> None: ...

    def later(self, session: Session) -> None: ...

    def trace(self, session: Session | None, text: bytes) -> None: ...


class Bench:
    """An engine, a fleet and sessions."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.broadcast(True, (b"w:",))
        self.engine.lock_prefixes((b"l:",))
        self.hand = ByHand()
        self.fleet = Fleet(self.hand, Notices("miss", 10, "wait"))
        self.owner = Owner(self.fleet)

    def session(self) -> Session:
        return Session(self.engine, self.owner)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_delete_waits_for_its_confirmation(bench: Bench) -> None:
    session, other = bench.session(), bench.session()
    assert session.feed(b"set k 0 0 1\r\nx\r\nget k\r\ndelete k\r\nget k\r\n") == (
        b"STORED\r\nVALUE k 0 1\r\nx\r\nEND\r\n"
    )
    assert other.feed(b"get k\r\n") == b"END\r\n", "deleted here at once, and others go on"
    assert session.feed(b"get other\r\n") == b"", "its own input waits"
    assert bench.hand.told == [(Change("delete", b"k"), Level.COMMITTED)]
    assert bench.fleet.stats()["held_replies"] == 1
    await bench.hand.confirm()
    assert session.drain() == b"DELETED\r\nEND\r\nEND\r\n"
    assert bench.fleet.stats()["held_replies"] == 0


async def test_a_delete_that_is_not_confirmed(bench: Bench) -> None:
    session = bench.session()
    assert session.feed(b"get x\r\ndelete a:k\r\ndelete k\r\nget y\r\n") == b"END\r\n"
    await bench.hand.confirm(0)
    assert session.drain() == b"", "the other one is missing"
    await bench.hand.fail(1)
    assert session.drain() == b"NOT_FOUND\r\n" + NOT_CONFIRMED + b"END\r\n"


async def test_nobody_waits_for_async_or_noreply(bench: Bench) -> None:
    session = bench.session()
    assert session.feed(b"delete n:k\r\ndelete k noreply\r\nget k\r\n") == b"NOT_FOUND\r\nEND\r\n"
    assert bench.hand.told == [(Change("delete", b"n:k"), Level.ASYNC), (Change("delete", b"k"), Level.ASYNC)]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (b"delete k", Change("delete", b"k")),
        (b"md k", Change("delete", b"k")),
        (b"md k I T30", Change("stale", b"k", 30)),
        (b"md k x", Change("delete", b"k")),
        (b"md k I T-1", Change("delete", b"k")),
        (b"flush_all 2592000", Change("flush", b"", 2592000)),
        (b"flush_all", Change("flush")),
        (b"flush_all 10", Change("flush", b"", 10)),
        (b"set w:k 0 0 1\r\nx", Change("delete", b"w:k")),
        (b"ms w:k 1\r\nx", Change("delete", b"w:k")),
        (b"set k 0 0 1\r\nx", None),
        (b"add k 0 0 1\r\nx", None),
        (b"md k C99", None),
        (b"mg k N30", None),
        (b"get k", None),
    ],
)
async def test_what_the_peers_are_told(bench: Bench, command: bytes, told: Change | None) -> None:
    session = bench.session()
    session.feed(b"set k 0 0 1\r\nx\r\n")
    session.feed(command + b"\r\n")
    assert [change for change, _ in bench.hand.told] == ([] if told is None else [told])


async def test_md_with_c_is_told_only_when_it_succeeds(bench: Bench) -> None:
    session = bench.session()
    session.feed(b"set k 0 0 1\r\nx\r\n")
    cas = session.feed(b"mg k c\r\n").split()[1][1:]
    session.feed(b"md k C%s\r\n" % cas)
    assert [change for change, _ in bench.hand.told] == [Change("delete", b"k")]


async def test_a_client_that_goes_takes_nothing_back(bench: Bench) -> None:
    session = bench.session()
    session.feed(b"delete k\r\n")
    session.close()
    assert bench.fleet.stats()["held_replies"] == 0
    await bench.hand.confirm()


async def test_a_locked_write_has_no_effect_before_its_lock(bench: Bench) -> None:
    session, other = bench.session(), bench.session()
    assert session.feed(b"set l:k 0 0 1\r\nx\r\nget l:k\r\n") == b""
    assert other.feed(b"get l:k\r\n") == b"END\r\n"
    ((key, write, future),) = bench.hand.locks
    assert key == b"l:k"
    write()
    future.set_result(None)
    assert session.drain() == b"STORED\r\nVALUE l:k 0 1\r\nx\r\nEND\r\n"


async def test_a_lost_lock_means_no_effect(bench: Bench) -> None:
    session = bench.session()
    assert session.feed(b"set l:k 0 0 1\r\nx\r\nget l:k\r\n") == b""
    bench.hand.locks[0][2].set_exception(LockLost)
    await asyncio.sleep(0)
    assert session.drain() == b"SERVER_ERROR lock lost\r\nEND\r\n"


async def test_cluster_commands_wait_like_deletes(bench: Bench) -> None:
    session = bench.session()
    assert session.feed(b"cluster flush p:\r\nget x\r\n") == b""
    await bench.hand.confirm()
    assert session.drain() == b"OK\r\nEND\r\n"
    assert session.feed(b"cluster refresh p:\r\n") == b""
    await bench.hand.fail(1)
    assert session.drain() == NOT_CONFIRMED
    assert [change.kind for change, _ in bench.hand.told] == ["prefix", "refresh"]


async def test_leaving_answers_everybody(bench: Bench) -> None:
    session, leaver = bench.session(), bench.session()
    session.feed(b"delete k\r\n")
    assert leaver.feed(b"cluster leave\r\n") == b""
    await bench.fleet.leave()
    await asyncio.sleep(0)
    assert bench.hand.left
    assert session.drain() == NOT_CONFIRMED
    assert leaver.drain() == b"OK\r\n"


async def test_after_leaving_a_delete_is_confirmed_at_no_level(bench: Bench) -> None:
    session = bench.session()
    await bench.fleet.leave()
    for key in (b"n:k", b"k", b"a:k"):
        session.feed(b"delete %s noreply\r\ndelete %s\r\nget x\r\n" % (key, key))
        for _ in range(3):
            await asyncio.sleep(0)
        assert session.drain() == NOT_CONFIRMED + b"END\r\n"
    session.feed(b"delete n:k noreply\r\n")
    await asyncio.sleep(0)
    assert session.feed(b"get x\r\n") == b"END\r\n"


async def test_a_command_that_cannot_be_told_fails_and_the_rest_is_told(bench: Bench) -> None:
    session = bench.session()
    session.feed(b"delete a:1\r\nget x\r\ncluster flush bad\r\ndelete a:2\r\ndelete n:3\r\n")
    assert [change.key for change, _ in bench.hand.told] == [b"a:1"], (
        "a command of the server's waits for what is before it"
    )
    for number in range(2):
        await bench.hand.confirm(number)
        for _ in range(3):
            await asyncio.sleep(0)
    assert [change.key for change, _ in bench.hand.told] == [b"a:1", b"a:2", b"n:3"]
    assert session.drain() == b"NOT_FOUND\r\nEND\r\n" + NOT_CONFIRMED + b"NOT_FOUND\r\nNOT_FOUND\r\n"
    assert bench.fleet.stats()["held_replies"] == 0
    assert session.feed(b"get x\r\n") == b"END\r\n", "the connection is in step"


async def test_what_cannot_be_told_fails_its_batch_and_the_rest_is_told(bench: Bench) -> None:
    session = bench.session()
    session.feed(b"delete a:1\r\nget x\r\ndelete bad\r\ndelete a:2\r\ndelete n:3\r\n")
    assert {(b"a:1"), (b"a:2"), (b"n:3")} <= {change.key for change, _ in bench.hand.told}
    await bench.hand.confirm()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert session.drain() == NOT_CONFIRMED + b"END\r\n" + 3 * NOT_CONFIRMED
    assert bench.fleet.stats()["held_replies"] == 0
    assert session.feed(b"get x\r\n") == b"END\r\n", "the connection is in step"


async def test_an_absolute_time_of_flush_all_is_told_as_a_delay(bench: Bench) -> None:
    session = bench.session()
    session.feed(b"flush_all %d\r\n" % (int(time.time()) + 100))
    ((change, _),) = bench.hand.told
    assert 97 <= change.ttl <= 100
    session = bench.session()
    session.feed(b"flush_all 2592001\r\n")  # a second of 1970
    assert bench.hand.told[-1][0] == Change("flush")


async def test_md_x_voids_the_lease_where_it_is_sent(bench: Bench) -> None:
    bench.engine.broadcast(True, ())
    session = bench.session()
    cas = session.feed(b"mg a:k N30 c\r\n").split()[1][1:]
    assert session.feed(b"md a:k x q\r\n") == b""
    await bench.hand.confirm()
    session.drain()
    assert session.feed(b"ms a:k 3 C%s\r\nold\r\n" % cas) == b"EX\r\n"
