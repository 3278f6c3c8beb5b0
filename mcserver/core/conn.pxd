# Conn: one connection's state, and its way out.
#
# Owns what is kept for a connection between two events and how replies reach the client: commands append to one output
# buffer that all connections of a thread share; flush() sends it with one system call and keeps what the socket did not take.
# Must never parse. What a slow reader can pin is what one flush can hold (OUT_SOFT + OUT_ROOM bytes), one batch of its
# own input, and one large value.
#
# A connection belongs to one thread. Between enter() and leave() that thread holds the engine's lock; it receives and sends
# outside. What another thread may do to a connection, under the lock, is to take away the value that is on its way in (`item`)
# or out (`big`), unless that is `busy`: it leaves a note in `foreign`, which enter() reads. So `item`, `fill`, `up`, `big` and
# `reader` are looked at under the lock only.

from cpython.ref cimport PyObject
from libc.errno cimport errno, EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen
from .memory cimport HEADER, Item, item_at
from .store cimport Prefixed, Reader, Store, Upload
from .items cimport first_piece, item_release
from .uploads cimport reader_begin, reader_end, upload_end
from .flush cimport clock_update
from .journal cimport *
from .lock cimport *
from .mail cimport *
from .text cimport write_u64, write_i64
from .tls cimport *
from .values cimport Fill, Mode, value_read
from .wire cimport WIRE_CRLF

cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr_storage:
        unsigned short ss_family

cdef enum:
    IN_SIZE = 65536             # the shared input buffer
    OUT_SOFT = 131072           # replies of one write; beyond it a batch is sent before more commands run
    OUT_ROOM = 81920            # room that a command may count on above OUT_SOFT
    BIG = 65536                 # values above this are sent from the arena
    PARTS_MOST = 64             # pieces of one in a system call
    LINE_MOST = 2048            # a line this long without an end is refused, unless it is a get
    MULTIGET_MOST = 16777216    # ... which may have this many bytes
    DATAGRAMS_MOST = 16777216   # bytes of one reply that goes out in datagrams

cdef enum Phase:
    P_LINE                      # a command line is next
    P_DATA                      # a value is being received
    P_SWALLOW                   # refused data is being skipped
    P_KEYS                      # a multiget goes on
    P_COLD                      # an administrative command waits for its reply
    P_ANSWER                    # ... which is there
    P_STREAM                    # the next piece of a long reply is waited for
    P_PIECE                     # ... and is there
    P_SENT                      # ... and is on its way to the client
    P_LOCKED                    # a locked write waits for its lock
    P_READY                     # ... and has it; its data is there
    P_WATCH                     # a watcher: input is ignored
    P_CLOSED

cdef enum:
    QUIT_ASKED = 1              # how a connection ends when its replies are sent: the client wanted it
    QUIT_ERROR = 2              # ... or it can't be understood

# Whoever speaks what isn't spoken here (door.pxd).
cdef enum Wrong:
    WRONG_NONE
    WRONG_BINARY
    WRONG_TEXT
    WRONG_TLS
    WRONG_HTTP
    WRONG_RESP
    WRONG_PLAIN                 # on a port of TLS
    WRONG_HANDSHAKE             # TLS, but not as it is wanted here
    WRONG_SLOW                  # ... and never came to its end
    WRONG_RECORD                # ... and then something that can't be decrypted

# What threads write to each other. From a connection to its owner:
cdef enum Told:
    M_COLD                      # an administrative command; a: noreply, or (a binary one) its opcode << 8 | 2; b: bytes of replies
                                # before it that are not sent, or its opaque
    M_EVENTS                    # what a batch changed (EventHead); a: its replies wait for Session.release
    M_LOCK                      # a write that waits for the lock of this key
    M_MORE                      # the client has taken a piece of a long reply
    M_SENT                      # ... or what was pushed
    M_POKED                     # another thread has left a note in `foreign`
    M_CLOSED                    # a: Why
    M_GONE                      # a connection that nobody had to hear of has closed

# ... and from the owner to a connection:
cdef enum Asked:
    W_REPLY                     # a: A_DONE, A_UNKNOWN or A_WATCH
    W_PIECE                     # of a long reply
    W_RELEASE                   # held replies; ErrorHead: what stands in some replies' place
    W_GRANT                     # the locked write may go on
    W_REFUSE                    # ... or is answered so
    W_PUSH                      # bytes that no command asked for
    W_QUIT                      # close when everything is sent
    W_CLOSE                     # a: Why
    W_FREE                      # the owner has forgotten the connection
    W_DRAIN                     # of a worker: no more commands from anybody
    W_FINISH                    # ... close those that have nothing to send, and the others as soon as they have sent it
    W_LOOK                      # ... look at what has changed in the pool
    W_EXIT

cdef enum AnswerKind:
    A_DONE
    A_UNKNOWN
    A_WATCH

cdef enum Why:
    WHY_NORMAL
    WHY_ERROR
    WHY_IDLE
    WHY_SHUTDOWN                # above it: Wrong

cdef enum Foreign:              # bits
    F_REFUSED = 1               # its upload was given up
    F_DROPPED = 2               # its large value was taken away: it is to be closed

cdef struct EventHead:          # with the key behind it, filled up to a multiple of 8
    int32_t kind
    int32_t position            # of its reply among those of the batch; -1: none
    int64_t ttl
    uint64_t start              # of the reply in the output
    uint64_t end
    uint64_t nkey

cdef struct ErrorHead:          # with the text behind it, filled up to a multiple of 8
    int64_t position
    uint64_t n

cdef struct Span:
    int64_t position
    size_t start
    size_t end

# Replies that wait for a confirmation.
cdef struct Hold:
    size_t n
    int spans
    Span* span
    char* out

# What all connections of a thread share.
cdef struct Shared:
    char* inbuf
    char* out
    size_t out_len
    char* events                # of this batch
    size_t events_len
    size_t events_cap
    size_t event_at             # the one whose reply is being written
    Box* owner                  # where letters to the owner go
    Box* box                    # ... and letters to this thread; NULL if it has no loop of its own
    Conn* poked                 # under the mutex of `box`: connections with a note in `foreign`
    const char* version
    size_t version_len
    uint64_t bytes_read         # atomic
    uint64_t bytes_written
    int error                   # errno of the last read
    TlsRoom tls
    Shared* next                # of the engine

# A request that came in a datagram, and how far it has been answered (datagrams.pxd). What is answered goes to the sink of a
# connection that lives for this request alone; positions count from the first byte of the answer.
cdef struct Datagram:
    sockaddr_storage peer
    unsigned int peer_size
    uint8_t id[2]
    uint8_t keys                # the running get has looked for one
    uint8_t answered            # a datagram has gone out
    uint8_t lost                # a reply was longer than any that is sent
    uint8_t crowded             # it may not wait for the owner
    uint64_t budget             # bytes that may still be sent
    uint64_t gone               # ... of the answer that are no longer in the sink
    uint32_t replies            # that began
    uint32_t room
    uint64_t* start             # ... where

cdef struct Conn:
    Store* store
    Datagram* datagram          # NULL: it is a stream
    uint8_t door                # a UDP socket: datagrams come here
    uint16_t door_port
    uint8_t of_datagram         # it lives for one request; its descriptor is the socket that the request came by
    uint8_t unbounded           # ... from this machine alone: a reply may be as long as it is
    Shared* shared
    PyObject* self              # the Session, which only the owner's thread looks at
    int fd                      # -1: no socket; output goes to the sink
    Tls* tls                    # NULL: plain
    uint32_t foreign            # atomic: Foreign
    uint8_t poked               # it is in the list of `shared`
    Conn* poked_next
    Why why                     # it closes
    const char* why_text        # ... in more words, which are constant; or NULL
    Phase phase
    uint8_t quitting               # close when everything is sent: QUIT_*
    uint8_t blocked                # the client doesn't read: input waits
    uint8_t held                   # replies wait for a confirmation: input waits
    uint8_t noreply
    uint8_t granted                # the next locked write may go on
    uint8_t yielded
    # input that is not consumed yet
    char* in_buf
    size_t in_len
    size_t in_cap
    size_t scanned              # bytes of it that hold no line end
    # a store whose data is on its way
    uint8_t meta
    uint8_t drops               # if there is no memory for it, what stood under its key goes, too
    Mode mode
    uint32_t item
    uint64_t hash
    Fill fill
    Upload up
    uint8_t refused             # ... and given up for want of memory: still to be told
    uint8_t bad_http            # the cold command that waits looks like HTTP
    uint8_t then_watch          # after the reply it is a watcher
    uint8_t pushing             # the owner waits for M_SENT
    uint8_t known               # the owner has heard of it
    Mail* mail                  # the reply, piece or refusal that is to be written
    Hold* hold
    uint8_t searches            # turns that were spent on making room for its next piece
    uint8_t ahead               # pieces that are taken before the next read, since the last one filled all
    uint64_t cas
    uint64_t swallow
    const char* text            # its command line (meta), or what is left of a multiget's keys
    size_t text_len
    char* line                  # where `text` is kept when the batch's buffer is gone
    # a multiget that is on its way
    uint8_t with_cas
    uint8_t touch
    uint8_t checked                # the rest of its keys has been looked at: none is too long
    uint32_t expires
    size_t start                # where the running command's reply begins in the shared buffer
    # output that is not sent yet
    char* out_buf
    size_t out_pos
    size_t out_len
    uint32_t big                # a large value that follows it
    uint64_t big_len            # its length when it was asked for; it may have grown since
    uint64_t big_done
    uint32_t big_piece          # the piece that is next, pinned
    uint32_t big_at             # bytes of it that are sent
    const char* tail             # what stands behind it and is still to be sent; NULL: nothing
    Reader reader
    # events of this batch
    uint8_t has_events
    uint32_t replies            # of this batch so far
    uint8_t event_pending          # an event of the running command has no span yet
    const char* refusal         # what a locked write answers
    size_t refusal_len
    uint64_t sink_room          # fd == -1: bytes the client still takes
    char* sink
    size_t sink_len
    size_t sink_cap
    uint32_t last               # second of the last command; atomic
    uint32_t held_big           # the large value that follows held output
    uint8_t reading                # what the loop was last asked for
    uint8_t writing
    uint8_t seen                   # its first bytes have come, and said what is spoken
    uint8_t binary                 # ... the binary protocol
    uint8_t wrong                  # ... nothing that is spoken here: Wrong
    uint8_t stranger               # it must log in first
    uint8_t sasl_started
    # the running request, in the binary protocol
    uint8_t opcode
    uint8_t quiet
    uint32_t opaque             # as it came
    uint8_t ended                  # the client closed, or quit
    # of a worker (worker.pxd)
    void* worker
    uint8_t watched             # by its epoll
    Conn* next                  # of all its connections
    Conn* prev
    Conn* turn_next             # of those that have given up their turn
    Conn* turn_prev
    uint32_t shown              # atomic: the phase and what waits, for `stats conns`


cdef inline void write_to_owner(Conn* c, int kind, int a, const char* p, size_t n) noexcept nogil:
    cdef Mail* m = mail_with(kind, c, p, n)
    if m != NULL:
        m.a = a
    c.known = 1
    box_post(c.shared.owner, m)


# The lock

cdef inline void absorb(Conn* c) noexcept nogil:
    # Under the lock: what another thread did to this connection.
    cdef uint32_t notes = get32(&c.foreign)
    if notes:
        set32(&c.foreign, 0)
        if notes & F_REFUSED and c.phase == P_DATA:
            c.phase = P_SWALLOW
        if notes & F_DROPPED:
            c.phase = P_CLOSED
            c.why = WHY_ERROR


cdef inline void enter(Conn* c) noexcept nogil:
    cdef Store* s = c.store
    engine_lock(s)
    clock_update(s)
    s.current = c
    s.log_fd = c.fd
    absorb(c)


cdef inline void leave(Conn* c) noexcept nogil:
    c.store.current = NULL
    engine_unlock(c.store)


cdef inline void poke(Conn* c, uint32_t note) noexcept nogil:
    # Under the lock: leaves a note for the thread that the connection belongs to.
    cdef Shared* sh = c.shared
    set32(&c.foreign, get32(&c.foreign) | note)
    if sh.box == NULL:
        write_to_owner(c, M_POKED, 0, NULL, 0)
        return
    pthread_mutex_lock(&sh.box.mutex)
    if not c.poked:
        c.poked = 1
        c.poked_next = sh.poked
        sh.poked = c
    ring_locked(sh.box)
    pthread_mutex_unlock(&sh.box.mutex)


cdef inline void put(Conn* c, const char* p, size_t n) noexcept nogil:
    memcpy(c.shared.out + c.shared.out_len, p, n)
    c.shared.out_len += n


cdef inline void puts(Conn* c, const char* text) noexcept nogil:
    put(c, text, strlen(text))


cdef inline void put_char(Conn* c, char ch) noexcept nogil:
    c.shared.out[c.shared.out_len] = ch
    c.shared.out_len += 1


cdef inline void put_u64(Conn* c, uint64_t value) noexcept nogil:
    c.shared.out_len += <size_t> write_u64(c.shared.out + c.shared.out_len, value)


cdef inline void put_i64(Conn* c, int64_t value) noexcept nogil:
    c.shared.out_len += <size_t> write_i64(c.shared.out + c.shared.out_len, value)


# The replies in a datagram's answer

cdef inline uint64_t answer_at(Conn* c) noexcept nogil:
    return c.datagram.gone + c.sink_len + c.out_len + c.shared.out_len


cdef inline void reply_begins(Conn* c, bint again) noexcept nogil:
    # again: one that is empty so far is the same.
    cdef Datagram* d = c.datagram
    cdef uint64_t at
    cdef uint64_t* grown
    if d == NULL:
        return
    at = answer_at(c)
    if again and d.replies and d.start[d.replies - 1] == at:
        return
    if d.replies == d.room:
        grown = <uint64_t*> realloc(d.start, (2 * d.room + 16) * sizeof(uint64_t))
        if grown == NULL:                   # then two replies are one
            return
        d.start = grown
        d.room = 2 * d.room + 16
    d.start[d.replies] = at
    d.replies += 1


cdef inline void reply_is_none(Conn* c) noexcept nogil:
    # The command that began last is not answered.
    cdef Datagram* d = c.datagram
    if d != NULL and d.replies and d.start[d.replies - 1] == answer_at(c):
        d.replies -= 1


cdef inline void replies_end_here(Conn* c) noexcept nogil:
    # What the running command has answered was taken back.
    cdef Datagram* d = c.datagram
    while d != NULL and d.replies and d.start[d.replies - 1] > answer_at(c):
        d.replies -= 1


cdef inline void replies_move(Conn* c, uint64_t at, int64_t by) noexcept nogil:
    # One before this place has another length.
    cdef Datagram* d = c.datagram
    cdef uint32_t i
    for i in range(d.replies):
        if d.start[i] >= at:
            d.start[i] += <uint64_t> by


# Sending


cdef inline ssize_t sink_write(Conn* c, const char* p, size_t n) noexcept nogil:
    cdef size_t cap
    cdef char* grown
    if c.datagram != NULL and (c.datagram.lost or c.sink_len + n > DATAGRAMS_MOST):
        c.datagram.lost = 1
        return <ssize_t> n
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
    cdef msghdr m
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
    if parts == 1:
        n = send(c.fd, part[0].iov_base, part[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
    else:
        m.msg_name = NULL
        m.msg_namelen = 0
        m.msg_iov = part
        m.msg_iovlen = <size_t> parts
        m.msg_control = NULL
        m.msg_controllen = 0
        m.msg_flags = 0
        n = sendmsg(c.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT)
    if n < 0:
        return 0 if errno == EAGAIN or errno == EINTR else -1
    add64(&c.shared.bytes_written, n)
    return n


cdef inline ssize_t receive(Conn* c, iovec* part, int parts) noexcept nogil:
    # As recvmsg, or TLS_SPEAKS_PLAIN. The parts have room for IN_SIZE / 2 at least.
    cdef msghdr m
    cdef ssize_t n
    if c.tls != NULL:
        n = tls_receive(c.tls, c.fd, part, parts)
        c.shared.error = c.tls.error
        return n
    if parts == 1:
        n = recv(c.fd, part[0].iov_base, part[0].iov_len, MSG_DONTWAIT)
    else:
        m.msg_name = NULL
        m.msg_namelen = 0
        m.msg_iov = part
        m.msg_iovlen = <size_t> parts
        m.msg_control = NULL
        m.msg_controllen = 0
        m.msg_flags = 0
        n = recvmsg(c.fd, &m, MSG_DONTWAIT)
    c.shared.error = errno
    return n


cdef inline bint tls_counted(Conn* c) noexcept nogil:
    # What OpenSSL holds for something unfinished counts as a line without an end does. 0: there is no more room for such.
    cdef Tls* t = c.tls
    cdef bint holds = t.ssl != NULL and (t.shaking or SSL_has_pending(t.ssl))
    if holds == t.counted:
        return 1
    t.counted = holds
    if add64(&c.store.in_kept, <int64_t> TLS_KEPT if holds else -<int64_t> TLS_KEPT) <= c.store.in_most or not holds:
        return 1
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
            put(c, b"\r\n", 2)
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
    cdef char* grown
    if n == 0:
        return 1
    if c.out_pos:
        memmove(c.out_buf, c.out_buf + c.out_pos, c.out_len)
        c.out_pos = 0
    grown = <char*> realloc(c.out_buf, c.out_len + n)
    if grown == NULL:
        return 0
    c.out_buf = grown
    memcpy(grown + c.out_len, p, n)
    c.out_len += n
    return 1


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
        part[0].iov_base = <void*> (c.out_buf + c.out_pos if c.out_len else fresh)
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


cdef inline bint save_text(Conn* c) noexcept nogil:
    # Keeps `text` beyond the batch.
    cdef char* copy
    if c.text_len == 0 or c.text == NULL or c.line != NULL:
        return 1
    copy = <char*> malloc(c.text_len)
    if copy == NULL:
        return 0
    memcpy(copy, c.text, c.text_len)
    c.line = copy
    c.text = copy
    return 1


cdef inline void drop_text(Conn* c) noexcept nogil:
    free(c.line)
    c.line = NULL
    c.text = NULL
    c.text_len = 0


cdef inline void in_capacity(Conn* c, size_t cap) noexcept nogil:
    add64(&c.store.in_kept, <int64_t> cap - <int64_t> c.in_cap)
    c.in_cap = cap


cdef inline void conn_init(Conn* c, Store* s, Shared* shared, int fd) noexcept nogil:
    # c is all zeros.
    c.store = s
    c.shared = shared
    c.fd = fd
    c.phase = P_LINE
    c.reading = 1
    c.sink_room = <uint64_t> -1
    c.why = WHY_ERROR


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
    c.out_buf = NULL
    c.sink = NULL
    c.in_len = 0
    c.out_len = 0
    c.out_pos = 0
    c.sink_len = 0
    c.sink_cap = 0


# Events: what a cluster must hear of. One look at the key, one call, and the reply's place.

cdef enum:
    EV_DELETE = 0
    EV_STALE = 1
    EV_FLUSH = 2
    EV_FLUSH_LATER = 3
    EV_WRITE = 4
    EV_LOGIN_FAILED = 5


cdef inline void event(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept nogil:
    # Before its reply is written.
    cdef bint told = c.store.tell_writes if kind == EV_WRITE else c.store.tell_deletes
    if told and not c.granted:
        note_event(c, kind, key, nkey, ttl)


cdef inline void note_event(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept nogil:
    cdef Shared* sh = c.shared
    cdef size_t need = sizeof(EventHead) + ((nkey + 7) & ~<size_t> 7)
    cdef EventHead* e
    cdef char* grown
    if sh.events_len + need > sh.events_cap:
        grown = <char*> realloc(sh.events, 2 * (sh.events_cap + need))
        if grown == NULL:
            box_post(sh.owner, NULL)        # something was lost: the owner has to tell that everything may have changed
            return
        sh.events = grown
        sh.events_cap = 2 * (sh.events_cap + need)
    e = <EventHead*> (sh.events + sh.events_len)
    e.kind = kind
    e.position = -1
    e.ttl = ttl
    e.nkey = nkey
    memcpy(<char*> e + sizeof(EventHead), key, nkey)
    sh.event_at = sh.events_len
    sh.events_len += need
    c.event_pending = 1


cdef inline void event_has_reply(Conn* c, size_t start, size_t end) noexcept nogil:
    # The reply that stands for the last event; start == end: there is none.
    cdef EventHead* e = <EventHead*> (c.shared.events + c.shared.event_at)
    if end > start:
        e.position = <int32_t> c.replies
        e.start = start
        e.end = end


cdef inline Hold* hold_of(Conn* c, size_t first, int spans) noexcept nogil:
    # The output from `first` on, and where in it the replies of the batch's events are. NULL: out of memory.
    cdef Shared* sh = c.shared
    cdef size_t n = sh.out_len - first, at = 0
    cdef Hold* h = <Hold*> malloc(sizeof(Hold) + <size_t> spans * sizeof(Span) + n)
    cdef EventHead* e
    if h == NULL:
        return NULL
    h.n = n
    h.spans = 0
    h.span = <Span*> (<char*> h + sizeof(Hold))
    h.out = <char*> (h.span + spans)
    memcpy(h.out, sh.out + first, n)
    while at < sh.events_len:
        e = <EventHead*> (sh.events + at)
        at += sizeof(EventHead) + ((e.nkey + 7) & ~<size_t> 7)
        if e.position >= 0:
            h.span[h.spans].position = e.position
            h.span[h.spans].start = e.start - first
            h.span[h.spans].end = e.end - first
            h.spans += 1
    return h


cdef inline void tell_events(Conn* c) noexcept nogil:
    # Under the lock, so that the owner hears of them in the order in which they happened. From the first reply that stands for
    # one on, the output waits.
    cdef Shared* sh = c.shared
    cdef size_t at = 0, first = 0
    cdef int spans = 0
    cdef EventHead* e
    while at < sh.events_len:
        e = <EventHead*> (sh.events + at)
        at += sizeof(EventHead) + ((e.nkey + 7) & ~<size_t> 7)
        if e.position >= 0:
            if spans == 0:
                first = e.start
            spans += 1
    if spans and c.phase != P_CLOSED:
        c.hold = hold_of(c, first, spans)
        sh.out_len = first
        if c.hold == NULL:                  # what isn't confirmed isn't answered
            c.phase = P_CLOSED
        else:
            c.held = 1
            c.held_big = c.big
            if c.big:
                reader_end(&c.reader)
            c.big = 0
    c.has_events = 0
    if sh.events_len:
        write_to_owner(c, M_EVENTS, c.held, sh.events, sh.events_len)
    sh.events_len = 0


cdef inline bint keep_error(Conn* c, const char* reply, const char* text, size_t n) noexcept nogil:
    # An error of the text protocol in the place of a reply that was held. 0: out of memory.
    cdef unsigned char head[24]
    if not c.binary:
        return keep(c, text, n)
    while n and (text[n - 1] == c'\n' or text[n - 1] == c'\r'):
        n -= 1
    if n > 13 and memcmp(text, b"SERVER_ERROR ", 13) == 0:
        text += 13
        n -= 13
    memset(head, 0, 24)
    memcpy(head, reply, 2)                  # magic and opcode
    head[7] = 0x86                          # a temporary failure
    head[8] = <uint8_t> (n >> 24)
    head[9] = <uint8_t> (n >> 16)
    head[10] = <uint8_t> (n >> 8)
    head[11] = <uint8_t> n
    memcpy(head + 12, reply + 12, 4)        # opaque
    return keep(c, <char*> head, 24) and keep(c, text, n)


cdef inline bint release_hold(Conn* c, Mail* m) noexcept nogil:
    # The held replies become output, but for those in whose place the letter has an error (in their order). 0: out of memory.
    cdef Hold* h = c.hold
    cdef size_t at = 0, read = 0
    cdef int i
    cdef ErrorHead* e
    cdef bint good = 1
    cdef uint64_t before, began = answer_at(c) if c.datagram != NULL else 0
    for i in range(h.spans):
        while read < m.n and (<ErrorHead*> (m.data + read)).position < h.span[i].position:
            read += sizeof(ErrorHead) + (((<ErrorHead*> (m.data + read)).n + 7) & ~<size_t> 7)
        if read >= m.n:
            break
        e = <ErrorHead*> (m.data + read)
        if e.position == h.span[i].position:
            good = good and keep(c, h.out + at, h.span[i].start - at)
            before = c.out_len
            good = good and keep_error(c, h.out + h.span[i].start, <char*> e + sizeof(ErrorHead), <size_t> e.n)
            at = h.span[i].end
            if good and c.datagram != NULL:
                before = began + before + (at - h.span[i].start)        # where what follows began
                replies_move(c, before, <int64_t> (answer_at(c) - before))
    good = good and keep(c, h.out + at, h.n - at)
    free(h)
    c.hold = NULL
    c.held = 0
    return good


cdef inline bint has_prefix(Prefixed* list, const char* key, size_t nkey) noexcept nogil:
    # Whether the key begins with one of the texts.
    cdef size_t at = 0, n
    while at < list.length:
        n = <uint8_t> list.texts[at] | <size_t> (<uint8_t> list.texts[at + 1]) << 8
        at += 2
        if n <= nkey and memcmp(list.texts + at, key, n) == 0:
            return 1
        at += n
    return 0


cdef inline void write_event(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if c.store.tell_writes and has_prefix(&c.store.told_prefixes, key, nkey):
        event(c, EV_WRITE, key, nkey, -1)


cdef enum Lock:
    LOCK_FREE                   # the write may take effect
    LOCK_LOST                   # ... must not: c.refusal says why
    LOCK_WAITS                  # ... not yet


cdef inline Lock lock_stops(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if not c.store.locks or c.granted or not has_prefix(&c.store.locked_prefixes, key, nkey):
        return LOCK_FREE
    if c.refusal_len:
        return LOCK_LOST
    c.phase = P_LOCKED
    c.mail = mail_with(M_LOCK, c, key, nkey)
    if c.mail == NULL:
        c.phase = P_CLOSED
    return LOCK_WAITS


cdef inline void ask_for_lock(Conn* c) noexcept nogil:
    # The write that waits is asked for as soon as nothing else keeps its connection: when the lock is there, it takes effect at once.
    if c.phase == P_LOCKED and c.mail != NULL and not (c.blocked or c.held):
        c.known = 1
        box_post(c.shared.owner, c.mail)
        c.mail = NULL


# What -vv shows

cdef inline bint ask_owner(Conn* c, const char* line, size_t n) noexcept nogil:
    # A cold command's line, whose reply comes by letter; it is posted when what stands before it is sent. 0: out of memory.
    cdef Mail* m = mail_with(M_COLD, c, line, n) if c.datagram == NULL or not c.datagram.crowded else NULL
    if m == NULL:
        return 0
    if c.binary:
        m.a = c.opcode << 8 | 2
        m.b = c.opaque
    else:
        m.a = c.noreply
        m.b = c.shared.out_len + c.out_len + (1 if c.big else 0)
    c.then_watch = 0
    c.mail = m
    c.phase = P_COLD
    return 1


cdef inline void trace(Conn* c, int kind, const char* p, size_t n) noexcept nogil:
    cdef Record* r = journal_add(&c.store.journal, p, n if n < SHOWN_MOST else SHOWN_MOST)
    if r != NULL:
        r.kind = kind | (J_BINARY if c.binary else 0)
        r.fd = c.fd
