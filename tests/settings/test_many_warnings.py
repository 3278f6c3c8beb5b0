"""A command line of very many words that are no options, or of as many odd numbers, is not a log of as many lines."""

from __future__ import annotations

import pytest

from mcserver import cli
from mcserver.settings.config import Config
from mcserver.settings.options import WARNINGS_MOST

MANY = 20_000


def warnings(*arguments: str) -> tuple[str, ...]:
    config = cli.parse(arguments, {})
    assert isinstance(config, Config)
    return config.warnings


@pytest.mark.parametrize(
    "arguments",
    [
        [f"w{i}" for i in range(MANY)],
        ["--", *(f"w{i}" for i in range(MANY))],
        [word for i in range(MANY) for word in ("-m", f"64x{i}")],
        ["-o", ",".join(f"idle_timeout=1x{i}" for i in range(MANY))],
    ],
    ids=["words", "words behind --", "numbers", "suboptions"],
)
def test_the_first_are_said_and_the_others_counted(arguments: list[str]) -> None:
    said = warnings(*arguments)
    assert len(said) == WARNINGS_MOST + 1
    assert said[-1] == f"{MANY - WARNINGS_MOST} more warnings about the command line are not shown"


def test_the_same_is_said_once() -> None:
    assert warnings(*["w"] * MANY, "-N", "1", "-N", "1") == (
        "'w' is no option and is left out",
        "-N is accepted, but has no effect here",
    )


def test_as_many_as_there_is_room_for_are_all_said() -> None:
    said = warnings(*(f"w{i}" for i in range(WARNINGS_MOST)))
    assert len(said) == WARNINGS_MOST
    assert said[-1].startswith(f"'w{WARNINGS_MOST - 1}' is no option")
