# Reading: what a connection's socket gives, and input that was kept until the session goes on.
#
# Owns how much is read at a time, and where: into the shared buffer, a buffer of the connection's for a long line, or a value's
# own memory. Must never look at what a command means: session.pxd runs what has come, and says how much of it it took.

from libc.errno cimport EAGAIN, EINTR, EPROTO
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, strlen
from .memory cimport item_at
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .intake cimport *
from .door cimport *
from .session cimport *
from .wire cimport *


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
