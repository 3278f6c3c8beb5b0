# Requests: those that come in datagrams. Each has a connection of its own, which is used again if it was answered at once.
#
# Owns the UDP sockets of a worker, and a request from the first look at its datagram to the end of its answer (datagrams.pxd
# spells that). Must never make one request wait for another: what waits for Python is bounded, and the rest is dropped.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from .mail cimport *
from .lock cimport *
from .store cimport PROTOCOL_ASCII, PROTOCOL_BINARY
from .uploads cimport uploading
from .sockets cimport *
from .binary cimport BINARY_OPCODES
from .packets cimport BINARY_REQUEST
from .conn cimport *
from .sending cimport *
from .datagrams cimport *
from .session cimport *
from .reading cimport *
from .pool cimport *

cdef enum:
    SPARE_SINK = 65536          # bytes of a buffer for answers, or for where they begin, that is kept for the next one
    DATAGRAMS_A_TURN = 4
    DATAGRAM_SIZE = 65536
    ALONE = 16                  # turns with one datagram each, after which only each such turn looks for a second
    WAITING_CROWD = 64          # requests by datagram that wait for Python; more are refused,
    WAITING_MOST = 1024         # ... and while so many wait for anything, no datagram is read


cdef inline void come_in(Worker* w, Conn* door) noexcept nogil:
    if w.alone >= ALONE and w.alone % ALONE:
        one_comes(w, door)
    else:
        some_come(w, door)


cdef inline void one_comes(Worker* w, Conn* door) noexcept nogil:
    cdef sockaddr_storage peer
    cdef unsigned int size = sizeof(sockaddr_storage)
    cdef ssize_t length = recvfrom(door.fd, w.datagram, DATAGRAM_SIZE, MSG_DONTWAIT, <sockaddr*> &peer, &size)
    if length >= 0:                         # another worker may have been faster
        w.alone += 1
        datagram_comes(w, door, w.datagram, <size_t> length, &peer, size)


cdef inline void some_come(Worker* w, Conn* door) noexcept nogil:
    cdef mmsghdr m[DATAGRAMS_A_TURN]
    cdef iovec part[DATAGRAMS_A_TURN]
    cdef sockaddr_storage peer[DATAGRAMS_A_TURN]
    cdef int i, n
    for i in range(DATAGRAMS_A_TURN):
        part[i].iov_base = w.datagram + <size_t> i * DATAGRAM_SIZE
        part[i].iov_len = DATAGRAM_SIZE
        memset(&m[i], 0, sizeof(mmsghdr))
        m[i].msg_hdr.msg_name = &peer[i]
        m[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
        m[i].msg_hdr.msg_iov = &part[i]
        m[i].msg_hdr.msg_iovlen = 1
    n = recvmmsg(door.fd, m, DATAGRAMS_A_TURN, MSG_DONTWAIT, NULL)
    if n >= 0:
        w.alone = w.alone + 1 if n == 1 else 0
    for i in range(n):
        datagram_comes(w, door, <char*> part[i].iov_base, m[i].msg_len, &peer[i], m[i].msg_hdr.msg_namelen)


cdef inline void datagram_comes(Worker* w, Conn* door, const char* p, size_t n, sockaddr_storage* peer, unsigned int size) noexcept nogil:
    add64(&w.shared.bytes_read, <int64_t> n)
    add64(&w.pool.datagrams, 1)
    if not take_datagram(w, door, p, n, peer, size):
        add64(&w.pool.datagrams_bad, 1)


cdef inline bint is_binary(Conn* door, const char* p, size_t n) noexcept nogil:
    # By its first bytes; as on a stream, text may begin so where only text is spoken, if no opcode follows.
    return <uint8_t> p[0] == BINARY_REQUEST and (door.protocol != PROTOCOL_ASCII or n > 1 and <uint8_t> p[1] < BINARY_OPCODES)


cdef inline bint take_datagram(Worker* w, Conn* door, const char* p, size_t n, sockaddr_storage* peer, unsigned int size) noexcept nogil:
    # 0: it is no request, or can't be taken, and is not answered. A request that is spread over several datagrams is none, as
    # in memcached; nor is what another server's port sends, so that two of them never answer each other's errors; nor one in the
    # protocol that is switched off, whose value must not be run as commands.
    cdef Conn* c
    cdef Datagram* d
    cdef size_t used
    cdef bint binary
    if n <= DATAGRAM_HEADER or p[4] != 0 or p[5] != 1 or mc_port(peer) == door.door_port or w.waits >= WAITING_MOST:
        return 0
    if w.waits and get64(&door.store.in_kept) >= door.store.in_most:
        return 0
    binary = is_binary(door, p + DATAGRAM_HEADER, n - DATAGRAM_HEADER)
    if door.protocol == (PROTOCOL_ASCII if binary else PROTOCOL_BINARY):
        return 0
    c = fresh_conn(w, door)
    if c == NULL:
        return 0
    d = c.datagram
    d.peer = peer[0]
    d.peer_size = size
    memcpy(d.id, p, 2)
    d.budget = <uint64_t> FACTOR * n
    d.crowded = w.waits >= WAITING_CROWD
    c.binary = binary
    p += DATAGRAM_HEADER
    n -= DATAGRAM_HEADER
    used = run(c, p, n)
    if not (c.phase == P_CLOSED or stopped(c) or c.yielded):
        used = n                            # the rest of a request that doesn't end never comes
    if not stash(c, p + used, n - used):
        gone(c)
    set32(&door.last, get32(&c.last))
    settle_datagram(w, c)
    return 1


cdef inline Conn* fresh_conn(Worker* w, Conn* door) noexcept nogil:
    # NULL: out of memory.
    cdef Conn* c = w.spare
    cdef Datagram* d
    cdef uint64_t* start
    cdef uint32_t room
    cdef char* sink
    cdef size_t cap
    if c == NULL:
        c = <Conn*> calloc(1, sizeof(Conn))
        d = <Datagram*> calloc(1, sizeof(Datagram))
        if c == NULL or d == NULL:
            free(c)
            free(d)
            return NULL
        conn_init(c, door.store, &w.shared, door.fd)
    else:
        w.spare = NULL
        d = c.datagram
        start = d.start
        room = d.room
        sink = c.sink
        cap = c.sink_cap
        memset(c, 0, sizeof(Conn))
        memset(d, 0, sizeof(Datagram))
        conn_init(c, door.store, &w.shared, door.fd)
        d.start = start
        d.room = room
        c.sink = sink
        c.sink_cap = cap
    c.datagram = d
    c.of_datagram = 1
    c.unbounded = door.unbounded
    c.worker = w
    c.seen = 1
    c.stranger = c.store.login != 0
    return c


cdef inline void settle_datagram(Worker* w, Conn* c) noexcept nogil:
    # After anything ran: it goes on waiting, or the answer goes out and the connection's life is over.
    if c.phase != P_CLOSED and (stopped(c) or c.yielded):
        if c.next == NULL:
            conns_link(&w.waiting, c)
            w.waits += 1
        if stopped(c) and not c.blocked:
            turn_remove(c)
        else:                           # blocked: a long answer has given up its turn, since its sink takes everything
            turn_add(w, c)
        return
    if c.phase == P_DATA:               # it never comes: the request has no reply
        reply_is_none(c)
    answer_datagram(c, 1)
    datagram_ends(w, c)


cdef inline void datagram_ends(Worker* w, Conn* c) noexcept nogil:
    turn_remove(c)
    if c.next != NULL:
        conns_unlink(c)
        w.waits -= 1
    if w.spare == NULL and not (c.known or c.poked or c.item or c.big or c.held_big or c.in_cap or c.out_buf != NULL
                                or c.mail != NULL or c.hold != NULL or c.line != NULL or uploading(&c.up) or c.sink_cap > SPARE_SINK
                                or c.datagram.room * sizeof(uint64_t) > SPARE_SINK):
        add64(&c.store.in_kept, -<int64_t> c.datagram.counted)
        c.datagram.counted = 0
        w.spare = c
        return
    c.phase = P_CLOSED
    engine_lock(c.store)
    conn_free(c)
    engine_unlock(c.store)
    not_poked(w, c)
    if c.known:
        tell_closed(c)
    else:
        free(c)


cdef inline bint door_open(Worker* w, int fd, uint16_t port, bint unbounded, uint8_t protocol) noexcept nogil:
    # A UDP socket (port: its own, as it is sent), the worker's from now on; before its thread starts. False: it is not.
    cdef Conn* c
    if w.datagram == NULL:
        w.datagram = <char*> malloc(DATAGRAMS_A_TURN * DATAGRAM_SIZE)
    c = <Conn*> calloc(1, sizeof(Conn))
    if w.datagram == NULL or c == NULL or w.doors == DOORS_MOST:
        free(c)
        return 0
    conn_init(c, w.pool.store, &w.shared, fd)
    c.door = 1
    c.protocol = protocol
    engine_lock(c.store)
    c.last = c.store.sec
    engine_unlock(c.store)
    c.door_port = port
    c.unbounded = unbounded
    if not interest(w, c, 1, 0):
        free(c)
        return 0
    w.door[w.doors] = c
    w.doors += 1
    return 1
