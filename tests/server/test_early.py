"""Clients are answered while the event loop is still being loaded; what needs it waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ports import free_port

HELD_UP = """
import importlib.abc, os, sys
from mcserver.cli import main

tell, wait = map(int, sys.argv[1:3])

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "uvloop":
            os.write(tell, b"x")
            os.read(wait, 1)

sys.meta_path.insert(0, Slow())
sys.argv[1:] = sys.argv[3:]
sys.exit(main())
"""
"""The server, whose loop is loaded when the test says so."""


class Start:
    """A start that has come to its loop."""

    def __init__(self, port: int, process: subprocess.Popen[str], go_on: int) -> None:
        self.port = port
        self.process = process
        self._go_on = go_on

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def go_on(self) -> None:
        os.write(self._go_on, b"x")


@contextmanager
def held_up(*arguments: str) -> Iterator[Start]:
    (hear, tell), (wait, go_on) = os.pipe(), os.pipe()
    port = free_port()
    command = [sys.executable, "-c", HELD_UP, str(tell), str(wait), "-u", "root", "-l", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, pass_fds=(tell, wait)) as process:
        try:
            os.close(tell)
            assert os.read(hear, 1) == b"x"
            yield Start(port, process, go_on)
        finally:
            process.kill()
            for each in (hear, wait, go_on):
                os.close(each)


@pytest.mark.slow
def test_clients_are_answered_before_there_is_a_loop() -> None:
    with held_up("-c", "3") as start, start.connect() as client, start.connect() as other:
        client.sendall(b"set a 0 0 1\r\nx\r\nget a\r\n")
        assert receive(client, b"END\r\n") == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
        other.sendall(b"get a\r\nstats\r\n")
        assert receive(other, b"END\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        with start.connect() as third, start.connect() as too_many:
            third.sendall(b"mn\r\n")
            assert receive(third, b"MN\r\n") == b"MN\r\n"
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)  # the statistics are Python's
            other.settimeout(30)
            start.go_on()
            assert b"STAT total_connections 4\r\n" in receive(other, b"END\r\n")  # three, and the listener
            assert receive(too_many, b"\r\n") == b"ERROR Too many open connections\r\n"
        start.process.terminate()
        assert start.process.wait(30) == 0


@pytest.mark.slow
def test_a_signal_of_that_time_ends_it_in_good_order() -> None:
    with held_up() as start, start.connect() as client:
        client.sendall(b"mn\r\n")
        assert receive(client, b"MN\r\n") == b"MN\r\n"
        start.process.terminate()
        start.go_on()
        assert start.process.wait(30) == 0
        assert client.recv(1) == b""
        assert start.process.stderr is not None
        assert "Traceback" not in start.process.stderr.read()


@pytest.mark.slow
def test_a_member_of_a_fleet_answers_nobody_before_it_knows_what_it_missed() -> None:
    with held_up("--zookeeper", "127.0.0.1:1") as start, start.connect() as client:
        client.sendall(b"set a 0 0 1\r\nx\r\nget a\r\n")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        start.go_on()
        client.settimeout(30)
        assert receive(client, b"END\r\n").endswith(b"END\r\n")


def receive(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received
