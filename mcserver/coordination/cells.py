"""Cells: a large fleet in groups of some dozen, each with a sheet on which one of them writes what all of them say.

Who waits for `applied` in a large fleet, who trims the log, and who wants everybody's figures reads the sheets instead of
everybody's record. A sheet only repeats what its writer has read in the members' own records, and what a record says of a
name stays true for ever: `applied` of a name only rises, and a name is never used again. So it does not matter who writes a
sheet, whether two do, or how old it is: a sheet is never wrong, only late. What was read on one connection is forgotten with
it, since an ensemble that was restored from a backup may have another log.

A cell is not known by its sheet but by its members' names: the partition follows from the number of members, and whoever
reads a sheet takes from it what it says of the names that it looks for.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .context import Context, Signal
from .layout import STATES, UNKNOWN, NodeRecord, is_name, parts, read_figures, read_record, version
from .membership import Membership
from .ports import SECOND, Malformed, NodeExists, NoNode, Stat, ZooKeeperError

SHEET_MAX = 200_000  # bytes; a row has some hundred
ASKED = 128  # records that are read at most because they are on no sheet yet
LOOKS = 15  # in `max_stale`, for a version that is waited for: the fourth comes behind everybody's next certificate
FIGURES = ("lag", "queue_keys", "queue_age_ms", "writes", "reads", "unlogged")
"""What a member's record says of itself: entries, keys, ms; and, each a thousandth a second, its writes, its reads, and those
of its writes that the log does not show."""


def count(members: int, size: int) -> int:
    """How many cells: a power of two, so that most stay when the fleet grows."""
    cells = 1
    while members > cells * size:
        cells *= 2
    return cells


def cell_of(name: str, cells: int) -> int:
    """The number of a member's cell, from 0 to cells - 1: the same at every member."""
    return zlib.crc32(name.encode()) % cells


class Line(NamedTuple):
    """What a sheet says of one member. `written`: when its record was, in ms of the clock of ZooKeeper's leader."""

    applied: int
    state: str
    written: int
    figures: tuple[int, ...]

    @property
    def proved(self) -> int:
        """The version that the member has applied for certain: while it joins, its record proves nothing."""
        return UNKNOWN if self.state == "joining" else self.applied


class Sheet(NamedTuple):
    """`/cells/<number>`."""

    lines: dict[str, Line]

    def encode(self) -> bytes:
        lines = {
            name: [*parts(line.applied), STATES.index(line.state), line.written, *line.figures]
            for name, line in self.lines.items()
        }
        return json.dumps({"lines": lines}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Sheet:
        lines = read_record(data, "a cell's sheet", SHEET_MAX).get("lines")
        if not isinstance(lines, dict) or not all(map(is_name, lines)):
            raise Malformed(f"lines are {lines!r:.80}")
        return cls({name: _line(fields) for name, fields in lines.items()})


def _line(fields: object) -> Line:
    numbers = read_figures(fields)
    if len(numbers) < 4:
        raise Malformed(f"a line of a sheet is {fields!r:.80}")
    gen, sequence, state, written, *figures = numbers
    if not 0 <= gen < 1 << 31 or not -1 <= sequence < 1 << 32 or not 0 <= state < len(STATES) or written < 0:
        raise Malformed(f"a line of a sheet is {fields!r:.80}")
    return Line(version(gen, sequence), STATES[state], written, tuple(figures))


def line_of(node: NodeRecord, written: int) -> Line:
    """What a member's record says."""
    return Line(node.applied, node.state, written, node.figures)


class Cells:
    """Reads sheets for those who need them, and writes this server's cell's when that is its task."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._lines: dict[str, Line] = {}  # of our cell, as read in the records on this connection
        self._written: Sheet | None = None
        self._names: list[str] = []  # who is in our cell, for which we write
        self._parted: tuple[str, int, tuple[str, ...]] | None = None  # of what `_part` was made
        self._part: tuple[int, list[str]] = 0, []  # our cell, and who is in it
        self._wanted: list[int] = []  # versions for which somebody waits, lowest first
        self.reached: Callable[[], int] = lambda: UNKNOWN  # what this server itself has applied
        self._due = 0  # when the sheet is to be written though nobody waits
        self._asked_at: int | None = None
        self._wants_figures = False
        self.seen: dict[str, Line] = {}  # of everybody, as far as somebody here has asked
        self.seen_at: int | None = None  # ns; when all sheets were read last
        self.wake = Signal(context.runtime)

    def session_changed(self) -> None:
        """What the records said may be that of another log."""
        self._lines.clear()
        self._written = None
        self._due = 0
        self.wake.set()

    # Who is in which -----------------------------------------------------------------------------------------------------

    @property
    def many(self) -> bool:
        """Whether acknowledgements go by cells: above that each member writes its own at once."""
        return self._membership.is_large

    def number(self) -> int:
        return count(self._membership.live, self._context.settings.cell_size)

    def group(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Names by the number of their cell."""
        cells, groups = self.number(), dict[int, list[str]]()
        for name in names:
            groups.setdefault(cell_of(name, cells), []).append(name)
        return groups

    def _mine(self) -> tuple[int, list[str]]:
        """This server's cell, and the others in it, if it is the one that writes for them."""
        membership, cells = self._membership, self.number()
        key = (membership.name, cells, tuple(membership.nodes))
        if key != self._parted:
            self._parted, mine = key, cell_of(membership.name, cells)
            self._part = mine, [name for name in membership.nodes if cell_of(name, cells) == mine]
        mine, names = self._part
        able = [name for name in names if membership.state_of(name) != "joining"] or names
        if min(able, default="") != membership.name:
            return mine, []
        return mine, names

    # The writer ----------------------------------------------------------------------------------------------------------

    def want(self, number: int) -> None:
        """Somebody waits until everybody has applied this version."""
        if self.many:
            self._forget_above(number)
            self._wanted.append(number)
            self.wake.set()

    def _forget_above(self, number: int) -> None:
        """A version above what we have applied since is one of a log that went back: nobody would ever reach it."""
        while self._wanted and self._wanted[-1] > number:
            self._wanted.pop()

    async def step(self) -> None:
        """One look at our cell, if we write for it; then waits until there is something to look for."""
        context, settings = self._context, self._context.settings
        if self._wants_figures:
            await self._read_all()
        self._forget_above(self.reached())
        cell, names = self._mine() if self._membership.format >= 2 else (0, [])
        if not names or self._membership.synced_session != context.zk.session:
            del self._wanted[:-1]  # the newest is for whoever becomes the writer: it may be this server
            await self.wake.wait(settings.max_stale)
            return
        now = context.now()
        if names != self._names:
            self._names, self._due = names, min(self._due, now + int(settings.max_stale / 4 * SECOND))
        if not self._wanted and now < self._due and await self.wake.wait((self._due - now) / SECOND):
            return
        if not await self._look(names, everything=not self._wanted or context.now() >= self._due):
            return
        lowest = self._lowest(names)
        if context.now() >= self._due or (self._wanted and (lowest is None or lowest >= self._wanted[0])):
            await self._write(cell, names)
            self._wanted = [each for each in self._wanted if lowest is not None and each > lowest]
        if self._wanted:
            await context.sleep(settings.max_stale / LOOKS)

    async def _look(self, names: Sequence[str], everything: bool) -> bool:
        """Reads the records of our cell: of everybody, or of those that have not yet applied what somebody waits for.

        False when the connection has changed meanwhile: then nothing is known.
        """
        upto = self._wanted[-1] if self._wanted else UNKNOWN
        asked = [name for name in names if everything or name not in self._lines or self._lines[name].proved < upto]
        session, connection = self._context.zk.session, self._context.zk.connection
        answers = await self._context.get_each(asked, self._context.layout.node)
        if (session, connection) != (self._context.zk.session, self._context.zk.connection):
            return False
        for name, answer in answers:
            if answer is None:
                self._lines.pop(name, None)
                continue
            node = self._membership.read_node(name, answer[0])
            if node is not None:
                self._lines[name] = line_of(node, answer[1].mtime)
        for name in [name for name in self._lines if name not in names]:
            del self._lines[name]
        return True

    def _lowest(self, names: Sequence[str]) -> int | None:
        """The lowest version in our cell, of those that somebody would wait for; None when there is nobody."""
        members = self._membership.members
        waited = [name for name in names if name not in members or members[name].on_stale != "serve"]
        return min((self._lines[name].proved for name in waited if name in self._lines), default=None)

    async def _write(self, cell: int, names: Sequence[str]) -> None:
        context = self._context
        sheet = self._sheet(names)
        self._due = context.now() + int(context.settings.max_stale * SECOND)
        if sheet == self._written:
            return
        path = context.layout.cell(cell)
        context.budget.wrote("sheets", context.now())
        try:
            await context.zk.set(path, sheet.encode())
        except NoNode:
            context.budget.wrote("sheets", context.now())  # a write that was refused is one, too
            try:
                await context.zk.create(path, sheet.encode())
            except NodeExists:
                pass  # somebody else has just made it: the next sheet will do
            except NoNode:
                await self._membership.make_skeleton()
                return
        self._written = sheet

    def _sheet(self, names: Sequence[str]) -> Sheet:
        return Sheet({name: self._lines[name] for name in names if name in self._lines})

    # The readers ---------------------------------------------------------------------------------------------------------

    async def read(
        self, numbers: Sequence[int], watch: Callable[[int], Callable[[], None]] | None = None
    ) -> tuple[dict[str, Line], list[int]]:
        """The lines of some sheets, of one that is not readable none; and the numbers of those that are not there.

        `watch` makes a watch for a number.
        """

        def ask(number: int) -> Awaitable[tuple[bytes, Stat]]:
            return self._context.zk.get(self._context.layout.cell(number), watch(number) if watch else None)

        lines: dict[str, Line] = {}
        missing = []
        for number, answer in await self._context.ask_each(numbers, ask):
            if answer is None:
                missing.append(number)
                continue
            try:
                lines.update(Sheet.decode(answer[0]).lines)
            except Malformed as error:
                self._context.unreadable(self._context.layout.cell(number), answer[0], error)
        return lines, missing

    async def applied(self, names: Sequence[str]) -> dict[str, int]:
        """What live members have applied at least: by their sheets where the fleet is large, else by their records.

        A name is missing when it is not there any more, or what is there is not readable.
        """
        known: Mapping[str, Line] = {}
        if self.many:
            known, _ = await self.read(sorted(self.group(names)))
        sure = {name: line.applied for name, line in known.items() if line.state != "joining"}
        applied = {name: sure[name] for name in names if name in sure}
        others = [name for name in names if name not in sure]
        for name, answer in await self._context.get_each(others, self._context.layout.node):
            node = answer and self._membership.read_node(name, answer[0])
            if node:
                applied[name] = node.applied
        return applied

    # Everybody's figures -------------------------------------------------------------------------------------------------

    def ask_figures(self) -> None:
        """Has all sheets read soon, unless they were within the last second."""
        if self._asked_at is None or self._context.now() - self._asked_at >= SECOND:
            self._asked_at = self._context.now()
            self._wants_figures = True
            self.wake.set()

    async def _read_all(self) -> None:
        self._wants_figures = False
        try:
            lines, _ = await self.read(range(self.number()))
            names = [name for name in self._membership.nodes if name not in lines]
            if len(names) <= ASKED:  # of those that have joined since
                for name, answer in await self._context.get_each(names, self._context.layout.node):
                    node = answer and self._membership.read_node(name, answer[0])
                    if node and answer:
                        lines[name] = line_of(node, answer[1].mtime)
        except ZooKeeperError:
            self._asked_at = None
            raise
        self.seen = {name: line for name, line in lines.items() if name in self._membership.nodes}
        self.seen_at = self._context.now()
        for name, line in self.seen.items():
            self._membership.note(name, line.applied, line.state)

    def unlogged(self, lines: Mapping[str, Line]) -> int:
        """Writes a second of everybody on these lines that the log does not show."""
        place = FIGURES.index("unlogged")
        return round(sum(line.figures[place] for line in lines.values() if len(line.figures) > place) / 1000)


def figures_of(line: Line) -> dict[str, Any]:
    """By name; rates in writes and reads a second. Nothing from a member of the first release."""
    named: dict[str, float] = dict(zip(FIGURES, line.figures, strict=False))
    for rate in ("writes", "reads", "unlogged"):
        if rate in named:
            named[rate] = named[rate] / 1000
    return named
