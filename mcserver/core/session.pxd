# Session: what a connection's bytes mean. Framing, dispatch, and the order of replies.
#
# The rules (protocol page, 1.1):
# - A command is a line up to LF, with one CR before it taken off; data blocks are counted and end in CR LF.
# - Every command's reply is in the output before the next command runs; a batch is sent by one write.
# - When the client takes no more (blocked), when replies wait for a confirmation (held), a write for its lock, or a cold command
#   for its reply, the session stops reading and keeps its place; nothing is lost and nothing is run twice.
# - Commands run under the engine's lock; reading and sending happen outside of it.
# - Any bytes lead to replies, a documented error, or a closed connection; all at once means the same as byte by byte.
# Owns the phase of a connection: nothing outside changes it but through the functions here.
# Must never know what a command does.

from libc.errno cimport EAGAIN, EINTR, EPROTO
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove
from .memory cimport Item, item_at
from .store cimport CLOCK_START, Store, boot_clock
from .items cimport item_release
from .flush cimport clock_update
from .text cimport MAX_TOKENS, Token, last_is_noreply, tokenise
from .values cimport M_ADD, M_APPEND, M_CAS, M_PREPEND, M_REPLACE, M_SET
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .intake cimport *
from .classic cimport *
from .meta cimport *
from .binary cimport *
from .door cimport *
from .datagrams cimport answer_datagram
from .wire cimport *

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_post(sem_t* s)

cdef enum:
    TURN_NS = 250000            # a connection's turn ends at the first -R commands after this long
    BATCH_NS = 30000            # ... and others who wait for the lock have it after this long,
    COMMANDS_A_LOOK = 20        # which is looked at after so many commands, or after one that takes long


cdef inline bint same(Token* t, const char* word, size_t n) noexcept nogil:
    return t.len == n and memcmp(t.at, word, n) == 0


# Sending

cdef inline void gone(Conn* c) noexcept nogil:
    c.phase = P_CLOSED


cdef inline void flush_outside(Conn* c) noexcept nogil:
    # Sends the batch's replies. Called under the lock, returns without it.
    cdef size_t n
    cdef bint big
    cdef int r
    if c.has_events:
        tell_events(c)
    n = c.shared.out_len
    c.shared.out_len = 0
    c.replies = 0
    big = c.big != 0
    leave(c)
    if (n or big) and c.phase != P_CLOSED and not c.blocked:
        r = send_now(c, c.shared.out, n, big)
        if r < 0:
            gone(c)
        c.blocked = r == 0
    if c.datagram != NULL:
        answer_datagram(c, 0)


cdef inline bint flush(Conn* c) noexcept nogil:
    # ... returns with it. 0: nothing more may run now (blocked, held or closed).
    flush_outside(c)
    enter(c)
    return not (c.held or c.blocked or c.phase == P_CLOSED)


# Running

cdef inline void command_done(Conn* c) noexcept nogil:
    # The reply of one command is complete: taken back for noreply, shown to -vv, tied to its event.
    if c.noreply:
        c.shared.out_len = c.start
    if c.datagram != NULL and c.shared.out_len == c.start and not (c.binary or c.quitting):
        reply_is_none(c)
    if c.event_pending:
        c.event_pending = 0
        c.has_events = 1
        event_has_reply(c, c.start, c.shared.out_len)
    if c.shared.out_len > c.start:
        c.replies += 1
    if c.store.trace and c.shared.out_len > c.start:
        trace(c, J_REPLY, c.shared.out + c.start, c.shared.out_len - c.start)
    c.granted = 0
    c.refusal_len = 0
    if c.mail != NULL:
        free(c.mail)
        c.mail = NULL


cdef inline void cold(Conn* c, Token* t, int count, const char* line, size_t n) noexcept nogil:
    # The owner's command: its reply comes by letter.
    if same(t, b"stats", 5) or same(t, b"watch", 5):
        c.noreply = 0
    if c.datagram != NULL and same(t, b"watch", 5):
        puts(c, WIRE_ERROR)                 # there is nobody to be told for long
        return
    c.bad_http = count - (t[0].len == 0) > 1 and t[count - 1].len >= 5 and memcmp(t[count - 1].at, b"HTTP/", 5) == 0
    if not ask_owner(c, line, n):
        puts(c, WIRE_NO_MEMORY)


cdef inline void answer(Conn* c) noexcept nogil:
    # The reply to a cold command is there.
    cdef Mail* m = c.mail
    c.start = c.shared.out_len
    c.phase = P_WATCH if c.then_watch else P_LINE
    if m.a == A_UNKNOWN:
        if c.binary:
            put_status(c, BIN_NOT_FOUND)
        elif c.bad_http:
            gone(c)
        else:
            puts(c, WIRE_ERROR)
    elif m.n:
        put(c, m.data, m.n)
    command_done(c)


cdef inline void piece(Conn* c) noexcept nogil:
    # A piece of a long reply is there.
    cdef Mail* m = c.mail
    if not c.noreply:
        put(c, m.data, m.n)
    free(m)
    c.mail = NULL
    c.phase = P_SENT


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
        put(c, c.shared.version, c.shared.version_len)
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
    if c.datagram != NULL:
        c.datagram.keys = 0
        reply_begins(c, 1)
    if c.store.trace:
        trace(c, J_COMMAND, line, n)
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
    reply_begins(c, c.granted or c.refusal_len > 0)     # then it is the write that waited
    if c.store.trace:
        trace(c, J_COMMAND, p, BINARY_HEADER)
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


cdef inline void others_first(Conn* c, uint64_t* entered) noexcept nogil:
    # Between two commands of a batch: who waits for the lock gets it after a while.
    cdef uint64_t now
    if not lock_is_wanted(c.store) or c.has_events or c.big:
        return
    now = boot_clock()
    if entered[0] == 0:
        entered[0] = now
    elif now - entered[0] > BATCH_NS:
        leave(c)
        enter(c)
        entered[0] = 0


cdef inline size_t run(Conn* c, const char* p, size_t n) noexcept nogil:
    # Executes what is in the buffer, as far as it goes; sends the replies; returns how many bytes were consumed.
    cdef size_t pos = 0, taken
    cdef int commands = 0
    cdef bint known = 1, costly
    cdef uint64_t began = 0, entered = 0
    enter(c)
    if not c.store.manual:
        began = entered = c.store.boot_ns
    set32(&c.last, c.store.sec)
    if not c.seen and n and c.phase == P_LINE and not greet(c, p, n):
        known = 0
        if c.wrong:
            pos = n
    while known:
        if c.big or c.shared.out_len >= OUT_SOFT:
            if not flush(c):
                break
            if turn_is_over(c, &began):             # a long multiget to a fast reader
                break
        if c.tail != NULL:              # not all that follows a large value went out with it
            puts(c, c.tail)
            c.tail = NULL
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
            costly = c.store.costly
            c.store.costly = 0
            if pos < n and (costly or commands == c.store.turn or commands % COMMANDS_A_LOOK == 0):
                others_first(c, &entered)
            if costly or commands == c.store.turn:
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
            elif not c.big and c.shared.out_len < OUT_SOFT:         # a long one of misses
                if turn_is_over(c, &began):
                    break
                others_first(c, &entered)
        elif c.phase == P_READY:
            data_done(c, 1)
        elif c.phase == P_ANSWER:
            answer(c)
        elif c.phase == P_PIECE:
            piece(c)
        elif c.phase == P_WATCH:
            pos = n
            break
        else:
            break
    if c.phase == P_DATA:
        intake_note(c)
        if c.refused:
            c.yielded = 1
    if (c.phase == P_KEYS or c.meta and (c.phase == P_DATA or c.phase == P_LOCKED or c.phase == P_READY)) and not save_text(c):
        gone(c)
    flush_outside(c)
    run_ends(c)
    return pos


cdef inline void run_ends(Conn* c) noexcept nogil:
    # What follows when the replies of a batch are on their way.
    if c.quitting and not (stopped(c) or c.yielded):
        c.ended = c.quitting == QUIT_ASKED
        gone(c)
    elif c.tls != NULL and c.tls.over and not (stopped(c) or c.yielded):
        c.ended = not c.tls.failed              # nothing that is incomplete will ever be completed
        gone(c)
    elif c.phase == P_LOCKED:
        ask_for_lock(c)
    elif c.phase == P_COLD and c.mail != NULL and not (c.blocked or c.held):
        c.known = 1
        box_post(c.shared.owner, c.mail)
        c.mail = NULL
    elif c.phase == P_SENT and not (c.blocked or c.held):
        c.phase = P_STREAM
        write_to_owner(c, M_MORE, 0, NULL, 0)


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


cdef inline void run_stashed(Conn* c) noexcept nogil:
    # Goes on with the input that was kept.
    cdef size_t n = c.in_len, used
    used = run(c, c.in_buf, n)
    if not stash(c, c.in_buf + used, n - used):
        gone(c)


cdef inline bint stopped(Conn* c) noexcept nogil:
    # No input is taken now.
    return c.blocked or c.held or c.phase == P_LOCKED or c.phase == P_CLOSED or c.phase == P_COLD or c.phase == P_STREAM \
        or c.phase == P_SENT


cdef inline void resume(Conn* c) noexcept nogil:
    # The client reads again, a letter came, or it is this connection's turn again.
    cdef int r
    cdef bint big
    if c.phase == P_CLOSED:
        return
    if c.out_len or c.blocked or get32(&c.foreign):     # also while held: what stands before the first reply that waits
        enter(c)
        big = c.big != 0
        leave(c)
        if c.phase == P_CLOSED:
            return
        r = send_now(c, NULL, 0, big)
        if r < 0:
            gone(c)
            return
        c.blocked = r == 0
        if c.blocked:
            return
        if c.pushing:
            c.pushing = 0
            write_to_owner(c, M_SENT, 0, NULL, 0)
    if c.held or c.phase == P_LOCKED or c.phase == P_COLD or c.phase == P_STREAM or c.phase == P_SENT:
        run_ends(c)
        return
    c.yielded = 0
    run_stashed(c)


cdef inline bint more_room(Conn* c) noexcept nogil:
    # The line that is being read is long: room for another read behind it. 0: the connection is closed instead.
    cdef char* grown
    cdef size_t more = c.in_cap + IN_SIZE
    if c.in_cap - c.in_len >= IN_SIZE:
        return 1
    if add64(&c.store.in_kept, <int64_t> more) > c.store.in_most:       # a line without an end, among many
        add64(&c.store.in_kept, -<int64_t> more)
        add64(&c.store.in_refused, 1)
        if not (c.out_len or c.blocked or c.binary):
            send_now(c, WIRE_NO_MEMORY_REQUEST, strlen(WIRE_NO_MEMORY_REQUEST), 0)
        gone(c)
        return 0
    grown = <char*> realloc(c.in_buf, c.in_cap + more)
    if grown == NULL:
        add64(&c.store.in_kept, -<int64_t> more)
        gone(c)
        return 0
    c.in_buf = grown
    c.in_cap += more
    return 1


cdef inline bint receive_value(Conn* c, ssize_t* n) noexcept nogil:
    # A value is on its way: reads it straight into its item. 1: that was all for now; 0: n bytes (or none, or an error) are in the
    # shared buffer, or (n: -2) it is no longer so.
    cdef uint64_t done
    cdef bint over = 0, goes_on = 0
    n[0] = -2
    enter(c)
    if c.phase == P_DATA and c.fill.done < item_at(&c.store.arena, c.item).nbytes:
        done = c.fill.done
        n[0] = intake_receive(c)
        if n[0] == -2 or n[0] == 0 and c.fill.done > done:
            if n[0] == 0 and c.binary and c.fill.done == item_at(&c.store.arena, c.item).nbytes:
                goes_on = 1                 # nothing stands behind the value
            elif n[0] == 0:
                intake_note(c)
            over = 1
    goes_on = goes_on or c.refused
    leave(c)
    if over and goes_on:
        run(c, c.shared.inbuf, 0)
    elif over:
        tls_after(c)
    return over


cdef inline void tls_after(Conn* c) noexcept nogil:
    # After a read: whether the connection may go on.
    if c.tls == NULL or c.phase == P_CLOSED:
        return
    if c.tls.over and not (stopped(c) or c.yielded) or not tls_counted(c):
        c.ended = c.tls.over and not c.tls.failed
        gone(c)


cdef inline void lost(Conn* c, ssize_t n) noexcept nogil:
    # A read found an end or an error.
    if n == TLS_SPEAKS_PLAIN:
        plain_comes(c, c.shared.tls.inbuf, c.shared.tls.in_len)
    elif c.tls != NULL and c.tls.failed and c.shared.error == EPROTO:
        c.wrong = WRONG_HANDSHAKE if c.tls.shaking else WRONG_RECORD
    elif n < 0 and (c.shared.error == EAGAIN or c.shared.error == EINTR):
        tls_after(c)
        return
    c.ended = n == 0
    gone(c)


cdef inline bint read_some(Conn* c) noexcept nogil:
    # One read, then everything that it completes. 1: a long value has begun, and more of it is there.
    cdef char* buf = c.shared.inbuf
    cdef size_t have = c.in_len, used
    cdef ssize_t n = -2
    cdef iovec part
    cdef bint more = 0
    part.iov_len = 0
    if c.phase == P_DATA and have == 0 and receive_value(c, &n):
        return 0
    if n == -2:
        if have > <size_t> IN_SIZE // 2:
            if not more_room(c):
                return 0
            buf = c.in_buf
            part.iov_len = c.in_cap - have
        else:
            if have:
                memcpy(buf, c.in_buf, have)
            part.iov_len = (BRIEF if c.brief and have < <size_t> BRIEF // 2 else IN_SIZE) - have
        part.iov_base = buf + have
        n = receive(c, &part, 1)
        if n > 0:
            add64(&c.shared.bytes_read, n)
    if n <= 0:
        lost(c, n)
        return 0
    have += <size_t> n
    used = run(c, buf, have)
    if c.brief and <size_t> n == part.iov_len:
        more = c.phase == P_DATA and used == have
        c.brief = c.phase == P_DATA             # until a long value comes again
    if not stash(c, buf + used, have - used):
        gone(c)
    tls_after(c)
    return more


cdef inline void readable(Conn* c) noexcept nogil:
    # The socket has input.
    if stopped(c):
        return
    if c.yielded or get32(&c.foreign):
        resume(c)
        return
    if read_some(c) and not (stopped(c) or c.yielded or get32(&c.foreign)):
        read_some(c)


# Letters from the owner

cdef inline void mail_done(Mail* m) noexcept nogil:
    # Whoever waits for a letter to have had its effect is told.
    if m != NULL:
        if m.kind == W_GRANT and m.b:
            sem_post(<sem_t*> <size_t> m.b)
        free(m)


cdef inline void take_push(Conn* c, Mail* m) noexcept nogil:
    cdef int r
    if c.out_len == 0 and not c.blocked and not c.held:
        r = send_now(c, m.data, m.n, 0)
        if r < 0:
            gone(c)
            return
        c.blocked = r == 0
    elif not keep(c, m.data, m.n):
        gone(c)
        return
    if c.blocked or c.out_len:
        c.pushing = 1
    else:
        write_to_owner(c, M_SENT, 0, NULL, 0)


cdef inline void take_mail(Conn* c, Mail* m) noexcept nogil:
    # Does what a letter asks for; one that comes too late is thrown away.
    if c.phase == P_CLOSED:
        pass
    elif m.kind == W_REPLY or m.kind == W_PIECE:
        if (c.phase == P_COLD or c.phase == P_STREAM) and c.mail == NULL:
            c.mail = m
            c.then_watch = m.kind == W_REPLY and m.a == A_WATCH
            c.phase = P_ANSWER if m.kind == W_REPLY else P_PIECE
            resume(c)
            return
    elif m.kind == W_RELEASE:
        if c.held:
            if not release_hold(c, m):
                gone(c)
            enter(c)
            if c.held_big:
                c.big = c.held_big
                c.held_big = 0
                reader_begin(c.store, &c.reader)
            leave(c)
            resume(c)
    elif m.kind == W_GRANT or m.kind == W_REFUSE:
        if c.phase == P_LOCKED and c.mail == NULL:
            c.phase = P_READY if c.item else P_LINE
            if m.kind == W_GRANT:
                c.granted = 1
                resume(c)
            else:
                c.mail = m
                c.refusal = m.data
                c.refusal_len = m.n
                resume(c)
                return
    elif m.kind == W_PUSH:
        take_push(c, m)
    elif m.kind == W_QUIT:
        c.why = WHY_NORMAL
        c.quitting = QUIT_ASKED
        if not stopped(c):
            gone(c)
    elif m.kind == W_CLOSE:
        c.why = <Why> m.a
        gone(c)
    mail_done(m)
