# Worker: a thread that serves connections. Any number of them serve one engine.
#
# Owns its connections, from the first byte to the last, its epoll, its buffers and its box of letters. It enters here once and never
# takes the GIL; it waits for nothing but its epoll and the engine's lock, and whoever has that never waits (lock.pxd). What only
# Python can do goes to the owner by letter (conn.pxd), and the connection keeps its place until the reply comes.

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from .mail cimport *
from .lock cimport *
from .store cimport CLOCK_START, Store, boot_clock
from .uploads cimport uploading
from .conn cimport *
from .session cimport *
from .datagrams cimport *
from .binary cimport BINARY_REQUEST
from .store cimport PROTOCOL_ASCII, PROTOCOL_BINARY

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int most, int timeout)
    enum: EPOLLIN, EPOLLOUT, EPOLLET, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <signal.h>
    /* The signals are the main thread's. */
    static int mc_thread(pthread_t* thread, void* (*main)(void*), void* arg) {
        sigset_t all, old;
        int error;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        error = pthread_create(thread, NULL, main, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return error;
    }
    """
    ctypedef unsigned long pthread_t
    int mc_thread(pthread_t* thread, void* (*main)(void*) noexcept nogil, void* arg)
    int pthread_join(pthread_t thread, void** result)

cdef enum:
    WORKERS_MOST = 64
    READY_MOST = 128            # connections served before letters are looked at
    GO_ON_NS = 500000           # how long those that have much to do go on before those get their turn for which something came
    SPARE_SINK = 65536          # bytes of a buffer for answers that is kept for the next one
    SWEEP_MS = 1000             # how often idle connections are looked for
    DOORS_MOST = 64             # UDP sockets
    DATAGRAMS_A_TURN = 8
    DATAGRAM_SIZE = 65536
    WAITING_CROWD = 64          # requests by datagram that wait for Python; more are refused,
    WAITING_MOST = 1024         # ... and while so many wait for anything, no datagram is read

cdef struct Worker

# What all workers share, and what Python sees of them.
cdef struct Pool:
    Store* store
    Box outbox                  # letters to Python
    int count
    Worker* worker[WORKERS_MOST]
    uint32_t clients            # atomic, as what follows
    uint32_t resting            # the listeners want to hear when a connection has gone
    uint32_t ending             # ... or when the last one has
    uint32_t tell_closed        # Python wants to hear of every end
    uint32_t idle_seconds       # 0: nobody is idle too long
    uint64_t idle_kicks
    uint32_t shake_seconds      # how long a handshake of TLS may take; 0: there is no TLS
    TlsCounts tls
    uint64_t unwatched          # connections that epoll refused
    uint64_t datagrams          # that came, and those of them that nobody answers
    uint64_t datagrams_bad

cdef struct Worker:
    Shared shared
    Pool* pool
    Box box
    int epfd
    pthread_t thread
    bint started
    bint draining
    bint exiting
    pthread_mutex_t list_mutex
    Conn ends                   # of the list of all, under list_mutex
    Conn turns                  # ... of those that have given up their turn
    uint64_t next_sweep
    uint32_t shaking            # atomic: its connections whose handshake has a time limit
    int doors
    Conn* door[DOORS_MOST]      # UDP sockets
    char* datagram              # room for DATAGRAMS_A_TURN of them
    Conn waiting                # the ends of the list of requests by datagram that wait for something
    uint32_t waits
    Conn* spare                 # for the next request by datagram
    epoll_event ready[READY_MOST]


# The list of all connections, and that of those whose turn comes again

cdef inline void conns_add(Worker* w, Conn* c) noexcept nogil:
    pthread_mutex_lock(&w.list_mutex)
    c.next = &w.ends
    c.prev = w.ends.prev
    w.ends.prev.next = c
    w.ends.prev = c
    pthread_mutex_unlock(&w.list_mutex)


cdef inline void conns_remove(Worker* w, Conn* c) noexcept nogil:
    pthread_mutex_lock(&w.list_mutex)
    c.prev.next = c.next
    c.next.prev = c.prev
    c.next = NULL
    pthread_mutex_unlock(&w.list_mutex)


cdef inline void turn_add(Worker* w, Conn* c) noexcept nogil:
    if c.turn_next == NULL:
        c.turn_next = &w.turns
        c.turn_prev = w.turns.turn_prev
        w.turns.turn_prev.turn_next = c
        w.turns.turn_prev = c


cdef inline void turn_remove(Conn* c) noexcept nogil:
    if c.turn_next != NULL:
        c.turn_prev.turn_next = c.turn_next
        c.turn_next.turn_prev = c.turn_prev
        c.turn_next = NULL


# What it waits for

cdef inline bint interest(Worker* w, Conn* c, bint read, bint write) noexcept nogil:
    # One with neither is not watched: its end would wake the thread again and again. False: the system refuses.
    cdef epoll_event e
    cdef int op
    c.reading = read
    c.writing = write
    if not read and not write:
        if c.watched:
            c.watched = 0
            epoll_ctl(w.epfd, EPOLL_CTL_DEL, c.fd, &e)
        return 1
    e.events = (EPOLLIN if read else 0) | (EPOLLOUT if write else 0)
    e.data.ptr = c
    op = EPOLL_CTL_MOD if c.watched else EPOLL_CTL_ADD
    c.watched = 1
    if epoll_ctl(w.epfd, op, c.fd, &e) == 0:
        return 1
    c.watched = op == EPOLL_CTL_MOD
    return 0


cdef inline uint32_t shown_of(Conn* c) noexcept nogil:
    # The phase, whether the client must read, whether part of a line is there, and how many replies wait.
    return <uint32_t> c.phase | c.blocked << 8 | (1 if c.in_len else 0) << 9 \
        | ((1 if c.out_len else 0) + (1 if c.blocked and c.out_len == 0 else 0) + (<uint32_t> c.hold.spans if c.hold != NULL else 0)) << 10


cdef inline void settle(Worker* w, Conn* c) noexcept nogil:
    # After anything ran: what it waits for now.
    cdef bint read
    if c.datagram != NULL:
        settle_datagram(w, c)
        return
    if c.phase != P_CLOSED:
        if c.tls != NULL and c.tls.kept_len:
            c.blocked = 1               # what OpenSSL said by itself
        read = not stopped(c) and not w.draining
        if c.yielded and not stopped(c):
            turn_add(w, c)
        else:
            turn_remove(c)
        # Input that is not wanted now is looked for until some comes: most stops are over before.
        if (c.blocked != c.writing or (read and not c.reading)) and not interest(w, c, read, c.blocked):
            refused(w.pool)
            c.phase = P_CLOSED
        set32(&c.shown, shown_of(c))
        if c.tls != NULL and c.tls.waited and not c.tls.shaking:
            c.tls.waited = 0
            add32(&w.shaking, -1)
    if c.phase == P_CLOSED:
        conn_closed(w, c)


cdef inline void refused(Pool* pool) noexcept nogil:
    # epoll has no room: nobody would ever hear of this connection again, so it is closed.
    add64(&pool.unwatched, 1)
    box_post(&pool.outbox, mail_new(M_GONE, NULL, 0))


# The end of a connection

cdef inline void conn_closed(Worker* w, Conn* c) noexcept nogil:
    # It is closed, but for its descriptor if Python has heard of it: its address may be asked for.
    cdef bint told              # -vv shows the end of every connection
    turn_remove(c)
    if c.watched:
        interest(w, c, 0, 0)
    conns_remove(w, c)
    tls_end(w, c)
    engine_lock(c.store)
    conn_free(c)
    told = c.store.trace
    engine_unlock(c.store)
    not_poked(w, c)
    if told or c.known or c.wrong or get32(&w.pool.tell_closed):
        write_to_owner(c, M_CLOSED, why_closed(c), c.why_text, strlen(c.why_text) if c.why_text != NULL else 0)
    else:
        conn_forgotten(w, c)


cdef inline void tls_end(Worker* w, Conn* c) noexcept nogil:
    cdef Tls* t = c.tls
    if t == NULL:
        return
    if t.waited:
        add32(&w.shaking, -1)
    if t.counted:
        add64(&c.store.in_kept, -<int64_t> TLS_KEPT)
    if c.wrong:
        c.why_text = t.why              # a constant of OpenSSL's
    c.tls = NULL
    tls_close(t, c.fd)


cdef inline bint shakes(Conn* c) noexcept nogil:
    # Its next step may take a millisecond.
    return c.tls != NULL and c.tls.shaking


cdef inline void not_poked(Worker* w, Conn* c) noexcept nogil:
    # Out of the list of those with a note.
    cdef Conn** at = &c.shared.poked
    pthread_mutex_lock(&w.box.mutex)
    if c.poked:
        while at[0] != c:
            at = &at[0].poked_next
        at[0] = c.poked_next
        c.poked = 0
    pthread_mutex_unlock(&w.box.mutex)


cdef inline void conn_forgotten(Worker* w, Conn* c) noexcept nogil:
    if c.of_datagram:
        free(c)
        return
    close_fd(c.fd)
    free(c)
    if add32(&w.pool.clients, -1) == 0 and get32(&w.pool.ending) or get32(&w.pool.resting):
        box_post(&w.pool.outbox, mail_new(M_GONE, NULL, 0))


# Its work

cdef inline void serve(Worker* w, Conn* c, uint32_t events) noexcept nogil:
    if c.door:
        come_in(w, c)
        return
    if c.turn_next != NULL:             # its turn comes
        if shakes(c):
            interest(w, c, 0, c.blocked)        # in a flood of handshakes: it isn't looked for until then
        return
    if events & EPOLLOUT or c.blocked:
        resume(c)
    elif stopped(c) or w.draining:
        interest(w, c, 0, c.blocked)
        return
    elif shakes(c):                     # those for which something came are served first
        turn_add(w, c)
        return
    else:
        readable(c)
    settle(w, c)


cdef inline void go_on(Worker* w) noexcept nogil:
    # Those that had given up their turn, one after the other.
    cdef uint64_t began = boot_clock()
    cdef Conn* last = w.turns.turn_prev
    cdef Conn* c
    while w.turns.turn_next != &w.turns:
        c = w.turns.turn_next
        turn_remove(c)
        if shakes(c) and not c.blocked:
            readable(c)
        else:
            resume(c)
        settle(w, c)
        if c == last or boot_clock() - began > GO_ON_NS:
            return


# Requests by datagram: each has a connection of its own, which is used again if it was answered at once

cdef inline void come_in(Worker* w, Conn* door) noexcept nogil:
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
    for i in range(n):
        add64(&w.shared.bytes_read, <int64_t> m[i].msg_len)
        add64(&w.pool.datagrams, 1)
        if not take_datagram(w, door, w.datagram + <size_t> i * DATAGRAM_SIZE, m[i].msg_len, &peer[i], m[i].msg_hdr.msg_namelen):
            add64(&w.pool.datagrams_bad, 1)


cdef inline bint take_datagram(Worker* w, Conn* door, const char* p, size_t n, sockaddr_storage* peer, unsigned int size) noexcept nogil:
    # 0: it is no request, or can't be taken, and is not answered. A request that is spread over several datagrams is none, as
    # in memcached; nor is what another server's port sends, so that two of them never answer each other's errors.
    cdef Conn* c
    cdef Datagram* d
    cdef size_t used
    cdef bint binary
    if n <= DATAGRAM_HEADER or p[4] != 0 or p[5] != 1 or mc_port(peer) == door.door_port or w.waits >= WAITING_MOST:
        return 0
    binary = <uint8_t> p[DATAGRAM_HEADER] == BINARY_REQUEST and door.store.protocol != PROTOCOL_ASCII
    if not binary and door.store.protocol == PROTOCOL_BINARY:
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
            c.next = &w.waiting
            c.prev = w.waiting.prev
            w.waiting.prev.next = c
            w.waiting.prev = c
            w.waits += 1
        if stopped(c):
            turn_remove(c)
        else:
            turn_add(w, c)
        return
    if c.phase == P_DATA:               # it never comes: the request has no reply
        reply_is_none(c)
    answer_datagram(c, 1)
    datagram_ends(w, c)


cdef inline void datagram_ends(Worker* w, Conn* c) noexcept nogil:
    turn_remove(c)
    if c.next != NULL:
        c.prev.next = c.next
        c.next.prev = c.prev
        c.next = NULL
        w.waits -= 1
    if w.spare == NULL and not (c.known or c.poked or c.item or c.big or c.held_big or c.in_cap or c.out_buf != NULL
                                or c.mail != NULL or c.hold != NULL or c.line != NULL or uploading(&c.up) or c.sink_cap > SPARE_SINK):
        w.spare = c
        return
    c.phase = P_CLOSED
    engine_lock(c.store)
    conn_free(c)
    engine_unlock(c.store)
    not_poked(w, c)
    if c.known:
        write_to_owner(c, M_CLOSED, WHY_NORMAL, NULL, 0)
    else:
        free(c)


cdef inline void sweep(Worker* w) noexcept nogil:
    # -o idle_timeout, in whole seconds as memcached counts them: not in the middle of a value or a reply, not while watching. And
    # handshakes that don't come to their end.
    cdef uint32_t most = get32(&w.pool.idle_seconds), shake = get32(&w.pool.shake_seconds), now
    cdef Conn* c
    cdef Conn* after
    if most == 0 and get32(&w.shaking) == 0 or boot_clock() < w.next_sweep:
        return
    w.next_sweep = boot_clock() + <uint64_t> SWEEP_MS * 1000000
    engine_lock(w.pool.store)
    clock_update(w.pool.store)
    now = w.pool.store.sec
    engine_unlock(w.pool.store)
    c = w.ends.next                     # only this thread takes from the list; what is added meanwhile stands behind
    while c != &w.ends:
        after = next_of(w, c)
        if shakes(c) and get32(&c.last) + shake < now:
            add64(&w.pool.tls.handshake_errors, 1)
            c.wrong = WRONG_SLOW
            c.phase = P_CLOSED
            conn_closed(w, c)
        elif most and c.phase == P_LINE and not stopped(c) and c.hold == NULL and get32(&c.last) + most < now:
            add64(&w.pool.idle_kicks, 1)
            c.why = WHY_IDLE
            c.phase = P_CLOSED
            conn_closed(w, c)
        c = after


cdef inline Conn* next_of(Worker* w, Conn* c) noexcept nogil:
    cdef Conn* after
    pthread_mutex_lock(&w.list_mutex)
    after = c.next
    pthread_mutex_unlock(&w.list_mutex)
    return after


cdef inline bint has_to_send(Conn* c) noexcept nogil:
    return c.out_len or c.blocked or c.held or c.phase == P_COLD or c.phase == P_ANSWER or c.phase == P_PIECE \
        or c.phase == P_SENT or c.phase == P_STREAM or c.phase == P_LOCKED or c.phase == P_KEYS or c.tail != NULL


cdef inline void drain(Worker* w) noexcept nogil:
    # From now on nothing is read.
    cdef Conn* c = next_of(w, &w.ends)
    cdef int i
    w.draining = 1
    for i in range(w.doors):
        interest(w, w.door[i], 0, 0)
    while c != &w.ends:
        interest(w, c, 0, c.blocked)
        c = next_of(w, c)


cdef inline void close_each(Worker* w, bint at_once) noexcept nogil:
    cdef Conn* c = next_of(w, &w.ends)
    cdef Conn* after
    while c != &w.ends:
        after = next_of(w, c)
        if has_to_send(c) and not at_once:
            c.quitting = QUIT_ASKED
            c.why = WHY_NORMAL
        else:
            c.why = WHY_SHUTDOWN
            c.phase = P_CLOSED
        settle(w, c)
        c = after


cdef inline void letters(Worker* w) noexcept nogil:
    cdef Mail* m = box_take(&w.box)
    cdef Mail* after
    cdef Conn* c
    while m != NULL:
        after = m.next
        c = <Conn*> m.about
        if m.kind == W_DRAIN:
            drain(w)
            free(m)
        elif m.kind == W_FINISH:
            close_each(w, 0)
            free(m)
        elif m.kind == W_EXIT:
            w.exiting = 1
            free(m)
        elif m.kind == W_LOOK:
            free(m)
        elif m.kind == W_FREE:
            conn_forgotten(w, c)
            free(m)
        elif c.phase == P_CLOSED:           # the owner will hear of it
            mail_done(m)
        else:
            take_mail(c, m)
            settle(w, c)
        m = after
    while True:
        c = next_poked(w)
        if c == NULL:
            return
        c.yielded = 1
        resume(c)
        settle(w, c)


cdef inline Conn* next_poked(Worker* w) noexcept nogil:
    cdef Conn* c
    pthread_mutex_lock(&w.box.mutex)
    c = w.shared.poked
    if c != NULL:
        w.shared.poked = c.poked_next
        c.poked = 0
    pthread_mutex_unlock(&w.box.mutex)
    return c


cdef inline void* worker_main(void* arg) noexcept nogil:
    cdef Worker* w = <Worker*> arg
    cdef int n, i, timeout
    cdef bint rung
    while not w.exiting:
        timeout = 0 if w.turns.turn_next != &w.turns else SWEEP_MS if get32(&w.pool.idle_seconds) or get32(&w.pool.shake_seconds) else -1
        n = epoll_wait(w.epfd, w.ready, READY_MOST, timeout)
        rung = 0
        for i in range(n):
            if w.ready[i].data.ptr == w:
                rung = 1
            else:
                serve(w, <Conn*> w.ready[i].data.ptr, w.ready[i].events)
        if rung:
            letters(w)
        if w.turns.turn_next != &w.turns:
            go_on(w)
        if timeout != -1:
            sweep(w)
    close_each(w, 1)
    while w.waiting.next != &w.waiting:
        w.waiting.next.phase = P_CLOSED
        datagram_ends(w, w.waiting.next)
    return NULL


# Making and unmaking them: Python's thread

cdef inline int shared_open(Shared* sh, Box* owner, Box* box) noexcept nogil:
    # -1: out of memory.
    memset(sh, 0, sizeof(Shared))
    sh.inbuf = <char*> malloc(IN_SIZE)
    sh.out = <char*> malloc(OUT_SOFT + OUT_ROOM)
    sh.owner = owner
    sh.box = box
    return 0 if sh.inbuf != NULL and sh.out != NULL else -1


cdef inline void shared_close(Shared* sh) noexcept nogil:
    free(sh.inbuf)
    free(sh.out)
    free(sh.events)
    tls_room_free(&sh.tls)
    sh.inbuf = NULL
    sh.out = NULL
    sh.events = NULL


cdef inline Worker* worker_new(Pool* pool) noexcept nogil:
    # NULL, with errno.
    cdef Worker* w = <Worker*> calloc(1, sizeof(Worker))
    cdef epoll_event e
    if w == NULL:
        return NULL
    w.pool = pool
    w.ends.next = &w.ends
    w.ends.prev = &w.ends
    w.turns.turn_next = &w.turns
    w.turns.turn_prev = &w.turns
    w.waiting.next = &w.waiting
    w.waiting.prev = &w.waiting
    pthread_mutex_init(&w.list_mutex, NULL)
    w.epfd = epoll_create1(EPOLL_CLOEXEC)
    e.events = EPOLLIN | EPOLLET        # it need not be read
    e.data.ptr = w
    if w.epfd < 0 or box_open(&w.box, 1) != 0 or shared_open(&w.shared, &pool.outbox, &w.box) != 0 \
            or epoll_ctl(w.epfd, EPOLL_CTL_ADD, w.box.fd, &e) != 0:
        worker_free(w)
        return NULL
    return w


cdef inline void worker_free(Worker* w) noexcept nogil:
    # Its thread has ended. What nobody has taken from its box is thrown away.
    cdef Mail* m = box_take(&w.box)
    cdef Mail* after
    cdef int i
    while m != NULL:
        after = m.next
        if m.kind == W_FREE:
            conn_forgotten(w, <Conn*> m.about)
            free(m)
        else:
            mail_done(m)
        m = after
    for i in range(w.doors):
        close_fd(w.door[i].fd)
        free(w.door[i])
    if w.spare != NULL:
        engine_lock(w.spare.store)
        conn_free(w.spare)
        engine_unlock(w.spare.store)
        free(w.spare)
    free(w.datagram)
    if w.epfd >= 0:
        close_fd(w.epfd)
    box_close(&w.box)
    shared_close(&w.shared)
    pthread_mutex_destroy(&w.list_mutex)
    free(w)


cdef inline bint door_open(Worker* w, int fd, uint16_t port, bint unbounded) noexcept nogil:
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


cdef inline Conn* conn_open(Worker* w, int fd, Tls* tls) noexcept nogil:
    # A new connection, which the worker serves from now on. NULL: out of memory, or (errno) epoll refuses; the descriptor and
    # `tls` stay the caller's.
    cdef Conn* c = <Conn*> calloc(1, sizeof(Conn))
    if c == NULL:
        return NULL
    conn_init(c, w.pool.store, &w.shared, fd)
    c.worker = w
    c.tls = tls
    if tls != NULL:
        tls.waited = 1
        add32(&w.shaking, 1)
    engine_lock(c.store)
    c.last = c.store.sec
    c.stranger = c.store.login != 0
    engine_unlock(c.store)
    conns_add(w, c)
    add32(&w.pool.clients, 1)
    if not interest(w, c, 1, 0):
        conns_remove(w, c)
        add32(&w.pool.clients, -1)
        if tls != NULL:
            add32(&w.shaking, -1)
        free(c)
        return NULL
    return c
