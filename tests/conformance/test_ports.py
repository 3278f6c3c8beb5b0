"""Ports that the suite tells servers: never the same to two that start at the same time."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain

from conformance import ports

COUNT = 200
TAKE = f"""
import sys
from conformance import ports
ports.RANGE = ({ports.RANGE[1] - 5 * COUNT}, {ports.RANGE[1]})
print(*[ports.free_port() for _ in range({COUNT})], flush=True)
sys.stdin.read()
"""


def test_processes_at_the_same_time_get_different_ones() -> None:
    """Of numbers so few that chance alone would give hundreds twice."""
    pipe = subprocess.PIPE
    several = [subprocess.Popen([sys.executable, "-c", TAKE], stdin=pipe, stdout=pipe) for _ in range(3)]
    given = []
    for each in several:
        assert each.stdout is not None
        given.append([int(word) for word in each.stdout.readline().split()])
    for each in several:
        each.communicate()
    assert [len(numbers) for numbers in given] == [COUNT] * 3
    assert len({*chain(*given)}) == 3 * COUNT


def test_a_number_comes_again_when_enough_others_were_given() -> None:
    seen = [ports.free_port() for _ in range(3 * ports.KEPT)]
    for at in range(len(seen) - ports.KEPT):
        assert len({*seen[at : at + ports.KEPT]}) == ports.KEPT
    assert len(ports._kept) == ports.KEPT
