# Session: what a connection's bytes mean. Framing, dispatch, and the order of replies.
#
# The rules (protocol page, 1.1):
# - A command is a line up to LF, with one CR before it taken off; data blocks are counted and end in CR LF.
# - Every command's reply is in the output before the next command runs; a batch is sent by one write.
# - When the client takes no more (blocked), when replies wait for a confirmation (held), or a write for its lock, the
#   session stops reading and keeps its place; nothing is lost and nothing is run twice.
# - Any bytes lead to replies, a documented error, or a closed connection; all at once means the same as byte by byte.
# Owns the phase of a connection: nothing outside changes it but engine.pyx through the functions here.
# Must never know what a command does.

from libc.errno cimport errno, EAGAIN, EINTR
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove
from .memory cimport Item, item_at
from .store cimport Store, boot_clock
from .items cimport item_release
from .flush cimport clock_update
from .text cimport MAX_TOKENS, Token, last_is_noreply, tokenise
from .values cimport M_ADD, M_APPEND, M_CAS, M_PREPEND, M_REPLACE, M_SET
from .conn cimport *
from .intake cimport *
from .classic cimport *
from .meta cimport *
from .binary cimport *
from .door cimport *
from .wire cimport *

cdef enum:
    TURN_NS = 250000            # a connection's turn ends at the first -R commands after this long


cdef inline bint same(Token* t, const char* word, size_t n) noexcept nogil:
    return t.len == n and memcmp(t.at, word, n) == 0


# Sending

cdef inline void gone(Conn* c) noexcept nogil:
    c.phase = P_CLOSED


cdef inline bint flush(Conn* c) noexcept nogil:
    # Sends the batch's replies. 0: nothing more may run now (blocked, held or closed).
    cdef int r
    cdef size_t n
    if c.has_events:
        c.shared.on_flush(c)
    n = c.shared.out_len
    c.shared.out_len = 0
    c.replies = 0
    if n or (c.big and not c.held):
        r = send_now(c, c.shared.out, n)
        if r < 0:
            gone(c)
            return 0
        if r == 0:
            c.blocked = 1
            return 0
    return not c.held


# Running

cdef inline void command_done(Conn* c) noexcept nogil:
    # The reply of one command is complete: taken back for noreply, shown to -vv, tied to its event.
    if c.noreply:
        c.shared.out_len = c.start
    if c.event_pending:
        c.event_pending = 0
        c.has_events = 1
        c.shared.on_span(c, c.start, c.shared.out_len)
    if c.shared.out_len > c.start:
        c.replies += 1
    if c.store.trace and c.shared.out_len > c.start:
        c.shared.on_trace(c, 1, c.shared.out + c.start, c.shared.out_len - c.start)
    c.granted = 0
    c.refusal_len = 0


cdef inline void cold(Conn* c, Token* t, int count, const char* line, size_t n) noexcept nogil:
    cdef int r
    if same(t, b"stats", 5) or same(t, b"watch", 5):
        c.noreply = 0
    r = c.shared.on_cold(c, line, n)
    if r == COLD_STREAM:
        c.phase = P_STREAM
    elif r == COLD_UNKNOWN:
        if count - (t[0].len == 0) > 1 and t[count - 1].len >= 5 and memcmp(t[count - 1].at, b"HTTP/", 5) == 0:
            gone(c)
        else:
            puts(c, WIRE_ERROR)


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
    return n >= 4 and line[0] == c'g' and line[1] == c'e' and line[2] == c't' and line[3] == c' '


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
        c.shared.on_cold(c, line, n)
    elif same(t, b"quit", 4):
        c.noreply = 0
        c.quitting = QUIT_ASKED
    elif t[0].len == 0 and count > 1 and same(&t[1], b"flush_all", 9):
        cmd_flush_all(c, &t[1], count - 1)      # like the owner's commands, it may stand behind spaces
    else:
        cold(c, t, count, line, n)


cdef inline void command(Conn* c, const char* line, size_t n, size_t raw) noexcept nogil:
    # Runs one line; raw is its length with the line end.
    c.start = c.shared.out_len
    c.noreply = 0
    if c.store.trace:
        c.shared.on_trace(c, 0, line, n)
    if raw < 4:
        puts(c, WIRE_BAD_FORMAT)
    else:
        if n and line[n - 1] == c'y' or n and line[n - 1] == c' ':
            c.noreply = last_is_noreply(line, n)
        dispatch(c, line, n)
    if c.phase == P_LINE:
        command_done(c)
    elif c.phase == P_SWALLOW:
        command_done(c)


cdef inline void data_done(Conn* c, bint good) noexcept nogil:
    # A data block is complete (good: it ended in CR LF).
    cdef Meta m
    c.start = c.shared.out_len
    c.phase = P_LINE
    data_ends(c)
    if c.binary:
        bin_data_done(c)
    elif not good:
        item_release(c.store, c.item)
        c.item = 0
        if c.meta:
            c.noreply = 0
        puts(c, WIRE_BAD_CHUNK)
    elif c.meta:
        meta_clear(&m)
        m.count = tokenise(c.text, c.text_len, m.t)
        read_meta(&m, 3)
        finish_ms(c, &m)
    else:
        finish_store(c)
    if c.phase == P_LOCKED:
        return
    drop_text(c)
    if c.item:                  # a refused lock leaves the item
        item_release(c.store, c.item)
        c.item = 0
    command_done(c)


cdef inline bint too_long(Conn* c, const char* p, size_t n) noexcept nogil:
    # A line without an end: only a get may be longer than LINE_MOST.
    cdef size_t blanks = 0
    if n <= LINE_MOST:
        return 0
    while blanks < 100 and p[blanks] == c' ':
        blanks += 1
    p += blanks
    return n > MULTIGET_MOST or not (memcmp(p, b"get ", 4) == 0 or memcmp(p, b"gets ", 5) == 0)


cdef inline size_t run_data(Conn* c, const char* p, size_t n) noexcept nogil:
    # Takes what it can of a data block; returns how much.
    cdef Item* it = item_at(&c.store.arena, c.item)
    cdef size_t take = 0
    if c.fill.done < it.nbytes:
        take = it.nbytes - c.fill.done
        take = intake_copy(c, p, n if take > n else take)
        if c.phase != P_DATA:
            return take
    if c.fill.done == it.nbytes and c.binary:
        data_done(c, 1)
    elif c.fill.done == it.nbytes and n - take >= 2:
        data_done(c, p[take] == c'\r' and p[take + 1] == c'\n')
        take += 2
    return take


cdef inline size_t run_line(Conn* c, const char* p, size_t n) noexcept nogil:
    # Runs the line at p; returns its length, 0 when it isn't complete.
    cdef const char* end = <const char*> memchr(p + c.scanned, c'\n', n - c.scanned)
    cdef size_t raw, length
    if end == NULL:
        c.scanned = n
        if too_long(c, p, n):
            gone(c)
        return 0
    c.scanned = 0
    raw = <size_t> (end - p) + 1
    length = raw - 1
    if length and p[length - 1] == c'\r':
        length -= 1
    command(c, p, length, raw)
    if c.phase == P_LOCKED:
        c.start = c.shared.out_len
        return 0
    return raw


cdef inline size_t run_binary(Conn* c, const char* p, size_t n) noexcept nogil:
    # Runs the request at p; returns its length without its value, 0 when it isn't complete.
    cdef Request r
    if <uint8_t> p[0] != BINARY_REQUEST:
        close_after(c)
        return 0
    if not read_request(c, p, n, &r):
        return 0
    c.start = c.shared.out_len
    c.noreply = 0
    if c.store.trace:
        c.shared.on_trace(c, 0, p, BINARY_HEADER)
    bin_request(c, &r)
    if c.phase == P_LOCKED:
        c.start = c.shared.out_len
        return 0
    if c.phase == P_LINE or c.phase == P_SWALLOW:
        command_done(c)
    return r.size


cdef inline size_t run_login(Conn* c, const char* p, size_t n) noexcept nogil:
    # Takes one attempt to log in; returns its length, 0 when it isn't complete.
    cdef size_t taken
    c.start = c.shared.out_len
    c.noreply = 0
    taken = login_line(c, p, n)
    if taken:
        command_done(c)
    return taken


cdef inline void tell_refusal(Conn* c) noexcept nogil:
    # A value that was on its way was given up meanwhile.
    c.refused = 0
    c.start = c.shared.out_len
    if c.binary:
        put_failure(c, V_NO_MEMORY)
    else:
        puts(c, WIRE_NO_MEMORY_STORE)
    if c.meta:
        c.noreply = 0
        drop_text(c)
    command_done(c)


cdef inline bint turn_is_over(Conn* c, uint64_t* began) noexcept nogil:
    # The first call begins to count; true, and the session is to go on later, when the turn has lasted long enough.
    if began[0] == 0:
        began[0] = boot_clock()
        return 0
    if boot_clock() - began[0] <= TURN_NS:
        return 0
    c.yielded = 1
    c.store.n.yields += 1
    return 1


cdef inline size_t run(Conn* c, const char* p, size_t n, int turn) noexcept nogil:
    # Executes what is in the buffer, as far as it goes; sends the replies; returns how many bytes were consumed.
    cdef size_t pos = 0, taken
    cdef int commands = 0
    cdef bint known = 1
    cdef uint64_t began = 0
    clock_update(c.store)
    c.store.log_fd = c.fd
    c.running = 1
    if not c.seen and n and not greet(c, p, n):
        known = 0
        if c.wrong:
            pos = n
    while known:
        if c.big or c.shared.out_len >= OUT_SOFT:
            if not flush(c):
                break
            if turn_is_over(c, &began):             # a long multiget to a fast reader
                break
        if c.tail:
            puts(c, WIRE_CRLF)
            c.tail = 0
        if c.refused:
            tell_refusal(c)
        if c.phase == P_LINE:
            if pos == n or c.quitting:
                break
            if c.binary:
                taken = run_binary(c, p + pos, n - pos)
            elif c.stranger:
                taken = run_login(c, p + pos, n - pos)
            else:
                taken = run_line(c, p + pos, n - pos)
            pos += taken
            if taken == 0:
                break
            commands += 1
            if commands == turn:
                commands = 0
                if pos < n and turn_is_over(c, &began):
                    break
        elif c.phase == P_DATA:
            taken = run_data(c, p + pos, n - pos)
            pos += taken
            if c.phase == P_DATA or c.phase == P_LOCKED:
                break
        elif c.phase == P_SWALLOW:
            taken = n - pos
            if taken > c.swallow:
                taken = <size_t> c.swallow
            pos += taken
            c.swallow -= taken
            if c.swallow:
                break
            c.phase = P_LINE
        elif c.phase == P_KEYS:
            c.start = c.shared.out_len
            run_keys(c)
            if c.phase == P_LINE:
                command_done(c)
            elif not c.big and c.shared.out_len < OUT_SOFT and turn_is_over(c, &began):     # a long one of misses
                break
        elif c.phase == P_READY:
            data_done(c, 1)
        elif c.phase == P_STREAM:
            if not c.shared.on_stream(c) and c.phase == P_STREAM:
                c.phase = P_LINE
            if not flush(c):
                break
            if c.phase == P_STREAM:         # the others get their turn between two pieces
                c.yielded = 1
                break
        elif c.phase == P_WATCH:
            pos = n
            break
        else:
            break
    if c.phase != P_CLOSED and (c.shared.out_len or c.has_events) and not c.held and not c.blocked:
        flush(c)
    c.shared.out_len = 0
    if c.phase == P_DATA:
        intake_note(c)
        if c.refused:
            c.yielded = 1
    if (c.phase == P_KEYS or c.meta and (c.phase == P_DATA or c.phase == P_LOCKED or c.phase == P_READY)) and not save_text(c):
        gone(c)
    if c.quitting and not (c.blocked or c.held or c.yielded):
        c.ended = c.quitting == QUIT_ASKED
        gone(c)
    c.running = 0
    return pos


# Input

cdef inline bint stash(Conn* c, const char* p, size_t n) noexcept nogil:
    # Keeps the input that was not consumed. p may lie in c.in_buf itself.
    cdef char* buf
    if n == 0:
        free(c.in_buf)
        c.in_buf = NULL
        in_capacity(c, 0)
        c.in_len = 0
        return 1
    if c.in_buf != NULL and c.in_buf <= p and p < c.in_buf + c.in_cap:
        memmove(c.in_buf, p, n)
        c.in_len = n
        return 1
    buf = <char*> malloc(n)
    if buf == NULL:
        return 0
    memcpy(buf, p, n)
    free(c.in_buf)
    c.in_buf = buf
    in_capacity(c, n)
    c.in_len = n
    return 1


cdef inline void run_stashed(Conn* c, int turn) noexcept nogil:
    # Goes on with the input that was kept.
    cdef size_t n = c.in_len, used
    used = run(c, c.in_buf, n, turn)
    if not stash(c, c.in_buf + used, n - used):
        gone(c)


cdef inline bint stopped(Conn* c) noexcept nogil:
    return c.blocked or c.held or c.phase == P_LOCKED or c.phase == P_CLOSED


cdef inline void resume(Conn* c, int turn) noexcept nogil:
    # The client reads again, a confirmation came, a lock was granted, or it is this connection's turn again.
    cdef int r
    if c.phase == P_CLOSED:
        return
    if c.out_len or c.big:      # also while held: what stands before the first reply that waits
        r = send_now(c, NULL, 0)
        if r < 0:
            gone(c)
            return
        c.blocked = r == 0
        if c.blocked:
            return
    c.blocked = 0
    if c.held or c.phase == P_LOCKED:
        return
    c.yielded = 0
    run_stashed(c, turn)


cdef inline void readable(Conn* c, int turn) noexcept nogil:
    # The socket has input: one read, then everything that it completes.
    cdef Shared* sh = c.shared
    cdef char* buf = sh.inbuf
    cdef char* grown
    cdef size_t have = c.in_len, used
    cdef uint64_t done
    cdef ssize_t n
    if stopped(c):
        return
    if c.yielded:
        resume(c, turn)
        return
    if c.phase == P_DATA and have == 0 and c.fill.done < item_at(&c.store.arena, c.item).nbytes:
        clock_update(c.store)
        done = c.fill.done
        c.running = 1
        n = intake_receive(c)
        c.running = 0
        if n == -2:
            if c.refused:
                run(c, buf, 0, turn)
            return
        if n == 0 and c.fill.done > done:
            if c.binary and c.fill.done == item_at(&c.store.arena, c.item).nbytes:
                run(c, buf, 0, turn)        # nothing stands behind the value
                return
            intake_note(c)
            if c.refused:
                run(c, buf, 0, turn)
            return
    else:
        if have > <size_t> IN_SIZE // 2:
            if c.in_cap - have < IN_SIZE:
                if c.shared.in_kept + c.in_cap + IN_SIZE > c.shared.in_most:    # a line without an end, among many
                    c.shared.in_refused += 1
                    if not (c.out_len or c.big or c.binary):
                        send(c.fd, WIRE_NO_MEMORY_REQUEST, strlen(WIRE_NO_MEMORY_REQUEST), MSG_NOSIGNAL | MSG_DONTWAIT)
                    gone(c)
                    return
                grown = <char*> realloc(c.in_buf, 2 * c.in_cap + IN_SIZE)
                if grown == NULL:
                    gone(c)
                    return
                c.in_buf = grown
                in_capacity(c, 2 * c.in_cap + IN_SIZE)
            buf = c.in_buf
            n = recv(c.fd, buf + have, c.in_cap - have, MSG_DONTWAIT)
        else:
            if have:
                memcpy(buf, c.in_buf, have)
            n = recv(c.fd, buf + have, IN_SIZE - have, MSG_DONTWAIT)
        if n > 0:
            c.store.n.bytes_read += <uint64_t> n
    if n <= 0:
        if n == 0 or not (errno == EAGAIN or errno == EINTR):
            c.ended = n == 0
            gone(c)
        return
    have += <size_t> n
    used = run(c, buf, have, turn)
    if not stash(c, buf + used, have - used):
        gone(c)
