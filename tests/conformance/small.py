"""A small cache of classic commands in one file, which tests bend: run as `python small.py PORT [QUIRK...]`.

Quirks: `no-VERB` leaves a command out, `dies-VERB` ends the process at it, `hangs-VERB` stops answering everybody, `old`
knows only get, set, delete, version, `forgets` keeps nothing that comes within a second of a flush_all, `once-FILE` lets
only the first process die (it leaves FILE), `pid-FILE` gets its id.
"""

from __future__ import annotations

import os
import socketserver
import sys
import threading
import time
from pathlib import Path

STORE: dict[bytes, tuple[bytes, bytes, int]] = {}
FLUSHED: list[float] = []
QUIRKS: set[str] = set()
GUARD = threading.RLock()
OLD = {b"get", b"set", b"delete", b"version"}


def told(quirk: str) -> str:
    """What stands behind `quirk-`; empty when it is not given."""
    return next((each.removeprefix(f"{quirk}-") for each in QUIRKS if each.startswith(f"{quirk}-")), "")


def first_time() -> bool:
    """Whether the process may die: always, but with `once-FILE` when FILE is there already."""
    if not (path := told("once")):
        return True
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Talk(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        try:
            while line := self.rfile.readline():
                words = line.split()
                verb = words[0] if words else b""
                if "hung" in QUIRKS or f"hangs-{verb.decode('latin-1')}" in QUIRKS:
                    QUIRKS.add("hung")
                    time.sleep(60)
                if f"dies-{verb.decode('latin-1')}" in QUIRKS and first_time():
                    os._exit(7)
                with GUARD:
                    reply = self.answer(verb, words)
                if reply is None:
                    return
                self.wfile.write(reply)
        except OSError:
            return

    def answer(self, verb: bytes, words: list[bytes]) -> bytes | None:
        if f"no-{verb.decode('latin-1')}" in QUIRKS or ("old" in QUIRKS and verb not in OLD):
            return b"ERROR\r\n"
        silent = words[-1:] == [b"noreply"]
        if verb in {b"get", b"gets"}:
            return b"".join(map(self.item, words[1:])) + b"END\r\n"
        if verb == b"set" and len(words) >= 5 and words[4].isdigit():
            data = self.rfile.read(int(words[4]) + 2)
            if not FLUSHED or time.monotonic() - FLUSHED[-1] > 1:
                STORE[words[1]] = (words[2], data[:-2], len(STORE))
            return b"" if silent else b"STORED\r\n"
        if verb == b"delete" and len(words) > 1:
            reply = b"DELETED\r\n" if STORE.pop(words[1], None) else b"NOT_FOUND\r\n"
            return b"" if silent else reply
        if verb == b"flush_all" and "forgets" in QUIRKS:
            STORE.clear()
            FLUSHED.append(time.monotonic())
            return b"OK\r\n"
        if verb == b"version":
            return b"VERSION 1.4.5\r\n"
        return None if verb == b"quit" else b"ERROR\r\n"

    @staticmethod
    def item(key: bytes) -> bytes:
        if key not in STORE:
            return b""
        flags, data, _ = STORE[key]
        return b"VALUE %s %s %d\r\n%s\r\n" % (key, flags, len(data), data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    QUIRKS.update(sys.argv[2:])
    if path := told("pid"):
        Path(path).write_text(str(os.getpid()))
    with Server(("127.0.0.1", int(sys.argv[1])), Talk) as server:
        server.serve_forever()
