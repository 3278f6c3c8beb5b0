"""What a server that gives up root still does afterwards: everything, and it loads nothing more for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme

from tests.ports import free_port
from tests.serving import eventually

TELL_IMPORTS = """
import os, sys
switch = os.setuid
def switched(uid):
    switch(uid)
    sys.addaudithook(lambda event, about: event == "import" and os.write(2, f"loads {about[0]}\\n".encode()))
    os.write(2, b"switched\\n")
os.setuid = switched
from mcserver.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that anybody may write, in directories that anybody may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "-p -1 -l 127.0.0.1",
        "-p -1 -l 127.0.0.1 -U -1 -vv --log-json",
        "-s {folder}/socket -e {folder}/kept -P {folder}/pid",
        "-p -1 -l 127.0.0.1 --metrics 127.0.0.1:{port} --config {folder}/config.toml",
        "-p -1 -l 127.0.0.1 --loop asyncio -Y {folder}/users",
        "-p -1 -l 127.0.0.1 -Z -o ssl_chain_cert={folder}/cert.pem,ssl_key={folder}/key.pem",
        "-p -1 -l 127.0.0.1 --zookeeper 127.0.0.1:1 --metrics 127.0.0.1:{port}",
    ],
)
def test_nothing_is_loaded_when_root_is_given_up(open_folder: Path, options: str) -> None:
    """The user that it becomes may not be able to read it."""
    if os.getuid() != 0:
        return  # nothing is given up
    (open_folder / "config.toml").write_text("verbose = 0\n")
    (open_folder / "users").write_text("a:b\n")
    if "-Z" in options:
        certificate = trustme.CA().issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(str(open_folder / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(open_folder / "cert.pem"))
    for file in open_folder.iterdir():
        file.chmod(0o644)
    port = free_port()
    options = options.format(folder=open_folder, port=port)
    command = [sys.executable, "-c", TELL_IMPORTS, "-u", "nobody", *options.split()]
    with (open_folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        said = open_folder / "log"
        eventually(lambda: " listens on " in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        process.send_signal(signal.SIGHUP)
        if "--metrics" in options:
            for page in ("metrics", "healthz", "readyz", "", "figures.json"):
                with contextlib.suppress(HTTPError), urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as reply:
                    assert reply.read()
    finally:
        process.terminate()
        process.wait(60)
    _, _, after = said.read_text().partition("switched\n")
    assert "listens on" in after
    assert "loads" not in after
    assert "Traceback" not in after
