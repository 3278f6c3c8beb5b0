"""What a server costs a test run: medians of starting, emptying and stopping one, beside its peers where they are installed.

    python tests/testing/measure.py [--rounds N] [--container 'podman run --rm --network host IMAGE']

memcached (as a process), redis-server (as pytest-redis starts it) and fakeredis are measured when they are there; memcached in a
container when there is a command for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from mcserver.testing import Fleet, Server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process(command: Callable[[int], list[str]], empty: bytes) -> tuple[float, float, float]:
    """Seconds to start (until it accepts), to empty and to stop a server of this command."""
    port = free_port()
    began = time.perf_counter()
    running = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.0005)
    up = time.perf_counter()
    connection.sendall(empty)
    connection.recv(100)
    emptied = time.perf_counter()
    connection.close()
    running.terminate()
    try:
        running.wait(10)
    except subprocess.TimeoutExpired:  # a container's command may miss it
        running.kill()
        running.wait()
    return up - began, emptied - up, time.perf_counter() - emptied


def in_process(make: Callable[[], Any], reset: Callable[[Any], object]) -> tuple[float, float, float]:
    """The same for a server of this process, with ten items in it."""
    began = time.perf_counter()
    server = make().start()
    up = time.perf_counter()
    for number in range(10):
        (server[0] if isinstance(server, Fleet) else server)[f"key:{number}"] = b"x" * 100
    filled = time.perf_counter()
    reset(server)
    emptied = time.perf_counter()
    server.stop()
    return up - began, emptied - filled, time.perf_counter() - emptied


def fakeredis() -> tuple[float, float, float]:
    """fakeredis has no server to start; its time is that of its first client."""
    import fakeredis

    began = time.perf_counter()
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    client.ping()
    up = time.perf_counter()
    for number in range(10):
        client.set(f"key:{number}", b"x" * 100)
    filled = time.perf_counter()
    client.flushall()
    emptied = time.perf_counter()
    client.close()
    return up - began, emptied - filled, time.perf_counter() - emptied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--container", default="", metavar="COMMAND", help="runs what stands behind it in a container")
    given = parser.parse_args()
    rounds = given.rounds
    kinds: dict[str, tuple[Callable[[], tuple[float, float, float]], int]] = {
        "mcserver.testing.Server": (lambda: in_process(Server, Server.reset), rounds),
        "mcserver.testing.Fleet(3)": (lambda: in_process(lambda: Fleet(3), lambda fleet: [each.reset() for each in fleet]), 20),
    }  # fmt: skip
    if importlib.util.find_spec("fakeredis"):
        kinds["fakeredis"] = (fakeredis, rounds)
    if memcached := shutil.which("memcached"):
        kinds["memcached, a process"] = (
            lambda: process(
                lambda port: [memcached, "-u", "root", "-l", "127.0.0.1", "-p", str(port)], b"flush_all\r\n"
            ),
            20,
        )
    if container := shlex.split(given.container):
        kinds["memcached, in a container"] = (
            lambda: process(
                lambda port: [*container, "memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port)],
                b"flush_all\r\n",
            ),
            20,
        )
    if redis := shutil.which("redis-server"):
        arguments = ["--save", "", "--bind", "127.0.0.1", "--port"]
        kinds["redis-server, as pytest-redis starts it"] = (
            lambda: process(lambda port: [redis, *arguments, str(port)], b"FLUSHALL\r\n"),
            20,
        )
    print("| | up, ms | empty again, µs | stopped, ms |\n|---|---|---|---|")
    for name, (measure, times) in kinds.items():
        measure()
        up, emptied, stopped = (
            statistics.median(each) for each in zip(*[measure() for _ in range(times)], strict=True)
        )
        print(f"| {name} | {up * 1e3:.2f} | {emptied * 1e6:.0f} | {stopped * 1e3:.2f} |")


if __name__ == "__main__":
    main()
