"""The writing end of the invalidation log: one conditional append. It never decides what to write or whether to try again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .context import Context
from .entry import encode
from .layout import LATER_MAX, Floor, Meta, sequence_of, version
from .ports import BadVersion, Check, Create, NoNode, Operation, Set


class Text(NamedTuple):
    """What an entry is to say: by whom, whether everybody is to acknowledge it, and lines made by `entry.line`."""

    name: str
    need_ack: bool
    lines: Sequence[bytes]


class Log:
    """Knows which log is current. An append checks that, in the same transaction: a sealed log takes no entry."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._meta: Meta | None = None
        self._version = 0
        self._changes = 0  # of the meta record, as watches on it have told

    def learn(self, meta: Meta, version: int) -> None:
        """What the reader has seen in the meta record, on which it has a watch that has not fired: the first append after a rest
        need not ask for it.
        """
        self._meta, self._version = meta, version

    def changed(self) -> None:
        """A watch on the meta record has fired: it may be another znode by now, and have the version that it had."""
        self._meta = None
        self._changes += 1

    def session_changed(self) -> None:
        """An ensemble that was restored may have given the same version to another record."""
        self.changed()

    async def append(self, entry: Text, guard: Check | None = None, later: Sequence[int] = ()) -> int:
        """Appends one entry under the guard, in the format of the log; returns its version.

        `later`: in how many seconds the delayed flushes of the entry are due. They are noted in the log's record in the
        same transaction, for those who join before.

        NoNode with index 0: the guard's znode is gone. NoNode with another index: there is no log now, the leader will
        make one. Ambiguous: the entry may be in the log; sending it again is harmless. BadVersion: the log changes too
        fast.

        The version alone does not tell which log is current: of a meta record that was deleted and made again it begins anew.
        But a watch's event comes before the answer to any later write; so an entry is in the current log when none has come.
        """
        context = self._context
        first = [guard] if guard else []
        for _ in range(3):
            changes = self._changes
            if self._meta is None:
                record, stat = await context.zk.get(context.layout.meta, self.changed)
                self._meta, self._version = Meta.decode(record), stat.version
            meta = self._meta
            operations: list[Operation] = [
                *first,
                Check(context.layout.meta, self._version),
            ]
            if later:
                path = context.layout.log(meta.log)
                try:
                    record, stat = await context.zk.get(path)
                except NoNode:  # the log that we knew was sealed, and is cleared away
                    self._meta = None
                    continue
                kept, now = Floor.decode(record), context.ensemble_time()
                dues = (*kept.later, *(now + seconds * 1000 for seconds in later))
                operations.append(Set(path, kept._replace(later=dues[-LATER_MAX:]).encode(), stat.version))
            data = encode(entry.name, entry.need_ack, entry.lines, meta.format)
            operations.append(Create(context.layout.entries(meta.log), data, sequence=True))
            try:
                results = await context.zk.multi(operations)
            except BadVersion:
                self._meta = None
                context.budget.wrote("appends", context.now())  # the refused one; the caller counts the last
                continue
            except NoNode as error:
                if error.index >= len(first):
                    self._meta = None
                raise
            if changes == self._changes:
                return version(meta.gen, sequence_of(str(results[-1])))
            self._meta = None
            context.budget.wrote("appends", context.now())  # the caller counts the last
        raise BadVersion("the log changed three times during one append")
