# Conn: one connection's state, and its way out.
#
# Owns what is kept for a connection between two events and how replies reach the client: commands append to one output
# buffer that all connections share; flush() sends it with one system call and keeps what the socket did not take.
# Must never parse. What a slow reader can pin is what one flush can hold (OUT_SOFT + OUT_ROOM bytes), one batch of its
# own input, and one large value.

from cpython.ref cimport PyObject
from libc.errno cimport errno, EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, strlen
from .memory cimport HEADER, Item, item_at
from .store cimport Store, Upload
from .items cimport first_piece, item_release
from .uploads cimport upload_end
from .text cimport write_u64, write_i64
from .values cimport Fill, Mode, value_read

cdef extern from "<sys/socket.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t sendmsg(int fd, const msghdr* msg, int flags)
    ssize_t recvmsg(int fd, msghdr* msg, int flags)
    ssize_t recv(int fd, void* buf, size_t n, int flags)
    ssize_t send(int fd, const void* buf, size_t n, int flags)
    enum: MSG_NOSIGNAL, MSG_DONTWAIT

cdef enum:
    IN_SIZE = 65536             # the shared input buffer
    OUT_SOFT = 131072           # replies of one write; beyond it a batch is sent before more commands run
    OUT_ROOM = 81920            # room that a command may count on above OUT_SOFT
    BIG = 65536                 # values above this are sent from the arena
    PARTS_MOST = 64             # pieces of one in a system call
    LINE_MOST = 2048            # a line this long without an end is refused, unless it is a get
    MULTIGET_MOST = 16777216    # ... which may have this many bytes

cdef enum Phase:
    P_LINE                      # a command line is next
    P_DATA                      # a value is being received
    P_SWALLOW                   # refused data is being skipped
    P_KEYS                      # a multiget goes on
    P_STREAM                    # a long administrative reply goes on
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

cdef enum:
    COLD_UNKNOWN = 0
    COLD_DONE = 1
    COLD_STREAM = 2

cdef struct Conn

# What all connections of an engine share.
cdef struct Shared:
    char* inbuf
    char* out
    size_t out_len
    size_t in_kept              # bytes of all connections' in_buf
    size_t in_most              # what they may grow to, together
    uint64_t in_refused         # connections that were closed because of it
    # hooks into the Session objects
    bint (*on_flush)(Conn* c) noexcept nogil            # the batch has events; it may move output from `shared` and set `held`
    int (*on_cold)(Conn* c, const char* line, size_t n) noexcept nogil  # an administrative command: COLD_*
    bint (*on_stream)(Conn* c) noexcept nogil           # the next piece of a long reply; false after the last
    void (*on_lock)(Conn* c, const char* key, size_t nkey) noexcept nogil
    void (*on_trace)(Conn* c, bint reply, const char* p, size_t n) noexcept nogil
    void (*on_event)(Conn* c, int kind, const char* key, size_t nkey, int64_t ttl) noexcept nogil
    void (*on_span)(Conn* c, size_t start, size_t end) noexcept nogil    # where the event's reply is; start == end: nowhere
    bint (*wants_event)(Conn* c, const char* key, size_t nkey) noexcept nogil
    bint (*is_locked)(Conn* c, const char* key, size_t nkey) noexcept nogil
    void (*on_refused)(Conn* c) noexcept nogil          # it has something to say though nothing came from its client

cdef struct Conn:
    Store* store
    Shared* shared
    PyObject* self              # the Session
    int fd                      # -1: no socket; output goes to the sink
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
    uint8_t tail                 # its line end is still to be written
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
    uint32_t last               # second of the last command
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
    uint8_t running             # run() is at work on its buffers


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


cdef inline ssize_t sink_write(Conn* c, const char* p, size_t n) noexcept nogil:
    cdef size_t cap
    cdef char* grown
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
    if c.fd < 0:
        for i in range(parts):
            n = sink_write(c, <char*> part[i].iov_base, part[i].iov_len)
            if n < 0:
                return -1
            done += n
            if <size_t> n < part[i].iov_len:
                break
        c.store.n.bytes_written += <uint64_t> done
        return done
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
    c.store.n.bytes_written += <uint64_t> n
    return n


cdef inline void big_begin(Conn* c, uint32_t h, Item* it) noexcept nogil:
    # The value of a large item follows what is in the output.
    it.refs += 1
    c.big = h
    c.big_len = it.nbytes
    c.big_done = 0
    c.big_piece = first_piece(it)
    c.big_at = 0
    item_at(&c.store.arena, c.big_piece).refs += 1


cdef inline void put_value(Conn* c, uint32_t h, Item* it, bint line_end) noexcept nogil:
    # The value, with CR LF; a big one is left for the flush, which the session then does at once.
    if it.nbytes <= BIG:
        value_read(c.store, it, c.shared.out + c.shared.out_len)
        c.shared.out_len += it.nbytes
        if line_end:
            put(c, b"\r\n", 2)
    else:
        big_begin(c, h, it)
        c.tail = line_end


cdef inline void skip(Conn* c, uint64_t n) noexcept nogil:
    # The next n bytes are the data of a refused store.
    c.swallow = n
    c.phase = P_SWALLOW


cdef inline void big_release(Conn* c, uint32_t h) noexcept nogil:
    item_at(&c.store.arena, c.big_piece).refs -= 1
    item_release(c.store, h)


cdef inline void big_drop(Conn* c) noexcept nogil:
    if c.big:
        big_release(c, c.big)
        c.big = 0


cdef inline int big_parts(Conn* c, iovec* part, int most) noexcept nogil:
    # The next stretches of the large value; returns how many.
    cdef uint32_t h = c.big_piece, at = c.big_at
    cdef uint64_t left = c.big_len - c.big_done, n
    cdef int parts = 0
    cdef Item* p
    while left and parts < most:
        p = item_at(&c.store.arena, h)
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


cdef inline void big_sent(Conn* c, uint64_t n) noexcept nogil:
    # n bytes of the large value are gone.
    cdef Item* p = item_at(&c.store.arena, c.big_piece)
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


cdef inline int send_now(Conn* c, const char* fresh, size_t n) noexcept nogil:
    # Sends what was kept, then `fresh` (n bytes; only when nothing was kept), then the large value that follows.
    # 1: all is sent. 0: the client doesn't take more now; the rest is kept. -1: the client is gone.
    cdef iovec part[PARTS_MOST]
    cdef int parts
    cdef ssize_t sent
    cdef uint64_t length
    cdef const char* head
    cdef size_t head_len
    cdef size_t budget = 4 * 1024 * 1024    # then it is others' turn, however fast this client reads
    while True:
        if c.out_len:
            head = c.out_buf + c.out_pos
            head_len = c.out_len
        else:
            head = fresh
            head_len = n
        parts = 0
        if head_len:
            part[0].iov_base = <void*> head
            part[0].iov_len = head_len
            parts = 1
        if c.big:
            parts += big_parts(c, part + parts, PARTS_MOST - parts)
        if parts == 0:
            return 1
        sent = transmit(c, part, parts)
        if sent < 0:
            return -1
        length = head_len if <size_t> sent > head_len else <size_t> sent
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
        if c.big and <size_t> sent > length:
            big_sent(c, <uint64_t> sent - length)
        if c.big and c.big_done == c.big_len:
            big_drop(c)
        if c.out_len == 0 and n == 0 and c.big == 0:
            return 1
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
    c.shared.in_kept += cap - c.in_cap
    c.in_cap = cap


cdef inline void conn_free(Conn* c) noexcept nogil:
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
    drop_text(c)
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
    cdef bint told = c.store.tell_writes if kind == EV_WRITE else c.store.tell_deletes
    if told and not c.granted:
        c.shared.on_event(c, kind, key, nkey, ttl)
        c.event_pending = 1


cdef inline void write_event(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if c.store.tell_writes and c.shared.wants_event(c, key, nkey):
        event(c, EV_WRITE, key, nkey, -1)


cdef enum Lock:
    LOCK_FREE                   # the write may take effect
    LOCK_LOST                   # ... must not: c.refusal says why
    LOCK_WAITS                  # ... not yet


cdef inline Lock lock_stops(Conn* c, const char* key, size_t nkey) noexcept nogil:
    if not c.store.locks or c.granted or not c.shared.is_locked(c, key, nkey):
        return LOCK_FREE
    if c.refusal_len:
        return LOCK_LOST
    c.phase = P_LOCKED
    c.shared.on_lock(c, key, nkey)
    return LOCK_WAITS
