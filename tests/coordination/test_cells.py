"""Cells: what a sheet says, who writes it, what `applied` costs in a large fleet, and what becomes of it under faults."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcserver.coordination.cells import FIGURES, Line, Sheet, cell_of, count
from mcserver.coordination.layout import UNKNOWN, parts, version
from mcserver.coordination.ports import Level, Malformed
from mcserver.testing.tree import Delta

from .quiet import Quiet, tell
from .simulator.fleet import Host


def large(hosts: int, cell_size: int = 4, **settings: float) -> Quiet:
    """A fleet that acknowledges by cells, with a writer or more in each."""
    fleet = Quiet(hosts, direct_max=0, cell_size=cell_size, write_rate=1000.0, **settings)
    fleet.run(800)
    return fleet


def writers(fleet: Quiet) -> list[Host]:
    return [host for host in fleet.hosts if host.is_live and host.node.cells._mine()[1]]


def test_the_number_of_cells_is_a_power_of_two_and_bounds_their_size() -> None:
    assert [count(members, 32) for members in (0, 1, 32, 33, 64, 65, 1000, 3000)] == [1, 1, 1, 2, 2, 4, 32, 128]
    assert {cell_of(f"n{number}", 4) for number in range(100)} == {0, 1, 2, 3}


def test_a_sheet_says_what_was_written() -> None:
    sheet = Sheet(
        {"a.b.1.0": Line(version(3, 7), "ready", 17, (1, 2, 3, 4, 5, 6)), "c": Line(UNKNOWN, "joining", 0, ())}
    )
    assert Sheet.decode(sheet.encode()) == sheet
    assert [line.proved for line in sheet.lines.values()] == [version(3, 7), UNKNOWN]


@pytest.mark.parametrize(
    "lines",
    [None, [], {"a b": [0, -1, 0, 0]}, {"a": [0, -1, 0]}, {"a": [0, -2, 0, 0]}, {"a": [0, 0, 3, 0]}, {"a": [1 << 31, 0, 0, 0]},
     {"a": "x"}, {"a": [0, 0, 0, -1]}, {"a": [0, 0, 0, 0] + [1] * 13}, {"a": [True, 0, 0, 0]}],
)  # fmt: skip
def test_a_sheet_that_nobody_of_ours_wrote_is_refused(lines: object) -> None:
    with pytest.raises(Malformed):
        Sheet.decode(json.dumps({"lines": lines}).encode())


def test_each_cell_has_one_writer() -> None:
    fleet = large(13)
    cells = {cell_of(host.node.membership.name, fleet.hosts[0].node.cells.number()) for host in fleet.hosts}
    assert len(writers(fleet)) == len(cells)


def test_applied_by_cells_is_confirmed_at_the_next_certificates() -> None:
    fleet = large(9)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(160)  # rounds are 100 ms apart, sheets 25
    assert answer.done()
    assert all(host.node.reader.applied >= answer.result for host in fleet.hosts)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [9, 24])
def test_a_batch_costs_a_write_for_each_cell_at_most(hosts: int) -> None:
    """Beside its append, and the certificates, which are written all the same."""
    fleet = large(hosts, max_stale=4.0, ack_timeout=3.0)
    fleet.run(9000)
    idle = {host: dict(host.node.context.budget.counts) for host in fleet.hosts}
    fleet.run(8000)
    before = {host: dict(host.node.context.budget.counts) for host in fleet.hosts}
    resting = sum(before[host]["sheets"] - idle[host]["sheets"] for host in fleet.hosts)
    for n in range(5):
        answer = tell(fleet.hosts[0], b"k%d" % n, Level.APPLIED)
        fleet.run(1600)
        assert answer.done()
        assert answer.error is None
    after = {host: host.node.context.budget.counts for host in fleet.hosts}
    wrote = {
        kind: sum(after[host][kind] - before[host][kind] for host in fleet.hosts) for kind in after[fleet.hosts[0]]
    }
    assert wrote["acknowledgements"] == 0
    assert wrote["appends"] == 5
    assert wrote["sheets"] - resting <= 5 * fleet.hosts[0].node.cells.number()


def test_the_records_of_a_cell_are_read_in_one_request() -> None:
    fleet = large(16, cell_size=32, max_stale=4.0, ack_timeout=3.0)
    fleet.run(4500)
    (writer,) = writers(fleet)
    reads = writer.node.context.reads
    answer = tell(next(host for host in fleet.hosts if host is not writer), b"k", Level.APPLIED)
    fleet.run(1500)
    assert answer.done()
    assert writer.node.context.reads - reads < 20, "a look each 250 ms, and two rounds; not a read for each member"


def test_a_member_that_is_stopped_is_waited_for_until_its_gate_must_be_closed() -> None:
    fleet = large(9)
    stopped = next(host for host in fleet.hosts[1:] if host not in writers(fleet))
    stopped.process.pause(5e9)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(650)
    assert not answer.done()
    fleet.run(400)
    assert answer.done()
    assert answer.error is None


@pytest.mark.parametrize("fate", ["kill", "cut", "pause", "end_session"])
def test_the_writer_of_a_cell_may_fail(fate: str) -> None:
    fleet = large(9)
    one = fleet.hosts[0]
    writer = next(host for host in writers(fleet) if host is not one)
    writer.cache.put(b"k")
    if fate == "kill":
        writer.kill()
    elif fate == "cut":
        writer.zk.cut()
    elif fate == "pause":
        writer.process.pause(5e9)
    else:
        fleet.ensemble.end_session(fleet.ensemble.sessions[writer.zk.session], forced=True)
    answer = tell(one, b"k", Level.APPLIED)
    for _ in range(1200):
        fleet.run(1)
        if answer.done():
            break
        assert writer.is_live or fate == "kill"
    assert answer.done()
    assert answer.error is None
    assert fate == "kill" or writer.process.paused_until > fleet.world.now or writer.cache.get(b"k") is None
    again = tell(one, b"k2", Level.APPLIED)
    fleet.run(700)
    assert again.done(), "another one writes for the cell"


def test_a_cell_has_a_writer_whatever_was_read_of_it_before() -> None:
    """A record that its writer wrote while it joined may be read late, by itself above all."""
    fleet = large(5)
    for host in writers(fleet):
        membership = host.node.membership
        record = membership.nodes[membership.name]._replace(state="joining")
        membership.nodes[membership.name] = record
        assert host in writers(fleet)


def test_who_becomes_the_writer_tells_what_is_waited_for() -> None:
    fleet = large(5, max_stale=4.0, ack_timeout=3.0)
    writer = next(host for host in writers(fleet) if host is not fleet.hosts[0])
    fleet.run(4500)
    writer.node.membership.is_verified = False  # as just after a new connection
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(20)
    writer.node.membership.prove()
    writer.node.reader.announce()
    fleet.run(1500)  # half of max_stale, after which the records themselves are asked, is later
    assert answer.done()


def test_who_writes_a_sheet_goes_on_with_what_is_waited_for_when_its_connection_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The records had come when it changed: an empty sheet was written, and that somebody waits was forgotten."""
    fleet = large(5, max_stale=4.0, ack_timeout=3.0)
    fleet.run(4500)
    writer = next(host for host in writers(fleet) if host is not fleet.hosts[0])
    cells, context = writer.node.cells, writer.node.context
    get_each, changed = context.get_each, list[Any]()

    async def get(items: Any, path: Any) -> Any:
        answer = await get_each(items, path)
        if path == context.layout.node and cells._wanted and not changed:
            changed.append(list(cells._wanted))
            writer.zk.connection += 1
            writer.node._session_changed(writer.zk.state)
        return answer

    sheets: list[Sheet] = []
    seen = cells._sheet

    def sheet(names: Any) -> Sheet:
        sheets.append(seen(names))
        return sheets[-1]

    monkeypatch.setattr(cells, "_sheet", sheet)
    monkeypatch.setattr(context, "get_each", get)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(1500)  # half of max_stale, after which the records themselves are asked, is later
    assert changed
    assert answer.done()
    assert all(sheet.lines for sheet in sheets)


def test_a_sheet_that_nobody_writes_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = large(5)

    async def nothing(cell: int, names: object) -> None: ...

    for host in fleet.hosts:
        monkeypatch.setattr(host.node.cells, "_write", nothing)
    paths = [path for path in fleet.ensemble.tree.nodes if path.startswith("/cache/cells/")]
    fleet.by_hand(*paths)
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(500)
    assert answer.done(), "after half of max_stale the records themselves are asked"


def test_a_spoilt_sheet_is_left_out_and_written_again() -> None:
    fleet = large(5)
    paths = [path for path in fleet.ensemble.tree.nodes if path.startswith("/cache/cells/")]
    fleet.ensemble.change_by_hand([Delta("set", path, b"what") for path in paths])
    answer = tell(fleet.hosts[0], b"k", Level.APPLIED)
    fleet.run(500)
    assert answer.done()


def test_a_writer_forgets_versions_that_the_log_has_not_any_more() -> None:
    fleet = large(3)
    (writer,) = writers(fleet)
    cells = writer.node.cells
    cells.want(version(9, 100))
    cells.want(version(9, 5))
    assert cells._wanted[-1:] == [version(9, 5)]
    assert version(9, 100) not in cells._wanted
    fleet.run(100)
    assert not any(number > writer.node.reader.applied for number in cells._wanted)


@pytest.mark.slow
def test_a_version_that_a_restored_log_has_not_is_waited_for_no_more() -> None:
    """Its number would come only when the log has grown as long again: the writers looked for it until then."""
    fleet = large(9, max_stale=1.6, ack_timeout=3.0)
    fleet.run(1600)
    one, length = fleet.hosts[0], len(fleet.ensemble.log)
    stopped = next(host for host in fleet.hosts[1:] if host not in writers(fleet))
    stopped.process.pause(0.5e9)
    for n in range(20):
        tell(one, b"k%d" % n, Level.APPLIED)
        fleet.run(20)
    lost = max(host.node.reader.applied for host in fleet.hosts)
    assert any(lost in host.node.cells._wanted for host in fleet.hosts)
    fleet.checkers.on_restore()
    fleet.ensemble.restore(length)
    fleet.run(2000)
    assert all(number <= host.node.reader.applied for host in fleet.hosts for number in host.node.cells._wanted)
    answer = tell(one, b"k", Level.APPLIED)
    fleet.run(700)  # half of max_stale, after which the records themselves are asked, is later
    assert answer.done()
    assert answer.error is None
    assert answer.result < lost


# Reads ----------------------------------------------------------------------------------------------------------------------


def idle_reads(hosts: int) -> float:
    """A member's reads a second in an idle fleet, the busiest one's."""
    fleet = Quiet(hosts, max_stale=4.0, direct_max=16, cell_size=8, spread=2000.0, trim_every=2.0)
    fleet.run(12_000)
    before = [host.node.context.reads for host in fleet.hosts]
    fleet.run(8_000)
    return max(host.node.context.reads - was for host, was in zip(fleet.hosts, before, strict=True)) / 8


@pytest.mark.slow
def test_idle_reads_do_not_grow_with_the_members() -> None:
    few, many = idle_reads(8), idle_reads(64)
    assert many <= 1.5 * few + 1, (few, many)


# Figures --------------------------------------------------------------------------------------------------------------------


def test_every_members_figures_are_there_at_any_member() -> None:
    fleet = Quiet(5)
    fleet.run(600)
    one = fleet.hosts[3].node
    one.figures()
    reads = one.context.reads
    fleet.run(25)
    assert one.context.reads - reads < 5, "by sheets, not by records"
    age, rows = one.figures()
    assert 0 <= age < 0.1
    assert [row.name for row in rows] == sorted(host.node.membership.name for host in fleet.hosts)
    assert all(set(row.figures) == set(FIGURES) for row in rows)
    assert all(0 <= row.age_ms < 800 for row in rows)
    assert all(row.figures["writes"] > 5 and row.figures["reads"] > 5 for row in rows), "a round each 100 ms"


@pytest.mark.slow
def test_the_figures_of_fifty_are_there_at_any_one_and_cost_a_read_for_each_sheet() -> None:
    fleet = Quiet(50, max_stale=2.0, reply_deadline=0.5, write_rate=1000.0)
    fleet.run(6000)
    for n in range(20):
        tell(fleet.hosts[n], b"k%d" % n)
    silent = fleet.hosts[31]
    fleet.run(500)
    silent.zk.cut()
    fleet.run(300)
    for n in range(5):
        tell(silent, b"late%d" % n)
    for asked in (fleet.hosts[0], fleet.hosts[17], fleet.hosts[49]):
        fleet.run(1300)
        reads = asked.node.context.reads
        asked.node.figures()
        fleet.run(30)
        assert asked.node.context.reads - reads <= asked.node.cells.number() + 4, "and a round"
        age, rows = asked.node.figures()
        assert 0 <= age < 0.1
        names = {host.node.membership.name for host in fleet.hosts}
        assert {row.name for row in rows} >= names - {silent.node.membership.name}
        assert all(set(row.figures) == set(FIGURES) for row in rows)
        for row in rows:
            if row.name != silent.node.membership.name:
                assert 0 <= row.age_ms < 3000, "a certificate each half second, a sheet each two"
                assert row.figures["lag"] == 0
                assert 1 < row.figures["writes"] < 20
                assert 1 < row.figures["reads"] < 200
    fleet.run(3000)
    silent.zk.heal()
    assert silent.node.publisher.age_ms > 1000
    fleet.run(3000)
    asked = fleet.hosts[3]
    asked.node.figures()
    fleet.run(30)
    _, rows = asked.node.figures()
    assert {row.name for row in rows} == {host.node.membership.name for host in fleet.hosts}
    assert {row.applied for row in rows} == {fleet.hosts[0].node.reader.applied}, "what was queued has come to all"


def test_members_are_read_anew_when_asked_for() -> None:
    fleet = Quiet(3)
    tell(fleet.hosts[0], b"k")
    fleet.run(900)
    reads = fleet.hosts[1].node.context.reads
    fleet.hosts[1].node.members()
    fleet.run(1)
    assert fleet.hosts[1].node.context.reads - reads <= 4, "a round at most: who only lists the members reads nothing"
    fleet.hosts[1].node.figures()
    fleet.run(30)
    assert {member.applied for member in fleet.hosts[1].node.members()[1]} == {version(1, 0)}


@pytest.mark.slow
def test_the_fleets_unlogged_writes_are_summed_up_for_all() -> None:
    fleet = Quiet(3, max_stale=0.8, reply_deadline=0.4)
    for n in range(300):
        fleet.hosts[n % 3].node.locked(b"k%d" % (n % 7), lambda: None)
        fleet.run(15)
    assert all(host.node.context.budget.unlogged > 10 for host in fleet.hosts)


def test_what_others_have_applied_may_be_lower_on_a_new_connection() -> None:
    """The ensemble may have been restored: the lower one was taken for late until the log was as long again as it had been."""
    fleet = Quiet(2)
    seen = fleet.hosts[0].node.membership
    other = fleet.hosts[1].node.membership.name

    def noted(sequence: int) -> int:
        seen.note(other, version(1, sequence), "ready")
        return parts(seen.nodes[other].applied)[1]

    assert [noted(40), noted(5)] == [40, 40], "a sheet is late"
    for changed in (seen.session_changed, fleet.hosts[0].node.reader.on_back):
        changed()
        assert [noted(5), noted(3), noted(6)] == [5, 5, 6]
