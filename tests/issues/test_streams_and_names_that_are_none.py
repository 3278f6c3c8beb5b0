"""Subcommands whose streams are closed, and names that no file can have: each had ended with a traceback."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from mcserver import cli
from mcserver.settings.config import Config
from mcserver.settings.rules import ConfigError
from tests.serving import run_to_end

COMMANDS = (
    ["config"],
    ["ping", "--help"],
    ["stats", "127.0.0.1:1"],
    ["dump", "127.0.0.1:1"],
    ["load", "--help"],
    ["top", "--help"],
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_subcommand_without_streams(command: list[str]) -> None:
    """It does what it does, unheard; what goes to a stream that is closed goes nowhere else."""
    heard = subprocess.run([sys.executable, "-m", "mcserver", *command], capture_output=True, timeout=60, check=False)
    for closed in itertools.chain.from_iterable(itertools.combinations((0, 1, 2), n) for n in (1, 2, 3)):
        redirected = " ".join(f"{each}>&-" for each in closed)
        line = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "mcserver", *command]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert done.returncode == heard.returncode, (closed, done)
        assert done.stdout == (b"" if 1 in closed else heard.stdout), closed
        assert done.stderr == (b"" if 2 in closed else heard.stderr), closed


@pytest.mark.parametrize("line", ["pidfile", "memory-file", "user", "zk-ca", "[extended]\nssl_chain_cert"])
def test_a_name_with_a_byte_that_no_name_has(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'{line} = "/tmp/a\\u0000b"\n')
    assert cli.main(["-p", "-1", "--config", str(file)]) != 0
    assert r"/tmp/a\x00b" in capsys.readouterr().err


def test_no_setting_has_such_a_byte() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        Config(memory_file="/tmp/a\0b")
    with pytest.raises(ConfigError, match="NUL"):
        Config(user="a\0b")


@pytest.mark.parametrize("option", ["-e", "-Y"])
@pytest.mark.parametrize("name", ["/", "//", "/tmp/.."])
def test_the_root_is_no_file(option: str, name: str) -> None:
    done = run_to_end(option, name)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert option in done.stderr


def test_an_error_does_not_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-B", "\x1b[2Jx\x07"]) != 0
    assert capsys.readouterr().err.isascii()
    assert cli.main(["-u", "\x1b[2Jx", "-p", "-1"]) != 0
    assert "\x1b" not in capsys.readouterr().err
