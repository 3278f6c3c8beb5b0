"""The files of users, `name:password` a line: -Y's and MEMCACHED_SASL_PWDB's. It must never say what a password is.

Both are memcached's (authfile.c and sasl_defs.c, 1.6): at most 8 users in -Y's file, lines of at most 255 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

USERS_MOST = 8
"""Of -Y's file; further lines are left out, as by memcached."""
LINE_MOST = 255


def read_users(file: Path, ascii_login: bool) -> list[tuple[bytes, bytes]]:
    """Name and password of each line. Raises OSError, or ValueError for a line that is none: its number, not its text.

    In SASL's file, a second colon ends the password, and lines without a colon mean nothing.
    """
    users: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        name, colon, password = line.removesuffix(b"\r").partition(b":")
        if not line:
            continue
        if len(line) > LINE_MOST:
            raise ValueError(f"line {number} is longer than {LINE_MOST} bytes")
        if colon:
            users.append((name, password if ascii_login else password.partition(b":")[0]))
        elif ascii_login:
            raise ValueError(f"line {number} is not name:password")
    if not users:
        raise ValueError("there is no line name:password in it")
    return users[:USERS_MOST] if ascii_login else users
