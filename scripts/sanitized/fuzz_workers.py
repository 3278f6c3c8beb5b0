"""Fuzzes workers: the inputs of fuzz.py, many at once, on one engine with four of them, and some of them by datagram.

Who talks meanwhile changes what a command finds, so replies are only looked at for being known ones; nobody may be left
waiting, and at the end of a round nothing may be left in the memory. Made to run under AddressSanitizer
(scripts/fuzz --workers) and ThreadSanitizer (scripts/tsan --fuzz).
"""

import argparse
import contextlib
import random
import select
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

import trustme
from fuzz import HANG, FindingError, Inputs, check_known

from mcserver.core import Engine, TlsRules
from tests.core.harness import MIB, crawl
from tests.core.threaded import Owner
from tests.stateful.invariants import check_figures

WORKERS, CLIENTS, ROUND = 4, 8, 3.0
SILENCE = 0.02  # s without a reply after which the client goes


class Tls:
    """A certificate, a client that trusts it, and what a client says first."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(str(folder / "chain"))
        certificate.private_key_pem.write_to_path(str(folder / "key"))
        self.rules = TlsRules(str(folder / "chain"), str(folder / "key"))
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        authority.configure_trust(self.context)
        outgoing = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        self.hello = outgoing.read()

    def spoiled(self, chance: random.Random) -> bytes:
        """A client's first words, more or less."""
        return self.spoil(self.hello, chance)

    def spoil(self, data: bytes, chance: random.Random) -> bytes:
        at = chance.randrange(len(data))
        return chance.choice(
            (data[:at], data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :], data + data[at:], data[at:])
        )


class WorkersFuzz:
    """One engine, its workers, and clients who send what no client should."""

    def __init__(self, seed: int, tls: Tls | None = None) -> None:
        self.tls = tls
        self.random = random.Random(seed)
        self.engine = Engine(memory_limit=8 * MIB, item_size_max=200_000)
        self.owner = Owner(self.engine, WORKERS)
        self.owner.commands[b"stats"] = lambda _session, _line: b"STAT a 1\r\nEND\r\n"
        self.door = socket.socket(type=socket.SOCK_DGRAM)
        self.door.bind(("127.0.0.1", 0))
        self.door.setblocking(False)
        if tls is not None:
            self.owner.workers.set_tls(tls.rules, 5)
        else:
            port = self.door.getsockname()[1]
            self.owner.workers.answer_datagrams(self.door.fileno(), port, self.random.random() < 0.5)
        self.failures: list[tuple[BaseException, bytes]] = []
        self.count = 0

    def run(self, until: float) -> None:
        """Until that time of the monotonic clock."""
        with self.door, self.owner:
            clients = [
                threading.Thread(target=self.client, args=(random.Random(self.random.getrandbits(64)), until))
                for _ in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            while any(client.is_alive() for client in clients):
                time.sleep(0.005)
                self.engine.maintain()
            for client in clients:
                client.join()
        if not self.failures:
            self.engine.flush()
            crawl(self.engine)
            check_figures(self.engine)
            if any(figures["used_chunks"] for figures in self.engine.slab_stats()[0].values()):
                raise FindingError("something is left in the memory")

    def client(self, chance: random.Random, until: float) -> None:
        inputs = Inputs(chance, None)
        while time.monotonic() < until and not self.failures:
            data = inputs.make()
            try:
                if self.tls is None and chance.random() < 0.3:
                    self.datagrams(data, chance)
                elif self.tls is None:
                    check_known(self.exchange(data, chance), cut=True)
                elif chance.random() < 0.4:
                    self.exchange(self.tls.spoiled(chance) + data, chance)
                else:
                    check_known(self.encrypted(data, chance), cut=True)
            except BaseException as error:  # noqa: BLE001  # it ends the run, which shows it
                self.failures.append((error, data))
            self.count += 1

    def datagrams(self, data: bytes, chance: random.Random) -> None:
        """Requests by datagram, their headers right or wrong; each answer has the number of one of them, and parts that fit."""
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(SILENCE)
            numbers = [chance.randbytes(2) for _ in range(chance.choice((1, 1, 3, 40)))]
            for number in numbers:
                head = number + chance.choice(
                    (b"\0\0\0\1\0\0",) * 6 + (b"\0\1\0\2\0\0", b"\0\0\0\0\0\0", chance.randbytes(6))
                )
                sock.sendto((head + data)[: chance.choice((1400, 1400, 9000, 0, 7, 8, 9))], self.door.getsockname())
            with contextlib.suppress(TimeoutError):
                while True:
                    answer = sock.recv(1 << 16)
                    part, parts = int.from_bytes(answer[2:4], "big"), int.from_bytes(answer[4:6], "big")
                    if (
                        answer[:2] not in numbers
                        or len(answer) > 1400
                        or part >= max(parts, 1)
                        or answer[6:8] != b"\0\0"
                    ):
                        raise FindingError(f"not an answer: {answer[:40]!r}")

    def encrypted(self, data: bytes, chance: random.Random) -> bytes:
        """All replies to it over TLS; now and then something else lies between the records."""
        assert self.tls is not None
        peer = self.owner.connect(security=1)
        peer.sock.settimeout(HANG)
        reply = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError), contextlib.closing(peer.sock):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = self.tls.context.wrap_bio(incoming, outgoing)
            shaken = sent = False
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    if not shaken:
                        client.do_handshake()
                        shaken = True
                    if not sent:
                        client.write(data)
                        sent = True
                    while received := client.read(1 << 18):
                        reply += received
                if outgoing.pending:
                    records = outgoing.read()
                    if shaken and chance.random() < 0.2:
                        records = self.tls.spoil(records, chance)
                    peer.sock.sendall(records)
                if sent and not select.select([peer.sock], [], [], SILENCE)[0]:
                    break
                if not (raw := peer.sock.recv(1 << 18)):
                    break
                incoming.write(raw)
        self.owner.peers.remove(peer)
        return reply

    def exchange(self, data: bytes, chance: random.Random) -> bytes:
        """All replies to it, whole ones and perhaps the beginning of one."""
        peer = self.owner.connect(security=0 if self.tls is None else 1)
        sock = peer.sock
        sock.setblocking(False)
        reply, at, deadline = b"", 0, time.monotonic() + HANG
        cuts = sorted({*(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 6)))), len(data)})
        with contextlib.suppress(ConnectionError), contextlib.closing(sock):
            while True:
                if time.monotonic() > deadline:
                    raise FindingError(f"no end within {HANG} s")
                readable, writable, _ = select.select([sock], [sock] if at < len(data) else [], [], SILENCE)
                if writable:
                    end = next(cut for cut in cuts if cut > at)
                    at += sock.send(data[at:end])
                if readable:
                    received = sock.recv(1 << 18)
                    if not received:
                        break
                    reply += received
                elif not writable and at == len(data):
                    sock.shutdown(socket.SHUT_RDWR)
                    break
        self.owner.peers.remove(peer)
        return reply


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz --workers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the first round (1)")
    parser.add_argument("--tls", action="store_true", help="over TLS, its handshake and records spoiled at times")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tls = Tls(Path(folder)) if arguments.tls else None
    began, seed, count = time.monotonic(), arguments.seed, 0
    while time.monotonic() - began < arguments.seconds:
        work = WorkersFuzz(seed, tls)
        work.run(min(time.monotonic() + ROUND, began + arguments.seconds))
        if work.failures:
            error, data = work.failures[0]
            found = Path(f"build/finding-workers-{seed}")
            found.parent.mkdir(exist_ok=True)
            found.write_bytes(data)
            print(f"seed {seed}: {error!r}\ninput: {data!r}\nkept in {found}", file=sys.stderr)
            return 1
        count += work.count
        seed += 1
    print(f"{count} inputs in {time.monotonic() - began:.0f} s, seeds {arguments.seed} to {seed - 1}: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
