"""must is the text: what a case of level must rests on is a sentence of memcached's protocol.txt."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from conformance import library
from conformance.notation import Expect
from conformance.text import Scope

TEXT = "usr/share/doc/memcached/protocol.txt.gz"
PLAIN = Scope("p.", lambda: 0, defaultdict(lambda: b"1"))


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """protocol.txt by section, white space as one space; from Debian's package, where the system left its documents out."""
    path = Path("/", TEXT)
    if not path.exists():
        folder = tmp_path_factory.mktemp("package")
        subprocess.run(["apt-get", "-q", "download", "memcached"], cwd=folder, check=True)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
        path = folder / TEXT
    pieces = re.split(r"(?m)^(\S.*)\n-{3,}\n", gzip.decompress(path.read_bytes()).decode())
    return {name: " ".join(text.split()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def test_every_citation_is_in_the_text(sections: dict[str, str]) -> None:
    lost = [
        (rule, section, words)
        for rule, (section, words) in library.citations().items()
        if words not in sections.get(section, "")
    ]
    assert lost == []
    assert "no such words" not in sections["Keys"]


@pytest.mark.slow
def test_every_must_case_cites_and_no_other_does() -> None:
    for case in library.cases():
        assert bool(library.cited(case)) == (case.level == "must"), case.id
    assert library.citations().keys() <= library.rules().keys()


@pytest.mark.slow
def test_must_leaves_the_words_of_errors_to_the_server() -> None:
    for case in library.cases():
        if case.level != "must":
            continue
        for _, step in case.steps:
            if isinstance(step, Expect):
                assert not re.match(rb"(CLIENT|SERVER)_ERROR [a-z]", step.text.render(PLAIN)), case.id
    ids = {case.id: case.level for case in library.cases()}
    assert ids["classic/delete/key-251"] == "must"
    assert ids["classic/delete/key-251/words"] == "should"


@pytest.mark.slow
def test_classic_and_must_use_no_meta_command_as_an_instrument() -> None:
    assert [case.id for case in library.cases() if case.suite == "classic" and "meta" in case.features] == []


@pytest.mark.slow
def test_must_does_not_say_that_uniques_grow() -> None:
    for case in library.cases():
        if case.level == "must":
            for _, step in case.steps:
                if isinstance(step, Expect):
                    rules = [binding.rule for binding in step.text.bindings]
                    assert not [rule for rule in rules if re.match(r"C\d\+1\.\.", rule)], case.id
