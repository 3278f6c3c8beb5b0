"""`python -m tests.conformance.strangers`: the suite on servers that others wrote, and the matrix of what came out.

Owns how each server is started, and the table in docs/conformance.md between its two marks. It judges nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from conformance.matrix import main as report
from conformance.servers import Process
from conformance.wire import Address

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/conformance.md"
MARKS = "<!-- strangers: scripts/strangers writes this -->\n", "<!-- end of strangers -->\n"
LIMIT = 1200.0  # seconds that the suite may take with one server
USER = "-u root" if os.getuid() == 0 else ""
# Some read their port from a file alone: a shell writes it and becomes the server. Their second port is 10000 higher.
YRMCDS = r"""
printf '%s\n' port={port} repl_port=$(({port} + 10000)) virtual_ip=127.0.0.1 max_data_size=1M memory_limit=256M \
    temp_dir=FOLDER >FOLDER/{port}.conf && exec yrmcdsd -f FOLDER/{port}.conf
"""
NUTCRACKER = r"""
printf '%s\n' pool: '  listen: {host}:{port}' '  servers:' '    - BEHIND:1' >FOLDER/{port}.yml &&
    exec nutcracker -c FOLDER/{port}.yml -p FOLDER/{port}.pid -s $(({port} + 10000)) -v 0
"""
NODE = "require('MODULES/memcached-njs/src').startServer({port: {port}})"


def shell(script: str, folder: Path, behind: str = "") -> str:
    """A command for --spawn that runs a shell's script."""
    return shlex.join(["sh", "-c", script.strip().replace("FOLDER", str(folder)).replace("BEHIND", behind)])


def debian(package: str) -> str:
    """The upstream version of an installed package."""
    asked = ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.partition("+")[0]


def npm(modules: Path, package: str) -> str:
    """The version of a package below `modules`."""
    return str(json.loads((modules / package / "package.json").read_text())["version"])


def servers(modules: Path, folder: Path, behind: Address) -> dict[str, str]:
    """The command of each server by what the table calls it."""
    node = shlex.join(["node", "-e", NODE.replace("MODULES", str(modules))])
    return {
        f"memcached {debian('memcached')}": f"memcached {USER}",
        "mcserver": f"{sys.executable} -m mcserver {USER}",
        f"yrmcds {debian('yrmcds')}": shell(YRMCDS, folder),
        f"nutcracker {debian('nutcracker')} (twemproxy)": shell(NUTCRACKER, folder, str(behind)),
        f"memcached-njs {npm(modules, 'memcached-njs')} (npm)": node,
    }


def judged(name: str, command: str, folder: Path, arguments: Sequence[str]) -> Path:
    """Runs the suite on one server; the file with its results, beside it a text for people."""
    base = folder / name.split(" ", maxsplit=1)[0]
    begun = time.monotonic()
    with Path(f"{base}.txt").open("w") as told:
        done = subprocess.run(
            [sys.executable, "-m", "conformance", "--spawn", command, "--name", name, "--json", f"{base}.json", *arguments],
            cwd=ROOT, stdout=told, stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
        )  # fmt: skip
    last = Path(f"{base}.txt").read_text().splitlines()[-1:]
    print(f"{name}: exit {done.returncode}, {time.monotonic() - begun:.0f} s: {' '.join(last)}", file=sys.stderr)
    return Path(f"{base}.json")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every server was judged, whatever came out."""
    options = argparse.ArgumentParser(prog="scripts/strangers", description=__doc__)
    options.add_argument("--modules", type=Path, required=True, help="npm's packages")
    options.add_argument("--out", type=Path, default=ROOT / "build/strangers", help="where results go (%(default)s)")
    options.add_argument("--write", action="store_true", help="put the table into docs/conformance.md")
    given, arguments = options.parse_known_args(argv)
    folder = given.out.resolve()
    (folder / "run").mkdir(parents=True, exist_ok=True)
    upstream = Process(shlex.split(f"memcached {USER}"), [], folder / "run", Address())
    try:
        found = servers(given.modules.resolve(), folder / "run", upstream.address)
        files = [judged(name, command, folder, arguments) for name, command in found.items()]
    finally:
        upstream.stop()
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        report([*map(str, files), "--html", str(folder / "matrix.html")])
    print(table.getvalue(), end="")
    if given.write:
        before, rest = PAGE.read_text().split(MARKS[0])
        PAGE.write_text(f"{before}{MARKS[0]}{table.getvalue()}{MARKS[1]}{rest.split(MARKS[1])[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
