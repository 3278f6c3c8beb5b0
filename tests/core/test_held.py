"""Replies that wait for a confirmation, and writes that wait for a lock. Other connections go on meanwhile."""

import pytest

from tests.core.harness import Client, fresh


def holding(*, deletes: bool = True, writes: tuple[bytes, ...] = ()) -> Client:
    """A connection whose owner confirms later, and whose turn does not end early on a slow machine."""
    client = fresh(requests_per_event=1000)
    client.engine.broadcast(deletes, writes)
    client.send(b"set a 0 0 1\r\nx\r\nset b 0 0 1\r\ny\r\n")
    client.owner.batches.clear()
    client.owner.hold = True
    return client


def told(client: Client) -> list[tuple[str, bytes, int]]:
    """What the owner was told: kind, key, position."""
    return [event[:3] for batch in client.owner.batches for event in batch]


def answer(client: Client) -> bytes:
    return client.session.drain() + client.settle()


def test_a_delete_waits_for_its_confirmation() -> None:
    client = holding()
    assert client.send(b"get a\r\ndelete a\r\nget a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
    assert told(client) == [("delete", b"a", 1)], "the reply's place among those of the batch"
    other = Client(client.engine, client.owner)
    assert other.send(b"get a b\r\n") == b"VALUE b 0 1\r\ny\r\nEND\r\n", "it has already taken effect"
    client.session.release()
    assert answer(client) == b"DELETED\r\nEND\r\n"


def test_the_input_is_paused_until_the_release() -> None:
    client = holding()
    assert client.send(b"delete a\r\n") == b""
    assert client.send(b"set c 0 0 1\r\nz\r\n") == b""
    assert Client(client.engine).get(b"c") is None, "nothing more has run"
    client.session.release()
    assert answer(client) == b"DELETED\r\nSTORED\r\n"


def test_a_hundred_deletes_wait_once() -> None:
    client = holding()
    client.owner.hold = False
    for i in range(100):
        client.set(b"k%d" % i, b"x")
    client.owner.batches.clear()
    client.owner.hold = True
    assert client.send(b"".join(b"delete k%d\r\n" % i for i in range(100))) == b""
    assert [len(batch) for batch in client.owner.batches] == [100]
    assert [position for _, _, position in told(client)] == list(range(100))
    client.session.release()
    assert answer(client) == b"DELETED\r\n" * 100


def test_replies_can_become_errors() -> None:
    client = holding()
    client.send(b"mn\r\ndelete a\r\nget b\r\ndelete b\r\nmn\r\n")
    assert told(client) == [("delete", b"a", 1), ("delete", b"b", 3)]
    client.session.release(errors={1: b"SERVER_ERROR not confirmed\r\n"})
    assert answer(client) == b"SERVER_ERROR not confirmed\r\nVALUE b 0 1\r\ny\r\nEND\r\nDELETED\r\nMN\r\n"


def test_what_is_not_confirmed_need_not_wait() -> None:
    client = holding()
    client.owner.hold = False
    assert client.send(b"delete a\r\n") == b"DELETED\r\n"
    assert told(client) == [("delete", b"a", 0)]


@pytest.mark.parametrize(
    ("command", "events"),
    [
        (b"delete a\r\n", [("delete", b"a", 0)]),
        (b"delete a noreply\r\n", [("delete", b"a", -1)]),
        (b"delete none\r\n", [("delete", b"none", 0)]),
        (b"md a\r\n", [("delete", b"a", 0)]),
        (b"md a q\r\n", [("delete", b"a", -1)]),
        (b"md YQ== b\r\n", [("delete", b"a", 0)]),
        (b"md a C99999\r\n", []),
        (b"md a x\r\n", [("delete", b"a", 0)]),
        (b"md a I T30\r\n", [("stale", b"a", 0)]),
        (b"flush_all\r\n", [("flush", b"", 0)]),
        (b"flush_all noreply\r\n", [("flush", b"", -1)]),
        (b"flush_all 30\r\n", [("flush_later", b"30", 0)]),
        (b"set a 0 0 1\r\nz\r\n", []),
        (b"get a\r\n", []),
        (b"touch a 10\r\n", []),
        (b"delete\r\n", []),
        (b"md a z\r\n", []),
    ],
)
def test_which_commands_are_told(command: bytes, events: list[tuple[str, bytes, int]]) -> None:
    client = holding()
    client.owner.hold = False
    client.send(command)
    assert told(client) == events


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (b"set p:1 0 0 1\r\nz\r\n", True),
        (b"set q:1 0 0 1\r\nz\r\n", False),
        (b"add p:new 0 0 1\r\nz\r\n", True),
        (b"ms p:1 1\r\nz\r\n", True),
        (b"incr p:n 1\r\n", True),
        (b"append p:1 0 0 1\r\nz\r\n", True),
        (b"replace p:none 0 0 1\r\nz\r\n", False),
        (b"get p:1\r\n", False),
    ],
)
def test_writes_of_chosen_prefixes_are_told(command: bytes, told: bool) -> None:
    client = holding(writes=(b"p:", b"r:"))
    client.owner.hold = False
    client.send(b"set p:1 0 0 1\r\nx\r\nset p:n 0 0 1\r\n1\r\n")
    client.owner.batches.clear()
    client.send(command)
    kinds = [event[0] for batch in client.owner.batches for event in batch]
    assert kinds == (["write"] if told else [])


def test_nobody_is_told_when_it_is_off() -> None:
    client = fresh()
    client.owner.hold = True
    client.set(b"a", b"x")
    assert client.send(b"delete a\r\nflush_all\r\n") == b"DELETED\r\nOK\r\n"
    assert client.owner.batches == []


def test_a_batch_with_a_large_value_before_and_after() -> None:
    client = holding()
    client.owner.hold = False
    client.set(b"large", b"L" * 300_000)
    client.owner.batches.clear()
    client.owner.hold = True
    large = b"VALUE large 0 300000\r\n" + b"L" * 300_000 + b"\r\nEND\r\n"
    out = client.send(b"get large\r\ndelete a\r\nget large\r\nmn\r\n")
    assert out == large
    client.session.release()
    assert answer(client) == b"DELETED\r\n" + large + b"MN\r\n"


def test_a_session_that_closes_while_it_is_held() -> None:
    client = holding()
    client.send(b"delete a\r\n")
    client.session.close("normal")
    assert client.is_closed
    client.session.release()
    assert client.session.drain() == b""


def test_quit_after_a_held_delete_still_answers() -> None:
    client = holding()
    client.send(b"delete a\r\nquit\r\n")
    assert not client.is_closed
    client.session.release()
    assert answer(client) == b"DELETED\r\n"
    assert client.is_closed


def locked() -> Client:
    """A connection whose writes to keys under l: wait."""
    client = fresh()
    client.send(b"set l:a 0 0 3\r\nold\r\nset l:n 0 0 1\r\n1\r\n")
    client.engine.lock_prefixes([b"l:"])
    return client


@pytest.mark.parametrize(
    "command",
    [b"set l:a 0 0 3\r\nnew\r\n", b"ms l:a 3\r\nnew\r\n", b"delete l:a\r\n", b"incr l:n 1\r\n", b"append l:a 0 0 3\r\nnew\r\n",
     b"md l:a\r\n", b"ma l:n\r\n", b"cas l:a 0 0 3 77\r\nnew\r\n"],
)  # fmt: skip
def test_a_locked_write_waits_for_its_lock(command: bytes) -> None:
    client, free = locked(), fresh()
    free.send(b"set l:a 0 0 3\r\nold\r\nset l:n 0 0 1\r\n1\r\n")
    assert client.send(command + b"mn\r\n") == b""
    assert client.owner.locks == [command.split()[1]]
    other = Client(client.engine)
    assert other.send(b"get l:a l:n\r\n") == b"VALUE l:a 0 3\r\nold\r\nVALUE l:n 0 1\r\n1\r\nEND\r\n", "no effect yet"
    client.session.grant()
    assert answer(client) == free.send(command + b"mn\r\n")
    assert other.send(b"get l:a l:n\r\n") == free.send(b"get l:a l:n\r\n")


def test_a_lost_lock_means_no_effect() -> None:
    client = locked()
    assert client.send(b"set l:a 0 0 1\r\nx\r\nmn\r\n") == b""
    client.session.refuse(b"SERVER_ERROR lock lost\r\n")
    assert answer(client) == b"SERVER_ERROR lock lost\r\nMN\r\n"
    assert client.get(b"l:a") == b"old"


def test_one_lock_for_each_write() -> None:
    client = locked()
    client.send(b"set l:a 0 0 1\r\nx\r\nset l:b 0 0 1\r\ny\r\nset c 0 0 1\r\nz\r\n")
    out = b""
    for key in (b"l:a", b"l:b"):
        assert client.owner.locks[-1] == key
        client.session.grant()
        out += answer(client)
    assert out == b"STORED\r\nSTORED\r\nSTORED\r\n"
    assert client.owner.locks == [b"l:a", b"l:b"]


def test_reads_need_no_lock() -> None:
    client = locked()
    assert client.send(b"get l:a\r\nmg l:a\r\nme l:none\r\n") == b"VALUE l:a 0 3\r\nold\r\nEND\r\nHD\r\nEN\r\n"


def test_a_session_that_closes_while_it_waits_for_a_lock() -> None:
    client = locked()
    client.send(b"set l:a 0 0 1\r\nx\r\n")
    client.session.close()
    client.session.grant()
    assert Client(client.engine).get(b"l:a") == b"old"
