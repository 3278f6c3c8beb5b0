"""What a server says to the tools: its bytes reached the terminal raw, and `[/x]` in a figure ended `mcserver top`."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcserver import cli
from mcserver.tools.stats import number

EVIL = bytes(each for each in range(256) if each not in b"\r\n ") + b"\x1b]0;owned\x07\xc2\x9b31m[/x][bold]"
ANSWERS = {
    b"version": b"VERSION 1.6.45" + EVIL,
    b"stats err": b"SERVER_ERROR " + EVIL,
    b"stats slabs": b"STAT 1:chunk_size %s\r\nSTAT 1:total_pages %s\r\nSTAT \xc2\xb2:total_pages 1\r\nEND"
    % (EVIL, EVIL),
    b"stats": b"STAT pid%s 1\r\nSTAT curr_connections %s\r\nSTAT cmd_get 5\r\nEND" % (EVIL, EVIL),
    b"watch fetchers": b"OK" + b"\r\nts=1.1 gid=1 type=item_get key=%s status=found" % EVIL * 10,
    b"lru_crawler metadump all": b"key=a exp=-1\r\nEND",
}


class Talk(socketserver.StreamRequestHandler):
    """Answers each line, and each store, with what can do most harm."""

    def handle(self) -> None:
        for line in self.rfile:
            words = line.strip()
            if words.startswith(b"mg "):
                self.wfile.write(b"VA \xc2\xb2 f\x1b[ t-1\r\n")
            elif words.startswith(b"ms "):
                self.rfile.readline()
                self.wfile.write(b"SERVER_ERROR " + EVIL + b"\r\n")
            else:
                self.wfile.write(ANSWERS.get(words, b"END") + b"\r\n")


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    """Its address."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["stats", "{}"], 0),
        (["stats", "{}", "err"], 1),
        (["stats", "{}", "--json"], 0),
        (["ping", "{}", "-c", "1"], 0),
        (["ping", "\x1b]0;x\x07:1"], 1),
        (["dump", "{}"], 1),
        (["top", "{}", "-n", "1", "-i", "0.01"], 0),
    ],
)
def test_nothing_commands_the_terminal(
    evil: str, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([each.format(evil) for each in words]) == code
    said = "".join(capsys.readouterr())
    assert said
    assert all(each.isprintable() or each == "\n" for each in said)


def test_what_refuses_a_load(evil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dump").write_text('{"key": "a", "value": "b"}\n')
    assert cli.main(["load", evil, str(tmp_path / "dump")]) == 2
    assert capsys.readouterr().err.strip().isprintable()


def test_only_numbers_are_numbers_in_json() -> None:
    """`NaN` is no JSON."""
    assert [number(each) for each in ("12", "-3", "0.50", "007")] == [12, -3, 0.5, 7]
    for text in ("nan", "inf", "1_0", "1e5", "\u0661", "9" * 5000, "1.2.3", ""):
        assert number(text) == text
