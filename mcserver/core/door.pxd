# Door: what a connection's first bytes say: which protocol it speaks, or that it came to the wrong door; and -Y's login.
#
# Whoever speaks what is not spoken here gets an answer that its own library shows, and is closed; the owner counts it. Must never
# run a command.

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, strlen
from .store cimport PROTOCOL_ASCII, PROTOCOL_BINARY
from .text cimport MAX_TOKENS, Token, read_u32, tokenise
from .tls cimport TLS_HELLO
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .login cimport *
from .packets cimport BINARY_HEADER, BINARY_REQUEST, BIN_NOT_SUPPORTED, header_write
from .binary cimport BINARY_OPCODES, Request, put_words, read_request
from .wire cimport *

cdef enum:
    TLS_ALERT_SIZE = 7
    LOGIN_LINE_LEAST = 7        # a shorter one can't be a login, nor mean well
    LOGIN_MOST = 16384          # bytes of `user password`


cdef inline bint turn_away(Conn* c, Wrong wrong, const char* text, size_t n) noexcept nogil:
    put(c, text, n)
    c.wrong = wrong
    c.quitting = QUIT_ERROR
    return 0


cdef inline bint is_http(const char* line, size_t n) noexcept nogil:
    # `METHOD target HTTP/x.y`, the method in capitals: no command of ours has those.
    while n and (line[n - 1] == c'\r' or line[n - 1] == c' '):
        n -= 1
    return n > 12 and c'A' <= line[0] <= c'Z' and memcmp(line + n - 9, b" HTTP/", 6) == 0


cdef inline bint http_begins(const char* p, size_t n) noexcept nogil:
    # `METHOD /`, of a line whose end has not come.
    cdef size_t i = 0
    while i < n and c'A' <= p[i] <= c'Z':
        i += 1
    return 0 < i and i + 1 < n and p[i] == c' ' and p[i + 1] == c'/'


cdef inline bint is_resp(const char* line, size_t n) noexcept nogil:
    # `*1` CR: an array, as all of Redis's clients begin.
    cdef size_t i
    for i in range(1, n - 1 if n else 0):
        if not c'0' <= line[i] <= c'9':
            return 0
    return n >= 3 and line[0] == c'*' and line[n - 1] == c'\r'


cdef inline bint binary_comes(Conn* c, const char* p, size_t n) noexcept nogil:
    # Where it is switched off, a second byte that is no opcode says that it is text like any other.
    cdef Request r
    if c.protocol != PROTOCOL_ASCII or (n > 1 and <uint8_t> p[1] >= BINARY_OPCODES):
        c.binary = c.protocol != PROTOCOL_ASCII
        c.seen = 1
        return 1
    if n >= BINARY_HEADER:
        read_request(c, p, n, &r)
        put_words(c, BIN_NOT_SUPPORTED, WIRE_WRONG_BINARY, strlen(WIRE_WRONG_BINARY))
        turn_away(c, WRONG_BINARY, b"", 0)
    return 0


cdef inline void plain_comes(Conn* c, const char* p, size_t n) noexcept nogil:
    # Whoever does not speak TLS on a port of TLS: the answer is the first thing that is sent there, and plain.
    cdef const char* text = WIRE_WRONG_PLAIN
    cdef char head[BINARY_HEADER]
    cdef const char* end = <const char*> memchr(p, c'\n', n)
    cdef size_t line = <size_t> (end - p) if end != NULL else n
    c.wrong = WRONG_PLAIN
    if <uint8_t> p[0] == BINARY_REQUEST:
        text = WIRE_WRONG_PLAIN_BINARY
        header_write(head, <uint8_t> p[1] if n > 1 else 0, NULL, BIN_NOT_SUPPORTED, 0, 0, <uint32_t> strlen(text), 0)
        send(c.fd, head, BINARY_HEADER, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)
    elif is_http(p, line) or end == NULL and http_begins(p, n):
        text = WIRE_WRONG_PLAIN_HTTP
    elif is_resp(p, line):
        text = WIRE_WRONG_RESP
    send(c.fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT)


cdef inline bint greet(Conn* c, const char* p, size_t n) noexcept nogil:
    # The first bytes, at least one. False when more must come to tell, or it is the wrong door (c.wrong).
    cdef uint8_t first = <uint8_t> p[0]
    cdef const char* end
    cdef size_t length
    if first == BINARY_REQUEST:
        return binary_comes(c, p, n)
    if first == TLS_HELLO:
        if n < 3:
            return 0
        if p[1] == 3 and <uint8_t> p[2] <= 4:
            return turn_away(c, WRONG_TLS, WIRE_WRONG_TLS, TLS_ALERT_SIZE)
    elif first == c'*' or c'A' <= first <= c'Z':
        end = <const char*> memchr(p, c'\n', n)
        if end == NULL and n <= LINE_MOST:
            return 0            # nobody is answered before the line's end
        length = <size_t> (end - p) if end != NULL else 0
        if is_http(p, length) or end == NULL and http_begins(p, n):
            return turn_away(c, WRONG_HTTP, WIRE_WRONG_HTTP, strlen(WIRE_WRONG_HTTP))
        if is_resp(p, length):
            return turn_away(c, WRONG_RESP, WIRE_WRONG_RESP, strlen(WIRE_WRONG_RESP))
    if c.protocol == PROTOCOL_BINARY:
        return turn_away(c, WRONG_TEXT, WIRE_WRONG_TEXT, strlen(WIRE_WRONG_TEXT))
    c.seen = 1
    return 1


# -Y: `set x 0 0 LENGTH`, then `user password`. Whatever else comes first is refused (protocol page, 1.8).

cdef inline void check_login(Conn* c, const char* p, size_t n) noexcept nogil:
    # p: `user password`. The first blank is between them; those behind it are the password's.
    cdef const char* blank = <const char*> memchr(p, c' ', n)
    cdef size_t user
    if blank == NULL:
        puts(c, WIRE_LOGIN_FORMAT)
        return
    user = <size_t> (blank - p)
    c.store.n.auth_cmds += 1
    if users_know(c.store.users, p, user, blank + 1, n - user - 1):
        c.stranger = 0
        puts(c, WIRE_STORED)
    else:
        c.store.n.auth_errors += 1
        puts(c, WIRE_LOGIN_WRONG)
        login_event(c)


cdef inline size_t login_line(Conn* c, const char* p, size_t n) noexcept nogil:
    # One attempt: its line and its data. Returns how much it took, 0 when it isn't complete or the connection is closed.
    cdef Token t[MAX_TOKENS]
    cdef uint32_t length
    cdef const char* end = <const char*> memchr(p, c'\n', n)
    cdef size_t raw, line
    if end == NULL:
        if n > LINE_MOST:
            c.quitting = QUIT_ERROR
        return 0
    line = <size_t> (end - p)
    raw = line + 1
    if raw < LOGIN_LINE_LEAST:
        c.quitting = QUIT_ERROR
        return 0
    if line and p[line - 1] == c'\r':
        line -= 1
    if tokenise(p, line, t) < 5 or t[0].len != 3 or memcmp(t[0].at, b"set", 3) != 0 \
            or not read_u32(t[4].at, t[4].len, &length):
        puts(c, WIRE_LOGIN_FIRST)
        return raw
    if length > LOGIN_MOST:
        puts(c, WIRE_LOGIN_LONG)
        return raw
    if n < raw + <size_t> length + 2:
        return 0
    p += raw
    if p[length] != c'\r' or p[length + 1] != c'\n':
        puts(c, WIRE_LOGIN_END)
    else:
        check_login(c, p, <size_t> length)
    return raw + <size_t> length + 2
