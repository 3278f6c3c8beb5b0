"""What others ask a server for while its gets are timed: a process of its own, until it is killed.

It prints a line when all have begun:

python -m benchmark.disturb NAME PORT [SECONDS | @RATE]

PORT is that of UDP for the flood of datagrams. After SECONDS it prints how often a flood's visitors came in a second, and
ends; with RATE so many come, and not as many as can: the same for a server that is done with them sooner.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import programs

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


def visiting(count: int, visit: Callable[[int], None]) -> Callable[[int], None]:
    """So many who make a connection, do this, and come again: at once, or at the pace."""

    def for_ever(port: int) -> None:
        due = time.monotonic()
        while True:
            if pace.rate:
                # Who is late doesn't make up for more than a second.
                due = max(due + count / pace.rate, time.monotonic() - 1)
                time.sleep(max(due - time.monotonic(), 0))
            with contextlib.suppress(OSError):
                visit(port)
            pace.visits += 1

    def start(port: int) -> None:
        visit(port)  # it can be done at all
        for _ in range(count):
            threading.Thread(target=for_ever, args=(port,), daemon=True).start()

    return start


@dataclass(slots=True)
class Pace:
    """How often a flood's visitors come in a second (0: as often as they can), and have come."""

    rate: float = 0
    visits: int = 0


def shake_hands(port: int) -> None:
    """Whole handshakes: no session is resumed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(port) as plain, context.wrap_socket(plain):
        pass


def log_in(port: int) -> None:
    """Once rightly; then wrongly, and nobody waits for the answer."""
    with connect(port) as connection:
        connection.sendall(b"set auth 0 0 %d\r\n%b\r\n" % (len(LOGIN), LOGIN))
        if connection.recv(64) != b"STORED\r\n":
            raise RuntimeError("the server refuses the login")
    with connect(port) as connection:
        connection.sendall(b"set auth 0 0 %d\r\n%b\r\n" % (len(LOGIN), LOGIN[::-1]))


def log_in_by_sasl(port: int) -> None:
    """As log_in, where -S is."""
    programs.log_in_by_sasl(port, LOGIN)
    with connect(port) as connection:
        connection.sendall(programs.sasl_request(LOGIN[::-1]))


def datagrams(port: int) -> None:
    """Fifty gets, or as many of them as the socket takes; no answer is read."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((HOST, port))
        for number in range(50):
            one.send(b"%c%c\0\0\0\1\0\0get key-%012x\r\n" % (number >> 8, number & 255, number))


LOGIN = b"bench secret"
"""What the files of -Y and -S have, with a colon."""
kept: list[socket.socket] = []
pace = Pace()
GETS = b"".join(b"get key-%012x\r\n" % number for number in range(1000))
SETS = b"".join(b"set big-%012x 0 0 100\r\n%100d\r\n" % (number, number) for number in range(1000))
DISTURBANCES: dict[str, Callable[[int], None]] = {
    "50 metadumps, read": asking(50, [b"lru_crawler metadump all\r\n"], b"\n"),
    "4 loops of cachedump": asking(4, [b"stats cachedump %d 0\r\n" % cls for cls in range(1, 12)]),
    "4 loops of stats": asking(
        4, [b"stats\r\n", b"stats items\r\n", b"stats slabs\r\n", b"stats settings\r\n", b"stats conns\r\n"]
    ),
    "20 watchers that read, 20 that don't": watching(20, 20),
    "page moves": moving,
    "8 pipelines of 1,000 gets": asking(8, [GETS + b"mn\r\n"], b"MN\r\n"),
    "8 pipelines of 1,000 sets": asking(8, [SETS + b"mn\r\n"], b"MN\r\n"),
    "a flood of set and flush_all": asking(1, [b"set x 0 0 1\r\na\r\nflush_all\r\n" * 1000 + b"mn\r\n"], b"MN\r\n"),
}
FLOODS: dict[str, Callable[[int], None]] = {
    "TLS handshakes": visiting(4, shake_hands),
    "logins, right and wrong (-Y)": visiting(4, log_in),
    "logins, right and wrong (-S)": visiting(4, log_in_by_sasl),
    "datagrams, fifty at once": visiting(1, datagrams),
}
"""Which need servers of their own (undisturbed.py)."""


def main(name: str, port: str, how: str = "") -> None:
    """Begins, says so, and goes on until it is killed, or for so long."""
    if how.startswith("@"):
        pace.rate = float(how[1:])
    (DISTURBANCES | FLOODS)[name](int(port))
    print("begun", flush=True)
    if how.isdecimal():
        time.sleep(float(how))
        print(pace.visits / float(how), flush=True)
    else:
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
