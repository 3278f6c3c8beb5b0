"""The log has one line for each change of state, and no flood."""

from __future__ import annotations

import pytest

from mcserver.coordination.notices import BURST, REFILL, Notices
from mcserver.coordination.ports import Member


class World:
    """What the notices look at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.session = "connected"
        self.addresses = ["h:1"]
        self.leading = "s1"

    def notices(self, policy: str = "miss", join: str = "wait") -> Notices:
        made = Notices(policy, 10, join, lambda: self.now)
        made.attach(self.stats, self.members, lambda: self.leading)
        return made

    def stats(self) -> dict[str, int | float | str]:
        return {"session": self.session, "server": "z:1", "session_id": "0x1"}

    def members(self) -> tuple[int, list[Member]]:
        return 1, [Member(address, address, "ready", 0, False) for address in self.addresses]


@pytest.fixture
def world() -> World:
    return World()


def test_one_line_a_change(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    notices = world.notices()
    for _ in range(3):
        notices.changed("state")
        notices.changed("members")
        notices.changed("leader")
        notices.changed("fresh")
    assert caplog.messages == [
        "ZooKeeper: connected to z:1, session 0x1",
        "members: 1 (h:1)",
        "leader: s1",
        "fresh: all invalidations are applied",
    ]


def test_a_lost_connection_and_its_return(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    notices = world.notices()
    notices.changed("state")
    notices.changed("fresh")
    world.session = "suspended"
    notices.changed("state")
    notices.changed("stale")
    world.now, world.session = 12.5, "connected"
    notices.changed("state")
    assert caplog.messages[2:] == [
        "ZooKeeper: connection lost. 10 s after its last proof of being fresh this server answers as if it were empty.",
        "stale: no proof of being fresh for 10 s. This server answers as if it were empty",
        "ZooKeeper: connected to z:1, session 0x1, 12.5 s after the connection was lost",
    ]


@pytest.mark.parametrize(
    ("policy", "join", "words"),
    [
        ("miss", "wait", "Until it has joined, this server answers as if it were empty."),
        ("error", "wait", "Until it has joined, this server answers SERVER_ERROR stale."),
        ("miss", "serve", "Until it has joined, this server serves without any guarantee (--join serve)."),
        ("serve", "wait", "Without ZooKeeper this server serves as if it were fresh, without any guarantee."),
    ],
)
def test_unreachable_says_what_was_tried_and_what_follows(
    world: World, caplog: pytest.LogCaptureFixture, policy: str, join: str, words: str
) -> None:
    world.notices(policy, join).unreachable("a:1 connection refused")
    assert caplog.messages == [f"ZooKeeper can't be used: a:1 connection refused; trying on. {words}"]


def test_flapping_is_counted_not_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    notices = world.notices()
    for number in range(50):
        world.addresses = [f"h:{number}"]
        notices.changed("members")
    assert len(caplog.messages) == BURST
    world.now = REFILL
    world.addresses = ["h:99"]
    notices.changed("members")
    assert (
        caplog.messages[-1]
        == f"members: 1 (h:99); joined: h:99; left: h:49 ({50 - BURST} changes before this one were not shown)"
    )
    notices.changed("leader")
    assert caplog.messages[-1] == "leader: s1", "each subject has its own allowance"
