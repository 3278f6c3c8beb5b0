"""What lies in a file that -e names: a server's memory, which may be emptied, or something that its owner may want to keep.

It judges by what is there, never by names, and changes nothing. It need not be sure that a memory is sound: memory_file.py is.
"""

from __future__ import annotations

import os
import struct

THEIR_PAGE = 1 << 20
"""Bytes of memcached's pages: its file has a whole number of them, and the first item of each lies where the page begins."""
THEIR_ITEM = struct.Struct("<QQQIIiHHBB")
"""An item's head: three pointers, two times, bytes, count of references, flags, class, and length of the key."""
POINTER_MOST, FLAGS_MOST = 1 << 48, 1 << 11
THEIR_RECORD = b"Tmain\nK"
"""How the record beside memcached's memory begins."""


def is_memory(fd: int, ours: bytes, head: int) -> bool:
    """Whether nothing but a cache's memory would be lost with this file's content. ours: how mcserver's begins.

    head: bytes in front of the first item in mcserver's, which are zeros until a record is written.
    """
    begin = os.pread(fd, head, 0)
    return begin.startswith(ours) or ours.startswith(begin) or not begin.strip(b"\0") or is_memcacheds(fd)


def is_memcacheds(fd: int) -> bool:
    """Whether each page of the file begins as memcached's do: it gives all its classes one when it starts."""
    size = os.fstat(fd).st_size
    if size == 0 or size % THEIR_PAGE:
        return False
    for at in range(0, size, THEIR_PAGE):
        item = os.pread(fd, THEIR_ITEM.size, at)
        if len(item) < THEIR_ITEM.size:
            return False
        *pointers, _, _, _, _, flags, cls, _ = THEIR_ITEM.unpack(item)
        if max(pointers) >= POINTER_MOST or flags >= FLAGS_MOST or (at == 0 and not (flags and cls)):
            return False
    return True
