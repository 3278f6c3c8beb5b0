"""ZooKeeper's request that reads several znodes (multiRead, since 3.6), as kazoo sends its requests; kazoo (2.11) has none.

A server answers it at little more than the cost of one read. The answer holds an error for each znode that can't be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kazoo.exceptions import EXCEPTIONS, NoNodeError, ZookeeperError
from kazoo.protocol.serialization import (
    GetData,
    MultiHeader,
    int_struct,
    multiheader_struct,
    read_buffer,
    stat_struct,
)
from kazoo.protocol.states import ZnodeStat

FAILED = -1  # instead of the type of an operation


@dataclass(frozen=True)
class MultiRead:
    """Data and ZnodeStat of each path, in that order; None for one that isn't there. Any other error is that of the request."""

    paths: list[str]
    type: ClassVar[int] = 22

    def serialize(self) -> bytearray:
        request = bytearray()
        for path in self.paths:
            request += MultiHeader(GetData.type, False, -1).serialize() + GetData(path, None).serialize()
        request += multiheader_struct.pack(-1, True, -1)
        return request

    @classmethod
    def deserialize(cls, data: bytes, offset: int) -> list[Any]:
        """What went wrong is in the list: an error raised here would end kazoo's thread."""
        found: list[Any] = []
        while True:
            header, offset = MultiHeader.deserialize(data, offset)
            if header.done:
                return found
            if header.type == FAILED:
                (code,) = int_struct.unpack_from(data, offset)
                error = EXCEPTIONS.get(code, ZookeeperError)()
                found.append(None if isinstance(error, NoNodeError) else error)
                offset += int_struct.size
            else:
                body, offset = read_buffer(data, offset)
                found.append((body, ZnodeStat._make(stat_struct.unpack_from(data, offset))))
                offset += stat_struct.size
