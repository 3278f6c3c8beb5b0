"""A large fleet that joins, loses its sessions and is told of changes: what each member asks of ZooKeeper for that."""

from __future__ import annotations

import pytest

from .quiet import Quiet, tell
from .simulator.costs import CostedEnsemble, Service

SERVICE = Service(read=20, more=1, forward=20, write=30, apply=10, event=20, tell=5, call=50, hop=200, commit=1000)


def counted(hosts: int) -> tuple[Quiet, CostedEnsemble]:
    """A fleet in the proportions of a real one (certificates each second, sessions of four), on an ensemble that counts."""
    fleet = Quiet(
        0, max_stale=4.0, reply_deadline=1.0, spread=50.0, write_rate=1000.0, trim_every=2.0, retry_delay_max=1.0
    )
    ensemble = CostedEnsemble(fleet.world, SERVICE, timeout=4.0)
    ensemble.on_commit = fleet.checkers.on_commit
    fleet.ensemble = ensemble
    for n in range(hosts):
        fleet.start(f"n{n}")
        fleet.run(10)
    fleet.run(12_000)
    return fleet, ensemble


@pytest.mark.slow
def test_what_a_fleet_costs_and_how_it_comes_back() -> None:
    hosts = 80
    fleet, ensemble = counted(hosts)
    idle = ensemble.count()
    fleet.run(8_000)
    rested = ensemble.count()
    assert (rested.reads - idle.reads) / 8 < 5 * hosts, "a round a second, of two reads, and little else"
    assert (rested.writes - idle.writes) / 8 < 1.4 * hosts
    assert (rested.events - idle.events) / 8 < 0.2 * hosts

    fleet.run(500)
    before = ensemble.count()
    for n in range(10):
        tell(fleet.hosts[n], b"k%d" % n)
        fleet.run(100)
    spent = ensemble.count().reads - before.reads - hosts * 3
    assert spent <= 10 * hosts * 3, "two reads, and now and then a look at the head, for each entry and member"

    reads = {host: host.node.context.reads for host in fleet.hosts}
    for host in fleet.hosts[: hosts // 2]:
        ensemble.end_session(ensemble.sessions[host.zk.session], forced=True)
    fleet.run(6_000)
    boots = {host.node.membership.boot for host in fleet.hosts}
    for host in fleet.hosts:
        assert not host.node.gate.is_stale
        assert {name.rsplit(".", 2)[0] for name in host.node.membership.nodes} == boots
        assert len(host.node.membership.nodes) == hosts
    took = sorted(host.node.context.reads - reads[host] for host in fleet.hosts)
    assert took[hosts // 2] < 60, "six rounds of certificates, the roll a few times; not a read for each of the others"
    assert len({host.node.members()[0] for host in fleet.hosts}) == 1


@pytest.mark.slow
def test_joins_are_told_in_few_writes() -> None:
    """A fleet that starts at once makes few rolls: what comes within a while is written together."""
    fleet, _ = counted(60)
    (news,) = [node for path, node in fleet.ensemble.tree.nodes.items() if path == "/cache/roll/news"]
    assert news.version < 60, "joining and ready are two changes for each"


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [12, 60])
def test_all_sessions_lost_at_once_are_back_soon_and_no_server_is_overloaded(hosts: int) -> None:
    fleet, ensemble = counted(hosts)
    before = ensemble.count()
    for host in fleet.hosts:
        ensemble.end_session(ensemble.sessions[host.zk.session], forced=True)
    busiest, boots = 0.0, {host.node.membership.boot for host in fleet.hosts}
    for _ in range(80):
        worked = [server.cpu.worked for server in ensemble.costed]
        fleet.run(100)
        spent = max(server.cpu.worked - was for server, was in zip(ensemble.costed, worked, strict=True))
        busiest = max(busiest, spent / (4 * 100e6))
        assert not any(host.node.gate.is_stale for host in fleet.hosts), "a session that is lost costs no certificate"
    for host in fleet.hosts:
        assert {name.rsplit(".", 2)[0] for name in host.node.membership.nodes} == boots
        assert len(host.node.membership.nodes) == hosts
        assert host.cache.flush_count == 1, "the log is replayed, not flushed"
    after = ensemble.count()
    assert (after.reads - before.reads) / hosts < 60, (
        "eight seconds of rounds, the roll a few times; no read for each other"
    )
    assert (after.writes - before.writes) / hosts < 30
    assert busiest < 0.3
