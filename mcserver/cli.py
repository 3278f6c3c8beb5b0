"""The command line: memcached's, read as getopt_long reads it, into a Config. `-h` and `-V` load nothing of the server.

Only `main` prints and exits; `parse` is pure. Exit codes are those of memcached 1.6.45.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .cluster_config import ClusterConfig, check_tls
from .config import Config
from .options import (
    CLUSTER_OPTIONS,
    OPTIONS,
    OWN_OPTIONS,
    REFUSED,
    REFUSED_SUBOPTIONS,
    SUBOPTIONS,
    Draft,
    Option,
    Suboption,
    effect_of,
)
from .rules import EX_FAILURE, ConfigError, Effect, check_value, rules

MEMCACHED_OPTIONS = (*OPTIONS, *REFUSED)
ALL_OPTIONS = (*MEMCACHED_OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS)
INFORMATION = ("help", "license", "version")
AUTH_VARIABLE = "MCSERVER_ZK_AUTH"
"""The environment's `user:password` for ZooKeeper."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it ends, and returns the exit code."""
    open_standard_streams()
    try:
        chosen = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        if isinstance(chosen, str):
            return show(chosen)
        if not chosen.user and 0 in (os.getuid(), os.geteuid()):
            raise ConfigError("must add '-u root' to start as root, or name the user to run as with -u")
        if chosen.cluster is not None:
            check_tls(chosen.cluster)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.status
    from .server import run

    return run(chosen)


def open_standard_streams() -> None:
    """A closed stdin, stdout or stderr becomes /dev/null: else the next socket would get its number, and the log's lines."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def show(page: str) -> int:
    """Prints one of the pages that need no server: help, license or version."""
    from .help import help_page, licence_page, version_page

    pages = {"help": help_page, "license": licence_page, "version": version_page}
    try:
        print(pages[page](), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Config | str:
    """The Config that these arguments ask for, or the page to show: help, license, version. Raises ConfigError.

    As in memcached, options take effect in their order, so an error before `-h` counts, and one after it does not.
    """
    draft = Draft()
    for option, written, value in read_options(arguments, draft):
        if option.long in INFORMATION:
            return option.long
        if option.long == "extended":
            read_suboptions(draft, value)
        else:
            option.apply(draft, written, value)
            note_effect(draft, option, written)
        check_named(Config, draft.settings)
    settings = draft.settings
    if settings.get("udpport") and "tcpport" not in settings:
        settings["tcpport"] = settings["udpport"]
    if settings.get("sasl"):  # as in memcached: who logs in by a protocol speaks that one alone
        settings.setdefault("binding_protocol", "binary")
    if "auth_file" in settings:
        settings.setdefault("binding_protocol", "ascii")
    return Config(
        **settings,
        sasl_file=environment.get("MEMCACHED_SASL_PWDB") or None,
        port_file=environment.get("MEMCACHED_PORT_FILENAME") or None,
        cluster=cluster_config(draft, environment),
        warnings=tuple(dict.fromkeys(draft.warnings)),
    )


def cluster_config(draft: Draft, environment: Mapping[str, str]) -> ClusterConfig | None:
    """The fleet's settings, or None without --zookeeper. Raises ConfigError for an option that would have no effect."""
    if "zookeeper" not in draft.cluster:
        for option in CLUSTER_OPTIONS:
            if option.setting in draft.cluster:
                raise ConfigError(f"--{option.long} needs --zookeeper HOST:PORT, without which there is no fleet")
        if "ack_prefixes" in draft.cluster:
            raise ConfigError("--ack needs --zookeeper HOST:PORT, without which there is no fleet")
        return None
    settings: dict[str, Any] = draft.cluster
    check_named(ClusterConfig, settings)
    if AUTH_VARIABLE in environment:
        settings = {"credentials": environment[AUTH_VARIABLE], **settings}
    return ClusterConfig(**settings)


def check_named(kind: type, settings: Mapping[str, object]) -> None:
    """Raises ConfigError for a value that was asked for and can't be, even where it is the default: `-N 0`."""
    known = rules(kind)
    for name in settings.keys() & known.keys():
        check_value(known[name][1], settings[name])


def note_effect(draft: Draft, option: Option | Suboption, written: str) -> None:
    """Nothing is accepted and silently without effect."""
    if effect_of(option) is Effect.ACCEPTED:
        draft.warnings.append(f"{written} is accepted, but has no effect here")


# getopt_long ------------------------------------------------------------------------------------------------------------


def read_options(arguments: Sequence[str], draft: Draft) -> Iterator[tuple[Option, str, str]]:
    """Each option with its spelling and its value, in order. Raises ConfigError (1) as getopt_long and memcached do.

    Options may stand after other words; the words, which memcached leaves out in silence, become warnings.
    """
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            yield long_option(word, rest)
        elif word.startswith("-") and len(word) > 1:
            yield from short_options(word, rest)
        else:
            draft.warnings.append(f"'{word}' is no option and is left out")
    draft.warnings.extend(f"'{word}' is no option and is left out" for word in rest)


def short_options(word: str, rest: list[str]) -> Iterator[tuple[Option, str, str]]:
    """`-vvp11211` or `-p 11211`."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((each for each in ALL_OPTIONS if each.short == letter), None)
        if option is None:
            raise ConfigError(f"invalid option -- '{letter}': see mcserver -h", EX_FAILURE)
        if not option.metavar:
            yield option, f"-{letter}", ""
            continue
        if not letters and not rest:
            raise ConfigError(
                f"option requires an argument -- '{letter}': write -{letter} <{option.metavar}>", EX_FAILURE
            )
        yield option, f"-{letter}", letters or rest.pop(0)
        return


def long_option(word: str, rest: list[str]) -> tuple[Option, str, str]:
    """`--port=11211`, `--port 11211`, or an abbreviation that means one option only; memcached's go first."""
    name, equals, value = word[2:].partition("=")
    option = find_long(name)
    written = f"--{option.long}"
    if not option.metavar:
        if equals and option.long != "verbose":  # memcached's --verbose takes a value, and has no use for it
            raise ConfigError(f"option '{written}' doesn't allow an argument: remove '={value}'", EX_FAILURE)
        return option, written, ""
    if not equals:
        if not rest:
            raise ConfigError(
                f"option '{written}' requires an argument: write {written}=<{option.metavar}>", EX_FAILURE
            )
        value = rest.pop(0)
    return option, written, value


def find_long(name: str) -> Option:
    """The option of this name or unambiguous abbreviation. Raises ConfigError (1)."""
    for options in (MEMCACHED_OPTIONS, ALL_OPTIONS):
        found = [each for each in options if each.long and each.long.startswith(name)]
        exact = [each for each in found if each.long == name]
        if len(exact or found) == 1:
            return (exact or found)[0]
    if not found:
        raise ConfigError(f"unrecognized option '--{name}': see mcserver -h", EX_FAILURE)
    names = " ".join(f"'--{each.long}'" for each in found)
    raise ConfigError(f"option '--{name}' is ambiguous; possibilities: {names}", EX_FAILURE)


def read_suboptions(draft: Draft, text: str) -> None:
    """The list of one -o. Raises ConfigError (1) as memcached does."""
    known = {each.name: each for each in SUBOPTIONS}
    for word in text.removesuffix(",").split(",") if text else ():
        name, equals, value = word.partition("=")
        suboption = known.get(name)
        if suboption is None:
            reason = next(
                (why for prefix, why in REFUSED_SUBOPTIONS.items() if name.startswith(prefix)), "see mcserver -h"
            )
            raise ConfigError(f'Illegal suboption "{word}": {reason}', EX_FAILURE)
        if suboption.missing and not equals:
            raise ConfigError(suboption.missing, EX_FAILURE)
        suboption.apply(draft, f"-o {name}", value)
        note_effect(draft, suboption, f"-o {name}")
