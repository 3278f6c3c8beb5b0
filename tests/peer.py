"""Starts Debian's memcached, which tests compare with."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MEMCACHED = shutil.which("memcached") or "/usr/bin/memcached"
RELEASE = tuple(map(int, subprocess.check_output([MEMCACHED, "-V"], text=True).split()[1].split(".")))
"""1.6.18 unless another stands first in PATH, as with scripts/newest."""


@contextmanager
def memcached(*args: str, stderr: Path = Path(os.devnull)) -> Iterator[tuple[str, int]]:
    """A real memcached on a port of the kernel's choice, for as long as the block runs; what it prints goes to `stderr`."""
    with TemporaryDirectory() as folder:
        ports = Path(folder, "ports")
        command = [MEMCACHED, "-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-t", "1", *args]
        environment = {**os.environ, "MEMCACHED_PORT_FILENAME": str(ports)}
        with stderr.open("wb") as printed:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=printed, env=environment)
        try:
            deadline = time.monotonic() + 60
            while not ports.exists():  # memcached writes it elsewhere and renames it
                assert process.poll() is None, "memcached ended"
                assert time.monotonic() < deadline, "memcached did not start"
                time.sleep(0.005)
            found = re.search(r"TCP INET: (\d+)", ports.read_text("ascii"))
            assert found
            yield "127.0.0.1", int(found[1])
        finally:
            process.kill()
            process.wait(60)


def end_gracefully(pid: int) -> None:
    """By SIGUSR1, of one with -e. Returns when it has ended: its record is there before it is whole."""
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "memcached did not end"
        time.sleep(0.005)


def sasl_memcached_settings(folder: Path) -> dict[str, str]:
    """A SASL library with alice in its own data base, and PLAIN alone."""
    program = shutil.which("saslpasswd2") or "/usr/sbin/saslpasswd2"
    make = [program, "-p", "-c", "-f", str(folder / "db"), "-u", socket.gethostname(), "alice"]
    subprocess.run(make, input=b"secret", check=True, timeout=20)
    lines = ["mech_list: plain", "pwcheck_method: auxprop", "auxprop_plugin: sasldb", f"sasldb_path: {folder}/db"]
    (folder / "memcached.conf").write_text("\n".join(lines) + "\n")
    return {"SASL_CONF_PATH": str(folder)}
