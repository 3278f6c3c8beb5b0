"""The kazoo driver against a real ensemble: it keeps the promises of `ports.ZooKeeper` whatever ZooKeeper does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcserver.coordination import ports
from mcserver.coordination.kazoo_driver import MAX_OUTSTANDING, KazooDriver
from mcserver.coordination.kazoo_terms import Target
from mcserver.coordination.ports import SessionState

from .ensemble import Ensemble
from .network import OP_GET, Direction, Frame, Link, Network

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]


@asynccontextmanager
async def driver(hosts: str, **settings: Any) -> AsyncIterator[KazooDriver]:
    target = Target(hosts, **{"session_timeout": 4.0, "reply_deadline": 3.0, **settings})
    made = KazooDriver(asyncio.get_running_loop(), target, on_unreachable=told.append)
    try:
        yield made
    finally:
        await made.close()


told: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    told.clear()


async def until(condition: Callable[..., object], seconds: float = 60.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited in vain"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def connected(zk: KazooDriver) -> bool:
    return zk.state is SessionState.CONNECTED


async def test_requests_and_their_errors(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts}/{name}/deep") as zk:
        with pytest.raises(ports.NotConnected):
            await zk.get("/")
        await until(lambda: connected(zk))
        assert zk.session != 0
        assert zk.connection == 1
        path, stat = await zk.create("/a", b"1")
        assert path == "/a"
        assert stat.czxid > 0
        with pytest.raises(ports.NodeExists):
            await zk.create("/a")
        with pytest.raises(ports.NoNode):
            await zk.create("/no/where")
        with pytest.raises(ports.BadVersion):
            await zk.set("/a", b"2", version=7)
        with pytest.raises(ports.TooLarge):
            await zk.set("/a", b"x" * 2_000_000)
        assert (await zk.set("/a", b"2", version=0)).version == 1
        data, stat = await zk.get("/a")
        assert (data, stat.version, stat.ephemeral_owner) == (b"2", 1, 0)
        path, stat = await zk.create("/a/s-", ephemeral=True, sequence=True)
        assert path == "/a/s-0000000000"
        assert stat.ephemeral_owner == zk.session
        names, stat = await zk.children("/a")
        assert names == ["s-0000000000"]
        assert stat.num_children == 1
        with pytest.raises(ports.NotEmpty):
            await zk.delete("/a")
        assert await zk.exists("/b") is None
        with pytest.raises(ports.BadVersion) as caught:
            await zk.multi([ports.Create("/b"), ports.Check("/a", 0), ports.Set("/a", b"3")])
        assert caught.value.index == 1
        assert await zk.exists("/b") is None
        operations: list[ports.Operation] = []
        operations += [ports.Check("/a", 1), ports.Create("/a/s-", b"x", sequence=True), ports.Set("/a", b"3")]
        first, second, third, fourth = await zk.multi([*operations, ports.Delete(path)])
        assert (first, second, fourth) == (None, "/a/s-0000000001", None)
        assert isinstance(third, ports.Stat)


async def test_several_znodes_in_one_request(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts}/{name}") as zk:
        await until(lambda: connected(zk))
        for n in range(3):
            await zk.create(f"/e{n}", b"%d" % n * 60_000)
        found = await zk.gets([f"/e{n}" for n in (2, 0, 7, 1)])
        assert [each and each[0][:1] for each in found] == [b"2", b"0", None, b"1"]
        assert found == [await zk.get("/e2"), await zk.get("/e0"), None, await zk.get("/e1")]
        assert await zk.gets([]) == []
        with ensemble.client() as stranger:
            stranger.create(f"/{name}/null", None)
        await zk.create("/after")  # its server has seen then what another one told the stranger
        found = [await zk.get("/null"), *await zk.gets(["/null"])]
        assert [each and each[0] for each in found] == [b"", b""]
        last = zk.gets(["/e0"] * 32)  # two megabytes: what is sent to ZooKeeper is bounded, not what it answers
        assert sum(len(each[0]) for each in await last if each) == 32 * 60_000


async def test_replies_and_watches_in_the_order_of_the_wire(ensemble: Ensemble, name: str) -> None:
    order: list[str] = []

    def note(word: str, _: object) -> None:
        order.append(word)

    async with driver(f"{ensemble.hosts}/{name}") as zk:
        await until(lambda: connected(zk))
        await zk.exists("/a", lambda: order.append("watch"))
        calls: dict[str, asyncio.Future[Any]] = {
            "create": zk.create("/a"),
            "get": zk.get("/a"),
            "set": zk.set("/a", b"1"),
            "again": zk.create("/b"),
        }
        for word, call in calls.items():
            call.add_done_callback(functools.partial(note, word))
        await asyncio.gather(*calls.values())
        await until(lambda: len(order) == 5)
        assert [word for word in order if word != "watch"] == list(calls)
        # ZooKeeper sends an event before the answer to a read that shows it.
        assert order.index("watch") < order.index("get")


async def test_an_event_comes_before_the_answer_to_any_later_write(ensemble: Ensemble, name: str) -> None:
    """Whoever made the change, and wherever: an append goes by that, and so does who waits for `applied`."""
    async with driver(f"{ensemble.hosts}/{name}") as other:
        await until(lambda: connected(other))
        for host in ensemble.hosts.split(","):
            async with driver(f"{host}/{name}") as zk:
                await until(lambda zk=zk: connected(zk))
                for _ in range(20):
                    order: list[str] = []
                    await other.create("/meta")
                    await zk.create("/before-", sequence=True)  # what is read behind it is not older
                    await zk.get("/meta", functools.partial(order.append, "event"))
                    await other.delete("/meta")
                    await zk.create("/later-", sequence=True)
                    assert order == ["event"]


async def test_a_chroot_that_is_deleted_is_made_again(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts}/{name}") as other, driver(f"{ensemble.hosts}/{name}/deep/er") as zk:
        await until(lambda: connected(zk) and connected(other))
        await zk.create("/a")
        for path in ("/deep/er/a", "/deep/er", "/deep"):
            await other.delete(path)
        with pytest.raises(ports.NoNode):
            await zk.create("/a/b")
        with pytest.raises(ports.NoNode):
            await zk.create("/a")
        assert (await zk.create("/a"))[0] == "/a"


async def test_at_most_128_calls_outstanding(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts_for(name)}/{name}", reply_deadline=5.0) as zk:
        await until(lambda: connected(zk))
        await zk.create("/a")
        for link in ensemble.peer_links[name]:
            link.blackhole()
        started = time.thread_time()
        calls = [zk.get("/a") for _ in range(1000)]
        assert time.thread_time() - started < 1, "the loop was held up"
        refused = [call for call in calls if call.done()]
        assert len(refused) == 1000 - MAX_OUTSTANDING
        assert zk.figures()["outstanding"] == MAX_OUTSTANDING
        for link in ensemble.peer_links[name]:
            link.heal()
        await asyncio.gather(*calls, return_exceptions=True)
        assert sum(call.exception() is None for call in calls) == MAX_OUTSTANDING
        assert zk.figures()["outstanding"] == 0


@pytest.mark.parametrize("directions", [("up",), ("down",), ()])
async def test_a_blackhole_ends_in_a_missed_deadline(
    ensemble: Ensemble, name: str, directions: tuple[Direction, ...]
) -> None:
    """While requests keep going out kazoo says CONNECTED; the deadline says otherwise."""
    async with driver(f"{ensemble.hosts_for(name, order=(1,))}/{name}", session_timeout=20.0, reply_deadline=1.0) as zk:
        await until(lambda: connected(zk))
        await zk.create("/a")
        link = ensemble.peer_links[name][0]
        states: list[SessionState] = []
        zk.listen(states.append)
        session = zk.session
        link.blackhole(*directions)
        lost: list[bool] = []
        while not states:
            zk.get("/a", lambda: lost.append(True)).add_done_callback(lambda f: f.exception())
            await asyncio.sleep(0.02)
        assert states == [SessionState.SUSPENDED]
        link.heal()
        await until(lambda: connected(zk))
        assert zk.session == session
        assert await zk.exists("/a") is not None
        assert zk.connection == 2


async def test_watches_fire_when_their_connection_is_lost(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts_for(name)}/{name}") as zk:
        await until(lambda: connected(zk))
        order: list[object] = []
        zk.listen(order.append)
        await zk.exists("/none", lambda: order.append("watch"))
        for link in ensemble.peer_links[name]:
            link.reset()
        await until(lambda: "watch" in order)
        assert order[:2] == [SessionState.SUSPENDED, "watch"]
        await until(lambda: connected(zk))


async def test_a_watch_that_is_set_again_and_again_is_one(ensemble: Ensemble, name: str) -> None:
    """What kazoo keeps of each costs memory until it fires."""
    fired: list[str] = []

    class Waiting:
        def one(self) -> None:
            fired.append("one")

    waiting = Waiting()
    async with driver(f"{ensemble.hosts}/{name}") as zk:
        await until(lambda: connected(zk))
        for _ in range(5):
            await zk.exists("/a", waiting.one)
        await zk.exists("/a", lambda: fired.append("other"))
        await zk.create("/a")
        await until(lambda: len(fired) >= 2)
        await zk.get("/a")
        assert sorted(fired) == ["one", "other"]


async def test_pending_calls_fail_before_the_state_is_told(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts_for(name)}/{name}", reply_deadline=5.0) as zk:
        await until(lambda: connected(zk))
        for link in ensemble.peer_links[name]:
            link.blackhole("down")
        call = zk.create("/a")
        done_when_told: list[bool] = []
        zk.listen(lambda _: done_when_told.append(call.done()))
        await asyncio.sleep(0.1)
        for link in ensemble.peer_links[name]:
            link.refuse()
        await until(lambda: done_when_told)
        assert done_when_told[0]
        assert isinstance(call.exception(), ports.ConnectionLoss)
        for link in ensemble.peer_links[name]:
            link.heal()
        await until(lambda: connected(zk))


async def test_a_killed_session_is_followed_by_a_new_one(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts}/{name}") as zk:
        await until(lambda: connected(zk))
        states: list[SessionState] = []
        zk.listen(states.append)
        old = zk.session
        await zk.create("/mine", ephemeral=True)
        await asyncio.to_thread(ensemble.kill_session, old)
        await until(lambda: connected(zk) and zk.session != old)
        assert SessionState.LOST in states
        assert await zk.exists("/mine") is None


async def test_an_error_inside_kazoo_makes_a_new_client(
    ensemble: Ensemble, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with driver(f"{ensemble.hosts_for(name, order=(1,))}/{name}") as zk:
        await until(lambda: connected(zk))
        await zk.create("/a")
        old, link = zk.session, ensemble.peer_links[name][0]
        spoil_one_get(link)
        await until(lambda: zk.connection == 2 and connected(zk))
        with pytest.raises(ports.ZooKeeperError):
            await zk.get("/a")
        await until(lambda: connected(zk) and zk.session != old)
        assert zk.figures()["client_rebuilds"] == 1
        assert await zk.get("/a")
        assert [r.message for r in caplog.records if "starting a new client" in r.message]


def spoil_one_get(link: Link) -> None:
    left = [1]

    def spoil(frame: Frame) -> bytes:
        if left[0] and frame.direction == "down" and frame.op == OP_GET:
            left[0] = 0
            return frame.body[:12] + (-999).to_bytes(4, "big", signed=True)
        return frame.body

    link.tamper(spoil)
    link.reset()


async def test_no_ensemble_at_the_start(ensemble: Ensemble, name: str) -> None:
    hosts = ensemble.hosts_for(name)
    for link in ensemble.peer_links[name]:
        link.present(False)
    async with driver(f"{hosts}/{name}", reply_deadline=600.0) as zk:
        with contextlib.suppress(ports.NotConnected):
            await asyncio.wait_for(zk.get("/"), 60)  # at once: it waits for no deadline
        await until(lambda: told)
        for link in ensemble.peer_links[name]:
            link.present(True)
        await until(lambda: connected(zk))
    assert len(told) == 1
    assert told[0].count("connection refused") == 3


async def test_an_ensemble_that_was_wiped(network: Network, name: str) -> None:
    """Kazoo would offer its old session, from a future that the new ensemble does not know, for ever."""
    with Ensemble(network) as own:
        async with driver(f"{own.hosts}/{name}", session_timeout=2.0) as zk:
            await until(lambda: connected(zk))
            old = zk.session
            for server in own.servers:
                server.end()
                server.wipe()
            await asyncio.to_thread(own.start)
            await until(lambda: connected(zk) and zk.session != old)
            assert await zk.exists("/none") is None


async def test_credentials_keep_others_out(ensemble: Ensemble, name: str) -> None:
    async with (
        driver(f"{ensemble.hosts}/{name}", credentials="cache:secret") as ours,
        driver(f"{ensemble.hosts}/{name}") as other,
    ):
        await until(lambda: connected(ours))
        await ours.create("/a", b"1")
        await until(lambda: connected(other))
        with pytest.raises(ports.NoAuth):
            await other.set("/a", b"2")
        assert (await ours.get("/a"))[0] == b"1"
    assert "secret" not in repr(Target("h", credentials="cache:secret"))


async def test_close_ends_the_session_and_every_call(ensemble: Ensemble, name: str) -> None:
    async with driver(f"{ensemble.hosts}/{name}") as watcher:
        await until(lambda: connected(watcher))
        async with driver(f"{ensemble.hosts}/{name}") as zk:
            await until(lambda: connected(zk))
            await zk.create("/mine", ephemeral=True)
        with pytest.raises(ports.NotConnected):
            await zk.get("/")
        await asyncio.sleep(0.5)
        assert await watcher.exists("/mine") is None
