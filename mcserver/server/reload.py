"""A reload: what a running server takes over from a configuration that was read again, and what needs a new start.

It decides by the rules of the settings alone (`live`), and reads no file itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mcserver.admin.settings import Settings
from mcserver.settings.cluster import ClusterConfig
from mcserver.settings.config import Config
from mcserver.settings.file import name_of, toml
from mcserver.settings.options import CLUSTER_OPTIONS, OPTIONS, OWN_OPTIONS, SUBOPTIONS
from mcserver.settings.rules import rules
from mcserver.system.process import StartError, raise_descriptor_limit

if TYPE_CHECKING:
    from mcserver.core import Engine

ENTRIES = {each.setting: each for each in (*SUBOPTIONS[::-1], *CLUSTER_OPTIONS, *OWN_OPTIONS, *OPTIONS) if each.setting}
"""The option that sets a setting, by the setting's name."""
SAID_AS = {"temp_lru": "temporary_ttl"}
"""Settings that no option has for itself, and the one with which its option says both."""


class Change(NamedTuple):
    """What a reload does: the configuration from now on, and lines for the log."""

    config: Config
    done: list[str]
    not_done: list[str]


def change(running: Config, wanted: Config, engine: Engine, shown: Settings) -> Change:
    """Puts what is live and differs into the engine and into `stats settings`."""
    done: list[str] = []
    not_done = _need_a_start(running, wanted)
    names = [name for name, (_, rule) in rules(Config).items() if rule.live and _differs(name, running, wanted)]
    if refusal := _raise_limits(names, wanted, engine):
        name, text = refusal
        names.remove(name)
        not_done.append(text)
    config = running.but(**{name: getattr(wanted, name) for name in names})
    _tell_engine(set(names), config, engine)
    now = Settings(config, 0)
    for name in names:
        said = SAID_AS.get(name, name)
        line = f"{option_name(said)} is {_shown(said, config) or 'none'} now, it was {_shown(said, running) or 'none'}"
        if line not in done:
            done.append(line)
        if name in now and name != "verbosity":
            shown[name] = now[name]
    return Change(config, done, not_done)


def _raise_limits(names: list[str], wanted: Config, engine: Engine) -> tuple[str, str] | None:
    """What the engine or the system has to allow first; the name and the reason of what they refuse."""
    if "maxbytes" in names and not engine.set_memory_limit(wanted.maxbytes):
        most = engine.memory_limit_most >> 20
        return (
            "maxbytes",
            f"memory-limit can't be {wanted.maxbytes >> 20} while it runs: address space is there for {most}",
        )
    if "maxconns" in names:
        try:
            raise_descriptor_limit(wanted.maxconns, wanted.num_threads)
        except StartError as error:
            return "maxconns", f"conn-limit can't be {wanted.maxconns}: {error}"
    return None


def _tell_engine(names: set[str], config: Config, engine: Engine) -> None:
    if "verbosity" in names:
        engine.verbosity = config.verbosity
    if "hot_lru_pct" in names:
        engine.tune_lru(config.hot_lru_pct, config.warm_lru_pct, config.hot_max_factor, config.warm_max_factor)
    if names & {"temp_lru", "temporary_ttl"}:
        engine.set_temporary_ttl(config.engine_temporary_ttl)
    if "lru_crawler" in names:
        engine.crawler_enabled = config.lru_crawler
    if names & {"slab_automove", "slab_reassign"}:
        engine.automove = config.engine_automove


def _need_a_start(running: Config, wanted: Config) -> list[str]:
    """One line for each difference that waits for the next start."""
    lines = [
        f"{option_name(name)} needs a new start to become {_shown(name, wanted) or 'none'}"
        for name, (_, rule) in rules(Config).items()
        if not rule.live and name != "config_file" and _differs(name, running, wanted)
    ]
    if (running.cluster is None) != (wanted.cluster is None):
        lines.append("zookeeper needs a new start")
    elif running.cluster is not None and wanted.cluster is not None:
        lines += [
            f"{option_name(name)} needs a new start"
            for name in ClusterConfig.defaults
            if getattr(running.cluster, name) != getattr(wanted.cluster, name)
        ]
    return lines


def _differs(name: str, one: Config, other: Config) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def option_name(setting: str) -> str:
    """The long name, or the suboption, that sets it."""
    entry = ENTRIES.get("ack" if setting == "ack_prefixes" else setting)
    return name_of(entry) if entry else setting


def _shown(setting: str, config: Any) -> str:
    entry = ENTRIES.get(setting)
    return toml(entry, config) if entry else str(getattr(config, setting))
