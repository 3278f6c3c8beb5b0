"""Workers: threads that serve connections, beside a Python thread that answers their letters and acts on the engine."""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mcserver.core import Engine, Session, Workers
from tests.core.harness import MIB, Event
from tests.core.threaded import Owner
from tests.serving import eventually

LETTERS_A_TURN = 200
"""As workers.pxi has it."""


@pytest.fixture(params=[1, 4])
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    with Owner(Engine(), request.param) as owner:
        yield owner


def test_connections_share_one_cache(owner: Owner) -> None:
    peers = [owner.connect() for _ in range(9)]
    for number, peer in enumerate(peers):
        assert peer.ask(b"set k%d 0 0 2\r\nv%d" % (number, number)) == b"STORED\r\n"
    for peer in peers:
        assert peer.ask(b"get " + b" ".join(b"k%d" % number for number in range(9)), b"END\r\n").count(b"VALUE") == 9
    assert owner.workers.clients == 9
    assert {state for _, state, _, _ in sockets(owner.workers)} == {"conn_read"}
    for peer in peers:
        peer.sock.close()
    eventually(lambda: owner.workers.clients == 0)
    assert owner.engine.stats()["bytes_read"] > 0
    assert owner.closes == [], "Python hears only of connections with which it had to do"


@pytest.mark.parametrize(
    "sizes", [(100_000, 100_000, 10, 200_000, 70_000, 5, 5, 63_500), (64_000, 2_040, 63_400, 65_536, 1, 900_000)]
)
@pytest.mark.parametrize("step", [0, 2_048, 40_000])
def test_long_values_and_short_ones_in_turn(owner: Owner, sizes: tuple[int, ...], step: int) -> None:
    """After a long value little is read before the next one's place is known; whatever comes instead stays in step."""
    peer = owner.connect()
    values = [bytes([65 + at % 26]) * size for at, size in enumerate(sizes * 2)]
    requests = [b"set k%d 0 0 %d\r\n%b\r\n" % (at, len(value), value) for at, value in enumerate(values)]
    few = min(range(3), key=sizes.__getitem__)
    requests[3:3] = [b"get k%d\r\n" % few * 500 + b"mn\r\n"]
    for request in requests:
        for at in range(0, len(request), step or len(request)):
            peer.send(request[at : at + (step or len(request))])
        if request.startswith(b"get"):
            assert (
                peer.until(b"MN\r\n")
                == (b"VALUE k%d 0 %d\r\n%b\r\nEND\r\n" % (few, sizes[few], values[few])) * 500 + b"MN\r\n"
            )
        else:
            assert peer.until(b"\r\n") == b"STORED\r\n"
    peer.send(b"".join(requests[:3] + requests[4:]))
    assert peer.until(b"\r\n") * len(values) == b"".join(peer.until(b"\r\n") for _ in values[1:]) + b"STORED\r\n"
    for at, value in enumerate(values):
        assert peer.ask(b"get k%d" % at, b"END\r\n") == b"VALUE k%d 0 %d\r\n%b\r\nEND\r\n" % (at, len(value), value)


def test_cold_commands_keep_their_place_and_others_go_on(owner: Owner) -> None:
    release = threading.Event()

    def slow(_session: Session, _line: bytes) -> bytes:
        release.wait(60)
        return b"SLOW\r\n"

    owner.commands[b"slow"] = slow
    owner.commands[b"many"] = lambda _session, _line: (b"line %d\r\n" % number for number in range(300))
    peer, other = owner.connect(), owner.connect()
    peer.send(b"set a 0 0 1\r\n1\r\nslow\r\nget a\r\nmany\r\nbogus\r\nmn\r\n")
    assert peer.until(b"STORED\r\n")
    assert other.ask(b"get a", b"END\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n", "while Python is busy"
    release.set()
    lines = b"".join(b"line %d\r\n" % number for number in range(300))
    assert peer.until(b"MN\r\n") == b"SLOW\r\nVALUE a 0 1\r\n1\r\nEND\r\n" + lines + b"ERROR\r\nMN\r\n"


def test_events_come_in_the_order_in_which_they_happened(owner: Owner) -> None:
    """Each counts up a key before it deletes the other's: what was told must fit some order of what the counter said."""
    owner.engine.broadcast(True, (b"n",))
    peers = [owner.connect() for _ in range(4)]
    peers[0].ask(b"set n 0 0 1\r\n0")
    values: list[list[int]] = [[] for _ in peers]

    def work(number: int) -> None:
        for _ in range(100):
            peers[number].send(b"delete d%d\r\nincr n 1\r\ndelete e%d\r\n" % (number, number))
            peers[number].until(b"FOUND\r\n")
            values[number].append(int(peers[number].until(b"\r\n")))
            peers[number].until(b"FOUND\r\n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*values)) == list(range(1, 401))
    eventually(lambda: len(owner.told) == 1 + 4 * 300)
    counts = dict.fromkeys(range(4), 0)
    order = []
    for kind, key, _, _ in owner.told[1:]:
        if kind == "delete" and key.startswith(b"d"):
            number = int(key[1:])
            order.append(values[number][counts[number]])
            counts[number] += 1
    assert order == sorted(order), "a batch's events are told before those of a batch that ran later"


def test_held_replies_wait_and_others_do_not(owner: Owner) -> None:
    owner.engine.broadcast(True)
    owner.hold = True
    waiting: list[Session] = []
    owner.on_events = lambda session, events: waiting.append(session)
    peer, other = owner.connect(), owner.connect()
    peer.send(b"mn\r\ndelete a\r\nget a\r\nmd b\r\n")
    assert peer.until(b"MN\r\n")
    eventually(lambda: waiting)
    assert other.ask(b"mn") == b"MN\r\n"
    owner.do(lambda: waiting[0].release({3: b"SERVER_ERROR no"}))
    assert peer.until(b"no\r\n") == b"NOT_FOUND\r\nEND\r\nSERVER_ERROR no\r\n"


def test_a_granted_write_has_taken_effect_when_grant_returns(owner: Owner) -> None:
    owner.engine.lock_prefixes((b"l:",))
    peer = owner.connect()
    for number in range(50):
        peer.send(b"mn\r\nset l:k 0 0 2\r\n%02d\r\nmn\r\n" % number)
        eventually(lambda number=number: len(owner.locks) == number + 1)
        session, key = owner.locks[-1]
        assert key == b"l:k"
        seen: list[bool] = []

        def grant(session: Session = session, seen: list[bool] = seen) -> None:
            session.grant()
            seen.append(owner.engine.delete(b"l:k"))

        owner.do(grant)
        eventually(lambda seen=seen: seen)
        assert seen == [True]
        assert peer.until(b"STORED\r\nMN\r\n") == b"MN\r\nSTORED\r\nMN\r\n"


def test_a_lock_is_asked_for_when_nothing_else_keeps_the_connection(owner: Owner) -> None:
    """Else its write could take effect long after the lock was there."""
    owner.engine.lock_prefixes((b"l:",))
    owner.engine.broadcast(True)
    owner.hold = True
    waiting: list[Session] = []
    owner.on_events = lambda session, events: waiting.append(session)
    peer = owner.connect()
    peer.send(b"delete a\r\nset l:k 0 0 1\r\n1\r\n")
    eventually(lambda: waiting)
    time.sleep(0.05)
    assert owner.locks == []
    owner.do(waiting[0].release)
    eventually(lambda: owner.locks)
    owner.do(lambda: owner.locks[0][0].refuse(b"SERVER_ERROR lock lost"))
    assert peer.until(b"lost\r\n") == b"NOT_FOUND\r\nSERVER_ERROR lock lost\r\n"


def test_what_is_pushed_and_who_watches(owner: Owner) -> None:
    watching: list[Session] = []

    def watch(session: Session, _line: bytes) -> bytes:
        session.watch()
        watching.append(session)
        return b"OK\r\n"

    owner.commands[b"watch"] = watch
    peer = owner.connect()
    assert peer.ask(b"watch") == b"OK\r\n"
    taken: list[int] = []
    owner.do(lambda: taken.append(watching[0].push(b"x" * 4_000_000)))
    owner.do(lambda: taken.append(watching[0].push(b"more")))
    eventually(lambda: len(taken) == 2)
    assert taken == [4_000_000, 0], "one at a time"
    left = 4_000_000
    while left:
        left -= len(peer.sock.recv(left))

    def pushed() -> bool:
        before = len(taken)
        owner.do(lambda: taken.append(watching[0].push(b"end\r\n")))
        eventually(lambda: len(taken) > before)
        return taken[-1] > 0

    eventually(pushed)
    assert peer.until(b"end\r\n") == b"end\r\n"
    peer.sock.close()
    eventually(lambda: owner.closes == ["normal"])


def test_a_slow_reader_of_another_thread_gives_way() -> None:
    with Owner(Engine(memory_limit=4 * MIB, item_size_max=2 * MIB, evictions=False), 4) as owner:
        peers = [owner.connect() for _ in range(4)]
        value = b"x" * 1_500_000
        peers[0].send(b"set big 0 0 %d\r\n%b\r\n" % (len(value), value))
        assert peers[0].until(b"STORED\r\n")
        for peer in peers[1:]:
            peer.send(b"get big\r\n" * 50)  # more than the kernel's buffers hold
        eventually(lambda: sum(state == "conn_mwrite" for _, state, _, _ in sockets(owner.workers)) == 3)
        assert peers[0].ask(b"delete big") == b"DELETED\r\n"
        for number in range(250):
            peers[0].send(b"set k%d 0 0 15000\r\n%b\r\n" % (number, b"y" * 15_000))
            if peers[0].until(b"\r\n") != b"STORED\r\n":
                break
        assert owner.engine.stats()["slow_readers_dropped"] == 3
        assert number > 200, "their memory was there for others"
        eventually(lambda: owner.workers.clients == 1)


def test_an_upload_of_another_thread_gives_way() -> None:
    with Owner(Engine(memory_limit=16 * MIB, item_size_max=2 * MIB), 4) as owner:
        peers = [owner.connect() for _ in range(12)]
        for number, peer in enumerate(peers):
            peer.send(b"set u%d 0 0 1500000\r\n" % number + b"x" * 1_000_000)
        eventually(lambda: owner.engine.stats()["unfinished_refused"])
        stats = owner.engine.stats()
        assert stats["unfinished_bytes"] <= stats["unfinished_limit"]
        for peer in peers:
            peer.send(b"x" * 500_000 + b"\r\nmn\r\n")
        replies = [peer.until(b"MN\r\n") for peer in peers]
        assert {reply.split(b"\r\n")[0] for reply in replies} <= {
            b"STORED",
            b"SERVER_ERROR out of memory storing object",
        }
        assert sum(b"SERVER_ERROR" in reply for reply in replies) == owner.engine.stats()["unfinished_refused"]


def test_the_end_closes_everybody_and_frees_everything(owner: Owner) -> None:
    owner.commands[b"many"] = lambda _session, _line: iter(lambda: b"line\r\n" * 1000, b"")
    peers = [owner.connect() for _ in range(20)]
    peers[0].send(b"many\r\n")
    peers[1].send(b"set a 0 0 1000\r\n123")
    peers[2].send(b"get a\r\nget")
    assert peers[3].ask(b"mn") == b"MN\r\n"
    owner.stop()
    for peer in peers[1:2] + peers[4:]:
        assert peer.is_closed()
    assert owner.workers.clients == 0


def test_what_was_written_before_the_end_arrives(owner: Owner) -> None:
    watching = []

    def look(session: Session, _line: bytes) -> bytes:
        session.watch()
        watching.append(session)
        return b"OK\r\n"

    def end() -> None:
        for session in watching:
            assert session.push(b"last\r\n")
        owner.workers.finish()

    owner.commands[b"look"] = look
    peers = [owner.connect() for _ in range(50)]
    for peer in peers:
        assert peer.ask(b"look") == b"OK\r\n"
    owner.do(end)
    for peer in peers:
        assert peer.until(b"\r\n") == b"last\r\n"
        assert peer.is_closed()


class Lines:
    """An owner that notes cold commands; who has it calls `turn` by himself."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def command(self, _session: Session, line: bytes) -> bytes:
        self.lines.append(line)
        return b"OK\r\n"

    def closed(self, session: Session, reason: str) -> None: ...

    def later(self, session: Session) -> None: ...

    def events(self, _session: Session, _events: list[Event]) -> bool:
        return False

    def lock(self, session: Session, key: bytes) -> None: ...

    def trace(self, session: Session | None, text: bytes) -> None: ...

    def interest(self, session: Session, read: bool, write: bool) -> None: ...

    def gone(self) -> None: ...

    def unknown_change(self) -> None: ...

    def accepted(self, listener: int, reason: int, descriptors: list[int]) -> None: ...


def sockets(workers: Workers) -> Iterator[tuple[int, str, int, int]]:
    return itertools.chain.from_iterable(workers.sockets())


def waiting(workers: Workers) -> int:
    """Connections with a cold command that Python has not answered."""
    return [state for _, state, _, _ in sockets(workers)].count("conn_parse_cmd")


def test_letters_that_come_while_older_ones_are_read_are_heard() -> None:
    """More letters than a turn reads, and one more before the next turn: its writer rang a bell that was wiped out."""
    owner = Lines()
    workers = Workers(Engine(), owner, 1)
    workers.start()
    peers = []
    try:
        for _ in range(LETTERS_A_TURN + 51):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            workers.open(theirs.detach())
            ours.settimeout(20)
            peers.append(ours)
        last = peers.pop()
        for peer in peers:
            peer.sendall(b"verbosity 0\r\n")
        eventually(lambda: waiting(workers) == len(peers))
        workers.turn()
        taken = len(owner.lines)
        assert 0 < taken <= LETTERS_A_TURN  # it may end sooner, by time
        eventually(lambda: waiting(workers) == len(peers) - taken)
        last.sendall(b"verbosity 1\r\n")
        eventually(lambda: waiting(workers) == len(peers) - taken + 1)
        in_vain = 0
        while select.select([workers.fileno()], [], [], 0)[0]:
            before = len(owner.lines)
            workers.turn()
            in_vain += len(owner.lines) == before
        assert owner.lines[-1] == b"verbosity 1"
        assert in_vain <= 2, "nor does it come back for nothing"
    finally:
        workers.close()
        for peer in [*peers, last]:
            peer.close()
