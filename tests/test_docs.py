"""The docs: a site without a broken link, a README of a page whose links and commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mcserver.subcommands import SUBCOMMANDS
from mcserver.testing import Fleet, Server

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BESIDE_THE_SITE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGES.md")
PAGES = (*BESIDE_THE_SITE, *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
ROOMS = "conformance|docs|mcserver|packaging|scripts|tests"
PLACE = re.compile(rf"(?<![\w/.-])((?:{ROOMS})/[\w./-]*\w)")
SOURCE = re.compile(r"\b(\w+\.(?:py|pyi|pyx|pxd|pxi))\b")
HOOK = re.compile(r"^    def (\w+)\(self", re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The names of a page's headings, as forges and mkdocs spell them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("name", BESIDE_THE_SITE)
def test_links_of_the_files_beside_the_site(name: str) -> None:
    for target in LINK.findall((ROOT / name).read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = ROOT / path if path else ROOT / name
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.slow
def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "site/testing/index.html").exists()


@pytest.mark.slow
def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    settings = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(settings[: settings.index("nav:\n  -")])
    (tmp_path / "docs/index.md").write_text("# Start\n\n[there](nowhere.md) [here](#nothing)\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 1
    assert "nowhere.md" in result.stderr
    assert "#nothing" in result.stderr


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [place for place in PLACE.findall(text) if not (ROOT / place).exists()] == []
    sources = {path.name for room in ROOMS.split("|") for path in (ROOT / room).rglob("*.p*")}
    assert set(SOURCE.findall(text)) - sources == set()


def test_the_architecture_page_tells_all_that_sessions_ask_of_their_owner() -> None:
    page = (ROOT / "docs/architecture.md").read_text().partition("class Owner(Protocol):")[2].partition("```")[0]
    types = (ROOT / "mcserver/core/engine.pyi").read_text()
    asked = [types.partition(f"class {name}(")[2].partition("\n@final")[0] for name in ("_Owner", "_WorkersOwner")]
    assert HOOK.findall(page) == [hook for each in asked for hook in HOOK.findall(each)]


def test_the_testing_page_tells_all_that_a_fleet_does() -> None:
    page = (ROOT / "docs/testing.md").read_text()
    table = page.partition("| of a fleet |")[2].partition("\n\n")[0]
    public = {name for name, each in vars(Fleet).items() if callable(each) and not name.startswith("_")}
    assert set(re.findall(r"(\w+)\(", table)) == public - {"start", "stop"}  # these stand above, for servers, too


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages - linked == set()


def test_the_readme_is_a_page_and_its_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    for script in set(re.findall(r"\bscripts/(\w+)", text)):
        assert (ROOT / "scripts" / script).exists()
    for file in re.findall(r"`\.venv/bin/python ([\w/]+\.py)`", text):
        assert (ROOT / file).exists()
    for name in SUBCOMMANDS:
        assert name == "pages" or f"`{name}`" in text or f"mcserver {name}" in text, name
    for heading in (
        "Two commands",
        "A telnet session",
        "Five figures",
        "A test that uses it",
        "Deploy it",
        "Where everything is",
    ):
        assert f"\n## {heading}\n" in text


TYPED = (
    "set greeting 0 0 5\nhello",
    "get greeting",
    "mg greeting v t f s",
    "ms counter 2 T60\n41",
    "ma counter v t",
    "incr greeting 1",
    "lru_crawler metadump all",
)


def test_the_readmes_telnet_session_is_what_comes(memcached_factory: Callable[..., Server]) -> None:
    session = (ROOT / "README.md").read_text().partition("$ telnet 127.0.0.1 11211\n")[2].partition("quit\n")[0]
    shown = [re.split(r" {2,}", line)[0] for line in session.splitlines()]  # notes stand at the right
    came: list[str] = []
    fresh = memcached_factory()  # its cas uniques begin with 1
    for typed in TYPED:
        answer = fresh.ask(f"{typed}\n".replace("\n", "\r\n").encode()).decode()
        came += [*typed.split("\n"), *(line.strip() for line in answer.splitlines())]
    times = re.compile(r"(la|exp)=\d+")
    assert [times.sub(r"\1=", line) for line in came] == [times.sub(r"\1=", line) for line in shown]


def test_the_page_of_conformance_has_every_option() -> None:
    command = [sys.executable, "-m", "conformance", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    options = set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)) - {"--version"}
    assert len(options) > 20
    page = (ROOT / "docs/conformance.md").read_text()
    assert [each for each in sorted(options) if f"`{each}" not in page] == []
