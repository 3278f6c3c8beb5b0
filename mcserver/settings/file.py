"""The configuration file: TOML with every option by its long name, read into a draft, and the effective settings written as one.

    port = 11211
    memory-limit = 1024                 # MiB, as on the command line
    listen = ["127.0.0.1", "::1"]       # what may be repeated there is a list here
    disable-flush-all = true

    [extended]                          # the suboptions of -o
    idle_timeout = 600

It knows no option by name but for how some of them are written; which there are, and what is valid, stands in options.py and
config.py. A file is checked as strictly as the command line, which goes before it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mcserver.keys import said
from mcserver.settings.config import Config
from mcserver.settings.options import (
    CLUSTER_OPTIONS,
    COMMAND_LINE,
    OPTIONS,
    OWN_OPTIONS,
    SUBOPTIONS,
    UNITS,
    Draft,
    Option,
    Suboption,
    check_named,
    note_effect,
    refuse_suboption,
)
from mcserver.settings.rules import ConfigError, rules
from mcserver.system import files

FILE_BYTES = 1 << 20
PARTS_MOST = 20
LONG_NAME = re.compile(
    rb"""(^|[\[{,])[ \t]*(([\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d}""" % PARTS_MOST, re.MULTILINE
)
"""`a.a.a...`: to read it takes tomllib a time that grows with the square of its parts, half an hour for a file of them."""
EXTENDED = "extended"
NOT_IN_A_FILE = ("help", "license", "version", "config", EXTENDED)
REPEATED = ("listen", "ack", "soft", "refresh", "broadcast-writes", "lock-writes", "metrics-name")
"""Options that add up when they are repeated: a file may give them a list."""
NEVER_EMPTY = ("listen",)
"""Those of them that mean the most when they are left out: who empties the list hardly means that."""
TEXT_ALONE = {"unix-mask": "0o660 would be 432, which is another mode"}
"""Options whose digits TOML's own numbers would spell another way, and why."""
COUNTED = ("verbose",)
"""Options whose number of repetitions counts: a file gives the number."""

Entry = Option | Suboption


def name_of(entry: Entry) -> str:
    """How a file spells it: the long name, or the letter of the one option that has none."""
    return entry.name if isinstance(entry, Suboption) else entry.long or entry.short


def file_options() -> dict[str, Option]:
    """The options that a file may hold, by name."""
    options = (*OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS)
    return {name_of(each): each for each in options if each.long not in NOT_IN_A_FILE}


# Reading ----------------------------------------------------------------------------------------------------------------


def read_file(draft: Draft, path: str) -> None:
    """Puts the file's settings into the draft, as said by the file. Raises ConfigError, whose text begins with its path."""
    import tomllib

    try:
        data = files.read(path, FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}; see --config") from None
    if len(data) > FILE_BYTES:
        raise ConfigError(f"{path} has more than {FILE_BYTES} bytes: it is no configuration file")
    if LONG_NAME.search(data):
        raise ConfigError(f"{path} has a name of more than {PARTS_MOST} parts: no setting has one")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        raise ConfigError(f"{path} is no TOML: {error}") from None
    draft.speak(path)
    try:
        extended = table.pop(EXTENDED, {})
        if not isinstance(extended, dict):
            raise ConfigError("extended must be a table of suboptions: [extended], then name = value")
        _read_table(draft, table, file_options(), path)
        _read_table(draft, extended, {each.name: each for each in SUBOPTIONS}, path)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if path in text else f"{path}: {text}", error.status) from None
    finally:
        draft.speak(COMMAND_LINE)


def check_whole(path: str) -> None:
    """Raises ConfigError for a file that somebody may be writing just now: half a number is a number, too.

    Only for a reload. A file that can't be read is left to read_file.
    """
    try:
        whole = files.read(path, FILE_BYTES).endswith(b"\n")
    except OSError:
        return
    if not whole:
        raise ConfigError(
            f"{path} doesn't end with a line end, as if it were half written: write it whole, then reload"
        )


def _read_table(draft: Draft, table: dict[str, Any], known: dict[str, Any], path: str) -> None:
    for name, value in table.items():
        entry = known.get(name)
        if entry is None:
            raise ConfigError(_unknown(name, known))
        for meant, text in _texts(entry, value, known):
            written = f"{name_of(meant)} in {path}"
            meant.apply(draft, written, text)
            note_effect(draft, meant, written)
        check_named(Config, draft.settings)


def _unknown(name: str, known: Iterable[str]) -> str:
    if name in {each.name for each in SUBOPTIONS}:
        return f"{name} is a suboption of -o: write it below [extended]"
    refuse_suboption(name)
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no option '{name}'{f': did you mean {near[0]}?' if near else '; see mcserver --help'}"


def _texts(entry: Entry, value: Any, known: dict[str, Any]) -> Iterator[tuple[Entry, str]]:
    """What the command line would have said: the options and their texts. Raises ConfigError for a value of a wrong kind."""
    name = name_of(entry)
    if name in COUNTED and not isinstance(value, int):
        raise ConfigError(f"{name} takes a number from 0 to 9, not {_shown(value)}")
    if name in COUNTED:
        if not 0 <= value <= 9:
            raise ConfigError(f"{name} must be from 0 to 9, not {_shown(value)}")
        yield from ((entry, "") for _ in range(value))
    elif not entry.metavar:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} takes true or false, not {_shown(value)}")
        if value:
            yield entry, ""
        elif f"no_{name}" in known:
            yield known[f"no_{name}"], ""
    elif isinstance(value, list) and name in REPEATED:
        if not value and name in NEVER_EMPTY:
            raise ConfigError(
                f'{name} = [] names no address: leave it out to listen on every interface, or write {name} = ["127.0.0.1"]'
            )
        yield from ((entry, _text(entry, each)) for each in value)
    else:
        yield entry, _text(entry, value)


def _text(entry: Entry, value: Any) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        if isinstance(value, int) and value.bit_length() > 64:  # written in hexadecimal it can be of any length
            raise ConfigError(f"{name_of(entry)} takes no number of more than 64 bits")
        if name_of(entry) in TEXT_ALONE and not isinstance(value, str):
            raise ConfigError(
                f'{name_of(entry)} is written in quotes, such as "700": as a number, {TEXT_ALONE[name_of(entry)]}'
            )
        text = str(value)
        if "\0" not in text:
            return text
    raise ConfigError(f"{name_of(entry)} takes one {entry.metavar}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """For an error. What has no end as Python reads it is only named: a number of any length, tables in tables."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return "such a number" if isinstance(value, int) and value.bit_length() > 64 else repr(value)


# Writing ----------------------------------------------------------------------------------------------------------------


def effective(config: Config, draft: Draft) -> str:
    """The settings in effect as a file that gives the same ones, with the origin of each as a comment."""
    fleet = CLUSTER_OPTIONS if config.cluster is not None else ()
    lines = [
        *_lines(config, draft, [each for each in (*OPTIONS, *OWN_OPTIONS, *fleet) if each.long not in NOT_IN_A_FILE]),
        "",
        f"[{EXTENDED}]",
        *_lines(config, draft, SUBOPTIONS),
    ]
    return "\n".join(lines)


def _lines(config: Config, draft: Draft, entries: Iterable[Entry]) -> Iterator[str]:
    seen: set[str] = set()
    for entry in entries:
        setting = entry.setting
        if not setting or setting in seen:
            continue
        seen.add(setting)
        kept: Any = config if setting in rules(Config) else config.cluster
        named = draft.settings if setting in rules(Config) else draft.cluster
        origin = _origin(named.origins, setting)
        if setting == "credentials":
            if kept is not None and kept.credentials:
                yield f"# {name_of(entry)}: credentials are set, and not shown".ljust(COLUMN) + f"  # {origin}"
            continue
        text = toml(entry, kept)
        if not text:
            yield f"# {name_of(entry)}: none".ljust(COLUMN) + f"  # {origin}"
            continue
        unit = f", {entry.metavar}" if entry.metavar in SHOWN_UNITS else ""
        yield f"{name_of(entry)} = {text}".ljust(COLUMN) + f"  # {origin}{unit}"


COLUMN = 36
SHOWN_UNITS = ("MiB", "KiB", "s", "us", "ms", "bytes", "pct")


def _origin(origins: dict[str, str], setting: str) -> str:
    if setting == "ack" and setting not in origins:
        setting = "ack_prefixes"
    return said(origins.get(setting, "default"))


def toml(entry: Entry, config: Any) -> str:
    """The value that a file must have for this setting; "" for one that stands for "none" by being absent."""
    value = getattr(config, entry.setting)
    special = SPECIAL.get(entry.setting)
    if special is not None:
        return special(config)
    if not entry.metavar:
        default = rules(type(config))[entry.setting][0]
        flips = not name_of(entry).startswith(("disable-", "no_"))
        return _word(bool(value) if flips else value != default)
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(_str(each)) for each in value) + "]"
    if isinstance(value, int):
        return str(value // UNITS.get(entry.metavar, 1))
    return repr(value) if isinstance(value, float) else _quoted(_str(value))


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _str(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in escaped) + '"'


def _ack(cluster: Any) -> str:
    levels = [cluster.ack, *(f"{_str(prefix)}={level}" for prefix, level in cluster.ack_prefixes)]
    return "[" + ", ".join(map(_quoted, levels)) + "]"


def _chunk_max(config: Any) -> str:
    size = config.slab_chunk_max
    return str(size if size % 1024 else size // 1024)


SPECIAL: dict[str, Callable[[Any], str]] = {
    "verbosity": lambda config: str(config.verbosity),
    "ack": _ack,
    "umask": lambda config: f'"{config.umask:o}"',
    "inter": lambda config: (
        "[" + ", ".join(map(_quoted, config.inter.replace(";", ",").split(","))) + "]"
        if config.inter is not None
        else ""
    ),
    "binding_protocol": lambda config: _quoted(config.binding_protocol.removesuffix("-negotiate")),
    "stat_key_prefix": lambda config: (
        _quoted(config.stat_key_prefix.decode("latin-1")) if config.detail_enabled else ""
    ),
    "temporary_ttl": lambda config: str(config.temporary_ttl) if config.temp_lru else "",
    "slab_sizes": lambda config: _quoted("-".join(map(str, config.slab_sizes))) if config.slab_sizes else "",
    "slab_chunk_max": _chunk_max,
    "item_size_max": lambda config: str(config.item_size_max),
    "hashpower_init": lambda config: str(config.hashpower_init or ""),
    "tail_repair_time": lambda config: str(config.tail_repair_time or ""),
    "num_napi_ids": lambda config: str(config.num_napi_ids or ""),
}
"""Settings that are written otherwise than they are kept, or whose default can't be asked for."""
