"""A get that ends at an opaque that is too long: whether the item counts as used is as in 1.6.45.

There h, l, N, R and T have it counted at the end, which is never reached; without them it is counted when it is found.
"""

import pytest

from mcserver.core import Engine
from tests.core.harness import Client

LONG = b"O" + b"o" * 32


@pytest.mark.parametrize(
    ("flags", "used"),
    [(b"O", 1), (b"v O", 1), (b"t O", 1), (b"k q O", 1), (b"h O", 0), (b"O h", 0), (b"l O", 0), (b"T90 O", 0),
     (b"O T90", 0), (b"R9 O", 0), (b"N9 O", 0)],
)  # fmt: skip
def test_whether_it_counts_as_used(flags: bytes, used: int) -> None:
    client = Client(Engine(manual_clock=True))
    client.send(b"ms a 1 T50\r\n1\r\n")
    assert client.send(b"mg a " + flags.replace(b"O", LONG) + b"\r\n") == b"CLIENT_ERROR opaque token too long\r\n"
    assert client.send(b"mg a h\r\n") == b"HD h%d\r\n" % used
