"""A thousand worlds in which every property holds, and broken ones in which the checkers say so. The soak runs ten thousand."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.giving_way import GIVES_WAY

from .simulator.mutations import BREAKS
from .simulator.run import simulate

ROOT = Path(__file__).parents[2]
CHUNK = 100
SOAK = os.environ.get("MCSERVER_SOAK", "")  # the seed of scripts/soak --tests
SEEDS = range(int(SOAK), int(SOAK) + 10_000, CHUNK) if SOAK else range(0, 1000, CHUNK)
LIMIT = 400  # seeds within which a mutation must be reported as what it breaks


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """No log lines, and no collector: a world is closed at its end and leaves little behind."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    logging.disable(logging.NOTSET)


def holds(seed: int, kind: str = "") -> None:
    """In this world, of this kind (`--strange`, ...), no property is violated."""
    replay = f"python -m tests.coordination.simulator {seed}" + f" --{kind}" * bool(kind)
    kinds: dict[str, Any] = {kind: True} if kind else {}
    assert simulate(seed, **kinds).violation is None, replay


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", SEEDS)
def test_every_property_holds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        holds(seed)
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        465,  # who waits for two versions asks for the second only after a long rest
        651,  # and so does who comes back with a new session, before it may rely on what it reads
        753,  # a cell whose writer takes itself for one that joins has none
        2187,  # a log that fills up at once keeps the leader from clearing away the dead
        2522,  # the log and what names it are deleted, and the next leader has seen less than the others
        2792,  # an ensemble restored from a backup, and a roll whose serials count other changes
    ],
)
def test_a_seed_that_once_failed_holds(seed: int) -> None:
    holds(seed)


@pytest.mark.parametrize(
    "seed",
    [
        5,  # the candidates and their counter are deleted: a new candidate has the path of the old one, and is another
        12,  # the roll is deleted with all that it is in
    ],
)
def test_what_strangers_did_that_once_failed_holds(seed: int) -> None:
    holds(seed, "strange")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_property_holds_while_somebody_else_deletes_and_overwrites() -> None:
    for seed in range(10_000, 10_100):
        holds(seed, "strange")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", [30_000, 30_100])
def test_every_property_holds_with_servers_of_one_name_of_other_options_and_at_late_servers(first: int) -> None:
    for seed in range(first, first + CHUNK):
        holds(seed, "uneven")


def test_what_could_not_be_read_for_a_while_once_failed_and_holds() -> None:
    """Seed 369: the ACL of the roll is another when a server reads it for the first time on a connection."""
    holds(369, "odd")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", [40_000, 40_100])
def test_every_property_holds_while_machines_sleep_and_records_look_as_before(first: int) -> None:
    for seed in range(first, first + CHUNK):
        holds(seed, "odd")


def test_a_few_seeds_for_everyday() -> None:
    for seed in range(50_000, 50_020):
        holds(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", BREAKS)
def test_a_broken_rule_is_reported(mutation: str) -> None:
    for seed in range(LIMIT):
        violation = simulate(seed, mutation).violation
        if violation is not None and violation.property == BREAKS[mutation]:
            return
    pytest.fail(f"{LIMIT} seeds have not shown that {mutation} breaks {BREAKS[mutation]}")


def test_every_guarantee_has_a_mutation_that_breaks_it() -> None:
    assert {"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P10", "P13"} <= set(BREAKS.values())


@pytest.mark.slow
def test_a_seed_replays() -> None:
    lines: list[str] = []
    again: list[str] = []
    assert simulate(7, note=lines.append) == simulate(7, note=again.append)
    assert lines == again
    assert len(lines) > 50


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_property_holds_with_many_members() -> None:
    """Cells, the roll, and jitter: what two or three servers never need."""
    for seed in range(2):
        assert simulate(seed, members=40).violation is None, (
            f"python -m tests.coordination.simulator {seed} --members 40"
        )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_property_holds_with_a_thousand_members() -> None:
    first, seeds = (int(SOAK), 3) if SOAK else (1, 2)
    simulator = [
        sys.executable,
        "-m",
        "tests.coordination.simulator",
        str(first),
        "--seeds",
        str(seeds),
        "--members",
        "1000",
    ]
    done = subprocess.run([*GIVES_WAY, *simulator], cwd=ROOT, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
