"""Every setting that is a number, at the edges of what a machine counts in: it works as said, or is refused and says why."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from mcserver import cli
from mcserver.core.engine import Engine
from mcserver.settings.config import Config
from mcserver.settings.options import CLUSTER_OPTIONS, OPTIONS, OWN_OPTIONS, SUBOPTIONS, Option, Suboption
from mcserver.settings.rules import ConfigError, rules
from mcserver.system.process import StartError, raise_descriptor_limit

EDGES = [str(number + more) for number in (0, 1 << 31, 1 << 32, 1 << 63, 1 << 64) for more in (-1, 0, 1)]
ODD = ["-2147483648", "-2147483649", "-9223372036854775809", "5k", "5m", "5g", "1e3", "1_000", "nan", "inf", "0x10"]
LONG = ["9" * 5000, "-" + "9" * 5000, "0" * 5000 + "7"]
"""Longer than Python's int() takes."""

RULES = rules(Config)
VALUED = [each for each in (*OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS, *SUBOPTIONS) if each.metavar]


def words(entry: Option | Suboption, value: str) -> list[str]:
    if isinstance(entry, Suboption):
        return ["-o", f"{entry.name}={value}"]
    return [f"--{entry.long}={value}"]


def name(entry: Option | Suboption) -> str:
    return entry.name if isinstance(entry, Suboption) else entry.long


def taken(arguments: list[str]) -> Config | None:
    """None: it was refused, in the one way that a start tells in a line."""
    try:
        config = cli.parse(arguments, {})
    except ConfigError:
        return None
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize("entry", VALUED, ids=name)
def test_a_number_is_taken_as_it_stands_or_refused(entry: Option | Suboption) -> None:
    for value in (*EDGES, *ODD, *LONG):
        config = taken(words(entry, value))
        setting = getattr(config, entry.setting, None)
        if config is None or type(setting) is not int or value not in EDGES or entry.setting in {"umask", "maxbytes"}:
            continue
        assert setting in {int(value) * unit for unit in (1, 1 << 10, 1 << 20)}


@pytest.mark.parametrize("value", ["4294967296", "-2147483649", "9" * 5000])
def test_more_than_a_number_holds_is_named(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cli.parse(["-o", f"idle_timeout={value}"], {})
    assert str(caught.value).startswith(
        "-o idle_timeout takes a number from -2147483648 to 4294967295, not " + value[:9]
    )
    assert len(str(caught.value)) < 150


def test_zeros_in_front_are_no_length() -> None:
    config = taken(["-o", "idle_timeout=" + "0" * 5000 + "7"])
    assert config is not None
    assert config.idle_timeout == 7


@pytest.mark.parametrize(
    "line", ["-l 127.0.0.1:{}", "-l [::1]:{}", "--metrics 127.0.0.1:{}", "-a {}", "-o slab_sizes={}"]
)
def test_numbers_within_texts(line: str) -> None:
    for value in ("9" * 5000, "7_0", "-1"):
        assert taken(line.format(value).split()) is None


@pytest.mark.parametrize("connections", [1 << 31, 1 << 32, 1 << 63, 1 << 64])
def test_descriptors_that_no_machine_has(connections: int) -> None:
    with pytest.raises(StartError, match="ask for fewer connections with -c"):
        raise_descriptor_limit(connections, 4)


@pytest.mark.parametrize(
    "text",
    [
        f"threads = {'9' * 5000}\n",
        f"threads = 0x{'f' * 5000}\n",
        f"threads = {'[' * 20_000}\n",
        f"[extended]\nidle_timeout = {1 << 64}\n",
    ],
    ids=["decimal", "hexadecimal", "nested", "just too large"],
)
def test_numbers_of_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mcserver.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        cli.parse(["--config", str(path)], {})
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("seconds", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_idle_times_fit_where_they_are_compared(seconds: int) -> None:
    assert Config(idle_timeout=seconds).idle_timeout == seconds
    with pytest.raises(ConfigError, match="idle_timeout"):
        Config(idle_timeout=seconds + (1 << 32))


ENGINES = [
    each
    for each in VALUED
    if each.setting == "temporary_ttl" or (each.setting in RULES and RULES[each.setting][1].engine)
]


@pytest.mark.parametrize("entry", ENGINES, ids=name)
def test_the_engine_takes_what_the_command_line_lets_through(entry: Option | Suboption) -> None:
    for value in EDGES:
        config = taken(words(entry, value))
        if config is not None:
            with suppress(ValueError):  # which a start tells as it is
                Engine(**config.engine_arguments())
