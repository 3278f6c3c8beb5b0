"""ZooKeeper's own record of what was committed, and what it says of the fleet: the truth that no client can see.

Reads the transaction logs of an ensemble's servers with ZooKeeper's TxnLogToolkit. Two promises show here:

P6  the version that a server says it has applied never falls during a boot;
P7  the transactions of leaders come in the order of their tokens: nobody writes as leader after a later leader has.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .ensemble import CLASSPATH, Ensemble

TOOL = "org.apache.zookeeper.server.persistence.TxnLogToolkit"
HEAD = re.compile(r"session 0x([0-9a-f]+) cxid 0x[0-9a-f]+ zxid 0x([0-9a-f]+) (\w+) ?(.*)")
CANDIDATE = re.compile(r"[\w/]*/leader/[0-9a-f]+-n-\d{10}")
APPLIED = re.compile(r'"applied": \[(-?\d+), (-?\d+)\].*?"boot": "([^"]+)"')


class Transaction(NamedTuple):
    """One committed write. `text` is the tool's, up to the first line end in the data."""

    zxid: int
    session: int
    kind: str
    text: str


def transactions(ensemble: Ensemble) -> list[Transaction]:
    """All writes that any server has logged, in their order."""
    found: dict[int, Transaction] = {}
    for server in ensemble.servers:
        for log in sorted((server.directory / "version-2").glob("log.*")):
            command = ["java", "-cp", CLASSPATH, TOOL, "-d", str(log)]
            output = subprocess.run(command, capture_output=True, timeout=60).stdout.decode(errors="replace")
            for line in output.split("\n"):  # what it prints of a path may hold other line ends
                if match := HEAD.search(line):
                    session, zxid, kind, text = match.groups()
                    found[int(zxid, 16)] = Transaction(int(zxid, 16), int(session, 16), kind, text)
    return [found[zxid] for zxid in sorted(found)]


def broken_promises(ledger: Iterable[Transaction], root: str) -> list[str]:
    """P6 and P7 of the fleet below the znode `root`, where they do not hold."""
    ours = [each for each in ledger if root + "/" in each.text]
    return [*applied_that_fell(ours), *leaders_out_of_order(ours)]


def applied_that_fell(ledger: Iterable[Transaction]) -> Iterator[str]:
    latest: dict[str, tuple[int, int]] = {}
    for each in ledger:
        if each.kind in {"setData", "multi"} and (match := APPLIED.search(each.text)):
            version, boot = (int(match[1]), int(match[2])), match[3]
            if version < latest.get(boot, version):
                yield f"P6: {boot} went from {latest[boot]} back to {version} at zxid 0x{each.zxid:x}"
            latest[boot] = version


def leaders_out_of_order(ledger: Iterable[Transaction]) -> Iterator[str]:
    tokens: dict[str, int] = {}
    latest = 0
    for each in ledger:
        match = CANDIDATE.search(each.text)
        if match is None:
            continue
        if each.kind.startswith("create"):
            tokens[match[0]] = each.zxid
        elif each.kind == "multi" and each.text.startswith("check:"):
            token = tokens.get(match[0], 0)
            if token < latest:
                yield f"P7: a leader of token {token} wrote after one of {latest}, at zxid 0x{each.zxid:x}"
            latest = max(latest, token)
