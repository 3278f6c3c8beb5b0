"""A long run of random faults: clients work, faults come by a seed, every promise is checked, and one page tells it all."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .ensemble import Ensemble
from .fleet import Fleet
from .history import History
from .ledger import broken_promises, transactions
from .nemesis import Nemesis
from .network import Network
from .workload import Workload

FRESH_WITHIN = 5.0  # s after everything has healed (P14)
PROMISES = {
    "P1": "bounded staleness",
    "P2": "applied",
    "P3": "committed is never lost",
    "P6": "versions only rise",
    "P7": "one effective leader",
    "P10": "nothing of an earlier life",
    "P14": f"fresh within {FRESH_WITHIN:g} s of healing",
}


TELL_SECONDS = 30.0  # between two lines of progress


@dataclass
class Outcome:
    """What a run came to. `anomalies` by promise; the first of each as text."""

    seed: int
    seconds: float
    history: History
    faults: Counter[str]
    slowest_recovery: float
    log_went_back: bool
    anomalies: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def found(self, promise: str, text: str) -> None:
        self.anomalies[promise] += 1
        self.examples.setdefault(promise, text)

    @property
    def is_clean(self) -> bool:
        return not self.anomalies

    def page(self) -> str:
        lines = [f"Soak of {self.seconds:.0f} s, seed {self.seed}", "", f"operations  {self.history.report()}"]
        faults = ", ".join(f"{count} {name}" for name, count in self.faults.most_common())
        lines += [f"faults      {self.faults.total()}: {faults}"]
        lines += [f"recovery    fresh again at most {self.slowest_recovery:.1f} s after healing", ""]
        for promise, meaning in PROMISES.items():
            lines.append(f"{promise:4} {meaning:32} {self.anomalies[promise] or 'no'} anomalies")
        if self.log_went_back:
            lines.append(
                "A number of the log was written twice: a proposal without a quorum, or an entry that ZooKeeper lost"
            )
        lines += [f"\nfirst {promise}: {text}" for promise, text in self.examples.items()]
        return "\n".join(lines)


def soak(seconds: float, seed: int) -> Outcome:
    with Network() as network, Ensemble(network) as ensemble, Fleet(ensemble, "soak") as fleet:
        with Workload(fleet.servers, seed=seed, writers=6) as workload:
            nemesis = Nemesis(ensemble, fleet, workload, seed)
            started = time.monotonic()
            failure = ""
            try:
                nemesis.run(seconds)
            except AssertionError as error:  # not fresh in time
                failure = str(error)
        taken = time.monotonic() - started
        outcome = Outcome(seed, taken, workload.history, nemesis.done, nemesis.slowest_recovery, False)
        if failure:
            outcome.found("P14", failure + "\n" + "\n".join(server.log for server in fleet.servers))
        elif nemesis.slowest_recovery > FRESH_WITHIN:
            outcome.found("P14", f"{nemesis.slowest_recovery:.1f} s")
        if not failure:
            fleet.settle(workload)
        check(outcome, ensemble)
    return outcome


def tell(seconds: float) -> None:
    """A line every half minute, until the process ends: nobody should wonder whether it still runs."""

    def work() -> None:
        began = time.monotonic()
        while True:
            time.sleep(TELL_SECONDS)
            print(f"soaking: {time.monotonic() - began:.0f} of {seconds:.0f} s", file=sys.stderr, flush=True)

    threading.Thread(target=work, daemon=True).start()


def check(outcome: Outcome, ensemble: Ensemble) -> None:
    for anomaly in outcome.history.anomalies():
        outcome.found(anomaly.promise, anomaly.text)
    ledger = transactions(ensemble)
    for broken in broken_promises(ledger, "/soak"):
        outcome.found(broken.partition(":")[0], broken)
    entries: Counter[str] = Counter()
    for each in ledger:
        if each.kind == "multi" and (at := each.text.find("/e-")) > 0:
            entries[each.text[each.text.rfind("log-", 0, at) : at + 13]] += 1
    outcome.log_went_back = any(count > 1 for count in entries.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long faults come (600)")
    parser.add_argument("--seed", type=int, default=None, help="chooses the faults; printed when left out")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # the client that ends sessions tells each of them
    tell(arguments.seconds)
    outcome = soak(arguments.seconds, seed)
    print(outcome.page())
    if outcome.is_clean:
        return 0
    path = Path(tempfile.mkdtemp(prefix="soak-")) / "history.jsonl"
    outcome.history.dump(path)
    print(f"\nhistory: {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
