"""Fuzzes the session: any bytes must give replies, a documented error or a closed connection; never a crash or a hang.

Seeded and guided: an input that reaches something new (by the map that scripts/sanitized/run compiles in) joins the corpus.
Each input runs whole, and again in pieces, on fresh engines: the replies must be the same, and all of them known.
"""

import argparse
import ctypes
import random
import re
import signal
import sys
import time
import zlib
from pathlib import Path

import mcserver.core.engine
from tests.core.harness import MIB, Client, fresh
from tests.stateful.packets import Requests, replies, request
from tests.stateful.streams import Commands
from tests.transcripts.replay import cases

MOST = 6000  # bytes of an input
HANG = 20  # seconds after which an input has hung
WORDS = (
    b" ", b"  ", b"\r\n", b"\n", b"\r", b"\0", b"\x80", b"\xff", b"\t", b"0", b"1", b"-1", b"+1", b"2147483647", b"2147483645",
    b"2147483648", b"4294967295", b"4294967296", b"18446744073709551615", b"18446744073709551616", b"99999999999999999999999",
    b"noreply", b"get ", b"gets ", b"gat ", b"mg ", b"ms ", b"md ", b"ma ", b"mn\r\n", b"me ", b"set a 0 0 ", b"cas ", b"incr ",
    b"flush_all ", b"HTTP/1.1", b"quit\r\n", b" b", b" k", b" O", b" q", b" v", b" N30", b" T0", b" I", b" MA", b" C1", b" E9",
    b"k" * 250, b"k" * 251, b"a", b"n", b"\r\n\r\n", b"YQ==", b"====", b" x", b" s s", b"!" * 40, b"set big 0 0 70000\r\n",
)  # fmt: skip
KNOWN = re.compile(
    rb"(?:STORED|NOT_STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|END|STAT a 1|OK|MN|ERROR|\d+|VERSION \S+"
    rb"|CLIENT_ERROR (?:bad command line format|bad data chunk|invalid exptime argument|invalid numeric delta argument"
    rb"|cannot increment or decrement non-numeric value|options flags are too long|duplicate flag|invalid flag"
    rb"|bad token in command line format|invalid numeric initial value|invalid numeric delta value|error decoding key"
    rb"|opaque token too long|invalid mode for m[sa] M token|invalid or duplicate flag"
    rb"|unauthenticated|auth token too long|bad command line termination|bad authentication token format|authentication failure"
    rb"|only the binary protocol is spoken here)|-ERR this is a memcached server[^\n]*"
    rb"|SERVER_ERROR (?:object too large for cache|out of memory storing object|out of memory|Out of memory during read"
    rb"|Out of memory allocating new item)"
    rb"|(?:HD|EN|NS|EX|NF)(?: [^\n]*)?|ME [^\n]* exp=-?\d+ la=\d+ cas=\d+ fetch=(?:yes|no) cls=\d+ size=\d+|)\r\n",
    re.DOTALL,
)


class FindingError(AssertionError):
    """An input that breaks a rule."""


class Coverage:
    """The map of what ran since it was last read."""

    def __init__(self) -> None:
        library = ctypes.CDLL(mcserver.core.engine.__file__)
        size = ctypes.c_int.in_dll(library, "coverage_size").value
        self._map = (ctypes.c_ubyte * size).in_dll(library, "coverage_map")
        self._size = size
        self._seen = 0

    def is_new(self) -> bool:
        """Whether anything ran that never ran before; forgets the map."""
        now = int.from_bytes(bytes(self._map), "little")
        ctypes.memset(self._map, 0, self._size)
        new = now & ~self._seen
        self._seen |= now
        return bool(new)

    def count(self) -> int:
        """Places that ever ran."""
        return self._seen.bit_count()


class Inputs:
    """Makes inputs out of commands, recorded ones, and what proved interesting."""

    def __init__(self, rng: random.Random, folder: Path | None) -> None:
        self.random = rng
        self.commands = Commands(rng, lambda _key: rng.choice((0, 1, 2, 3, 4, 2**63)))
        sent = [value for case in cases() for kind, value in case.exchange if kind == "send"]
        self.requests = Requests(rng, {})
        self.packets = [request(opcode, b"a", b"", b"", opcode) for opcode in range(0x26)]
        self.packets += [request(0x21, b"PLAIN", b"", said) for said in (b"\0alice\0secret", b"\0a\0b", b"")]
        self.corpus = [value for value in sent if isinstance(value, bytes) and len(value) < MOST]
        if folder:
            self.corpus += [path.read_bytes() for path in sorted(folder.iterdir())]

    def make(self) -> bytes:
        chance = self.random.random()
        if chance < 0.35:
            parts = [self.packet() for _ in range(self.random.randint(1, 8))]
            data = b"".join(part for part in parts if len(part) < MOST)
        elif chance < 0.5:
            parts = [self.commands.any() for _ in range(self.random.randint(1, 8))]
            data = b"".join(part for part in parts if len(part) < MOST)
        else:
            data = b"".join(self.random.choice(self.corpus) for _ in range(self.random.randint(1, 4)))
        for _ in range(self.random.choice((0, 1, 1, 2, 4, 16))):
            data = self.mutate(data)
        return data[:MOST]

    def packet(self) -> bytes:
        """A request of the binary protocol."""
        if self.random.random() < 0.3:
            return self.random.choice(self.packets)
        return self.requests.any().packet(self.random.choice((0, 0, 2, 3)))

    def mutate(self, data: bytes) -> bytes:
        rng = self.random
        at = rng.randint(0, len(data))
        if data[:1] == b"\x80" and rng.random() < 0.6:
            at = 24 * rng.randint(0, len(data) // 24) + rng.randrange(24)  # about the fields of a header
            return (
                data[:at] + bytes([rng.choice((0, 1, 4, 8, 20, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]
            )
        what = rng.randrange(8)
        if what == 0:
            return data[:at] + rng.choice(WORDS) + data[at:]
        if what == 1:
            return data[:at] + rng.choice(WORDS) + data[at + rng.randint(0, 12) :]
        if what == 2:
            return data[:at] + data[at + rng.randint(1, 20) :]
        if what == 3:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        if what == 4:
            end = rng.randint(at, min(len(data), at + 200))
            return data[:end] + data[at:end] * rng.randint(1, 3) + data[end:]
        if what == 5:
            return data[:at] + rng.choice(self.corpus) + data[at:]
        if what == 6:
            return data[:at] + self.commands.any()[:MOST] + data[at:]
        numbers = list(re.finditer(rb"\d+", data))
        if not numbers:
            return data + b"\r\n"
        number = rng.choice(numbers)
        value = b"%d" % max(0, int(number[0]) + rng.choice((-1, 1, 100, 10**6))) if len(number[0]) < 12 else b"7"
        return data[: number.start()] + value + data[number.end() :]


def check_known(reply: bytes, cut: bool = False) -> None:
    """Every reply must be one that the protocol knows. Raw keys may hold any byte, so what stands behind one is not looked at.

    `cut`: the last may be the beginning of one.
    """
    if reply.startswith(b"\x81"):
        got, rest = replies(reply)
        wrong = [each for each in got if each.status not in STATUSES]
        if (rest and not cut) or wrong:
            raise FindingError(f"an unknown reply: {(rest[:100], wrong[:1])}")
        return
    if reply.startswith((b"HTTP/1.0 400 Bad Request\r\n", b"\x15\x03\x01\x00\x02\x02")):
        return
    at = 0
    while at < len(reply):
        head = re.compile(rb"VALUE [^ \n]+ \d+ (\d+)(?: \d+)?\r\n|VA (\d+)(?: [^\n]*)?\r\n").match(reply, at)
        if head:
            end = head.end() + int(head[1] or head[2])
            if cut and end + 2 > len(reply):
                return
            if reply[end : end + 2] != b"\r\n":
                if head[2] and b" k" in head[0]:
                    return
                raise FindingError(f"a value without its end: {reply[at : at + 100]!r}")
            at = end + 2
            continue
        known = KNOWN.match(reply, at)
        if not known:
            if cut and b"\n" not in reply[at:]:
                return
            if re.match(rb"(?:HD|EN|NS|EX|NF|VA|ME|VALUE) ", reply[at:]):
                return  # a key with a line end in it
            raise FindingError(f"an unknown reply: {reply[at : at + 100]!r}")
        at = known.end()


def splits_matter(data: bytes) -> bool:
    """A line of over 2,048 bytes is refused only while its end is missing, so for it the arrival matters."""
    return any(len(line) > 2000 for line in data.split(b"\n"))


STATUSES = {0, 1, 2, 3, 4, 5, 6, 0x20, 0x21, 0x81, 0x82, 0x83, 0x86}


def door(data: bytes) -> Client:
    """A connection to a new engine, which by the input's checksum wants a login or speaks one protocol only."""
    kind = zlib.crc32(data) % 10
    client = fresh(
        memory_limit=8 * MIB, item_size_max=200_000, protocol={0: "ascii", 1: "binary"}.get(kind, "auto-negotiate")
    )
    if kind in (2, 3):
        client.engine.require_login("sasl" if kind == 2 else "ascii", [(b"alice", b"secret")])
    client.owner.commands[b"stats"] = lambda _session, _line: b"STAT a 1\r\nEND\r\n"
    return Client(client.engine, client.owner)


def run_whole(data: bytes) -> tuple[bytes, bool]:
    client = door(data)
    reply = client.send(data)
    finish(client)
    return reply, client.is_closed


def run_in_pieces(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    client = door(data)
    reply, at = b"", 0
    steps = rng.choice(((1,), (1, 2, 3), (1, 50, 400), (700,)))
    while at < len(data):
        step = rng.choice(steps)
        reply += client.send(data[at : at + step])
        at += step
    finish(client)
    return reply, client.is_closed


def finish(client: Client) -> None:
    """Whatever it got, the engine must go on for others, within its memory."""
    client.engine.require_login(None)
    other = Client(client.engine)
    answer = other.send(b"set other 0 0 2\r\nhi\r\nget other\r\n")
    if answer not in (
        b"STORED\r\nVALUE other 0 2\r\nhi\r\nEND\r\n",
        b"CLIENT_ERROR only the binary protocol is spoken here\r\n",
    ):
        raise FindingError("another connection was harmed")
    if client.engine.slab_stats()[2] > 8 * MIB:
        raise FindingError("more memory than allowed")
    if client.session.unsent > 2 * MIB:
        raise FindingError("unbounded output")


def check(data: bytes, rng: random.Random) -> None:
    """Raises FindingError when an input breaks a rule."""
    signal.alarm(HANG)
    whole, closed = run_whole(data)
    check_known(whole)
    if not splits_matter(data):
        pieces, pieces_closed = run_in_pieces(data, rng)
        # A close drops the replies that were not sent yet, and those are more when all came at once.
        alike = pieces.startswith(whole) if closed else whole == pieces
        if closed != pieces_closed or not alike:
            raise FindingError(f"in pieces: {pieces[-200:]!r} {pieces_closed}, whole: {whole[-200:]!r} {closed}")
    signal.alarm(0)


def hung(_number: int, _frame: object) -> None:
    raise FindingError(f"no end within {HANG} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the random inputs (1)")
    parser.add_argument(
        "--corpus", type=Path, help="a folder of inputs to start from; new interesting ones are written there"
    )
    parser.add_argument("--only", type=Path, help="run one input from a file, and nothing else")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    signal.signal(signal.SIGALRM, hung)
    if arguments.only:
        check(arguments.only.read_bytes(), rng)
        return 0
    coverage, inputs = Coverage(), Inputs(rng, arguments.corpus)
    last = Path("build/sanitized/last-input")
    began, count, kept = time.monotonic(), 0, 0
    while count == 0 or time.monotonic() - began < arguments.seconds:
        data = inputs.make()
        last.write_bytes(data)  # what it was, should the process die
        try:
            check(data, rng)
        except FindingError as error:
            found = Path(f"build/sanitized/finding-{arguments.seed}-{count}")
            found.write_bytes(data)
            print(f"{error}\ninput: {data!r}\nagain: scripts/fuzz --only {found}", file=sys.stderr)
            return 1
        count += 1
        if coverage.is_new():
            inputs.corpus.append(data)
            kept += 1
            if arguments.corpus:
                (arguments.corpus / f"{arguments.seed}-{count}").write_bytes(data)
    print(f"{count} inputs in {time.monotonic() - began:.0f} s, {kept} of them new, {coverage.count()} places reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
