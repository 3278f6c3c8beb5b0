"""A server that answers from the recorded exchanges with memcached, for checking what the cases expect."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path

from conformance.wire import Address

RECORDS = Path(__file__).parent.parent / "transcripts" / "memcached.jsonl"


def _bytes(text: str) -> bytes:
    """A recorded text; its long keys of k become long keys of a, as the cases name them."""
    whole = re.sub(r"\{(.)\*(\d+)\}", lambda m: m[1] * int(m[2]), text, flags=re.DOTALL)
    return re.sub(r"k{250,251}", lambda m: "a" * len(m[0]), whole).encode("latin-1")


def exchanges(release: str) -> dict[bytes, bytes | None]:
    """What was sent so far -> all that came by then (None: the connection was closed), for servers without options."""
    found: dict[bytes, bytes | None] = {}
    for line in RECORDS.read_text().splitlines():
        record = json.loads(line)
        steps = record.get("exchange_" + release, record["exchange"]) if release != "1.6.45" else record["exchange"]
        sent = came = b""
        if record.get("args"):
            continue
        for kind, what in steps:
            if kind == "send":
                sent += _bytes(what)
                found[sent] = came
            elif kind == "recv":
                came += _bytes(what)
                found[sent] = came
            elif kind == "closed":
                found[sent] = None
    return found


class Replayer:
    """Listens, and answers each connection as recorded; what was never recorded ends the connection."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.known = exchanges(release)
        self.unknown = 0  # connections that sent what was never recorded
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self.listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client:
            sent, told = b"", 0
            while data := self._receive(client, sent):
                if data == b"version\r\n" and sent in self.known:
                    client.sendall(b"VERSION " + self.release.encode() + b"\r\n")
                    continue
                sent += data
                if sent in self.known:
                    reply = self.known[sent]
                    if reply is None:
                        return
                    client.sendall(reply[told:])
                    told = len(reply)
                elif not any(start.startswith(sent) for start in self.known):
                    self.unknown += 1
                    return

    def _receive(self, client: socket.socket, sent: bytes) -> bytes:
        """What comes next; nothing, and one more unknown, when the record goes on and the case does not."""
        client.settimeout(None if sent in self.known or not sent else 0.1)
        try:
            return client.recv(1 << 20)
        except TimeoutError:
            self.unknown += 1
            return b""

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # else the thread that accepts stays for ever
        self.listener.close()
