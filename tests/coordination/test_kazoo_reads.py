"""Several znodes in one request: the bytes of ZooKeeper's multiRead."""

from __future__ import annotations

import struct

import pytest
from kazoo.exceptions import NoAuthError, ZookeeperError

from mcserver.coordination import kazoo_terms as terms
from mcserver.coordination import ports
from mcserver.coordination.kazoo_reads import MultiRead

STAT = (7, 8, 1000, 2000, 3, 4, 0, 0, 5, 6, 9)
END = struct.pack("!iBi", -1, True, -1)


def answer(data: bytes | None) -> bytes:
    length = -1 if data is None else len(data)
    return (
        struct.pack("!iBi", 4, False, 0)
        + struct.pack("!i", length)
        + (data or b"")
        + struct.pack("!qqqqiiiqiiq", *STAT)
    )


def failed(code: int) -> bytes:
    return struct.pack("!iBi", -1, False, code) + struct.pack("!i", code)


def test_a_request_names_each_path_and_sets_no_watch() -> None:
    one = struct.pack("!iBi", 4, False, -1) + struct.pack("!i", 2) + b"/a" + b"\0"
    two = struct.pack("!iBi", 4, False, -1) + struct.pack("!i", 3) + b"/bc" + b"\0"
    assert bytes(MultiRead(["/a", "/bc"]).serialize()) == one + two + END


def test_what_is_not_there_is_none() -> None:
    found = terms.found(MultiRead.deserialize(b"head" + answer(b"x") + failed(-101) + answer(b"") + END, 4))
    stat = ports.Stat(7, 8, 3, 4, 6, 0, 1000, 2000)
    assert found == [(b"x", stat), None, (b"", stat)]


def test_a_znode_that_was_made_without_data_is_empty() -> None:
    """zkCli's `create /path`: its data is null, which no decoder expects."""
    answers = MultiRead.deserialize(answer(None) + END, 0)
    assert answers[0][0] is None
    found = terms.found(answers)
    assert found[0] is not None
    assert found[0][0] == b""


@pytest.mark.parametrize(("code", "kind"), [(-102, NoAuthError), (-9999, ZookeeperError)])
def test_an_error_is_in_the_list_until_somebody_asks(code: int, kind: type[Exception]) -> None:
    answers = MultiRead.deserialize(answer(b"x") + failed(code) + END, 0)
    assert type(answers[1]) is kind
    with pytest.raises(ports.NoAuth if kind is NoAuthError else ports.ZooKeeperError):
        terms.found(answers)
