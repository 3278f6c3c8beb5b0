"""Coherent members within the process: what the levels promise, partitions, and the ensemble that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from pymemcache.exceptions import MemcacheServerError

from mcserver.coordination import ports
from mcserver.coordination.ports import Create, Delete, SessionState, Set
from mcserver.settings.rules import ConfigError
from mcserver.testing import FakeSocket, Fleet
from mcserver.testing.ensemble import Ensemble, InProcessZooKeeper
from tests.testing.clients import Client, Plain

Make = Callable[..., Fleet]


def clients(fleet: Fleet) -> list[Client]:
    return [Client(server.address, timeout=5) for server in fleet]


def test_a_delete_at_level_applied_is_done_everywhere_when_it_is_answered(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(3, "--ack", "applied")
    for number in range(20):
        for server in fleet:
            server["a"] = "1"
        assert clients(fleet)[number % 3].delete("a", noreply=False)
        assert ["a" in server for server in fleet] == [False] * 3


def test_a_delete_at_level_committed_arrives_soon(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2)
    fleet[1]["a"] = "1"
    fleet[0]["a"] = "1"
    clients(fleet)[0].delete("a", noreply=False)
    fleet.settle()
    assert "a" not in fleet[1]


def test_a_flush_empties_all(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2, "--ack", "applied")
    for server in fleet:
        server["a"] = "1"
    assert clients(fleet)[0].flush_all(noreply=False)
    assert [len(server) for server in fleet] == [0, 0]
    assert Plain(fleet[0].address).command(b"cluster leader").startswith(b"LEADER n")
    assert Plain(fleet[0].address).command(b"cluster members", b"END\r\n").count(b"MEMBER 127.0.0.1:") == 2
    config = Plain(fleet[0].address).command(b"config get cluster", b"END\r\n")
    assert str(fleet[1].port).encode() in config


def test_what_is_put_by_hand_is_told_to_nobody(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2)
    fleet[0]["a"] = fleet[1]["a"] = "1"
    del fleet[0]["a"]
    fleet.settle()
    assert "a" in fleet[1]


@pytest.mark.slow
def test_a_member_that_is_cut_off_stops_answering_and_catches_up(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(3)
    here, _, there = clients(fleet)
    there.set("a", "1", noreply=False)
    fleet.partition(fleet[2])
    here.delete("a", noreply=False)
    assert there.get("a") == b"1"  # --max-stale has not passed
    fleet.until_stale(2)
    assert there.get("a") is None
    fleet.heal()
    fleet.settle()
    assert "a" not in fleet[2]
    assert there.set("a", "2", noreply=False)
    assert there.get("a") == b"2"


@pytest.mark.slow
def test_errors_while_cut_off(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2, "--on-stale", "error", "--ack-timeout", "0.1")
    (here, _) = clients(fleet)
    here.set("a", "1", noreply=False)
    fleet.partition(0)
    with pytest.raises(MemcacheServerError, match="not confirmed"):
        here.delete("a", noreply=False)
    fleet.until_stale(0)
    with pytest.raises(MemcacheServerError):
        here.get("a")
    assert fleet.stats(0)["session"] == "suspended"


def test_prefixes_and_locks_as_in_production(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2, "--lock-writes", "stock:", "--soft", "page:", "--ack", "applied", "-m", "8")
    here, there = clients(fleet)
    assert fleet[0].stats("settings")["maxbytes"] == str(8 << 20)
    there.set("stock:1", "1", noreply=False)
    here.set("stock:1", "2", noreply=False)
    assert ("stock:1" in fleet[1], fleet[0]["stock:1"]) == (False, b"2")
    fleet[1]["page:1"] = "old"
    here.delete("page:1", noreply=False)
    assert fleet[1].ask(b"mg page:1 v\r\n").startswith(b"VA 3 X W")


def test_faults_and_commands_of_members(memcached_fleet: Make) -> None:
    fleet = memcached_fleet(2)
    fleet[1].faults.error("get")
    here, there = clients(fleet)
    assert here.get("a") is None
    with pytest.raises(MemcacheServerError):
        there.get("a")
    assert [len(server.commands) for server in fleet] == [1, 1]
    with pytest.raises(RuntimeError, match="real sockets"):
        FakeSocket(fleet[0])


def test_flags_that_are_not_for_it() -> None:
    for flags in (("--zookeeper", "zk1:2181"), ("--ack", "never"), ("-p", "1")):
        with pytest.raises(ConfigError):
            Fleet(2, *flags)
    with pytest.raises(ValueError, match="at least one"):
        Fleet(0)
    with pytest.raises(RuntimeError):
        Fleet(1).settle()


async def test_the_asyncio_form_and_no_thread_is_left() -> None:
    def hosts() -> int:
        return sum(thread.name == "mcserver.testing" for thread in threading.enumerate())

    before = hosts()
    async with Fleet(2) as fleet:
        assert len(fleet) == 2
        assert hosts() == 1
    assert hosts() == before


# The ensemble ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def zookeeper() -> InProcessZooKeeper:
    client = InProcessZooKeeper(Ensemble(asyncio.get_running_loop(), 0.05))
    await asyncio.sleep(0)
    return client


async def test_reads_writes_and_errors(zookeeper: InProcessZooKeeper) -> None:
    assert zookeeper.state is SessionState.CONNECTED
    path, stat = await zookeeper.create("/a", b"1")
    assert (path, stat.version) == ("/a", 0)
    assert (await zookeeper.create("/a/s-", sequence=True))[0] == "/a/s-0000000000"
    assert (await zookeeper.set("/a", b"2", 0)).version == 1
    assert (await zookeeper.get("/a"))[0] == b"2"
    assert (await zookeeper.children("/a"))[0] == ["s-0000000000"]
    assert await zookeeper.exists("/none") is None
    wrong: list[tuple[Callable[[], Awaitable[object]], type[ports.ZooKeeperError]]] = [
        (lambda: zookeeper.create("/a"), ports.NodeExists),
        (lambda: zookeeper.create("/x/y"), ports.NoNode),
        (lambda: zookeeper.get("/none"), ports.NoNode),
        (lambda: zookeeper.set("/a", b"", 7), ports.BadVersion),
        (lambda: zookeeper.delete("/a"), ports.NotEmpty),
        (lambda: zookeeper.create("/big", bytes(2 << 20)), ports.TooLarge),
    ]
    for call, error in wrong:
        with pytest.raises(error):
            await call()
    with pytest.raises(ports.NodeExists) as caught:
        await zookeeper.multi([Set("/a", b"3"), Create("/a")])
    assert caught.value.index == 1
    assert (await zookeeper.get("/a"))[0] == b"2"
    assert await zookeeper.multi([Create("/b"), Delete("/a/s-0000000000")]) == ["/b", None]


async def test_watches_fire_once_and_before_the_new_state_is_seen(zookeeper: InProcessZooKeeper) -> None:
    await zookeeper.create("/a")
    seen: list[str] = []
    await zookeeper.get("/a", lambda: seen.append("data"))
    await zookeeper.children("/a", lambda: seen.append("children"))
    await zookeeper.exists("/b", lambda: seen.append("exists"))
    for call in (
        zookeeper.set("/a", b"1"),
        zookeeper.set("/a", b"2"),
        zookeeper.create("/a/x"),
        zookeeper.create("/b"),
    ):
        await call
    await asyncio.sleep(0)
    assert seen == ["data", "children", "exists"]


async def test_a_session_that_is_silent_for_too_long_ends(zookeeper: InProcessZooKeeper) -> None:
    states: list[SessionState] = []
    zookeeper.listen(states.append)
    other = InProcessZooKeeper(zookeeper._ensemble)
    await zookeeper.create("/mine", ephemeral=True)
    session, lost = zookeeper.session, []
    await zookeeper.exists("/mine", lambda: lost.append(1))
    zookeeper.cut()
    assert (states, lost) == ([SessionState.SUSPENDED], [1])
    with pytest.raises(ports.NotConnected):
        await zookeeper.get("/mine")
    assert await other.exists("/mine")
    zookeeper.heal()
    assert (zookeeper.session, states[-1]) == (session, SessionState.CONNECTED)
    zookeeper.cut()
    gone = asyncio.Event()
    assert await other.exists("/mine", gone.set)
    await asyncio.wait_for(gone.wait(), 10)
    zookeeper.heal()
    assert states[-2:] == [SessionState.LOST, SessionState.CONNECTED]
    assert zookeeper.session != session
    await zookeeper.close()
    assert zookeeper.state is SessionState.LOST
