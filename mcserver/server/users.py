"""The files of users, `name:password` a line: -Y's and MEMCACHED_SASL_PWDB's. It must never say what a password is.

Both are memcached's (authfile.c and sasl_defs.c, 1.6): at most 8 users in -Y's file, lines of at most 255 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcserver.settings.rules import EX_FAILURE
from mcserver.system import files
from mcserver.system.process import StartError

if TYPE_CHECKING:
    from mcserver.settings.config import Config

Logins = tuple[str, list[tuple[bytes, bytes]]]
"""Which protocol asks for a login ("ascii", "sasl"), and names and passwords."""
USERS_MOST = 8
"""Of -Y's file; further lines are left out, as by memcached."""
LINE_MOST = 255
FILE_MOST = 1 << 20


def read_users(file: str, ascii_login: bool) -> list[tuple[bytes, bytes]]:
    """Name and password of each line. Raises OSError, or ValueError for a line that is none: its number, not its text.

    In SASL's file, a second colon ends the password, and lines without a colon mean nothing.
    """
    users: list[tuple[bytes, bytes]] = []
    data = files.read(file, FILE_MOST + 1)
    if len(data) > FILE_MOST:
        raise ValueError(f"it has more than {FILE_MOST} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
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


def read_logins(config: Config) -> Logins | None:
    """Who may log in, and how, from the file of -Y or of -S; None: everybody may do everything. Raises StartError."""
    file = config.auth_file if config.auth_file is not None else config.sasl_file if config.sasl else None
    if file is None:
        return None
    try:
        return "sasl" if config.sasl else "ascii", read_users(file, config.auth_file is not None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        where = "MEMCACHED_SASL_PWDB" if config.sasl else "-Y"
        raise StartError(f"can't read the users in {file} ({where}): {reason}", EX_FAILURE) from error
