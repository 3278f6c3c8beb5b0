"""What can go wrong. A fault is a function of the fleet; it arranges its own end."""

from __future__ import annotations

from collections.abc import Callable

from mcserver.coordination import ports
from mcserver.coordination.layout import STATES, Floor, MemberRecord, Meta, NodeRecord
from mcserver.coordination.ports import Change, Level
from mcserver.testing.tree import Delta

from .ensemble import Server, Session
from .fleet import WORK, Fleet, Host
from .scheduler import MS, SECOND

META = "/cache/invalidation/meta"

Fault = Callable[[Fleet], None]


def _span(fleet: Fleet, low: float, high: float) -> float:
    """A duration in ns, short ones more often."""
    span = (low + (high - low) * fleet.world.random.random() ** 2) * SECOND
    return max(MS, min(span, WORK - fleet.world.now))


def _host(fleet: Fleet) -> Host | None:
    live = fleet.live()
    return fleet.world.random.choice(live) if live else None


def cut_off(fleet: Fleet) -> None:
    """A server loses its way to all of ZooKeeper."""
    host = _host(fleet)
    if host is not None:
        host.zk.cut()
        fleet.world.after(_span(fleet, 0.05, 1.6), None, host.zk.heal)


def pause(fleet: Fleet) -> None:
    """SIGSTOP and SIGCONT."""
    host = _host(fleet)
    if host is not None:
        host.process.pause(_span(fleet, 0.03, 2.0))


def pause_leader(fleet: Fleet) -> None:
    """The leader sleeps for longer than its session lives."""
    for host in fleet.live():
        if host.node.election.is_leader:
            host.process.pause(_span(fleet, 0.6, 1.5))


def restart(fleet: Fleet) -> None:
    """kill -9 and a restart, sometimes before the old session is over."""
    host = _host(fleet)
    if host is not None:
        host.kill()
        node = host.node.context.settings.node_name
        fleet.world.after(_span(fleet, 0.03, 1.2), None, lambda: fleet.start(node, host.cache) if fleet.busy else None)


def die(fleet: Fleet) -> None:
    host = _host(fleet)
    if host is not None and len(fleet.live()) > 1:
        host.kill()


def leave(fleet: Fleet) -> None:
    """A server leaves; now and then another process goes on with its memory."""
    host = _host(fleet)
    if host is None or len(fleet.live()) < 2:
        return
    host.leave()
    if fleet.world.random.random() < 0.7:
        node = host.node.context.settings.node_name

        def again() -> None:
            if fleet.busy and not host.is_live:
                fleet.start(node, left=host)

        fleet.world.after(_span(fleet, 0.05, 1.5), None, again)


def join(fleet: Fleet) -> None:
    fleet.start(f"n{len(fleet.hosts) + 1}")


def drop_connection(fleet: Fleet) -> None:
    host = _host(fleet)
    if host is not None and host.zk.wire is not None:
        host.zk.wire.break_off()


def flap(fleet: Fleet) -> None:
    """Several broken connections in a row, until all is healed."""

    def drop() -> None:
        if fleet.world.now < WORK:
            drop_connection(fleet)

    for n in range(5):
        fleet.world.after(n * 150 * MS, None, drop)


def stop_server(fleet: Fleet) -> None:
    server = fleet.world.random.choice(fleet.ensemble.servers)
    server.stop()
    fleet.world.after(_span(fleet, 0.05, 1.2), None, server.start)


def stop_all(fleet: Fleet) -> None:
    """The ensemble is gone for a while."""
    ensemble = fleet.ensemble
    ensemble.writable = False
    for server in ensemble.servers:
        server.stop()

    def again() -> None:
        ensemble.writable = True
        for server in ensemble.servers:
            server.start()

    fleet.world.after(_span(fleet, 0.1, 1.6), None, again)


def elect(fleet: Fleet) -> None:
    """ZooKeeper's own leader dies: no writes for a while, every connection breaks."""
    ensemble = fleet.ensemble
    ensemble.writable = False
    for server in ensemble.servers:
        for connection in list(server.connections):
            connection.break_off()

    def elected() -> None:
        ensemble.writable = True

    fleet.world.after(_span(fleet, 0.05, 0.6), None, elected)


def isolate(fleet: Fleet, server: Server | None = None) -> None:
    """A follower without its leader: it answers reads, with what it has, until it gives up."""
    if len(fleet.ensemble.servers) == 1:
        return
    server = server or fleet.world.random.choice(fleet.ensemble.servers)
    server.isolated = True
    for connection in server.connections:
        fleet.ensemble.contact_ends(connection.session)

    def give_up() -> None:
        if server.isolated:
            for connection in list(server.connections):
                connection.break_off()

    def again() -> None:
        server.isolated = False
        server.catch_up(len(fleet.ensemble.log))

    span = _span(fleet, 0.2, 1.8)
    fleet.world.after(0.7 * span, None, give_up)
    fleet.world.after(span, None, again)


def end_session(fleet: Fleet) -> None:
    """A session is closed by force while its server serves; others confirm deletes at once."""
    host = _host(fleet)
    if host is None:
        return
    session = fleet.ensemble.sessions.get(host.zk.session)
    if session is None:
        return
    fleet.ensemble.end_session(session, forced=True)
    if fleet.world.random.random() < 0.5:
        host.zk.cut()
        fleet.world.after(_span(fleet, 0.05, 1.2), None, host.zk.heal)
    for other in fleet.live():
        if other is not host:
            for key in fleet.keys:
                fleet.world.after(
                    _span(fleet, 0.0, 0.3), other.process, other.submit, Change("delete", key), Level.APPLIED
                )


def lose_replies(fleet: Fleet) -> None:
    """Connections break after the commit, before the reply."""
    ensemble = fleet.ensemble
    ensemble.lose_replies = 0.3

    def again() -> None:
        ensemble.lose_replies = 0.0

    fleet.world.after(_span(fleet, 0.1, 1.0), None, again)


def lag(fleet: Fleet) -> None:
    ensemble = fleet.ensemble
    ensemble.lag = 8.0

    def again() -> None:
        ensemble.lag = 1.0

    fleet.world.after(_span(fleet, 0.2, 1.2), None, again)


def slow_server(fleet: Fleet) -> None:
    server = fleet.world.random.choice(fleet.ensemble.servers)
    server.slow = fleet.world.random.choice((10, 40, 120))

    def again() -> None:
        server.slow = 1.0

    fleet.world.after(_span(fleet, 0.2, 1.2), None, again)


def refuse(fleet: Fleet) -> None:
    """The ACL of the log forbids entries."""
    ensemble = fleet.ensemble
    ensemble.refuse_entries = True

    def again() -> None:
        ensemble.refuse_entries = False

    fleet.world.after(_span(fleet, 0.2, 1.0), None, again)


def small_packets(fleet: Fleet) -> None:
    ensemble = fleet.ensemble
    ensemble.packet_limit = fleet.world.random.choice((150, 200))

    def again() -> None:
        ensemble.packet_limit = 1 << 20

    fleet.world.after(_span(fleet, 0.2, 1.0), None, again)


# By hand, and worse ---------------------------------------------------------------------------------------------------------


def _by_hand(fleet: Fleet, deltas: list[Delta]) -> None:
    fleet.ensemble.change_by_hand(deltas)


def _logs(fleet: Fleet) -> list[str]:
    node = fleet.ensemble.tree.nodes.get("/cache/invalidation")
    return sorted(name for name in node.children if name != "meta") if node else []


def depose(fleet: Fleet) -> None:
    """Somebody deletes the leader's candidate while it is at work, and it sleeps while the next one takes over."""
    leaders = [host for host in fleet.live() if host.node.election.is_leader]
    if not leaders:
        return
    host = leaders[0]

    def look() -> None:
        path = host.node.election.candidate
        if not host.is_live or path not in fleet.ensemble.tree.nodes:
            return
        if not host.zk.waits_only_for("/cache/invalidation/log-"):
            fleet.world.after(0.2 * MS, None, look)
            return
        _by_hand(fleet, [Delta("delete", path)])
        if fleet.world.random.random() < 0.5:
            host.process.pause(_span(fleet, 0.0, 0.3))

    look()


def hole(fleet: Fleet) -> None:
    """A server is cut off; meanwhile somebody deletes an entry that it has not seen."""
    host = _host(fleet)
    if host is None:
        return
    host.zk.cut()
    span = _span(fleet, 0.1, 0.5)
    fleet.world.after(0.8 * span, None, delete_entry, fleet)
    fleet.world.after(span, None, host.zk.heal)


def delete_entry(fleet: Fleet) -> None:
    """Somebody deletes one of the last entries."""
    logs = _logs(fleet)
    if logs:
        path = f"/cache/invalidation/{logs[-1]}"
        entries = sorted(fleet.ensemble.tree.nodes[path].children)[-3:]
        if entries:
            _by_hand(fleet, [Delta("delete", f"{path}/{fleet.world.random.choice(entries)}")])


def delete_log(fleet: Fleet) -> None:
    """Somebody deletes a log with all its entries, and perhaps the record that names it."""
    deltas = []
    for name in _logs(fleet):
        path = f"/cache/invalidation/{name}"
        children = fleet.ensemble.tree.nodes[path].children
        deltas += [Delta("delete", f"{path}/{child}") for child in sorted(children)]
        deltas.append(Delta("delete", path))
    if "/cache/invalidation/meta" in fleet.ensemble.tree.nodes and fleet.world.random.random() < 0.5:
        deltas.append(Delta("delete", "/cache/invalidation/meta"))
    _by_hand(fleet, deltas)


def delete_node(fleet: Fleet) -> None:
    """Somebody deletes a living server's ephemeral znode."""
    node = fleet.ensemble.tree.nodes.get("/cache/nodes")
    if node is not None and node.children:
        name = fleet.world.random.choice(sorted(node.children))
        _by_hand(fleet, [Delta("delete", f"/cache/nodes/{name}")])


def _below(fleet: Fleet, path: str) -> list[Delta]:
    """Everything below a path and the path itself, in an order in which it can be deleted."""
    nodes = fleet.ensemble.tree.nodes
    found = sorted((each for each in nodes if each == path or each.startswith(path + "/")), reverse=True)
    return [Delta("delete", each) for each in found]


def delete_invalidation(fleet: Fleet) -> None:
    """Somebody deletes /cache/invalidation, with which the count of generations goes."""
    _by_hand(fleet, _below(fleet, "/cache/invalidation"))


def replace_log(fleet: Fleet) -> None:
    """Somebody makes a log by hand, of the same generation or, twice in a row, of one far above, and says that it is current."""
    nodes = fleet.ensemble.tree.nodes
    try:
        meta = Meta.decode(nodes[META].data)
    except (KeyError, ports.Malformed):
        return
    if meta.log not in {path.rpartition("/")[2] for path in nodes}:
        return
    fleet.checkers.on_replaced()
    for gen in fleet.world.random.choice(((meta.gen,), (meta.gen, meta.gen), (meta.gen + 7, meta.gen))):
        name = f"log-{gen}-{fleet.world.random.getrandbits(32):08x}"
        log = Delta("create", f"/cache/invalidation/{name}", Floor(0, 0).encode())
        _by_hand(fleet, [log, Delta("set", META, meta._replace(gen=gen, log=name, previous=None).encode())])


def remake_log(fleet: Fleet) -> None:
    """Somebody deletes the current log and makes it again under its name, as from an export: its versions begin anew."""
    nodes = fleet.ensemble.tree.nodes
    try:
        path = f"/cache/invalidation/{Meta.decode(nodes[META].data).log}"
    except (KeyError, ports.Malformed):
        return
    if path in nodes:
        fleet.checkers.on_replaced()
        _by_hand(fleet, [*_below(fleet, path), Delta("create", path, Floor(0, 0).encode())])


def delete_path(fleet: Fleet) -> None:
    """Somebody deletes everything while the fleet runs: who may be serving is not known any more."""
    fleet.checkers.on_restore()
    _by_hand(fleet, _below(fleet, "/cache"))


def delete_candidates(fleet: Fleet) -> None:
    _by_hand(fleet, _below(fleet, "/cache/leader"))


def delete_member(fleet: Fleet) -> None:
    """Somebody deletes the record that says that a live server may be serving. Of one that is not live nothing else is known."""
    nodes = fleet.ensemble.tree.nodes
    live = sorted(
        path[13:] for path in nodes if path.startswith("/cache/nodes/") and f"/cache/members/{path[13:]}" in nodes
    )
    if live:
        _by_hand(fleet, [Delta("delete", f"/cache/members/{fleet.world.random.choice(live)}")])


def delete_roll(fleet: Fleet) -> None:
    _by_hand(fleet, _below(fleet, fleet.world.random.choice(("/cache/roll", "/cache/cells", "/cache/roll/list"))))


def scribble(fleet: Fleet) -> None:
    """Somebody writes into one of the records."""
    nodes = fleet.ensemble.tree.nodes
    paths = [path for path in nodes if path.startswith("/cache/") and nodes[path].data and "/e-" not in path]
    text = fleet.world.random.choice((b"", b"x" * 20000, b"{}", b"[" * 1000, b'{"format": 2}'))
    if paths:
        _by_hand(fleet, [Delta("set", fleet.world.random.choice(sorted(paths)), text)])


def strange_entry(fleet: Fleet) -> None:
    """A newer release writes an entry that this one does not understand."""
    logs = _logs(fleet)
    if logs and fleet.live():
        session = Session(-1, fleet.live()[0].zk, 0)
        try:
            path = f"/cache/invalidation/{logs[-1]}/e-"
            fleet.ensemble.write([ports.Create(path, b"MI9 who knows", sequence=True)], session)
        except ports.ZooKeeperError:
            pass


def wipe(fleet: Fleet) -> None:
    """The ensemble comes back empty."""
    fleet.checkers.on_restore()
    fleet.ensemble.restore(0)


def roll_back(fleet: Fleet) -> None:
    """The ensemble comes back from a backup."""
    length = len(fleet.ensemble.log)
    fleet.checkers.on_restore()
    fleet.ensemble.restore(max(0, length - int(fleet.world.random.random() ** 2 * 60) - 1))


# What goes on beside each other ---------------------------------------------------------------------------------------------


def twin(fleet: Fleet) -> None:
    """A second server of the same name and address while the first lives; now and then the first sleeps, and comes back."""
    host = _host(fleet)
    if host is None:
        return
    if fleet.world.random.random() < 0.6:
        host.process.pause(_span(fleet, 0.1, 1.6))
    fleet.start(host.node.context.settings.node_name)


def fall_behind(fleet: Fleet) -> None:
    """One of ZooKeeper's servers applies everything late, as an observer far away does; reads it answers at once.

    In the end it may lose its leader.
    """
    if len(fleet.ensemble.servers) == 1:
        return
    server = fleet.world.random.choice(fleet.ensemble.servers)
    server.behind = fleet.world.random.choice((40, 80, 150, 200, 1000)) * MS  # replies have 100 or 250

    def again() -> None:
        server.behind = 0

    span = _span(fleet, 0.4, 1.8)
    if fleet.world.random.random() < 0.5:
        fleet.world.after(0.6 * span, None, isolate, fleet, server)
    fleet.world.after(span, None, again)


def elect_another_clock(fleet: Fleet) -> None:
    """ZooKeeper's next leader has a clock that is some seconds ahead, or behind."""
    fleet.checkers.see_what_is_due()
    fleet.ensemble.clock = int((fleet.world.random.random() - 0.5) * 20 * SECOND)
    elect(fleet)


def roll_back_with_the_clock(fleet: Fleet) -> None:
    """The ensemble comes back from an old backup, and what it says of the time is old, too."""
    fleet.checkers.see_what_is_due()
    fleet.ensemble.clock -= int(fleet.world.random.random() * 10 * SECOND)
    roll_back(fleet)


# What is seen late, or looks as it did before -----------------------------------------------------------------------------


def delete_meta(fleet: Fleet) -> None:
    """Somebody deletes the record that names the log, and nothing else: the next one has the same version."""
    if META in fleet.ensemble.tree.nodes:
        _by_hand(fleet, [Delta("delete", META)])


def machine_sleeps(fleet: Fleet) -> None:
    """A host sleeps, or a machine on it is saved and goes on: when it wakes up its timers still have as long as before."""
    host = _host(fleet)
    if host is not None:
        host.process.sleep(_span(fleet, 0.05, 1.2))


def delete_bucket(fleet: Fleet) -> None:
    """Somebody deletes a lock with all who hold it and wait for it."""
    locks = fleet.ensemble.tree.nodes.get("/cache/locks")
    if locks is not None and locks.children:
        _by_hand(fleet, _below(fleet, f"/cache/locks/{fleet.world.random.choice(sorted(locks.children))}"))


def delete_anything(fleet: Fleet) -> None:
    """Somebody deletes any one znode of the fleet's, with all that is below."""
    nodes, path = fleet.ensemble.tree.nodes, _walk(fleet)
    if path == "/cache":
        return
    for delta in (deltas := _below(fleet, path)):
        name = delta.path.rpartition("/")[2]
        if delta.path == f"/cache/members/{name}" and f"/cache/nodes/{name}" not in nodes:
            fleet.checkers.forgotten.add(name.rsplit(".", 2)[0])  # nothing else says that it may be serving
    _by_hand(fleet, deltas)


def _walk(fleet: Fleet) -> str:
    """The path of any znode of the fleet's."""
    nodes, random, path = fleet.ensemble.tree.nodes, fleet.world.random, "/cache"
    while path in nodes and nodes[path].children and (path == "/cache" or random.random() < 0.5):
        path = f"{path}/{random.choice(sorted(nodes[path].children))}"
    return path


def forbid(fleet: Fleet) -> None:
    """Somebody changes the ACL of something, and of all that is below, and mends it later."""
    ensemble = fleet.ensemble
    ensemble.forbidden = _walk(fleet)

    def again() -> None:
        ensemble.forbidden = ""

    fleet.world.after(_span(fleet, 0.1, 1.2), None, again)


def import_copy(fleet: Fleet) -> None:
    """Somebody brings back what an export of the tree held: what belonged to a session belongs to none now, and stands first."""
    nodes, random = fleet.ensemble.tree.nodes, fleet.world.random
    guid, boot = f"{random.getrandbits(64):016x}", f"gone.{random.getrandbits(48):012x}"
    records = [(f"/cache/leader/{guid}-n-0000000000", boot.encode() + b".1.0")]
    records += [(f"/cache/locks/{bucket}/{guid}-l-0000000000", b"") for bucket in ("00", "01")]
    records += [(f"/cache/nodes/{boot}.1.0", NodeRecord("", random.choice(STATES), 0, boot).encode())]
    records += [(f"/cache/members/{boot}.1.0", MemberRecord(0.4, "miss").encode())]
    wanted = [
        Delta("create", path, data)
        for path, data in records
        if path.rpartition("/")[0] in nodes and random.random() < 0.7
    ]
    _by_hand(fleet, wanted)


COMMON: list[Fault] = [
    cut_off, cut_off, pause, pause, pause_leader, restart, restart, die, leave, join, drop_connection, flap, stop_server,
    stop_all, elect, isolate, isolate, end_session, end_session, lose_replies, lose_replies, lag, slow_server,
]  # fmt: skip
RARE: list[Fault] = [
    refuse, small_packets, delete_entry, hole, hole, depose, depose, depose, delete_log, delete_node, strange_entry, wipe,
    roll_back,
]  # fmt: skip
STRANGE: list[Fault] = [
    delete_invalidation, delete_invalidation, delete_path, delete_candidates, delete_member, delete_member, delete_roll, scribble,
    scribble, scribble, replace_log, remake_log, delete_log, delete_node, hole, depose, end_session, restart, join, pause,
    cut_off, elect,
]  # fmt: skip
UNEVEN: list[Fault] = [
    twin, twin, twin, twin, fall_behind, fall_behind, fall_behind, elect_another_clock, elect_another_clock,
    roll_back_with_the_clock, cut_off, pause, pause_leader, restart, leave, join, isolate, end_session, lose_replies, lag,
]  # fmt: skip
ODD: list[Fault] = [
    delete_meta, delete_meta, import_copy, import_copy, delete_anything, delete_anything, delete_anything, machine_sleeps,
    machine_sleeps, machine_sleeps, forbid, forbid, forbid, delete_bucket, elect_another_clock, elect_another_clock,
    roll_back_with_the_clock, delete_candidates, depose, end_session, leave, leave, restart, lose_replies, lag,
    drop_connection, cut_off, pause,
]  # fmt: skip
