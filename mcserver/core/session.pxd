# Session: what a connection's bytes mean. Framing, and the order of replies.
#
# The rules (protocol page, 1.1):
# - A command is a line up to LF, with one CR before it taken off; data blocks are counted and end in CR LF.
# - Every command's reply is in the output before the next command runs; a batch is sent by one write.
# - When the client takes no more (blocked), when replies wait for a confirmation (held), a write for its lock, or a cold command
#   for its reply, the session stops reading and keeps its place; nothing is lost and nothing is run twice.
# - Commands run under the engine's lock; reading and sending happen outside of it.
# - Any bytes lead to replies, a documented error, or a closed connection; all at once means the same as byte by byte.
# Owns what comes next in each phase of a connection: nothing outside runs a command but through the functions here.
# Must never know what a command does.

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcmp
from .memory cimport Item, item_at
from .store cimport boot_clock
from .items cimport item_release
from .lock cimport lock_is_wanted
from .text cimport last_is_noreply, tokenise
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .intake cimport *
from .classic cimport *
from .meta cimport *
from .packets cimport *
from .binary cimport *
from .dispatch cimport dispatch
from .door cimport *
from .datagrams cimport answer_datagram
from .wire cimport *

cdef enum:
    TURN_NS = 50000             # a connection's turn ends at the first -R commands after this long
    BATCH_NS = 30000            # ... and others who wait for the lock have it after this long,
    COMMANDS_A_LOOK = 20        # which is looked at after so many commands, or after one that takes long


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
    if c.datagram != NULL and c.shared.out_len == c.start and not (c.binary or c.quitting and c.mail == NULL):
        reply_is_none(c)                # an empty datagram answers `quit`, and nothing answers `shutdown`, as in memcached
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


cdef inline void line_done(Conn* c) noexcept nogil:
    # The same; most commands have none of that but a reply.
    if c.noreply or c.event_pending or c.store.trace or c.datagram != NULL or c.mail != NULL:
        command_done(c)
        return
    c.replies += c.shared.out_len > c.start
    c.granted = 0
    c.refusal_len = 0


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
        if line[n - 1] == c'y' or line[n - 1] == c' ':      # of `raw` bytes at most two are the line's end
            c.noreply = last_is_noreply(line, n)
        dispatch(c, line, n)
    if c.phase == P_LINE or c.phase == P_SWALLOW:
        line_done(c)


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


cdef inline int next_look(Conn* c, int commands) noexcept nogil:
    # After how many commands of a turn the clock is looked at again.
    cdef int look = commands + COMMANDS_A_LOOK
    return look if look < c.store.turn else c.store.turn


cdef inline size_t swallowed(Conn* c, size_t n) noexcept nogil:
    # Bytes of the n that came which belong to a value that nobody wants.
    cdef size_t taken = n if n < c.swallow else <size_t> c.swallow
    c.swallow -= taken
    if c.swallow == 0:
        c.phase = P_LINE
    return taken


cdef inline bint more_keys(Conn* c, uint64_t* began, uint64_t* entered) noexcept nogil:
    # Goes on with a get of many keys. False: the turn is over.
    c.start = c.shared.out_len
    run_keys(c)
    if c.phase == P_LINE:
        command_done(c)
    elif not c.big and c.shared.out_len < OUT_SOFT:         # a long one of misses
        if turn_is_over(c, began):
            return 0
        others_first(c, entered)
    return 1


cdef inline void batch_done(Conn* c) noexcept nogil:
    # Keeps what goes on with the next batch, sends the replies, and does what follows them.
    if c.phase == P_DATA:
        intake_note(c)
        if c.refused:
            c.yielded = 1
    if (c.phase == P_KEYS or c.meta and (c.phase == P_DATA or c.phase == P_LOCKED or c.phase == P_READY)) and not save_text(c):
        gone(c)
    flush_outside(c)
    run_ends(c)


cdef inline size_t run(Conn* c, const char* p, size_t n) noexcept nogil:
    # Executes what is in the buffer, as far as it goes; sends the replies; returns how many bytes were consumed.
    cdef size_t pos = 0, taken
    cdef int commands = 0, look = next_look(c, 0)
    cdef bint known = 1, over, within = c.phase != P_LINE
    cdef uint64_t began = 0, entered = 0
    enter(c)
    if not c.store.manual:
        began = entered = c.store.boot_ns
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
            if commands >= look or c.store.costly:
                over = commands >= c.store.turn or c.store.costly
                c.store.costly = 0
                if pos < n:
                    others_first(c, &entered)
                    if over and turn_is_over(c, &began):
                        break
                if over:
                    commands = 0
                look = next_look(c, commands)
        elif c.phase == P_DATA:
            taken = run_data(c, p + pos, n - pos)
            pos += taken
            if c.phase == P_DATA or c.phase == P_LOCKED:
                break
        elif c.phase == P_SWALLOW:
            pos += swallowed(c, n - pos)
            if c.phase == P_SWALLOW:
                break
        elif c.phase == P_KEYS:
            if not more_keys(c, &began, &entered):
                break
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
    if pos or within:               # not for a command that is still coming, however often some of it does
        set32(&c.last, c.store.sec)
    batch_done(c)
    return pos


cdef inline bint stopped(Conn* c) noexcept nogil:
    # No input is taken now.
    return c.blocked or c.held or c.phase == P_LOCKED or c.phase == P_CLOSED or c.phase == P_COLD or c.phase == P_STREAM \
        or c.phase == P_SENT


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
