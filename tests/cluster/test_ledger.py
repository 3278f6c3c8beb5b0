"""The ledger's checks find what they look for."""

from __future__ import annotations

import time

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .ledger import Transaction, broken_promises, transactions

RECORD = '/r/cache/nodes/a,{{"address": "h:1", "state": "ready", "applied": [{}, {}], "boot": "a.1"}},3'


def test_a_version_that_falls_is_found() -> None:
    ledger = [Transaction(1, 1, "setData", RECORD.format(1, 5)), Transaction(2, 1, "setData", RECORD.format(1, 4))]
    assert broken_promises(ledger, "/r") == ["P6: a.1 went from (1, 5) back to (1, 4) at zxid 0x2"]
    assert broken_promises(ledger, "/other") == []
    assert broken_promises([ledger[1], ledger[0]], "/r") == []


def test_a_leader_that_writes_too_late_is_found() -> None:
    def create(zxid: int, guid: str) -> Transaction:
        return Transaction(zxid, 1, "create2", f"/r/cache/leader/{guid}-n-000000000{zxid},s0,[31,s")

    def write(zxid: int, candidate: Transaction) -> Transaction:
        return Transaction(zxid, 1, "multi", f"check:   -{candidate.text.split(',')[0]}   ;create: ...")

    one, two = create(1, "aa"), create(2, "bb")
    assert broken_promises([one, two, write(3, one), write(4, two)], "/r") == []
    found = broken_promises([one, two, write(3, two), write(4, one)], "/r")
    assert found == ["P7: a leader of token 1 wrote after one of 2, at zxid 0x4"]


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
def test_the_ledger_of_a_fleet(ensemble: Ensemble, name: str) -> None:
    with Fleet(ensemble, name) as fleet:
        for number in range(5):
            fleet.servers[0].delete(b"c:%d" % number)
        time.sleep(1)
    ledger = [each for each in transactions(ensemble) if f"/{name}/" in each.text]
    appends = [each for each in ledger if each.kind == "multi" and "/e-" in each.text]
    assert len(appends) >= 5
    assert any(each.text.startswith("check:") and "/leader/" in each.text for each in ledger)
    assert sum('"applied": [1, 4]' in each.text for each in ledger) >= 3
    assert broken_promises(ledger, f"/{name}") == []
