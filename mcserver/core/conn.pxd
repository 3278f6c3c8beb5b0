# Conn: one connection's state.
#
# Owns what is kept for a connection between two events: commands append their replies to one output buffer that all connections
# of a thread share (sending.pxd sends it). Must never parse.
#
# A connection belongs to one thread. Between enter() and leave() that thread holds the engine's lock; it receives and sends
# outside. What another thread may do to a connection, under the lock, is to take away the value that is on its way in (`item`)
# or out (`big`), unless that is `busy`: it leaves a note in `foreign`, which enter() reads. So `item`, `fill`, `up`, `big` and
# `reader` are looked at under the lock only.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy
from .store cimport Reader, Store, Upload
from .flush cimport clock_update
from .journal cimport *
from .lock cimport *
from .mail cimport *
from .text cimport write_u64, write_i64
from .sockets cimport *
from .tls cimport *
from .values cimport Fill, Mode

cdef enum:
    IN_SIZE = 65536             # the shared input buffer
    BRIEF = 2048                # ... and what is read into it where a value is expected that doesn't fit and goes to its item
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
    M_CLOSED                    # a: Why. The same letter comes back as W_FREE

# ... and from the owner to a connection:
cdef enum Asked:
    W_REPLY                     # a: A_DONE, A_UNKNOWN or A_WATCH
    W_PIECE                     # of a long reply
    W_RELEASE                   # held replies; ErrorHead: what stands in some replies' place
    W_GRANT                     # the locked write may go on
    W_REFUSE                    # ... or is answered so
    W_PUSH                      # bytes that no command asked for
    W_QUIT                      # close when everything is sent; a: Why
    W_CLOSE                     # a: Why
    W_FREE                      # the owner has forgotten the connection

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
    Conn* untold                # closed, but there was no memory for the letter that says so; by Conn.next
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
    uint64_t counted            # bytes taken for it, which count as input that is kept does

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
    uint8_t brief               # its last value hardly fitted into the input buffer, or did not: the next one goes to its item
    uint64_t cas
    uint64_t swallow
    const char* text            # its command line (meta), or what is left of a multiget's keys
    size_t text_len
    char* line                  # where `text` is kept when the batch's buffer is gone
    size_t line_size
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
    uint8_t protocol               # what may be spoken: PROTOCOL_*
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
    uint8_t local               # it came by a Unix socket: it may be idle for as long as it likes
    uint8_t watched             # by its epoll
    Conn* next                  # of all its connections
    Conn* prev
    Conn* turn_next             # of those that have given up their turn
    Conn* turn_prev
    uint32_t shown              # atomic: the phase and what waits, for `stats conns`


cdef inline void write_to_owner(Conn* c, int kind, int a, const char* p, size_t n) noexcept nogil:
    # Out of memory: the connection is closed, for nobody would ever answer.
    cdef Mail* m = mail_with(kind, c, p, n)
    if m == NULL:
        c.phase = P_CLOSED
        if kind == M_EVENTS:
            box_lost(c.shared.owner)        # the owner has to tell that everything may have changed
        return
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


cdef extern from *:
    """
    /* Copied in place, so that what is a constant costs a few instructions. */
    static inline __attribute__((always_inline)) void mc_append(char* out, size_t* length, const char* p, size_t n) {
        memcpy(out + *length, p, n);
        *length += n;
    }
    #define mc_put(c, p, n) mc_append((c)->shared->out, &(c)->shared->out_len, p, n)
    #define mc_puts(c, text) mc_put(c, text, strlen(text))
    """
    void put "mc_put"(Conn* c, const char* p, size_t n) noexcept nogil
    void puts "mc_puts"(Conn* c, const char* text) noexcept nogil


cdef inline void put_char(Conn* c, char ch) noexcept nogil:
    c.shared.out[c.shared.out_len] = ch
    c.shared.out_len += 1


cdef inline void put_u64(Conn* c, uint64_t value) noexcept nogil:
    c.shared.out_len += <size_t> write_u64(c.shared.out + c.shared.out_len, value)


cdef inline void put_i64(Conn* c, int64_t value) noexcept nogil:
    c.shared.out_len += <size_t> write_i64(c.shared.out + c.shared.out_len, value)


# The replies in a datagram's answer

cdef inline bint datagram_takes(Conn* c, size_t n) noexcept nogil:
    # n bytes more for the answer. 0: requests and answers have as much as they may.
    if add64(&c.store.in_kept, <int64_t> n) > c.store.in_most:
        add64(&c.store.in_kept, -<int64_t> n)
        return 0
    c.datagram.counted += n
    return 1


cdef inline uint64_t answer_at(Conn* c) noexcept nogil:
    return c.datagram.gone + c.sink_len + c.out_len + c.shared.out_len


cdef inline void reply_begins(Conn* c, bint again) noexcept nogil:
    # again: one that is empty so far is the same.
    cdef Datagram* d = c.datagram
    cdef uint64_t at
    cdef uint64_t* grown
    cdef uint32_t room
    if d == NULL:
        return
    at = answer_at(c)
    if again and d.replies and d.start[d.replies - 1] == at:
        return
    if d.replies == d.room:
        room = 2 * d.room + 16
        grown = NULL
        if datagram_takes(c, (room - d.room) * sizeof(uint64_t)):
            grown = <uint64_t*> realloc(d.start, room * sizeof(uint64_t))
        if grown == NULL:                   # two replies would be one
            d.lost = 1
            return
        d.start = grown
        d.room = room
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


cdef inline bint save_text(Conn* c) noexcept nogil:
    # Keeps `text` beyond the batch. 0: there is no memory, or no more for lines that are longer than a read.
    cdef char* copy
    cdef uint64_t kept
    if c.text_len == 0 or c.text == NULL or c.line != NULL:
        return 1
    kept = add64(&c.store.in_kept, <int64_t> c.text_len)        # first taken, then looked at: other threads take, too
    if c.text_len > IN_SIZE and kept > c.store.in_most + c.in_cap:      # its own buffer will be given back
        add64(&c.store.in_kept, -<int64_t> c.text_len)
        add64(&c.store.in_refused, 1)
        return 0
    copy = <char*> malloc(c.text_len)
    if copy == NULL:
        add64(&c.store.in_kept, -<int64_t> c.text_len)
        return 0
    memcpy(copy, c.text, c.text_len)
    c.line = copy
    c.line_size = c.text_len
    c.text = copy
    return 1


cdef inline void drop_text(Conn* c) noexcept nogil:
    if c.line != NULL:
        add64(&c.store.in_kept, -<int64_t> c.line_size)
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
    c.protocol = <uint8_t> s.protocol
    c.shared = shared
    c.fd = fd
    c.phase = P_LINE
    c.reading = 1
    c.sink_room = <uint64_t> -1
    c.why = WHY_ERROR
