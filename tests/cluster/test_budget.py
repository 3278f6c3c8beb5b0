"""What `stats cluster` counts of a fleet's writes is what ZooKeeper counts: the transactions of a real ensemble."""

from __future__ import annotations

from collections import Counter

import pytest

from .ensemble import Ensemble
from .fleet import Fleet
from .ledger import Transaction, transactions
from .servers import CacheServer, until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

KINDS = ("appends", "certificates", "acknowledgements", "locks", "membership", "leader", "sheets", "sessions")
UNDER_WAY = 9
"""Writes that three servers may have asked for and that ZooKeeper has not committed yet."""


def written(*servers: CacheServer) -> Counter[str]:
    """By kind, as the servers say."""
    total: Counter[str] = Counter()
    for server in servers:
        stats = server.stats()
        total.update({kind: int(stats[f"writes_{kind}"]) for kind in KINDS})
    return total


def last_zxid(ensemble: Ensemble) -> int:
    """Of the server that has seen the most."""
    answers = [server.ask(b"srvr") for server in ensemble.servers]
    return max(int(line[8:], 16) for answer in answers for line in answer.splitlines() if line.startswith("Zxid: 0x"))


def kind_of(transaction: Transaction) -> str:
    """As KINDS has it, by what was written. Nothing is known of a write that was refused."""
    kind, text = transaction.kind, transaction.text
    if kind == "error":
        return "refused"
    if kind == "createSession" or "/cache" not in text:
        return "sessions"
    if "/invalidation/" in text and "/e-" in text and "delete" not in text:
        return "appends"
    if kind == "setData" and "/nodes/" in text:
        return "certificates and acknowledgements"
    return next((what for what in ("locks", "cells") if f"/{what}/" in text), "membership and leader")


def test_every_write_is_counted(ensemble: Ensemble, name: str) -> None:
    """Each kind, and all together: what was refused (a znode that is there, or gone, already) is a transaction, too."""
    with Fleet(ensemble, name, "--ack", "a:=applied", "--lock-writes", "lk:") as fleet:
        first, second, third = fleet.servers
        for number in range(10):
            first.delete(b"c:%d" % number)
            second.delete(b"a:%d" % number)
            assert first.set(b"lk:%d" % number, b"x") == b"STORED"
            assert third.set(b"lk:%d" % number, b"x") == b"STORED"
        assert first.ask(b"cluster flush p:") == b"OK"
        until(lambda: fleet.total("writes_sheets") > 0)
        least = last_zxid(ensemble)
        counted = written(*fleet.servers)
        most = last_zxid(ensemble)
        sessions = {int(server.stats()["session_id"], 16) for server in fleet.servers}
    ledger = [each for each in transactions(ensemble) if each.session in sessions]
    kinds = Counter(kind_of(each) for each in ledger if each.zxid <= least)
    assert kinds["appends"] >= 40
    for kind, number in kinds.items():
        if kind != "refused":
            names = {"cells": "sheets"}.get(kind, kind).split(" and ")
            assert 0 < number <= sum(counted[each] for each in names), (kind, kinds, counted)
    everything = counted.total()
    assert kinds.total() <= everything <= sum(each.zxid <= most for each in ledger) + UNDER_WAY, (kinds, counted)
