"""One seed: a fleet starts, works, suffers, is healed, and must be whole again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

from mcserver.coordination import cells, leader, membership, reader
from mcserver.coordination.cells import Sheet
from mcserver.coordination.layout import Floor, MemberRecord, Meta, NodeRecord
from mcserver.coordination.roll import Listing, News

from . import checkers, faults
from .checkers import Violation
from .fleet import WORK, Fleet
from .mutations import FAULTS, MUTATIONS
from .scheduler import MS, SECOND, World

HEAL = 1_000 * MS  # after the last fault: so long until everything must be fresh


class Outcome(NamedTuple):
    """Of one seed. `violation` is None when every property held."""

    seed: int
    violation: Violation | None
    events: int


@cache
def remember_what_is_pure() -> None:
    """The same few records are read again and again, by every server: decoding them once saves a third of the time."""
    for record in (Floor, MemberRecord, Meta, NodeRecord, Listing, News, Sheet):
        remember(4096, "decode", record)
    remember(4096, "decode", reader, checkers)
    remember(1 << 16, "cell_of", cells)
    remember(1 << 16, "is_candidate", leader)
    remember(1 << 16, "sequence_of", leader)
    remember(1 << 16, "is_name", membership)


def remember(most: int, name: str, *places: object) -> None:
    """Puts one function that remembers into each of the places, in place of the one of this name."""
    remembering = lru_cache(most)(getattr(places[0], name))
    for place in places:
        setattr(place, name, remembering)


remember_what_is_pure()


def simulate(
    seed: int,
    mutation: str = "",
    note: Callable[[str], None] | None = None,
    upgrade: str = "",
    members: int = 0,
    strange: bool = False,
    uneven: bool = False,
    odd: bool = False,
) -> Outcome:
    """Runs one seed, with a mutation of the code under test if one is named.

    `upgrade`: from that release; `members`: so many servers instead of two or three; `strange`: somebody who may write
    to ZooKeeper deletes and overwrites what is the fleet's; `uneven`: servers of one name, and of different options, at
    servers of ZooKeeper that are behind, or whose clock jumps; `odd`: machines sleep, and records are deleted one by one.
    """
    world = World(seed)
    if note is not None:
        world.note = lambda text: note(f"{world.now / SECOND:9.4f}  {text}")
    with MUTATIONS[mutation]() if mutation else nullcontext():
        fleet = Fleet(world)
        try:
            fleet.is_uneven |= uneven
            if odd:
                fleet.wakes_later, fleet.policies = True, ("miss", "miss", "miss", "error", "serve")
            chosen = faults.STRANGE if strange else faults.UNEVEN if uneven else faults.ODD if odd else []
            _run(fleet, FAULTS.get(mutation) or chosen, upgrade, members)
        except Violation as violation:
            return Outcome(seed, violation, world.events)
        finally:
            world.close()
    return Outcome(seed, None, world.events)


def _run(fleet: Fleet, chosen: list[faults.Fault], upgrade: str, members: int) -> None:
    world, random = fleet.world, fleet.world.random
    if members:
        _enlarge(fleet, members)
    if upgrade:
        fleet.released, fleet.release = random.choice((0.5, 1.0)), upgrade
        for n in range(random.choice((0, 1, 2))):
            world.at(int((0.15 + 0.25 * n) * WORK), None, _upgrade, fleet)
    for n in range(members or random.choice((2, 2, 3, 3))):
        world.after(random.random() ** 2 * 0.3 * SECOND, None, fleet.start, f"n{n + 1}")
    rare = random.random() < 0.3
    for n in range(random.choice((0, 1, 2, 3, 4, 6))):
        fault = random.choice(chosen or (faults.RARE if rare and n == 0 else faults.COMMON))
        world.at(int((0.25 + 0.65 * random.random()) * WORK), None, _suffer, fleet, fault)
    world.run(WORK)
    _heal(fleet)
    whole = WORK + HEAL
    if fleet.is_uneven:
        whole += HEAL // 2  # the records of the dead stay for as long as the longest max_stale
    world.run(whole)
    fleet.busy = False
    world.run(whole + 200 * MS)
    fleet.checkers.at_the_end()


def _enlarge(fleet: Fleet, members: int) -> None:
    """Many servers: each is calmer, jitter is as short as the rest of this world, and everybody goes by cells."""
    fleet.pace *= members // 10 + 1
    fleet.hiccups = min(fleet.hiccups, 0.0005)
    fleet.settings = replace(
        fleet.settings,
        direct_max=8,
        cell_size=min(32, members // 4 + 1),
        spread=50.0 * members,
        trips=1000.0 * members,
        write_rate=2000.0,
        keep_entries=60,
        cap_entries=200,
        rotate_at=1 << 28,
        read_ahead=32,
        slice_keys=16,
    )


def _upgrade(fleet: Fleet) -> None:
    """One server of an earlier release ends, properly or not, and starts again as the present one."""
    fleet.released = 0.0 if fleet.world.now > WORK / 2 else fleet.released / 2
    hosts = [host for host in fleet.live() if host.released]
    if not hosts:
        return
    host = fleet.world.random.choice(hosts)
    if fleet.world.random.random() < 0.5:
        host.kill()
    else:
        host.leave()
    node, released, fleet.released = host.node.context.settings.node_name, fleet.released, 0.0
    if fleet.world.note:
        fleet.world.note(f"--- {host.process.name} is upgraded")
    fleet.start(node, host.cache)
    fleet.released = released


def _suffer(fleet: Fleet, fault: faults.Fault) -> None:
    if fleet.world.note:
        fleet.world.note(f"--- {fault.__name__}")
    fault(fleet)


def _heal(fleet: Fleet) -> None:
    """Ends every fault that is still on."""
    if fleet.world.note:
        fleet.world.note("--- healed")
    ensemble = fleet.ensemble
    ensemble.writable, ensemble.lose_replies, ensemble.lag = True, 0.0, 1.0
    ensemble.refuse_entries, ensemble.packet_limit, ensemble.forbidden = False, 1 << 20, ""
    for server in ensemble.servers:
        server.isolated, server.behind, server.slow = False, 0, 1.0
        server.start()
    for host in fleet.hosts:
        host.zk.heal()
        host.process.hiccups = 0.0
