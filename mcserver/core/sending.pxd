# Sending: how replies reach a client, and what it has not taken.
#
# A batch goes out with one system call; only what the socket did not take is kept. A large value is sent from the arena, pinned
# while the lock is not held; another thread may take it away meanwhile. What a slow reader can pin is what one flush can hold
# (OUT_SOFT + OUT_ROOM bytes), one batch of its own input, and one large value. Must never parse, nor hold the lock in a
# system call.

from libc.errno cimport errno, EAGAIN, EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen
from .memory cimport HEADER, Item, item_at
from .items cimport first_piece, item_release
from .uploads cimport reader_begin, reader_end, upload_end
from .mail cimport *
from .packets cimport BINARY_HEADER
from .sockets cimport *
from .tls cimport *
from .values cimport value_read
from .wire cimport WIRE_CRLF
from .conn cimport *


cdef inline size_t answer_most(Conn* c) noexcept nogil:
    # Bytes of a datagram's answer that are worth keeping: no more can be sent. Of the first reply that can't, its binary header.
    cdef uint64_t budget = c.datagram.budget + BINARY_HEADER
    return DATAGRAMS_MOST if c.unbounded or budget > DATAGRAMS_MOST else <size_t> budget


cdef inline ssize_t datagram_write(Conn* c, const char* p, size_t n) noexcept nogil:
    # Takes everything; what is more than can be sent, or than there is memory for, is lost with what follows.
    cdef Datagram* d = c.datagram
    cdef size_t most = answer_most(c), take = most - c.sink_len if most > c.sink_len else 0, cap
    cdef char* grown
    if take > n:
        take = n
    if d.lost or take == 0:
        d.lost = d.lost or take < n
        return <ssize_t> n
    if c.sink_len + take > c.sink_cap:
        cap = 2 * (c.sink_len + take)
        grown = <char*> realloc(c.sink, cap) if datagram_takes(c, cap - c.sink_cap) else NULL
        if grown == NULL:
            d.lost = 1
            return <ssize_t> n
        c.sink = grown
        c.sink_cap = cap
    memcpy(c.sink + c.sink_len, p, take)
    c.sink_len += take
    d.lost = take < n
    return <ssize_t> n


cdef inline ssize_t sink_write(Conn* c, const char* p, size_t n) noexcept nogil:
    cdef size_t cap
    cdef char* grown
    if c.datagram != NULL:
        return datagram_write(c, p, n)
    if n > c.sink_room:
        n = <size_t> c.sink_room
    if n == 0:
        return 0
    if c.sink_len + n > c.sink_cap:
        cap = 2 * (c.sink_len + n)
        grown = <char*> realloc(c.sink, cap)
        if grown == NULL:
            return -1
        c.sink = grown
        c.sink_cap = cap
    memcpy(c.sink + c.sink_len, p, n)
    c.sink_len += n
    c.sink_room -= n
    return <ssize_t> n


cdef inline ssize_t transmit(Conn* c, iovec* part, int parts) noexcept nogil:
    # Bytes taken: 0 if the client takes none now, -1 if it is gone.
    cdef ssize_t n, done = 0
    cdef int i
    if c.fd < 0 or c.datagram != NULL:
        for i in range(parts):
            n = sink_write(c, <char*> part[i].iov_base, part[i].iov_len)
            if n < 0:
                return -1
            done += n
            if <size_t> n < part[i].iov_len:
                break
        if c.datagram == NULL:
            add64(&c.shared.bytes_written, done)
        return done
    if c.tls != NULL and not c.tls.kernel_out:
        n = tls_transmit(c.tls, c.fd, part, parts)
        if n > 0:
            add64(&c.shared.bytes_written, n)
        return n
    n = send_parts(c.fd, part, parts)
    if n < 0:
        return 0 if errno == EAGAIN or errno == EINTR else -1
    add64(&c.shared.bytes_written, n)
    return n


cdef inline ssize_t receive(Conn* c, iovec* part, int parts) noexcept nogil:
    # As recvmsg, or TLS_SPEAKS_PLAIN. The parts have room for IN_SIZE / 2 at least.
    cdef ssize_t n
    if c.tls != NULL:
        n = tls_receive(c.tls, c.fd, part, parts)
        c.shared.error = c.tls.error
        return n
    n = receive_parts(c.fd, part, parts)
    c.shared.error = errno
    return n


cdef inline bint tls_counted(Conn* c) noexcept nogil:
    # What OpenSSL holds for something unfinished counts as a line without an end does. 0: there is no more room for such.
    cdef Tls* t = c.tls
    cdef bint holds = t.ssl != NULL and (t.shaking or SSL_has_pending(t.ssl))
    if holds == t.counted:
        return 1
    if add64(&c.store.in_kept, <int64_t> TLS_KEPT if holds else -<int64_t> TLS_KEPT) <= c.store.in_most or not holds:
        t.counted = holds
        return 1
    add64(&c.store.in_kept, -<int64_t> TLS_KEPT)        # it is closed now
    add64(&c.store.in_refused, 1)
    return 0


cdef inline void drop_reader(void* conn) noexcept nogil:
    # By another thread, under the lock.
    cdef Conn* c = <Conn*> conn
    big_drop(c)
    poke(c, F_DROPPED)


cdef inline void big_begin(Conn* c, uint32_t h, Item* it) noexcept nogil:
    # The value of a large item follows what is in the output.
    it.refs += 1
    c.big = h
    c.big_len = it.nbytes
    c.big_done = 0
    c.big_piece = first_piece(it)
    c.big_at = 0
    item_at(&c.store.arena, c.big_piece).refs += 1
    c.reader.conn = c
    c.reader.drop = drop_reader
    reader_begin(c.store, &c.reader)


cdef inline void put_value(Conn* c, uint32_t h, Item* it, bint line_end) noexcept nogil:
    # The value, with CR LF; a big one is left for the flush, which the session then does at once.
    if it.nbytes <= BIG:
        value_read(c.store, it, c.shared.out + c.shared.out_len)
        c.shared.out_len += it.nbytes
        if line_end:
            put(c, WIRE_CRLF, 2)
    else:
        big_begin(c, h, it)
        c.tail = WIRE_CRLF if line_end else NULL


cdef inline void skip(Conn* c, uint64_t n) noexcept nogil:
    # The next n bytes are the data of a refused store.
    c.swallow = n
    c.phase = P_SWALLOW


cdef inline void big_release(Conn* c, uint32_t h) noexcept nogil:
    item_at(&c.store.arena, c.big_piece).refs -= 1
    item_release(c.store, h)


cdef inline void big_drop(Conn* c) noexcept nogil:
    if c.big:
        reader_end(&c.reader)
        big_release(c, c.big)
        c.big = 0


cdef inline int big_parts(Conn* c, iovec* part, int most) noexcept nogil:
    # The next stretches of the large value, which nobody moves until big_sent; returns how many.
    cdef uint32_t h = c.big_piece, at = c.big_at
    cdef uint64_t left = c.big_len - c.big_done, n
    cdef int parts = 0
    cdef Item* p
    while left and parts < most:
        p = item_at(&c.store.arena, h)
        p.refs += 1
        n = p.nbytes - at
        if n > left:
            n = left
        part[parts].iov_base = <char*> p + HEADER + at
        part[parts].iov_len = n
        parts += 1
        left -= n
        at = 0
        h = p.h_next
    return parts


cdef inline void big_sent(Conn* c, int parts, uint64_t n) noexcept nogil:
    # n bytes of the large value are gone, of so many stretches.
    cdef uint32_t h = c.big_piece
    cdef Item* p
    while parts:
        p = item_at(&c.store.arena, h)
        p.refs -= 1
        h = p.h_next
        parts -= 1
    p = item_at(&c.store.arena, c.big_piece)
    c.big_done += n
    p.refs -= 1
    while n and n >= p.nbytes - c.big_at and p.h_next:
        n -= p.nbytes - c.big_at
        c.big_at = 0
        c.big_piece = p.h_next
        p = item_at(&c.store.arena, c.big_piece)
    c.big_at += <uint32_t> n
    p.refs += 1


cdef inline bint keep(Conn* c, const char* p, size_t n) noexcept nogil:
    # Bytes to be sent later. 0: out of memory.
    return n == 0 or keep_bytes(&c.out_buf, &c.out_pos, &c.out_len, p, n)


cdef inline int big_next(Conn* c, iovec* part, int most, int* pinned) noexcept nogil:
    # What goes out next of the large value, and behind its end what follows it; nobody takes it away until big_gone. Returns how
    # many parts, -1 when another thread took it away.
    cdef int parts, i
    cdef uint64_t left
    enter(c)
    if c.big == 0:
        leave(c)
        return -1
    c.reader.busy = 1
    c.reader.stuck = 0
    parts = pinned[0] = big_parts(c, part, most)
    left = c.big_len - c.big_done
    leave(c)
    for i in range(parts):
        left -= part[i].iov_len
    if left == 0 and c.tail != NULL:
        part[parts].iov_base = <void*> c.tail
        part[parts].iov_len = strlen(c.tail)
        parts += 1
    return parts


cdef inline bint big_gone(Conn* c, int pinned, bint stuck, uint64_t n) noexcept nogil:
    # n bytes of what big_next gave are gone. 1: the value is; what is left of what follows it is in c.tail.
    cdef uint64_t left, behind
    cdef bint over
    enter(c)
    left = c.big_len - c.big_done
    behind = n - left if n > left else 0
    c.reader.busy = 0
    c.reader.stuck = stuck
    big_sent(c, pinned, n - behind)
    over = c.big_done == c.big_len
    if over:
        big_drop(c)
    leave(c)
    if c.tail != NULL:
        c.tail += behind
        if c.tail[0] == 0:
            c.tail = NULL
    return over


cdef inline int send_now(Conn* c, const char* fresh, size_t n, bint big) noexcept nogil:
    # Outside of the lock. Sends what was kept, then `fresh` (n bytes; only when nothing was kept), then the large value that
    # follows (big: there is one) and what stands behind it.
    # 1: all is sent. 0: the client doesn't take more now; the rest is kept. -1: the client is gone.
    cdef iovec part[PARTS_MOST + 1]
    cdef int parts, more, pinned = 0
    cdef ssize_t sent
    cdef uint64_t length
    cdef size_t budget = 4 * 1024 * 1024    # then it is others' turn, however fast this client reads
    while True:
        part[0].iov_base = <void*> (c.out_buf + c.out_pos if c.out_len else <char*> fresh)
        part[0].iov_len = c.out_len if c.out_len else n
        parts = 1 if part[0].iov_len else 0
        if big:
            more = big_next(c, part + parts, PARTS_MOST - parts, &pinned)
            if more < 0:
                return -1
            parts += more
        if parts == 0:
            return 1 if c.tls == NULL else tls_flush(c.tls, c.fd)
        length = c.out_len if c.out_len else n
        sent = transmit(c, part, parts)
        if sent < <ssize_t> length:
            length = <uint64_t> sent if sent > 0 else 0
        if big and big_gone(c, pinned, sent == 0, <uint64_t> sent - length if sent > 0 else 0):
            big = 0
        if sent < 0:
            return -1
        if c.out_len:
            c.out_pos += length
            c.out_len -= length
            if c.out_len == 0:
                free(c.out_buf)
                c.out_buf = NULL
                c.out_pos = 0
        else:
            fresh += length
            n -= length
        if c.out_len == 0 and n == 0 and not big:
            return 1 if c.tls == NULL or c.tls.kept_len == 0 else 0
        if sent == 0 or <size_t> sent >= budget:
            return 0 if keep(c, fresh, n) else -1
        budget -= <size_t> sent


cdef inline void conn_free(Conn* c) noexcept nogil:
    # Under the lock: all that it holds. Not itself.
    big_drop(c)
    if c.held_big:
        big_release(c, c.held_big)
        c.held_big = 0
    upload_end(c.store, &c.up)
    if c.item:
        item_release(c.store, c.item)
        c.item = 0
    if c.in_cap:
        in_capacity(c, 0)
    free(c.in_buf)
    free(c.out_buf)
    free(c.sink)
    if c.datagram != NULL:
        add64(&c.store.in_kept, -<int64_t> c.datagram.counted)
        free(c.datagram.start)
        free(c.datagram)
        c.datagram = NULL
    free(c.mail)
    free(c.hold)
    drop_text(c)
    c.mail = NULL
    c.hold = NULL
    c.sink = NULL
    c.out_buf = NULL
    c.in_buf = NULL
    c.in_len = 0
    c.out_len = 0
    c.out_pos = 0
    c.sink_len = 0
    c.sink_cap = 0
