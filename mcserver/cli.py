"""The command line: memcached's, read as getopt_long reads it, into a Config. `-h` and `-V` load nothing of the server.

Only `main` prints and exits; `parse` is pure. Exit codes are those of memcached 1.6.45.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mcserver.keys import said
from mcserver.settings.cluster import ClusterConfig, check_tls
from mcserver.settings.config import Config
from mcserver.settings.options import (
    CLUSTER_OPTIONS,
    OPTIONS,
    OWN_OPTIONS,
    SUBOPTIONS,
    WARNINGS_MOST,
    Draft,
    Option,
    check_named,
    note_effect,
    refuse_suboption,
    whole_path,
)
from mcserver.settings.rules import EX_FAILURE, ConfigError
from mcserver.subcommands import SUBCOMMANDS
from mcserver.system import files, signals

ALL_OPTIONS = (*OPTIONS, *OWN_OPTIONS, *CLUSTER_OPTIONS)
INFORMATION = ("help", "license", "version")
SENTENCES_MOST = 2
"""Lines of an error. memcached's for -B has two; a value may hold any number of line ends."""
USERS_VARIABLE = "MEMCACHED_SASL_PWDB"
"""The environment's file of the users of -S."""
AUTH_VARIABLE = "MCSERVER_ZK_AUTH"
"""The environment's `user:password` for ZooKeeper."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it ends, or one of the subcommands, and returns the exit code."""
    open_standard_streams()
    whole_process = arguments is None
    if arguments is None:
        program, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]  # noqa: PTH119  # pathlib takes its time
    else:
        program = "mcserver"
    try:
        if arguments and arguments[0] in SUBCOMMANDS and program != "memcached":
            if whole_process:
                signals.release()
            return subcommand(arguments[0], arguments[1:])
        chosen = parse(arguments, os.environ)
        if isinstance(chosen, str):
            return show(chosen)
        try:
            check_start(chosen)
        except ConfigError:
            print(*map(said, chosen.warnings), sep="\n", end="\n" * bool(chosen.warnings), file=sys.stderr)
            raise  # a subcommand that is spelled wrong, say, is said before what the start lacks
    except ConfigError as error:
        print(*map(said, str(error).split("\n", SENTENCES_MOST - 1)), sep="\n", file=sys.stderr)
        return error.status
    gc.disable()  # until it serves: what is loaded and made from here on stays, and need not be searched for garbage
    try:
        from mcserver.server.start import run

        return run(chosen, lambda: configured(arguments))
    finally:
        gc.enable()


def configured(arguments: Sequence[str]) -> Config:
    """The Config of arguments that ask for no page, read anew. Raises ConfigError."""
    chosen = parse(arguments, os.environ)
    assert isinstance(chosen, Config)
    check_start(chosen)
    return chosen


def check_start(config: Config) -> None:
    """Raises ConfigError for what only a start finds out: root without a user, files of TLS that can't be used."""
    if not config.user and not config.ephemeral and 0 in (os.getuid(), os.geteuid()):
        raise ConfigError("must add '-u root' to start as root, or name the user to run as with -u")
    if config.cluster is not None:
        check_tls(config.cluster)


def subcommand(name: str, arguments: Sequence[str]) -> int:
    """One of SUBCOMMANDS, loaded when it is asked for; 1 when what it prints can't be written. Raises ConfigError."""
    from importlib import import_module

    module, function, _ = SUBCOMMANDS[name]
    return printed(lambda: int(getattr(import_module(module), function)(arguments)))


def printed(work: Callable[[], int]) -> int:
    """What it returns when all that it prints is written; 0 when its reader has had enough, 1 when a disk is full.

    What the locale has no letter for is a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = work()
        sys.stdout.flush()
    except OSError as error:
        os.dup2(files.nowhere(), sys.stdout.fileno())  # what still waits there would be an error again
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"can't go on: {said(error.strerror or str(error))}", file=sys.stderr)
        return 1
    return code


def show_config(arguments: Sequence[str]) -> int:
    """`mcserver config OPTIONS...`: what a start with these options would go by, and where each setting comes from."""
    from mcserver.settings.file import effective

    chosen = read(arguments)
    if isinstance(chosen, str):
        return show(chosen)
    config = configure(chosen, os.environ)
    for warning in config.warnings:
        print(f"# warning: {said(warning)}")
    print(effective(config, chosen))
    return 0


def open_standard_streams() -> None:
    """A closed stdin, stdout or stderr becomes /dev/null: else the next socket would get its number, and the log's lines.

    Python has none of its own for it then; what prints there must not print elsewhere, or fail.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            files.nowhere()  # the lowest that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", errors="replace", closefd=False))


def show(page: str) -> int:
    """Prints one of the pages that need no server: help, license or version."""
    from mcserver.settings.help import help_page, licence_page, version_page

    pages = {"help": help_page, "license": licence_page, "version": version_page}

    def write() -> int:
        print(pages[page]())
        return 0

    return printed(write)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Config | str:
    """The Config that these arguments and their --config ask for, or the page to show: help, license, version.

    Raises ConfigError. As in memcached, options take effect in their order, so an error before `-h` counts, and one after it
    does not.
    """
    chosen = read(arguments)
    return chosen if isinstance(chosen, str) else configure(chosen, environment)


def read(arguments: Sequence[str]) -> Draft | str:
    """What the file of --config and then the arguments name, or the page to show. Raises ConfigError."""
    draft = Draft()
    if path := config_file_of(arguments):
        from mcserver.settings.file import read_file

        read_file(draft, path)
    for option, written, value in read_options(arguments, draft):
        if option.long in INFORMATION:
            return option.long
        if option.long == "extended":
            read_suboptions(draft, value)
        else:
            option.apply(draft, written, value)
            note_effect(draft, option, written)
        check_named(Config, draft.settings)
    return draft


def config_file_of(arguments: Sequence[str]) -> str:
    """The last --config before a page or an error, or ""; wherever it stands, the file is read before everything else."""
    draft = Draft()
    try:
        for option, written, value in read_options(arguments, Draft()):
            if option.long in INFORMATION:
                break
            if option.long == "config":
                option.apply(draft, written, value)
    except ConfigError:
        pass  # the arguments are read again, and then it counts
    return str(draft.settings.get("config_file", ""))


def configure(draft: Draft, environment: Mapping[str, str]) -> Config:
    """The Config that a draft asks for. Raises ConfigError, which names the file where that is not to be without it."""
    try:
        return assemble(draft, environment)
    except ConfigError as error:
        path, text = draft.settings.get("config_file", ""), str(error)
        if not path or path in text or text == complaint_about(draft.without(path), environment):
            raise
        raise ConfigError(f"{path}: {text}", error.status) from None


def complaint_about(draft: Draft, environment: Mapping[str, str]) -> str:
    """What is wrong with it, or ""."""
    try:
        assemble(draft, environment)
    except ConfigError as error:
        return str(error)
    return ""


def assemble(draft: Draft, environment: Mapping[str, str]) -> Config:
    """The Config of all that was named. Raises ConfigError."""
    settings = draft.settings
    if settings.get("udpport") and "tcpport" not in settings:
        settings["tcpport"] = settings["udpport"]
    if settings.get("ephemeral"):
        settings.setdefault("tcpport", -1)
        settings.setdefault("inter", "127.0.0.1")
    if settings.get("sasl"):  # as in memcached: who logs in by a protocol speaks that one alone
        settings.setdefault("binding_protocol", "binary")
    if "auth_file" in settings:
        settings.setdefault("binding_protocol", "ascii")
    return Config(
        **settings,
        sasl_file=users_file(settings, environment),
        port_file=environment.get("MEMCACHED_PORT_FILENAME") or None,
        cluster=cluster_config(draft, environment),
        warnings=draft.said_warnings(),
    )


def users_file(settings: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """The whole path of the file of the users, or None without -S or a file. Raises ConfigError (1)."""
    name = environment.get(USERS_VARIABLE) if settings.get("sasl") else None
    return whole_path(USERS_VARIABLE, name) if name else None


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
        draft.cluster.origins.setdefault("credentials", AUTH_VARIABLE)
    return ClusterConfig(**settings)


# getopt_long ------------------------------------------------------------------------------------------------------------


def read_options(arguments: Sequence[str], draft: Draft) -> Iterator[tuple[Option, str, str]]:
    """Each option with its spelling and its value, in order. Raises ConfigError (1) as getopt_long and memcached do.

    Options may stand after other words; the words, which memcached leaves out in silence, become warnings.
    """
    rest = deque(arguments)
    while rest:
        word = rest.popleft()
        if word == "--":
            break
        if word.startswith("--"):
            yield long_option(word, rest)
        elif word.startswith("-") and len(word) > 1:
            yield from short_options(word, rest)
        else:
            leave_out(draft, word)
    for word in rest:
        leave_out(draft, word)


def leave_out(draft: Draft, word: str) -> None:
    """Warns of a word that is no option; perhaps it should have been a subcommand, which is looked for while it will be said."""
    meant = nearest(word, SUBCOMMANDS) if len(draft.warnings) < WARNINGS_MOST else ""
    draft.warn(f"'{word}' is no option and is left out" + (f"; did you mean `mcserver {meant}`?" if meant else ""))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a wrong one is most like, or ""."""
    from difflib import get_close_matches  # which a right command line need not load

    return next(iter(get_close_matches(name, known, 1)), "")


def short_options(word: str, rest: deque[str]) -> Iterator[tuple[Option, str, str]]:
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
        yield option, f"-{letter}", letters or rest.popleft()
        return


def long_option(word: str, rest: deque[str]) -> tuple[Option, str, str]:
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
        value = rest.popleft()
    return option, written, value


def find_long(name: str) -> Option:
    """The option of this name or unambiguous abbreviation. Raises ConfigError (1)."""
    for options in (OPTIONS, ALL_OPTIONS):
        found = [each for each in options if each.long and each.long.startswith(name)]
        exact = [each for each in found if each.long == name]
        if len(exact or found) == 1:
            return (exact or found)[0]
    if not found:
        meant = nearest(name, (each.long for each in ALL_OPTIONS if each.long))
        advice = f"did you mean --{meant}?" if meant else "see mcserver -h"
        raise ConfigError(f"unrecognized option '--{name}': {advice}", EX_FAILURE)
    names = " ".join(f"'--{each.long}'" for each in found)
    raise ConfigError(f"option '--{name}' is ambiguous; possibilities: {names}", EX_FAILURE)


def read_suboptions(draft: Draft, text: str) -> None:
    """The list of one -o. Raises ConfigError (1) as memcached does."""
    known = {each.name: each for each in SUBOPTIONS}
    for word in text.removesuffix(",").split(",") if text else ():
        name, equals, value = word.partition("=")
        suboption = known.get(name)
        if suboption is None:
            refuse_suboption(name, word)
            meant = nearest(name, known)
            advice = f"did you mean {meant}?" if meant else "see mcserver -h"
            raise ConfigError(f'Illegal suboption "{word}": {advice}', EX_FAILURE)
        if suboption.missing and not equals:
            raise ConfigError(suboption.missing, EX_FAILURE)
        if equals and not suboption.metavar:  # as memcached: lru_crawler=0 turns it on
            draft.warn(f"-o {word}: '={value}' is left out, {name} takes no value")
        suboption.apply(draft, f"-o {name}", value)
        note_effect(draft, suboption, f"-o {name}")
