"""Small commands that turn one screw each: verbosity, cache_memlimit, refresh_certs, shutdown, debugtime."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mcserver.admin.context import Context, Reply
from mcserver.admin.words import is_word, signed, unsigned
from mcserver.core import BAD_FORMAT, ERROR, OK
from mcserver.keys import said
from mcserver.settings.config import MEBIBYTE

if TYPE_CHECKING:
    from mcserver.core import Session

log = logging.getLogger("mcserver")


def verbosity(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`verbosity N`: 0 quiet, 1 warnings, 2 and more also connections, commands and replies."""
    level = unsigned(words[1]) if len(words) > 1 else None
    if level is None:
        return BAD_FORMAT
    context.engine.verbosity = level
    return OK


def cache_memlimit(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`cache_memlimit MEGABYTES`: takes effect at once; when it shrinks, the engine evicts in slices."""
    megabytes = unsigned(words[1]) if len(words) > 1 else None
    if megabytes is None:
        return ERROR
    if megabytes < 8:
        return b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    if megabytes > 1_000_000_000:
        return b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    if not context.engine.set_memory_limit(megabytes * MEBIBYTE):
        most = context.engine.memory_limit_most // MEBIBYTE
        log.warning("memory limit can't be %d MiB: at most %d, for which address space was reserved", megabytes, most)
        return b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"
    context.settings["maxbytes"] = megabytes * MEBIBYTE
    log.info("memory limit is now %d MiB", megabytes)
    return OK


def refresh_certs(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`refresh_certs`: new connections of TLS get the certificates that are in the files now. `noreply` silences no error."""
    if not context.config.ssl_enabled:
        return b"Error TLS not enabled\r\n"
    error = context.network.refresh_certificates()
    if error:
        return said(error).encode() + b"\r\n"  # a path may have a line end in it
    return b"" if words[-1] == b"noreply" else OK


def shutdown(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`shutdown [graceful]`, with -A only. The connection is closed without a reply, and so are all others.

    What its client has sent behind it does not run; what others send does until they are closed.
    """
    if not context.config.shutdown_command:
        return b"SERVER_ERROR: shutdown not enabled\r\n"
    if len(words) > 2 or (len(words) == 2 and not is_word(words[1], b"graceful")):
        return b"CLIENT_ERROR invalid shutdown mode\r\n"
    session.quit("shutdown")
    context.network.stop(graceful=len(words) > 1)
    return b""


def debugtime(context: Context, session: Session, words: list[bytes]) -> Reply:
    """`debugtime SECONDS|p|r`, behind the debug switch only: jumps, pauses and resumes the engine's clock."""
    if not context.config.debug_clock:
        return None
    if len(words) < 2:
        return ERROR
    if words[1] == b"p":
        context.engine.pause_clock()
    elif words[1] == b"r":
        context.engine.resume_clock()
    else:
        seconds = signed(words[1])
        if seconds is None:
            return ERROR
        context.engine.advance(seconds)
    return OK
