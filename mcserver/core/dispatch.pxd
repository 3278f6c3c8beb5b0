# Dispatch: which command a line is. A verb that the core does not know is its owner's.
#
# Owns the verbs' names, and the order in which they are compared: what is asked for most comes first. Must never know what a
# command does, nor where a line ends.

from libc.string cimport memchr, memcmp
from .text cimport MAX_TOKENS, Token, indexed, tokenise
from .values cimport M_ADD, M_APPEND, M_CAS, M_PREPEND, M_REPLACE, M_SET
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .classic cimport *
from .meta cimport *
from .wire cimport *


cdef inline bint same(Token* t, const char* word, size_t n) noexcept nogil:
    return t.len == n and memcmp(t.at, word, n) == 0


cdef inline void cold(Conn* c, Token* t, int count, const char* line, size_t n) noexcept nogil:
    # The owner's command: its reply comes by letter.
    cdef int last = indexed(t, count) - 1
    if same(t, b"stats", 5) or same(t, b"watch", 5) or same(&t[t[0].len == 0 and count > 1], b"refresh_certs", 13):
        c.noreply = 0                       # the owner knows when refresh_certs is silent
    if c.datagram != NULL and same(t, b"watch", 5):
        puts(c, WIRE_ERROR)                 # there is nobody to be told for long
        return
    c.bad_http = count - (t[0].len == 0) > 1 and t[last].len >= 5 and memcmp(t[last].at, b"HTTP/", 5) == 0
    if not ask_owner(c, line, n):
        puts(c, WIRE_NO_MEMORY)


cdef inline void dispatch_meta(Conn* c, const char* line, size_t n, char which) noexcept nogil:
    cdef Meta m
    c.noreply = 0
    meta_clear(&m)
    m.count = tokenise(line, n, m.t)
    m.first = 2
    if which == c'g': cmd_mg(c, &m)
    elif which == c's': cmd_ms(c, &m, line, n)
    elif which == c'd': cmd_md(c, &m)
    elif which == c'a': cmd_ma(c, &m)
    elif which == c'n': puts(c, WIRE_MN)
    else: cmd_me(c, &m)


cdef inline bint is_get(const char* line, size_t n) noexcept nogil:
    return n >= 4 and memcmp(line, b"get ", 4) == 0


cdef inline void dispatch(Conn* c, const char* line, size_t n) noexcept nogil:
    # One command line, without its end.
    cdef Token t[MAX_TOKENS]
    cdef int count
    cdef const char* v = line
    if is_get(line, n):
        cmd_get(c, line + 4, n - 4, 0)
        return
    if n >= 2 and v[0] == c'm' and (n == 2 or v[2] == c' ') and memchr(b"gsdane", v[1], 6) != NULL:
        dispatch_meta(c, line, n, v[1])
        return
    count = tokenise(line, n, t)
    if count == MAX_TOKENS:             # what stands behind the last that is indexed is not looked at
        c.noreply = same(&t[indexed(t, count) - 1], b"noreply", 7)
    if same(t, b"set", 3): cmd_store(c, t, count, M_SET)
    elif same(t, b"delete", 6): cmd_delete(c, t, count)
    elif same(t, b"incr", 4): cmd_arith(c, t, count, 1)
    elif same(t, b"decr", 4): cmd_arith(c, t, count, 0)
    elif same(t, b"add", 3): cmd_store(c, t, count, M_ADD)
    elif same(t, b"replace", 7): cmd_store(c, t, count, M_REPLACE)
    elif same(t, b"cas", 3): cmd_store(c, t, count, M_CAS)
    elif same(t, b"append", 6): cmd_store(c, t, count, M_APPEND)
    elif same(t, b"prepend", 7): cmd_store(c, t, count, M_PREPEND)
    elif same(t, b"gets", 4): cmd_get(c, line + 4, n - 4, 1)
    elif same(t, b"get", 3): cmd_get(c, line + 3, n - 3, 0)
    elif same(t, b"touch", 5): cmd_touch(c, t, count)
    elif same(t, b"gat", 3): cmd_gat(c, t, count, line + n, 0)
    elif same(t, b"gats", 4): cmd_gat(c, t, count, line + n, 1)
    elif same(t, b"flush_all", 9): cmd_flush_all(c, t, count)
    elif same(t, b"version", 7):
        c.noreply = 0
        put(c, c.shared.version, c.shared.version_len)
    elif same(t, b"quit", 4):
        c.noreply = 0
        c.quitting = QUIT_ASKED
    elif t[0].len == 0 and count > 1 and same(&t[1], b"flush_all", 9):
        cmd_flush_all(c, &t[1], count - 1)      # like the owner's commands, it may stand behind spaces
    else:
        cold(c, t, count, line, n)
