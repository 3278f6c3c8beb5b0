"""The pages of `-h`, `-i` and `-V`, made from the tables of options. It holds no default and no meaning of its own."""

from __future__ import annotations

import textwrap
from typing import Any

from mcserver import MEMCACHED_VERSION, __version__
from mcserver.settings.options import (
    CLUSTER_OPTIONS,
    KNOWN,
    OPTIONS,
    OWN_OPTIONS,
    SUBOPTIONS,
    UNITS,
    Option,
    Suboption,
    effect_of,
)
from mcserver.subcommands import SUBCOMMANDS

WIDTH = 100
COLUMN = 32
WRITTEN = {
    "binding_protocol": "auto", "hashpower_init": "16", "item_size_max": "1m", "num_napi_ids": "", "tail_repair_time": "",
    "temporary_ttl": "",
}  # fmt: skip
"""Defaults as they are said, where that is not how they are kept; "": off, which can't be said."""


def version_page() -> str:
    """The first line is memcached's own, which tools read."""
    return f"memcached {MEMCACHED_VERSION}\nmcserver {__version__}"


def licence_page() -> str:
    """The version, then the licence's text, from beside the package or from its metadata."""
    from pathlib import Path

    beside = Path(__file__).parent.parent / "LICENSE"
    if beside.is_file():
        return f"{version_page()}\n\n{beside.read_text(encoding='utf-8').rstrip()}"
    from importlib.metadata import distribution

    text = distribution("mcserver").read_text("licenses/LICENSE") or "BSD-3-Clause"
    return f"{version_page()}\n\n{text.rstrip()}"


def help_page() -> str:
    """Every option and suboption with its meaning, default and, where it does less than in memcached, what it does."""
    parts = [
        version_page(),
        "usage: mcserver [options], the options being memcached's; [only accepted] ones are taken and have no effect\n",
        "or: mcserver COMMAND [arguments]; each tells its arguments with --help:",
        *(two_columns(f"   {name}", meaning) for name, (_, _, meaning) in SUBCOMMANDS.items()),
        "",
        *(option_lines(each) for each in OPTIONS),
        *(suboption_lines(each) for each in SUBOPTIONS),
        "\nnot in memcached:",
        *(option_lines(each) for each in OWN_OPTIONS),
        "\na fleet kept coherent through ZooKeeper (docs/coherence.md):",
        *(option_lines(each) for each in CLUSTER_OPTIONS),
    ]
    return "\n".join(parts)


def option_lines(option: Option) -> str:
    """An option's names and value, and beside them what `describe` says."""
    value = (
        f"=<{option.metavar}>" if option.metavar and option.long else f" <{option.metavar}>" if option.metavar else ""
    )
    return two_columns(", ".join(option.spellings) + value, describe(option))


def suboption_lines(suboption: Suboption) -> str:
    """The same of a suboption of -o."""
    value = f"=<{suboption.metavar}>" if suboption.metavar else ""
    return two_columns(f"   - {suboption.name}{value}", describe(suboption))


def two_columns(left: str, right: str) -> str:
    """The right one from COLUMN on, folded at WIDTH."""
    lines = textwrap.wrap(right, WIDTH - COLUMN, break_on_hyphens=False)
    if len(left) < COLUMN:
        left = left.ljust(COLUMN) + lines.pop(0)
    return "\n".join([left, *(" " * COLUMN + line for line in lines)])


def describe(option: Option | Suboption) -> str:
    """Meaning, default and effect."""
    default, rule = KNOWN.get(option.setting, (None, None))
    parts = [option.meaning or (rule.meaning if rule else "")]
    if rule and option.metavar and (shown := show_default(option, default)):
        parts.append(f"(default: {shown})")
    elif is_on(option):
        parts.append("(default)")
    if effect := effect_of(option).value:
        parts.append(f"[{effect}]")
    return " ".join(parts)


def is_on(option: Option | Suboption) -> bool:
    """Whether it is a switch that changes nothing, since what it turns on is on already."""
    default, _ = KNOWN.get(option.setting, (None, None))
    return not option.metavar and default is True and not option.meaning


def show_default(option: Option | Suboption, default: Any) -> str:
    """A default in the option's unit; "" for none."""
    if default is None or default in ("", ()):
        return ""
    if option.setting in WRITTEN:
        return WRITTEN[option.setting]
    if option.setting == "umask":
        return f"{default:o}"
    if isinstance(default, bytes):
        return default.decode()
    if isinstance(default, int):
        return str(default // UNITS.get(option.metavar, 1))
    return f"{default:g}" if isinstance(default, float) else str(default)
