"""The pages of --html and of the matrix, in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.__main__ import DIED, FAILED, main
from conformance.faults import Proxy, faults
from conformance.html import page
from conformance.wire import Address
from tests.peer import memcached

SWITCHES = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip


def browse(where: str, profile: Path) -> str:
    """The document after its scripts have run, as Chromium has it."""
    program = shutil.which("chromium") or "/usr/bin/chromium"
    command = [program, *SWITCHES, f"--user-data-dir={profile}", where]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages and results of a run with a fault in it."""
    folder = tmp_path_factory.mktemp("pages")
    fault = next(fault for fault in faults() if fault.id == "error-string")
    with memcached() as right:
        proxy = Proxy(Address(*right), fault)
        only = ["--only", "framing/unknown/", "--only", "classic/get/", "--only", "flush/all"]
        outputs = ["--html", str(folder / "site"), "--json", str(folder / "a.json"), "--name", "a <server>"]
        code = main([str(proxy.address), *only, *outputs, "--timeout", "3"])
        proxy.close()
        assert code == FAILED
        assert main([str(Address(*right)), *only, "--json", str(folder / "b.json"), "--name", "right"]) == 0
    return folder


@pytest.mark.slow
def test_the_page_of_a_run_filters_in_a_browser(run: Path, tmp_path: Path) -> None:
    document = browse(f"file://{run}/site/index.html", tmp_path)
    assert "a &lt;server&gt;" in document
    rows = re.findall(r'<tr data-status="([^"]+)"', document)
    shown = re.search(r'id="shown">(\d+)<', document)
    assert shown
    assert int(shown[1]) == len(rows) > 10  # the script has counted: it runs
    assert {"failed", "passed", "skipped"} <= set(rows)
    assert 'id="causes"' in document


@pytest.mark.slow
def test_the_page_of_a_case_shows_both_ways_and_how_to_repeat(run: Path, tmp_path: Path) -> None:
    document = browse(f"file://{run}/site/case/{page('framing/unknown/word')}", tmp_path)
    text = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", "", document, flags=re.DOTALL))
    for wanted in ("framing/unknown/word", "protocol.txt, Error strings: means the client sent", "> bogus", "| nc -w 2",
                   "wanted ERROR", "came   ERR"):  # fmt: skip
        assert wanted in text
    assert '<span class="sent">' in document


@pytest.mark.slow
def test_every_link_has_its_page(run: Path) -> None:
    site = run / "site"
    for file in site.rglob("*.html"):
        for link in re.findall(r'href="([^"]+)"', file.read_text()):
            assert (file.parent / link).exists(), (file, link)


@pytest.mark.slow
def test_the_matrix_in_text_and_in_a_browser(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(run / "a.json"), str(run / "b.json")]
    assert main(["report", *files, "--html", str(tmp_path / "m.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| server | must passed | failed |")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a <server>", "right"]
    document = browse(f"file://{tmp_path}/m.html", tmp_path / "user")
    assert document.count("<th>") > 10
    assert "framing/unknown/word" in document
    assert 'class="failed"' in document


def test_a_file_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("{}")
    assert main(["report", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert DIED != FAILED
