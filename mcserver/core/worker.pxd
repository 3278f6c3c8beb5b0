# Worker: a thread that serves connections. Any number of them serve one engine.
#
# Owns its connections, from the first byte to the last, its buffers and its box of letters. It enters here once and never
# takes the GIL; it waits for nothing but its epoll and the engine's lock, and whoever has that never waits (lock.pxd). What only
# Python can do goes to the owner by letter (conn.pxd), and the connection keeps its place until the reply comes.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from .mail cimport *
from .lock cimport *
from .store cimport boot_clock
from .conn cimport *
from .sending cimport *
from .telling cimport *
from .session cimport *
from .reading cimport *
from .letters cimport *
from .pool cimport *
from .pulse cimport *
from .waking cimport *
from .requests cimport *

cdef enum:
    GO_ON_NS = 50000            # how long those that have much to do go on before those get their turn for which something came
    SWEEP_MS = 1000             # how often idle connections are looked for


cdef inline uint32_t shown_of(Conn* c) noexcept nogil:
    # The phase, whether the client must read, whether anything has ever come from it, and how many replies wait.
    return <uint32_t> c.phase | c.blocked << 8 | (1 if c.seen or c.in_len else 0) << 9 \
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
        tell_closed(c)
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


cdef inline void conn_forgotten(Worker* w, Conn* c) noexcept nogil:
    if c.of_datagram:
        free(c)
        return
    close_fd(c.fd)
    free(c)
    if add32(&w.pool.clients, -1) == 0 and get32(&w.pool.ending) or get32(&w.pool.resting):
        one_has_gone(w.pool)


# Its work

cdef inline void serve(Worker* w, Conn* c, uint32_t events) noexcept nogil:
    if c.turn_next != NULL:             # its turn comes
        if shakes(c):
            interest(w, c, 0, c.blocked)        # in a flood of handshakes: it isn't looked for until then
        return
    if events & EPOLLOUT or c.blocked:
        resume(c)
    elif events & EPOLLRDHUP and punished(c):
        c.phase = P_CLOSED              # a flood of such clients takes nobody's place
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


cdef inline bint must_sweep(Worker* w) noexcept nogil:
    return get32(&w.pool.idle_seconds) or get32(&w.pool.shake_seconds) or w.shared.untold != NULL


cdef inline void sweep(Worker* w) noexcept nogil:
    # -o idle_timeout, in whole seconds as memcached counts them: not in the middle of a value or a reply, not while watching, not by
    # a Unix socket. And handshakes that don't come to their end.
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
        if shakes(c) and <uint64_t> get32(&c.last) + shake < now:
            add64(&w.pool.tls.handshake_errors, 1)
            c.wrong = WRONG_SLOW
            c.phase = P_CLOSED
            conn_closed(w, c)
        elif most and not c.local and c.phase == P_LINE and not stopped(c) and c.hold == NULL and <uint64_t> get32(&c.last) + most < now:
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
    cdef uint32_t asked
    read_letters(w)
    asked = swap32(&w.asked, 0)         # after the box was looked into: from then on whoever asks wakes the thread again
    if asked:
        read_letters(w)                 # what was written before
    if asked & TO_DRAIN:
        drain(w)
    if asked & TO_FINISH:
        close_each(w, 0)
    if asked & TO_EXIT:
        w.exiting = 1


cdef inline void read_letters(Worker* w) noexcept nogil:
    cdef Mail* m = box_take(&w.box)
    cdef Mail* after
    cdef Conn* c
    while m != NULL:
        after = m.next
        c = <Conn*> m.about
        if m.kind == W_FREE:
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
    cdef int n, i, timeout, knocked
    cdef bint rung
    cdef Conn* c
    mc_short_slices(SHORT_NS)
    while not w.exiting:
        timeout = 0 if w.turns.turn_next != &w.turns else SWEEP_MS if must_sweep(w) else -1
        n = epoll_wait(w.epfd, w.ready, READY_MOST, timeout)
        if pulse_turn(&w.pulse):
            pulse_look(&w.pulse, boot_clock())
        rung = 0
        knocked = 0
        for i in range(n):
            c = <Conn*> w.ready[i].data.ptr
            if <Worker*> c == w:
                rung = 1
            elif c.door:                # a flood of datagrams comes after all others
                w.ready[knocked].data.ptr = c
                knocked += 1
            else:
                serve(w, c, w.ready[i].events)
        if rung:
            letters(w)
        for i in range(0 if w.draining else knocked):
            come_in(w, <Conn*> w.ready[i].data.ptr)
        if w.turns.turn_next != &w.turns:
            go_on(w)
        if timeout != -1:
            sweep(w)
            tell_untold(&w.shared)
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
    w.box.fd = -1                       # until it is opened: whoever frees a worker that is half made closes nobody's descriptor
    w.ends.next = &w.ends
    w.ends.prev = &w.ends
    w.turns.turn_next = &w.turns
    w.turns.turn_prev = &w.turns
    w.waiting.next = &w.waiting
    w.waiting.prev = &w.waiting
    pthread_mutex_init(&w.list_mutex, NULL)
    w.epfd = epoll_create1(EPOLL_CLOEXEC)
    pulse_open(&w.pulse)
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
    pulse_close(&w.pulse)
    box_close(&w.box)
    shared_close(&w.shared)
    pthread_mutex_destroy(&w.list_mutex)
    free(w)


cdef inline bint conn_open(Worker* w, int fd, Tls* tls, uint8_t protocol, bint local) noexcept nogil:
    # A new connection that may speak so, which the worker serves from now on. local: by a Unix socket. False: out of memory, or
    # (errno) epoll refuses; the descriptor and `tls` stay the caller's.
    cdef Conn* c = <Conn*> calloc(1, sizeof(Conn))
    cdef bint taken
    if c == NULL:
        return 0
    conn_init(c, w.pool.store, &w.shared, fd)
    c.protocol = protocol
    c.local = local
    c.worker = w
    c.tls = tls
    if tls != NULL:
        tls.waited = 1
        add32(&w.shaking, 1)
    engine_lock(c.store)
    c.last = c.store.sec
    c.stranger = c.store.login != 0
    engine_unlock(c.store)
    add32(&w.pool.clients, 1)
    pthread_mutex_lock(&w.list_mutex)       # the worker, which walks the list, must not meet one that goes again
    conns_link(&w.ends, c)
    c.reading = c.watched = 1               # before the worker can meet it: a reset is told at once
    taken = watch_in(w, c, fd, EPOLL_CTL_ADD, 0)
    if not taken:
        conns_unlink(c)
    pthread_mutex_unlock(&w.list_mutex)
    if not taken:
        add32(&w.pool.clients, -1)
        if tls != NULL:
            add32(&w.shaking, -1)
        free(c)
        return 0
    watch_in(w, c, fd, EPOLL_CTL_MOD, EPOLLIN)
    return 1


cdef inline bint watch_in(Worker* w, Conn* c, int fd, int op, uint32_t events) noexcept nogil:
    # What wakes the worker comes when nobody holds what it may need: it would have to wait for whoever it took the processor from. By
    # then a connection that was reset may be gone, and its descriptor closed: c is not looked at.
    cdef epoll_event e
    e.events = events
    e.data.ptr = c
    return epoll_ctl(w.epfd, op, fd, &e) == 0
