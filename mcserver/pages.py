"""The man page, the shell completions and the docs' tables, made from the tables of options. No meaning or default of its own.

`mcserver pages NAME` prints one; scripts/pages writes those that are kept in the project.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from os import EX_USAGE

from mcserver import MEMCACHED_VERSION, __version__
from mcserver.cli import ALL_OPTIONS, AUTH_VARIABLE, USERS_VARIABLE
from mcserver.settings.file import COUNTED, EXTENDED, REPEATED
from mcserver.settings.help import describe, is_on, show_default
from mcserver.settings.options import (
    CLUSTER_OPTIONS,
    KNOWN,
    OPTIONS,
    OWN_OPTIONS,
    PROTOCOLS,
    SUBOPTIONS,
    Option,
    Suboption,
    effect_of,
)
from mcserver.settings.rules import ConfigError
from mcserver.subcommands import SUBCOMMANDS

FILES = ("file", "path")
"""Units of options whose value is the path of a file."""
CHOICES = {
    "protocol": PROTOCOLS,
    **{
        each.long: KNOWN[each.setting][1].choices
        for each in ALL_OPTIONS
        if each.setting in KNOWN and KNOWN[each.setting][1].choices
    },
}
"""What a shell offers as the value of an option."""

Table = Sequence[Option] | Sequence[Suboption]


def main(arguments: Sequence[str]) -> int:
    """Prints the page of this name. Raises ConfigError for an unknown one."""
    if len(arguments) != 1 or arguments[0] not in PAGES:
        raise ConfigError(f"usage: mcserver pages {'|'.join(PAGES)}", EX_USAGE)
    sys.stdout.write(PAGES[arguments[0]]())
    return 0


# Markdown ---------------------------------------------------------------------------------------------------------------


def options_markdown() -> str:
    """docs/options.md."""
    return "\n".join(
        [
            "# Options",
            "",
            "<!-- Made by scripts/pages from the tables of options: change those. -->",
            "",
            "Every option of the command line, which is also a key of the [configuration file](configuration.md), by its long",
            "name (`-D` by its letter). *Live*: a reload (SIGHUP) changes it while the server runs. How far each does what it",
            "does in memcached is on the [page of compatibility](compatibility.md).",
            "",
            *_markdown("memcached's options", OPTIONS),
            *_markdown("Suboptions of `-o`, the file's table `[extended]`", SUBOPTIONS),
            *_markdown("mcserver's own options", OWN_OPTIONS),
            *_markdown("The fleet's options", CLUSTER_OPTIONS, "All of them need `--zookeeper`."),
        ]
    )


def _markdown(title: str, table: Table, note: str = "") -> Iterator[str]:
    yield from (f"## {title}", "")
    if note:
        yield from (note, "")
    yield from ("| option | default | unit or value | live | meaning |", "|---|---|---|---|---|")
    for each in table:
        cells = (_names(each), f"`{_default(each)}`" if _default(each) else "", each.metavar.replace("|", ", "))
        live = "yes" if is_live(each) else ""
        yield f"| {' | '.join(cells)} | {live} | {_meaning(each).replace('|', ', ')} |"
    yield ""


def _names(entry: Option | Suboption) -> str:
    if isinstance(entry, Suboption):
        return f"`{entry.name}`"
    return " ".join(f"`{spelled}`" for spelled in entry.spellings)


def _default(entry: Option | Suboption) -> str:
    known = KNOWN.get(entry.setting)
    if is_on(entry):
        return "on"
    return show_default(entry, known[0]) if known and entry.metavar else ""


def _meaning(entry: Option | Suboption) -> str:
    known = KNOWN.get(entry.setting)
    effect = effect_of(entry).value
    return (entry.meaning or (known[1].meaning if known else "")) + (f" [{effect}]" if effect else "")


def is_live(entry: Option | Suboption) -> bool:
    """Whether a reload changes it."""
    known = KNOWN.get(entry.setting)
    return known is not None and known[1].live


# The man page -----------------------------------------------------------------------------------------------------------


def man_page() -> str:
    """mcserver(1), in man's macros."""
    lines = [
        f'.TH MCSERVER 1 "" "mcserver {__version__}" "User Commands"',
        ".SH NAME",
        "mcserver \\- a cache server that memcached's clients use unchanged",
        ".SH SYNOPSIS",
        ".B mcserver\n.RI [ options ]",
        ".br",
        *(f".B mcserver {name}\n.RI [ arguments ]\n.br" for name in SUBCOMMANDS),
        ".SH DESCRIPTION",
        f"Speaks memcached's protocols and reads memcached {MEMCACHED_VERSION}'s command line.",
        "Options may be abbreviated, bundled and repeated; the last value counts.",
        "[only accepted] ones are taken and have no effect.",
        ".SH OPTIONS",
        *_man(OPTIONS),
        ".SS Suboptions of -o",
        *_man(SUBOPTIONS),
        ".SS Not in memcached",
        *_man(OWN_OPTIONS),
        ".SS A fleet kept coherent through ZooKeeper",
        *_man(CLUSTER_OPTIONS),
        ".SH SUBCOMMANDS",
        "Each tells its arguments with",
        ".BR \\-\\-help .",
        *(line for name, (_, _, meaning) in SUBCOMMANDS.items() for line in (".TP", f".B {name}", roff(meaning))),
        ".SH ENVIRONMENT",
        ".TP\n.B MEMCACHED_PORT_FILENAME\nA file for the ports that were opened.",
        f".TP\n.B {USERS_VARIABLE}\nThe file of the users of -S, one name:password a line.",
        f".TP\n.B {AUTH_VARIABLE}\nuser:password for ZooKeeper.",
        ".TP\n.B LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID, NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID\nsystemd's: sockets that are "
        "open already, and where to tell of the start, a reload, the end and of being alive.",
        ".SH SIGNALS",
        ".TP\n.B SIGTERM, SIGINT\nEnd, when what was answered is sent.",
        ".TP\n.B SIGUSR1\nThe same; with -e the items are kept for the next start.",
        ".TP\n.B SIGHUP\nReads the configuration file, the users and the certificates of TLS again; the log names what "
        "changed and what needs a new start.",
        ".SH EXIT STATUS",
        "0 after a signal or",
        ".BR shutdown ;",
        "1 or 64 for the command line and the files that it names, 67 for an unknown user, 70 for an error of mcserver's own,",
        "71 for what the system refuses.",
        ".SH SEE ALSO",
        ".BR memcached (1)",
    ]
    return "\n".join(lines) + "\n"


def _man(table: Table) -> Iterator[str]:
    for entry in table:
        if isinstance(entry, Suboption):
            names = f".B {roff(entry.name)}"
        else:
            names = f".B {roff(', '.join(entry.spellings))}"
        value = f" \\fI{roff(entry.metavar)}\\fR" if entry.metavar else ""
        yield from (".TP", names + value, roff(describe(entry)))


def roff(text: str) -> str:
    """As literal text of a man page; no line begins with a command."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\\&" + text if text.startswith((".", "'")) else text


# Completions ------------------------------------------------------------------------------------------------------------


def bash() -> str:
    """Options, values where they are known, suboptions behind -o, and subcommands first."""
    takes_file = "|".join(spell for each in ALL_OPTIONS if each.metavar in FILES for spell in each.spellings)
    cases = [f'        {takes_file}) COMPREPLY=($(compgen -f -- "$cur")); return ;;']
    for name, values in CHOICES.items():
        option = next(each for each in ALL_OPTIONS if each.long == name)
        cases.append(
            f'        {"|".join(option.spellings)}) COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$cur")); return ;;'
        )
    tools = "".join(
        f"""        {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur")); compopt -o default; return ;;\n"""
        for name, words in _tools().items()
    )
    suboptions = " ".join(each.name + ("=" if each.missing else "") for each in SUBOPTIONS)
    valued = "|".join(spell for each in ALL_OPTIONS if each.metavar for spell in each.spellings)
    return f"""# bash completion of mcserver, made by `mcserver pages bash`
_mcserver() {{
    local cur prev
    cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    if [ "$prev" = "=" ]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    if [ "$cur" = "=" ]; then cur= prev=${{COMP_WORDS[COMP_CWORD-1]}}; fi
    [ "$COMP_CWORD" -eq 1 ] || case ${{COMP_WORDS[1]}} in
{tools}    esac
    case $prev in
{chr(10).join(cases)}
        -o|--extended)
            local before=""
            case $cur in *,*) before=${{cur%,*}},; cur=${{cur##*,}} ;; esac
            COMPREPLY=($(compgen -P "$before" -W "{suboptions}" -- "$cur")); compopt -o nospace; return ;;
        {valued}) return ;;
    esac
    case $cur in
        -*) COMPREPLY=($(compgen -W "{" ".join(s for each in ALL_OPTIONS for s in each.spellings)}" -- "$cur")) ;;
        *) [ "$COMP_CWORD" -ne 1 ] || COMPREPLY=($(compgen -W "{" ".join(SUBCOMMANDS)}" -- "$cur")) ;;
    esac
}}
complete -F _mcserver mcserver
"""


def zsh() -> str:
    """The same for zsh, with the meanings."""
    lines = [
        "#compdef mcserver",
        "# zsh completion of mcserver, made by `mcserver pages zsh`",
        "(( CURRENT == 2 )) || case $words[2] in",
    ]
    lines += [f"  {name}) compadd -- {' '.join(words)}; _files; return ;;" for name, words in _tools().items()]
    lines += ["esac", "_arguments -s \\"]
    for each in ALL_OPTIONS:
        spelled = each.spellings
        group = f"'({' '.join(spelled)})'" if len(spelled) > 1 else ""
        names = f"{{{','.join(spelled)}}}" if len(spelled) > 1 else spelled[0]
        value = f":{each.metavar}:{_zsh_values(each)}" if each.metavar else ""
        before = "'*'" if each.long in (*REPEATED, *COUNTED, EXTENDED) else group
        lines.append(f"  {before}{names}'[{_zsh(_meaning(each))}]{value}' \\")
    commands = " ".join(f"{name}" for name in SUBCOMMANDS)
    lines.append(f"  '1:subcommand:({commands})'")
    return "\n".join(lines) + "\n"


def _zsh(text: str) -> str:
    return text.replace("'", "’").replace("[", "(").replace("]", ")").replace(":", "\\:")


def _zsh_values(option: Option) -> str:
    if option.metavar in FILES:
        return "_files"
    if option.long == EXTENDED:
        return f"_values -s , suboption {' '.join(each.name for each in SUBOPTIONS)}"
    return f"({' '.join(CHOICES[option.long])})" if option.long in CHOICES else " "


def fish() -> str:
    """The same for fish."""
    lines = ["# fish completion of mcserver, made by `mcserver pages fish`"]
    for name, (_, _, meaning) in SUBCOMMANDS.items():
        lines.append(f"complete -c mcserver -n __fish_use_subcommand -f -a {name} -d '{_fish(meaning)}'")
    seen = " ".join(_tools())
    for name, words in _tools().items():
        lines.append(f"complete -c mcserver -n '__fish_seen_subcommand_from {name}' -a '{' '.join(words)}'")
    for each in ALL_OPTIONS:
        names = f" -s {each.short}" * bool(each.short) + f" -l {each.long}" * bool(each.long)
        value = " -r" if each.metavar in FILES else " -x" if each.metavar else " -f"
        if each.long in CHOICES:
            value += f" -a '{' '.join(CHOICES[each.long])}'"
        where = f" -n 'not __fish_seen_subcommand_from {seen}'"
        lines.append(f"complete -c mcserver{where}{names}{value} -d '{_fish(_meaning(each))}'")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _tools() -> dict[str, list[str]]:
    """The words that each subcommand but `config`, which takes the server's, has of its own."""
    found = {"pages": list(PAGES)}
    for name, (module, function, _) in SUBCOMMANDS.items():
        if module.startswith("mcserver.tools."):
            known = getattr(import_module(module), function.replace("main", "known_arguments"))()
            found[name] = [spelled for action in known._actions for spelled in action.option_strings]
    return found


PAGES = {"man": man_page, "bash": bash, "zsh": zsh, "fish": fish, "options": options_markdown}
