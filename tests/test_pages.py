"""What is made from the tables of options: the man page, the completions, the docs' table; they are kept, and never old."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mcserver import cli, pages
from mcserver.cli import ALL_OPTIONS
from mcserver.settings.help import is_on, show_default
from mcserver.settings.options import KNOWN, OPTIONS, OWN_OPTIONS, SUBOPTIONS, Draft, Option, Suboption
from mcserver.settings.rules import ConfigError
from mcserver.subcommands import SUBCOMMANDS

ROOT = Path(__file__).parent.parent
KEPT = {
    "man": "packaging/mcserver.1",
    "bash": "packaging/completions/mcserver.bash",
    "zsh": "packaging/completions/_mcserver",
    "fish": "packaging/completions/mcserver.fish",
    "options": "docs/options.md",
}


@pytest.mark.parametrize(("name", "path"), KEPT.items())
def test_what_is_kept_is_what_the_tables_say(name: str, path: str) -> None:
    assert (ROOT / path).read_text() == pages.PAGES[name](), "run scripts/pages"


def test_only_what_turns_on_what_is_on_is_called_the_default() -> None:
    """-c and its like show a value; a switch that is called the default changes nothing."""
    found = {each.name for each in SUBOPTIONS if is_on(each)} | {each.long for each in ALL_OPTIONS if is_on(each)}
    assert found == {"maxconns_fast", "lru_crawler", "lru_maintainer", "slab_reassign"}
    for name in found:
        assert cli.parse(["-u", "root", "-o", name], {}) == cli.parse(["-u", "root"], {}), name


SHOWN = [
    entry
    for entry in (*OPTIONS, *OWN_OPTIONS, *SUBOPTIONS)
    if entry.metavar and entry.setting in KNOWN and show_default(entry, KNOWN[entry.setting][0])
]


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: getattr(entry, "name", "") or entry.long)
def test_a_default_that_is_shown_can_be_said_and_changes_nothing(entry: Option | Suboption) -> None:
    default = show_default(entry, KNOWN[entry.setting][0])
    words = ["-o", f"{entry.name}={default}"] if isinstance(entry, Suboption) else [written(entry), default]
    told = cli.parse(["-u", "root", *words], {})
    silent = cli.parse(["-u", "root"], {})
    assert getattr(told, entry.setting) == getattr(silent, entry.setting) or entry.setting == "hashpower_init"


def written(option: Option) -> str:
    return f"--{option.long}" if option.long else f"-{option.short}"


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    for name, page in pages.PAGES.items():
        assert cli.main(["pages", name]) == 0
        assert capsys.readouterr().out == page()
    assert cli.main(["pages"]) == 64
    assert "mcserver pages man|bash" in capsys.readouterr().err


def test_the_man_page_is_set_without_a_complaint() -> None:
    result = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-rLL=100n", "-P-cbou", ROOT / KEPT["man"]],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert result.stderr == ""
    text = result.stdout
    for option in ALL_OPTIONS:
        assert (f"--{option.long}" if option.long else f"-{option.short}") in text
    assert "SYNOPSIS" in text
    assert all(name in text for name in SUBCOMMANDS)


def test_the_man_page_names_the_environment() -> None:
    """Every variable that is read is told of, and no other."""
    read = {cli.AUTH_VARIABLE, cli.USERS_VARIABLE}
    for path in (ROOT / "mcserver").rglob("*.py"):
        read |= set(re.findall(r'environ(?:ment)?\.(?:get|pop)\("(\w+)"', path.read_text()))
    section = pages.man_page().partition(".SH ENVIRONMENT\n")[2].partition(".SH")[0]
    assert {name for line in re.findall(r"^\.B (.+)$", section, re.MULTILINE) for name in line.split(", ")} == read


def complete(line: str) -> list[str]:
    """What bash offers for the last word of the line."""
    words = line.split(" ")
    script = f"""source {ROOT / KEPT["bash"]}
        compopt() {{ :; }}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
        _mcserver; printf '%s\\n' "${{COMPREPLY[@]}}" """
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=10, check=True)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mcserver --memory", ["--memory-limit", "--memory-file"]),
        ("mcserver --on-stale ", ["miss", "error", "serve"]),
        ("mcserver --on-stale = s", ["serve"]),
        ("mcserver -B ", ["auto", "ascii", "binary"]),
        ("mcserver ping --co", ["--count"]),
        ("mcserver stats --me", []),
        ("mcserver dump host --pre", ["--prefix"]),
        ("mcserver config --memory-l", ["--memory-limit"]),
        ("mcserver pages ba", ["bash"]),
        ("mcserver -o idle", ["idle_timeout="]),
        ("mcserver -o track_sizes,room", ["track_sizes,room_for="]),
        ("mcserver conf", ["config"]),
        ("mcserver -m ", []),
        ("mcserver -v conf", []),
    ],
)
def test_bash_completes(line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_fish_completes_what_follows_a_subcommand() -> None:
    for line, offered in (("mcserver ping --co", ["--count"]), ("mcserver config --memory-l", ["--memory-limit"])):
        command = f"source {ROOT / KEPT['fish']}; complete -C '{line}'"
        result = subprocess.run(["fish", "-c", command], capture_output=True, text=True, timeout=20, check=True)
        assert [each.split("\t")[0] for each in result.stdout.splitlines()] == offered


def test_zsh_offers_again_whatever_adds_up_and_nothing_else() -> None:
    again = set(re.findall(r"^  '\*'(?:\{-\w,)?--([\w-]+)", pages.zsh(), re.MULTILINE))
    assert again == {each.long for each in ALL_OPTIONS if adds_up(each)} | {"extended"}


def adds_up(option: Option) -> bool:
    """Whether it says more when it stands twice than its second time alone."""
    for first, second in [("a", "b"), ("1", "2"), ("a=async", "b=async")] if option.metavar else [("", "")]:
        both, last = Draft(), Draft()
        try:
            option.apply(both, "", first)
            option.apply(both, "", second)
            option.apply(last, "", second)
        except ConfigError:
            continue
        if (both.settings, both.cluster) != (last.settings, last.cluster):
            return True
    return False


def test_bash_knows_every_option() -> None:
    spelled = {spelling for each in ALL_OPTIONS for spelling in each.spellings}
    assert set(complete("mcserver -")) == spelled
    assert len(complete("mcserver -o ")) == len(SUBOPTIONS)


@pytest.mark.parametrize(
    ("shell", "check"),
    [
        ("zsh", 'compdef() { :; }; _arguments() { shift; print -l -- "$@"; }; source {0}'),
        ("fish", "source {0}; complete -C 'mcserver --'"),
    ],
)
def test_the_other_shells_take_theirs(shell: str, check: str) -> None:
    command = check.replace("{0}", str(ROOT / KEPT[shell]))
    result = subprocess.run([shell, "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert result.stderr == ""
    for option in ALL_OPTIONS:
        assert not option.long or f"--{option.long}" in result.stdout
