"""What others ask a server for while its gets are timed: a process of its own, until it is killed.

It prints a line when all have begun:

python -m benchmark.disturb NAME PORT
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable

HOST = "127.0.0.1"
PAUSE = 0.05  # s between two page moves: each is answered at once and done in the background


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), 10)


def ask_for_ever(port: int, commands: list[bytes], end: bytes) -> None:
    """Each in turn, its reply read."""
    with connect(port) as connection:
        for command in itertools.cycle(commands):
            connection.sendall(command)
            tail = b""
            while not tail.endswith(end):
                if not (data := connection.recv(1 << 18)):
                    return  # memcached closes when several dump at once
                tail = (tail + data)[-len(end) :]


def asking(count: int, commands: list[bytes], end: bytes = b"END\r\n") -> Callable[[int], None]:
    """So many connections."""

    def start(port: int) -> None:
        for _ in range(count):
            threading.Thread(target=asked_again, args=(port, commands, end), daemon=True).start()

    return start


def asked_again(port: int, commands: list[bytes], end: bytes) -> None:
    while True:
        ask_for_ever(port, commands, end)
        time.sleep(PAUSE)


def watching(readers: int, sleepers: int) -> Callable[[int], None]:
    """Watchers that read, and some that never do."""

    def start(port: int) -> None:
        for number in range(readers + sleepers):
            connection = connect(port)
            connection.sendall(b"watch fetchers mutations\r\n")
            connection.recv(4)
            kept.append(connection)
            if number < readers:
                threading.Thread(target=read_for_ever, args=(connection,), daemon=True).start()

    return start


def read_for_ever(connection: socket.socket) -> None:
    connection.settimeout(None)
    while connection.recv(1 << 18):
        pass


def moving(port: int) -> None:
    """Pages between the class that the values are in and a class of large ones, to and fro."""
    with connect(port) as connection:
        connection.sendall(b"stats slabs\r\n")
        text = connection.makefile("rb")
        classes: dict[int, int] = {}
        for line in iter(text.readline, b"END\r\n"):
            word, value = line.split()[1:]
            number, _, field = word.partition(b":")
            if field == b"chunk_size":
                classes[int(number)] = int(value)
        text.close()
        mine = max(classes, key=lambda number: -classes[number])
        largest = max(classes) + 1

    def move() -> None:
        with connect(port) as connection:
            for source, target in itertools.cycle([(mine, largest), (largest, mine)]):
                connection.sendall(b"slabs reassign %d %d\r\n" % (source, target))
                connection.recv(1 << 10)
                time.sleep(PAUSE)

    threading.Thread(target=move, daemon=True).start()


kept: list[socket.socket] = []
DISTURBANCES: dict[str, Callable[[int], None]] = {
    "50 metadumps, read": asking(50, [b"lru_crawler metadump all\r\n"], b"\n"),
    "4 loops of cachedump": asking(4, [b"stats cachedump %d 0\r\n" % cls for cls in range(1, 12)]),
    "4 loops of stats": asking(
        4, [b"stats\r\n", b"stats items\r\n", b"stats slabs\r\n", b"stats settings\r\n", b"stats conns\r\n"]
    ),
    "20 watchers that read, 20 that don't": watching(20, 20),
    "page moves": moving,
}


def main(name: str, port: str) -> None:
    """Begins, says so, and goes on until it is killed."""
    DISTURBANCES[name](int(port))
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
