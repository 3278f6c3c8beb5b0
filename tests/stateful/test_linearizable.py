"""Workers under concurrent clients: each key is one register, whatever the number of threads."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator

import pytest

from mcserver.core import Engine
from tests.core.threaded import Owner, Peer

from .linearizable import Operation, Register, fits, step

CLIENTS, ROUNDS, OPERATIONS = 4, 40, 14
VERBS = (
    "get",
    "get",
    "gets",
    "gets",
    "cas",
    "set",
    "set",
    "add",
    "replace",
    "append",
    "incr",
    "incr",
    "delete",
    "flush",
)


class Talker:
    """One client: asks at random, and writes down what it was told."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self.peer, self.random = peer, random.Random(seed)
        self.history: dict[bytes, list[Operation]] = {}
        self.uniques: dict[bytes, bytes] = {}

    def run(self, keys: list[bytes], barrier: threading.Barrier) -> None:
        barrier.wait()
        for _ in range(OPERATIONS):
            key, verb = self.random.choice(keys), self.random.choice(VERBS)
            if verb == "cas" and key not in self.uniques:
                verb = "gets"
            argument = b"%d" % self.random.randrange(1, 100)
            if verb == "cas":
                argument = self.uniques.pop(key) + b"=" + argument
            call = time.monotonic()
            reply = self.ask(verb, key, argument)
            operation = Operation(verb, argument, reply, call, time.monotonic())
            if verb == "gets" and reply:
                self.uniques[key] = reply.partition(b"=")[0]
            for each in keys if verb == "flush" else [key]:
                self.history.setdefault(each, []).append(operation)

    def ask(self, verb: str, key: bytes, argument: bytes) -> bytes:
        if verb in {"get", "gets"}:
            reply = self.peer.ask(b"%b %b" % (verb.encode(), key), b"END\r\n")
            if not reply.startswith(b"VALUE"):
                return b""
            head, value, _ = reply.split(b"\r\n", 2)
            return (head.split()[4] if verb == "gets" else b"") + b"=" + value
        if verb in {"incr", "delete", "flush"}:
            line = {"incr": b"incr %b %b" % (key, argument), "delete": b"delete " + key, "flush": b"flush_all"}[verb]
        else:
            unique, _, value = argument.rpartition(b"=")
            tail = b" " + unique if verb == "cas" else b""
            line = b"%b %b 0 0 %d%b\r\n%b" % (verb.encode(), key, len(value), tail, value)
        reply = self.peer.ask(line).rstrip()
        return b"CLIENT_ERROR" if reply.startswith(b"CLIENT_ERROR") else reply


@pytest.fixture(params=[1, 4])
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    with Owner(Engine(), request.param) as owner:
        yield owner


def histories(owner: Owner, rounds: int) -> Iterator[list[Operation]]:
    """Of two keys a round, which nobody used before."""
    peers = [owner.connect() for _ in range(CLIENTS)]
    for number in range(rounds):
        keys = [b"a%d" % number, b"b%d" % number]
        barrier = threading.Barrier(CLIENTS)
        talkers = [Talker(peer, 1000 * number + place) for place, peer in enumerate(peers)]
        threads = [threading.Thread(target=talker.run, args=(keys, barrier)) for talker in talkers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key in keys:
            yield [operation for talker in talkers for operation in talker.history.get(key, [])]


def test_every_key_is_a_register(owner: Owner) -> None:
    overlaps = 0
    for history in histories(owner, ROUNDS):
        assert fits(history), "\n".join(map(str, sorted(history, key=lambda operation: operation.call)))
        order = sorted(history, key=lambda operation: operation.call)
        overlaps += sum(after.call < before.end for before, after in itertools.pairwise(order))
    assert overlaps, "else nothing was concurrent"


@pytest.mark.slow
def test_a_stale_answer_is_found(owner: Owner) -> None:
    """The planted fault: a reader is told what it was told before, though a write was answered since."""
    found = 0
    for history in histories(owner, ROUNDS):
        order = sorted(history, key=lambda operation: operation.call)
        for number, operation in enumerate(order):
            stale = next(
                (each.reply for each in order[:number] if each.verb == "get" and each.reply != operation.reply), None
            )
            if operation.verb == "get" and stale is not None:
                found += not fits([*order[:number], operation._replace(reply=stale), *order[number + 1 :]])
    assert found > ROUNDS // 2


def test_a_lost_update_is_found() -> None:
    """Two that both counted from one."""
    history = [
        Operation("set", b"1", b"STORED", 0, 1),
        Operation("incr", b"1", b"2", 2, 5),
        Operation("incr", b"1", b"2", 3, 6),
    ]
    assert not fits(history)
    assert fits([*history[:2], Operation("incr", b"1", b"3", 3, 6)])
    assert step(Register(b"x", 7), "cas", b"8=y", b"STORED") is None
